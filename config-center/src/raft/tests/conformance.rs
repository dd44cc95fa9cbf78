//! openraft's own suite for stores, on our store.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::raft::log_store::LogStore;
use crate::raft::peer::{Directory, Plain, Timing};
use crate::raft::removal::Removal;
use crate::raft::state_machine::{self, Listeners, Meta, SnapshotBuilder, StateMachine};
use crate::raft::types::{LogId, RaftMembership, TypeConfig};
use crate::storage::{DataFolder, FailureSlot, Identity, LogHandle, SnapshotFile, StateHandle};

fn listeners(failure: FailureSlot) -> Listeners {
    let identity = Identity {
        member_id: 1,
        cluster_id: 1,
    };
    let second = Duration::from_secs(1);
    let timing = Timing { election: second };
    Listeners {
        member_id: 1,
        awaiting: Arc::default(),
        directory: Arc::new(Directory::new(identity, timing, Arc::new(Plain))),
        removal: Removal::new(failure.clone()),
        failure,
        stopping: Arc::default(),
    }
}

/// The state machine with the task that makes a snapshot's file: the suite installs what it gets
/// without a network in between.
struct WithFiles {
    machine: StateMachine,
    state: StateHandle,
}

impl RaftStateMachine<TypeConfig> for WithFiles {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, RaftMembership)> {
        self.machine.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        self.machine.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.machine.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &Meta, file: SnapshotFile) -> io::Result<()> {
        self.machine.install_snapshot(meta, file).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        let Some(mut current) = self.machine.get_current_snapshot().await? else {
            return Ok(None);
        };
        let asked = current.meta.last_log_id;
        current.meta = state_machine::copy(&self.state, &current.snapshot).await?;
        assert!(
            current.meta.last_log_id >= asked,
            "the copy lacks something"
        );
        Ok(Some(current))
    }
}

struct Builder {
    max_tail_bytes: usize,
}

impl StoreBuilder<TypeConfig, LogStore, WithFiles, (TempDir, DataFolder)> for Builder {
    async fn build(
        &self,
    ) -> Result<((TempDir, DataFolder), LogStore, WithFiles), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(dir.path()).unwrap();
        let failure = FailureSlot::default();
        let (log, recovery) = LogHandle::open(&folder.log(), failure.clone())
            .await
            .unwrap();
        let (state, loaded) = StateHandle::open(&folder, failure.clone()).await.unwrap();
        let machine = StateMachine::new(
            Arc::new(Engine::new(loaded.state)),
            state.clone(),
            folder.snapshots(),
            &loaded.progress,
            listeners(failure),
        )
        .unwrap();
        let store = LogStore::with_tail(log, &recovery, self.max_tail_bytes);
        Ok(((dir, folder), store, WithFiles { machine, state }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_suite_from_memory() {
    let max_tail_bytes = 1 << 20;
    Suite::test_all(Builder { max_tail_bytes }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_suite_from_disk() {
    let max_tail_bytes = 0;
    Suite::test_all(Builder { max_tail_bytes }).await.unwrap();
}
