//! A state comes back from a file of etcd's format as it was; a damaged file is refused or read, and
//! leaves nothing behind when it is refused.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use config_center_core::v2::V2Change;
use config_center_core::{Alarm, AuthChange, Change, State};
use schemas::authpb::{Role, User};
use schemas::command::V2Node;
use sha2::{Digest as _, Sha256};

use super::state::{Dice, Feeder, observe_data, open};
use crate::storage::etcd_file::example_wal;
use crate::storage::{
    DataFolder, EntryId, EtcdFolder, Identity, LoadedState, RestoredAs, SavedSnapshot,
    SnapshotFile, StateBatch, StateHandle, StorageError, inspect_snapshot, restore_snapshot,
};

/// Writes the state as a client would have saved it.
async fn saved(state: &StateHandle, folder: &DataFolder, to: &Path) {
    let file = SnapshotFile::in_folder(&folder.snapshots());
    state.export_into(file.clone(), "3.7.0").await.unwrap();
    let mut bytes = fs::read(file.path()).unwrap();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    fs::write(to, bytes).unwrap();
}

async fn restored(from: &Path, revision_bump: i64) -> Result<LoadedState, StorageError> {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    let restored_as = RestoredAs {
        identity: Identity {
            member_id: 1,
            cluster_id: 2,
        },
        voted_for: 1,
        membership: Bytes::new(),
        revision_bump,
    };
    restore_snapshot(from, true, &folder, restored_as).await
}

/// A state with something of everything, saved.
async fn example(dir: &Path, seed: u64) -> (State, PathBuf) {
    let (folder, state, _) = open(&dir.join("data")).await;
    let mut feeder = Feeder::new(seed);
    for _ in 0..30 {
        state.write(feeder.batch()).await.unwrap();
    }
    let compacted = feeder.state.compact_revision();
    if seed.is_multiple_of(2) && compacted > 0 {
        state.purged(compacted).await.unwrap();
    }
    let file = dir.join("saved.db");
    saved(&state, &folder, &file).await;
    state.close().await;
    (feeder.state, file)
}

#[tokio::test]
async fn an_exported_state_is_restored_as_it_was() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let (live, file) = example(dir.path(), seed).await;
        let told = inspect_snapshot(&file, true).await.unwrap();
        let expected = SavedSnapshot {
            revision: live.revision(),
            total_keys: live.live_keys(),
            version: Some("3.7.0".to_owned()),
            is_verified: true,
            bytes: fs::metadata(&file).unwrap().len() - 32,
            hash: told.hash,
        };
        assert_eq!(told, expected, "seed {seed}");
        let loaded = restored(&file, 0).await.unwrap();
        assert_eq!(
            observe_data(&loaded.state),
            observe_data(&live),
            "seed {seed}"
        );
        assert!(loaded.state.members().is_empty());
    }
}

#[tokio::test]
async fn what_is_no_key_travels_too() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, state, _) = open(&dir.path().join("data")).await;
    let user = User {
        name: Bytes::from_static(b"root"),
        password: Bytes::from_static(b"$2a$hash"),
        roles: vec!["root".to_owned()],
        options: None,
    };
    let role = Role {
        name: Bytes::from_static(b"reader"),
        key_permission: Vec::new(),
    };
    let alarm = Alarm {
        kind: 1,
        member_id: u64::MAX,
    };
    let node = V2Node {
        path: Bytes::from_static(b"/folder"),
        dir: true,
        created_index: 7,
        ..V2Node::default()
    };
    let status = AuthChange::Status {
        enabled: true,
        guests: false,
        revision: 5,
    };
    let changes = vec![
        Change::Auth(AuthChange::UserPut(user.clone())),
        Change::Auth(AuthChange::RolePut(role)),
        Change::Auth(status),
        Change::AlarmRaised(alarm),
        Change::LeasePut { id: 9, ttl_s: 60 },
        Change::LeaseRemaining {
            id: 9,
            remaining_s: 11,
        },
        Change::V2(V2Change::NodePut(node)),
    ];
    // A change of v2 directories only: the newest revision has no row.
    let batch = StateBatch {
        changes,
        applied: EntryId { term: 3, index: 40 },
        revision: 7,
        membership: None,
    };
    state.write(batch).await.unwrap();
    let file = dir.path().join("saved.db");
    saved(&state, &folder, &file).await;
    state.close().await;
    let loaded = restored(&file, 0).await.unwrap().state;
    assert_eq!(loaded.revision(), 7);
    assert_eq!((loaded.live_keys(), loaded.alarms()), (0, vec![alarm]));
    assert_eq!(loaded.leases_remaining(), [(9, 60, 11)]);
    assert_eq!(loaded.user("root"), Some(&user));
    assert_eq!(loaded.roles(), ["reader"]);
    assert!(loaded.auth_is_enabled());
    assert_eq!(loaded.auth_revision(), 5);
    assert!(loaded.v2_get(b"/folder", false).is_ok());
}

#[tokio::test]
async fn a_bumped_revision_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (live, file) = example(dir.path(), 1).await;
    let loaded = restored(&file, 1_000).await.unwrap().state;
    assert_eq!(loaded.revision(), live.revision() + 1_000);
    assert_eq!(loaded.compact_revision(), loaded.revision());
    assert_eq!(loaded.live_keys(), live.live_keys());
}

#[tokio::test]
async fn a_file_without_its_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, file) = example(dir.path(), 2).await;
    let whole = fs::read(&file).unwrap();
    let cut = dir.path().join("cut.db");
    for kept in [0, 31, 32, 4_096, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..kept]).unwrap();
        for must_be_verified in [true, false] {
            let outcome = inspect_snapshot(&cut, must_be_verified).await;
            // All but the digest is there, and nobody asks for that.
            if kept == whole.len() - 1 && !must_be_verified {
                outcome.unwrap();
                continue;
            }
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains("nothing was changed"), "{kept}: {text}");
        }
    }
}

/// Reading a damaged file ends with an answer; a digest finds every damage.
#[tokio::test]
async fn damage_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let (_, file) = example(dir.path(), 3).await;
    let whole = fs::read(&file).unwrap();
    let damaged = dir.path().join("damaged.db");
    let mut dice = Dice::new(4);
    let mut refused = 0;
    for round in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=dice.roll(4) {
            let pages = bytes.len() as u64 / 4096;
            // Half of it where the structure is.
            let at = match dice.roll(2) {
                0 => dice.roll(pages) * 4096 + dice.roll(120),
                _ => dice.roll(bytes.len() as u64),
            };
            bytes[at as usize] ^= 1 << dice.roll(8);
        }
        if bytes == whole {
            continue;
        }
        fs::write(&damaged, bytes).unwrap();
        inspect_snapshot(&damaged, true).await.unwrap_err();
        refused += usize::from(inspect_snapshot(&damaged, false).await.is_err());
        if round % 20 == 0 {
            let dir = tempfile::tempdir().unwrap();
            let folder = DataFolder::open(dir.path()).unwrap();
            let restored_as = RestoredAs {
                identity: Identity {
                    member_id: 1,
                    cluster_id: 2,
                },
                voted_for: 1,
                membership: Bytes::new(),
                revision_bump: 0,
            };
            drop(restore_snapshot(&damaged, false, &folder, restored_as).await);
        }
    }
    assert!(refused > 50, "only {refused} were noticed without a digest");
}

/// The folder of an etcd, with the state of the example as its database: applied up to 5.
async fn etcd_folder(dir: &Path, added: &[u64], requests: &[&[u8]]) -> DataFolder {
    let (folder, state, _) = open(&dir.join("data")).await;
    let batch = StateBatch {
        changes: Vec::new(),
        applied: EntryId { term: 2, index: 5 },
        revision: 1,
        membership: None,
    };
    state.write(batch).await.unwrap();
    let etcd = dir.join("etcd");
    for part in ["member/snap", "member/wal"] {
        fs::create_dir_all(etcd.join(part)).unwrap();
    }
    let database = etcd.join("member/snap/db");
    saved(&state, &folder, &database).await;
    state.close().await;
    let wal = etcd.join("member/wal/0000000000000000-0000000000000000.wal");
    fs::write(wal, example_wal::log(added, requests)).unwrap();
    DataFolder::open(&etcd).unwrap()
}

#[tokio::test]
async fn a_folder_of_etcd_is_judged_before_it_is_taken() {
    let put = example_wal::PUT;
    // Entries: the member joins (1), then what was written; the database has seen 5.
    for (added, requests, refusal) in [
        (&[][..], &[put, put, put, put][..], None),
        (&[], &[put, put, put, put, b""], None),
        (&[], &[put, put, put, put, put], Some("goes on to entry 6")),
        (&[8], &[put], Some("had several members")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = etcd_folder(dir.path(), added, requests).await;
        let found = EtcdFolder::find(&folder);
        match refusal {
            None => {
                let identity = found.unwrap().unwrap().identity;
                assert_eq!((identity.member_id, identity.cluster_id), (7, 9));
            }
            Some(words) => {
                let text = found.unwrap_err().to_string();
                assert!(text.contains(words), "{text}");
                assert!(
                    text.contains("configctl cluster snapshot restore"),
                    "{text}"
                );
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    assert!(EtcdFolder::find(&folder).unwrap().is_none());
}

#[tokio::test]
async fn a_running_etcd_keeps_its_folder() {
    use rustix::fs::{FlockOperation, flock};

    let dir = tempfile::tempdir().unwrap();
    let folder = etcd_folder(dir.path(), &[], &[]).await;
    let database = fs::File::open(folder.path().join("member/snap/db")).unwrap();
    flock(&database, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = EtcdFolder::find(&folder).unwrap_err();
    assert!(matches!(refused, StorageError::Locked { .. }), "{refused}");
}
