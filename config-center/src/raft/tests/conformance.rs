//! openraft's own suite for stores, on the SQLite store.

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::raft::log_store::LogStore;
use crate::raft::peer::{Directory, Plain, Timing};
use crate::raft::removal::Removal;
use crate::raft::state_machine::{Listeners, StateMachine};
use crate::raft::types::TypeConfig;
use crate::storage::{DataFolder, FailureSlot, Identity, LogHandle, StateHandle};

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

struct Builder {
    max_tail_bytes: usize,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, DataFolder)> for Builder {
    async fn build(
        &self,
    ) -> Result<((TempDir, DataFolder), LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(dir.path()).unwrap();
        let failure = FailureSlot::default();
        let (log, recovery) = LogHandle::open(&folder.log_db(), failure.clone())
            .await
            .unwrap();
        let (state, loaded) = StateHandle::open(&folder, failure.clone()).await.unwrap();
        let machine = StateMachine::new(
            Arc::new(Engine::new(loaded.state)),
            state,
            folder.snapshots(),
            &loaded.progress,
            listeners(failure),
        )
        .unwrap();
        let store = LogStore::with_tail(log, &recovery, self.max_tail_bytes);
        Ok(((dir, folder), store, machine))
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
