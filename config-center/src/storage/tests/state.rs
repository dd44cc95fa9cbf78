//! `state.db` gives back the state it was fed, however the changes were grouped, whenever it was
//! closed, and whether or not compacted rows have been purged.

use std::path::Path;

use bytes::Bytes;
use config_center_core::{KeyRange, State};
use schemas::command::command::Op;
use schemas::command::{Command, MemberPublish};
use schemas::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, Member,
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};

use super::outsider;
use crate::storage::{DataFolder, EntryId, FailureSlot, SnapshotFile, StateBatch, StateHandle};

/// A linear congruential generator: the same commands for the same seed, everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{}", self.roll(9)))
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.key(),
            value: Bytes::from(format!("v{}", self.roll(1000))),
            lease: if self.roll(3) == 0 { self.lease() } else { 0 },
            ..PutRequest::default()
        }
    }

    fn lease(&mut self) -> i64 {
        1 + self.roll(4).cast_signed()
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: if self.roll(2) == 0 {
                Bytes::new()
            } else {
                self.key()
            },
            ..DeleteRangeRequest::default()
        }
    }

    fn op(&mut self, revision: i64) -> Op {
        match self.roll(20) {
            0..=9 => Op::Put(self.put()),
            10..=12 => Op::DeleteRange(self.delete()),
            13..=14 => Op::LeaseGrant(LeaseGrantRequest {
                id: self.lease(),
                ttl: 10 + self.roll(50).cast_signed(),
            }),
            15 => Op::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            16 => Op::Compaction(CompactionRequest {
                revision: revision - self.roll(4).cast_signed(),
                physical: false,
            }),
            17 => Op::MemberPublish(MemberPublish {
                member: Some(Member {
                    id: u64::MAX - self.roll(3),
                    name: format!("m{}", self.roll(9)),
                    ..Member::default()
                }),
            }),
            _ => Op::Txn(TxnRequest {
                success: vec![
                    RequestOp {
                        request: Some(Request::RequestPut(self.put())),
                    },
                    RequestOp {
                        request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
                            key: Bytes::from_static(b"l"),
                            range_end: Bytes::from_static(b"z"),
                            ..DeleteRangeRequest::default()
                        })),
                    },
                    RequestOp {
                        request: Some(Request::RequestPut(PutRequest {
                            key: Bytes::from(format!("j{}", self.roll(3))),
                            ..PutRequest::default()
                        })),
                    },
                ],
                ..TxnRequest::default()
            }),
        }
    }
}

/// Everything that can be asked of a state.
fn observe(state: &State) -> String {
    format!("{}\n{:?}", observe_data(state), state.members())
}

/// The same without the members, which are others after a restore.
pub(super) fn observe_data(state: &State) -> String {
    let everything = KeyRange::From(Bytes::from_static(b"\0"));
    let oldest = state.compact_revision().max(1);
    let ranges: Vec<_> = (oldest..=state.revision())
        .map(|revision| {
            state.range(&RangeRequest {
                key: Bytes::from_static(b"\0"),
                range_end: Bytes::from_static(b"\0"),
                revision,
                ..RangeRequest::default()
            })
        })
        .collect();
    let events = state
        .events(&everything, oldest, state.revision(), usize::MAX, true)
        .map(|page| page.events);
    let leases: Vec<_> = state
        .leases()
        .into_iter()
        .map(|(id, ttl_s)| (id, ttl_s, state.lease(id)))
        .collect();
    format!(
        "revision {} compacted {}\n{ranges:#?}\n{events:#?}\n{leases:?}",
        state.revision(),
        state.compact_revision(),
    )
}

pub(super) struct Feeder {
    pub(super) state: State,
    pub(super) dice: Dice,
    index: u64,
}

impl Feeder {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: State::default(),
            dice: Dice(seed),
            index: 0,
        }
    }

    /// Applies some random commands to the live state; returns what the store must be told.
    pub(super) fn batch(&mut self) -> StateBatch {
        let mut changes = Vec::new();
        for _ in 0..=self.dice.roll(8) {
            let command = Command {
                version: config_center_core::state::COMMAND_VERSION,
                op: Some(self.dice.op(self.state.revision())),
                ..Command::default()
            };
            changes.extend(self.state.apply(&command).changes);
            self.index += 1;
        }
        StateBatch {
            changes,
            applied: self.applied(),
            revision: self.state.revision(),
            membership: None,
        }
    }

    fn applied(&self) -> EntryId {
        EntryId {
            term: 1,
            index: self.index,
        }
    }
}

pub(super) async fn open(dir: &Path) -> (DataFolder, StateHandle, crate::storage::LoadedState) {
    let folder = DataFolder::open(dir).unwrap();
    let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    (folder, state, loaded)
}

#[tokio::test]
async fn a_restored_state_equals_the_live_one() {
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut feeder = Feeder::new(seed);
        for round in 0..6 {
            let (_folder, state, loaded) = open(dir.path()).await;
            assert_eq!(
                observe(&loaded.state),
                observe(&feeder.state),
                "seed {seed}, round {round}"
            );
            if round > 0 {
                assert_eq!(loaded.progress.applied, Some(feeder.applied()));
            }
            for _ in 0..8 {
                state.write(feeder.batch()).await.unwrap();
                if feeder.dice.roll(3) == 0 {
                    // Ends the gathering, so the transactions differ from seed to seed.
                    state.make_durable().await.unwrap();
                }
            }
            let compacted = feeder.state.compact_revision();
            if round % 2 == 1 && compacted > 0 {
                state.make_durable().await.unwrap();
                state.purged(compacted).await.unwrap();
            }
            state.close().await;
        }
    }
}

#[tokio::test]
async fn purged_rows_leave_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, state, _) = open(dir.path()).await;
    let mut live = State::default();
    let mut apply = |op| {
        let command = Command {
            version: config_center_core::state::COMMAND_VERSION,
            op: Some(op),
            ..Command::default()
        };
        let applied = live.apply(&command);
        applied.reply.unwrap();
        applied.changes
    };
    let mut changes = Vec::new();
    for n in 0..3_000 {
        changes.extend(apply(Op::Put(PutRequest {
            key: Bytes::from(format!("k{}", n % 10)),
            value: Bytes::from(vec![0; 200]),
            ..PutRequest::default()
        })));
    }
    changes.extend(apply(Op::DeleteRange(DeleteRangeRequest {
        key: Bytes::from_static(b"k0"),
        ..DeleteRangeRequest::default()
    })));
    changes.extend(apply(Op::Put(PutRequest {
        key: Bytes::from_static(b"last"),
        ..PutRequest::default()
    })));
    changes.extend(apply(Op::Compaction(CompactionRequest {
        revision: 3_003,
        physical: true,
    })));
    let batch = StateBatch {
        changes,
        applied: EntryId { term: 1, index: 9 },
        revision: live.revision(),
        membership: None,
    };
    state.write(batch).await.unwrap();
    state.purged(3_003).await.unwrap();
    let mut other = outsider(&folder.state_db()).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM revisions")
        .fetch_one(&mut other)
        .await
        .unwrap();
    // Nine living keys and "last"; k0 with its tombstone is gone.
    assert_eq!(left, 10);
    drop(other);
    state.close().await;
    drop(folder);
    let (_folder, state, loaded) = open(dir.path()).await;
    assert_eq!(observe(&loaded.state), observe(&live));
    let sizes = state.sizes();
    assert!(sizes.in_use_bytes * 5 < sizes.database_bytes, "{sizes:?}");
    state.close().await;
}

#[tokio::test]
async fn a_copy_installs_as_the_same_state_and_later_writes_go_on() {
    let from = tempfile::tempdir().unwrap();
    let (folder, source, _) = open(from.path()).await;
    let mut feeder = Feeder::new(99);
    for _ in 0..10 {
        source.write(feeder.batch()).await.unwrap();
    }
    let file = SnapshotFile::in_folder(&folder.snapshots());
    let copied = source.copy_into(file.clone()).await.unwrap();
    assert_eq!(copied.applied, Some(feeder.applied()));

    let into = tempfile::tempdir().unwrap();
    let (target_folder, target, _) = open(into.path()).await;
    // A state that must vanish.
    target.write(Feeder::new(5).batch()).await.unwrap();
    let loaded = target.install(file.clone()).await.unwrap();
    assert_eq!(loaded.progress, copied);
    assert_eq!(observe(&loaded.state), observe(&feeder.state));
    // Twice is as good as once.
    let again = target.install(file.clone()).await.unwrap();
    assert_eq!(observe(&again.state), observe(&feeder.state));
    target.write(feeder.batch()).await.unwrap();
    target.close().await;
    drop(target_folder);
    let (_folder, target, loaded) = open(into.path()).await;
    assert_eq!(observe(&loaded.state), observe(&feeder.state));
    target.close().await;

    let path = file.path().to_owned();
    assert!(path.exists());
    drop(file);
    assert!(!path.exists());
    source.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_snapshot_does_not_replace_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, state, _) = open(dir.path()).await;
    let mut feeder = Feeder::new(3);
    state.write(feeder.batch()).await.unwrap();
    let file = SnapshotFile::in_folder(&folder.snapshots());
    std::fs::write(file.path(), "not a database\n".repeat(100)).unwrap();
    state.install(file).await.unwrap_err();
    drop(folder);
    let (_folder, state, loaded) = open(dir.path()).await;
    assert_eq!(observe(&loaded.state), observe(&feeder.state));
    state.close().await;
}
