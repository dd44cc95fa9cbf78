//! openraft's state machine: hands committed commands to the engine, answers their proposers, and
//! passes what changed to `state.db`.
//!
//! An answer is sent as soon as the command is applied in memory. `state.db` follows some
//! milliseconds later; the log is purged only up to what a snapshot made durable there.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use config_center_core::Change;
use futures::{Stream, StreamExt as _};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::ProposeError;
use super::peer::{Awaiting, Directory};
use super::removal::Removal;
use super::types::{
    COMMAND_VERSIONS, Entry, LogId, Outcome, RaftMembership, TypeConfig, decode_membership,
    encode_membership, entry_id, log_id,
};
use crate::engine::Engine;
use crate::storage::{FailureSlot, Progress, SnapshotFile, StateBatch, StateHandle};

/// Commands applied under one write lock; readers get their turn in between.
const MAX_APPLY_GROUP: usize = 256;

pub(super) type Meta = SnapshotMetaOf<TypeConfig>;
type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;
type Responder = Option<ApplyResponder<TypeConfig>>;

/// How far this member has applied, for readers without a question to the core.
#[derive(Debug)]
pub(super) struct AppliedMark {
    index: watch::Sender<u64>,
    term: AtomicU64,
    membership: Mutex<RaftMembership>,
    is_learner: AtomicBool,
}

impl AppliedMark {
    fn new(meta: &Meta) -> Self {
        let mark = Self {
            index: watch::Sender::new(0),
            term: AtomicU64::new(0),
            membership: Mutex::new(meta.last_membership.clone()),
            is_learner: AtomicBool::new(false),
        };
        if let Some(applied) = &meta.last_log_id {
            mark.set(applied);
        }
        mark
    }

    fn set(&self, id: &LogId) {
        self.term
            .store(id.committed_leader_id().term, Ordering::Release);
        self.index.send_replace(id.index());
    }

    pub(super) fn index(&self) -> u64 {
        *self.index.borrow()
    }

    /// The term of the last applied entry.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// The last membership that was applied.
    pub(super) fn membership(&self) -> RaftMembership {
        self.membership.lock().clone()
    }

    /// Whether this member is in the cluster without a vote, and not about to get one.
    pub(super) fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    /// Returns when everything up to this index has been applied.
    pub(super) async fn reached(&self, index: u64) -> Result<(), ProposeError> {
        if self.index() >= index {
            return Ok(());
        }
        let mut applied = self.index.subscribe();
        applied
            .wait_for(|applied| *applied >= index)
            .await
            .map(|_| ())
            .map_err(|_| ProposeError::Stopped)
    }
}

/// What the state machine tells the rest of the member.
#[derive(Debug, Clone)]
pub(super) struct Listeners {
    pub(super) member_id: u64,
    /// This member's proposals that another member put into the log.
    pub(super) awaiting: Arc<Awaiting>,
    /// Learns where the members are.
    pub(super) directory: Arc<Directory>,
    pub(super) failure: FailureSlot,
    pub(super) removal: Removal,
    pub(super) stopping: Arc<AtomicBool>,
}

/// Owned by openraft's worker, which is the only one that applies.
pub(super) struct StateMachine {
    engine: Arc<Engine>,
    state: StateHandle,
    snapshots: PathBuf,
    applied: Option<LogId>,
    membership: RaftMembership,
    mark: Arc<AppliedMark>,
    /// What the newest snapshot of this process contains; its file is made when it is asked for.
    current: Arc<Mutex<Option<Meta>>>,
    listeners: Listeners,
}

impl StateMachine {
    pub(super) fn new(
        engine: Arc<Engine>,
        state: StateHandle,
        snapshots: PathBuf,
        progress: &Progress,
        listeners: Listeners,
    ) -> io::Result<Self> {
        let meta = meta_of(progress)?;
        let machine = Self {
            engine,
            state,
            snapshots,
            applied: meta.last_log_id,
            mark: Arc::new(AppliedMark::new(&meta)),
            membership: meta.last_membership,
            current: Arc::default(),
            listeners,
        };
        machine.learn_addresses();
        Ok(machine)
    }

    fn learn_addresses(&self) {
        let nodes = self.membership.membership().nodes();
        self.listeners
            .directory
            .update(nodes.map(|(id, node)| (*id, node.peer_urls.as_slice())));
        let membership = self.membership.membership();
        let me = self.listeners.member_id;
        let is_learner = membership
            .get_node(&me)
            .is_some_and(|n| !n.votes_when_ready)
            && !membership.voter_ids().any(|id| id == me);
        self.mark.is_learner.store(is_learner, Ordering::Relaxed);
        *self.mark.membership.lock() = self.membership.clone();
        if self.engine.read(|state| state.was_removed(me)) {
            self.listeners.removal.is_applied();
        }
    }

    /// Takes over a membership; those who are no longer in it never come back.
    fn enter_membership(&mut self, entered: RaftMembership, changes: &mut Vec<Change>) {
        let before = self.membership.membership().nodes().map(|(id, _)| *id);
        let left: Vec<u64> = before
            .filter(|id| entered.membership().get_node(id).is_none())
            .collect();
        changes.extend(left.into_iter().map(|id| self.engine.remove_member(id)));
        self.membership = entered;
    }

    pub(super) fn mark(&self) -> Arc<AppliedMark> {
        Arc::clone(&self.mark)
    }

    async fn apply_group(&mut self, group: &mut Vec<(Entry, Responder)>) -> io::Result<()> {
        let Some(last) = group.last().map(|(entry, _)| entry.log_id) else {
            return Ok(());
        };
        for (entry, _) in group.iter() {
            if let EntryPayload::Normal(proposal) = &entry.payload
                && !COMMAND_VERSIONS.contains(&proposal.command().version)
            {
                return Err(io::Error::other(format!(
                    "the command at index {} has version {}, and this program knows versions {} to \
                     {}; it was not applied; start a newer version",
                    entry.log_id.index(),
                    proposal.command().version,
                    COMMAND_VERSIONS.start(),
                    COMMAND_VERSIONS.end(),
                )));
            }
        }
        let commands = group.iter().filter_map(|(entry, _)| match &entry.payload {
            EntryPayload::Normal(proposal) => Some((entry.log_id.index(), proposal.command())),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        });
        let mut applied = self.engine.apply(commands).into_iter();
        let begins_term = self.applied.is_none_or(|before| {
            before.committed_leader_id().term < last.committed_leader_id().term
        });
        self.applied = Some(last);

        let mut changes = Vec::new();
        let mut revision = None;
        let mut membership = None;
        for (entry, responder) in group.drain(..) {
            let outcome = match &entry.payload {
                EntryPayload::Blank => Outcome::Nothing,
                EntryPayload::Membership(joint) => {
                    membership = Some((entry_id(&entry.log_id), encode_membership(joint)));
                    let entered = StoredMembership::new(Some(entry.log_id), joint.clone());
                    self.enter_membership(entered, &mut changes);
                    Outcome::Nothing
                }
                EntryPayload::Normal(proposal) => match applied.next() {
                    Some(one) => {
                        revision = Some(one.revision);
                        if changes.is_empty() {
                            changes = one.changes;
                        } else {
                            changes.extend(one.changes);
                        }
                        let outcome = Outcome::Command {
                            reply: one.reply,
                            revision: one.revision,
                            index: entry.log_id.index(),
                        };
                        let command = proposal.command();
                        if command.origin_member == self.listeners.member_id {
                            let term = entry.log_id.committed_leader_id().term;
                            self.listeners
                                .awaiting
                                .applied(command.origin_id, outcome, term);
                            // The leader's own responder carries no more than its place.
                            Outcome::Nothing
                        } else {
                            outcome
                        }
                    }
                    None => return Err(io::Error::other("a command was applied to nothing")),
                },
            };
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        if begins_term {
            self.listeners
                .awaiting
                .term_began(last.committed_leader_id().term);
        }
        if membership.is_some() {
            self.learn_addresses();
        }
        // Whoever waits for this finds everything in place.
        self.mark.set(&last);
        let batch = StateBatch {
            changes,
            applied: entry_id(&last),
            revision: revision.unwrap_or_else(|| self.engine.revision()),
            membership,
        };
        Ok(self.state.write(batch).await?)
    }
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        // The worker ends in an orderly way only when the member stops. Anything else, a panic
        // included, would leave every later proposal without an answer.
        if !self.listeners.stopping.load(Ordering::Acquire) {
            self.listeners
                .failure
                .report("the state machine ended; nothing more can be applied".to_owned());
        }
    }
}

/// What a stored state contains, in openraft's words.
fn meta_of(progress: &Progress) -> io::Result<Meta> {
    let membership = match &progress.membership {
        Some(encoded) => StoredMembership::new(
            progress.membership_at.map(log_id),
            decode_membership(encoded)?,
        ),
        None => StoredMembership::default(),
    };
    Ok(Meta {
        last_log_id: progress.applied.map(log_id),
        last_membership: membership,
    })
}

/// Makes the file of a snapshot while the state machine goes on; returns what it contains, which
/// is at least what had been applied when the snapshot was asked for.
pub(super) async fn copy(state: &StateHandle, file: &SnapshotFile) -> io::Result<Meta> {
    meta_of(&state.copy_into(file.clone()).await?)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, RaftMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut group = Vec::with_capacity(entries.size_hint().0.min(MAX_APPLY_GROUP));
        while let Some(item) = entries.next().await {
            group.push(item?);
            if group.len() == MAX_APPLY_GROUP {
                self.apply_group(&mut group).await?;
            }
        }
        self.apply_group(&mut group).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
            meta: Meta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(&mut self, meta: &Meta, file: SnapshotFile) -> io::Result<()> {
        let loaded = self.state.install(file).await?;
        let contained = meta_of(&loaded.progress)?;
        if contained != *meta {
            return Err(io::Error::other(format!(
                "the snapshot said to contain {meta} contains {contained}"
            )));
        }
        self.engine.replace(loaded.state);
        self.applied = contained.last_log_id;
        self.membership = contained.last_membership;
        self.learn_addresses();
        if let Some(applied) = &self.applied {
            // Proposals that the snapshot contains are never applied one by one here. Before the
            // mark: whoever waits for that may propose at once.
            self.listeners.awaiting.overtaken();
            self.mark.set(applied);
        }
        *self.current.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.current.lock().is_none() {
            return Ok(None);
        }
        // Nothing is applied while this runs, so the file is made later, by the task that sends it:
        // see `copy`. It then contains at least this much.
        Ok(Some(Snapshot {
            meta: Meta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshot: SnapshotFile::in_folder(&self.snapshots),
        }))
    }
}

/// Makes the state durable up to where it stood when the builder was taken. That is all the log
/// needs in order to be purged; a file is written only when a peer asks for it.
pub(super) struct SnapshotBuilder {
    state: StateHandle,
    snapshots: PathBuf,
    meta: Meta,
    current: Arc<Mutex<Option<Meta>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.state.make_durable().await?;
        let mut current = self.current.lock();
        // A snapshot may have been installed meanwhile; the newer one stays.
        if current
            .as_ref()
            .is_none_or(|newest| newest.last_log_id <= self.meta.last_log_id)
        {
            *current = Some(self.meta.clone());
        }
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotFile::in_folder(&self.snapshots),
        })
    }
}
