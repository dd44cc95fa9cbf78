//! What a member has acknowledged is there when it comes back, in whatever way it ended.

use schemas::command::Command;
use schemas::command::command::Op;
use schemas::etcdserverpb::{CompactionRequest, LeaseGrantRequest};

use super::{all, config, crash_image, delete, put, start};
use crate::raft::StartError;
use crate::storage::StorageError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_shut_down_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    assert!(node.is_leader());
    for n in 0..50 {
        let key = format!("k{}", n % 20);
        node.propose(put(key, format!("v{n}"))).await.unwrap();
    }
    node.propose(delete("k3")).await.unwrap();
    let before = (all(&node), node.engine().revision());
    let ids = (node.member_id(), node.cluster_id());
    let term = node.status().term;
    node.shutdown().await;

    // Other urls do not make it another member.
    let mut moved = config(dir.path());
    moved.peer_urls = vec!["http://127.0.0.1:12380".to_owned()];
    moved.client_urls = vec!["http://127.0.0.1:12379".to_owned()];
    let node = start(moved).await.unwrap();
    node.read_barrier().await.unwrap();
    assert_eq!((all(&node), node.engine().revision()), before);
    assert_eq!((node.member_id(), node.cluster_id()), ids);
    assert!(node.status().term > term);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_alone_brings_back_what_the_state_had_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    for n in 0..30 {
        node.propose(put(format!("k{n}"), "old")).await.unwrap();
    }
    // A state.db of this moment, and the log of a later one.
    let image = tempfile::tempdir().unwrap();
    crash_image(dir.path(), image.path());
    let stale: Vec<_> = ["state.db", "state.db-wal"]
        .iter()
        .filter_map(|name| Some((*name, std::fs::read(image.path().join(name)).ok()?)))
        .collect();
    for n in 0..40 {
        node.propose(put(format!("k{n}"), "new")).await.unwrap();
    }
    let before = (all(&node), node.engine().revision());
    let image = tempfile::tempdir().unwrap();
    crash_image(dir.path(), image.path());
    for (name, bytes) in stale {
        std::fs::write(image.path().join(name), bytes).unwrap();
    }
    let revived = start(config(image.path())).await.unwrap();
    revived.read_barrier().await.unwrap();
    assert_eq!((all(&revived), revived.engine().revision()), before);
    revived.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_right_after_an_answer_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    for round in 0..5 {
        for n in 0..10 {
            let key = format!("{round}/{n}");
            node.propose(put(key, "v")).await.unwrap();
        }
        let image = tempfile::tempdir().unwrap();
        crash_image(dir.path(), image.path());
        let revived = start(config(image.path())).await.unwrap();
        revived.read_barrier().await.unwrap();
        assert_eq!(all(&revived), all(&node), "round {round}");
        revived.shutdown().await;
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_purge_the_log_and_the_state_still_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(dir.path());
    small.snapshot_count = 500;
    let node = start(small.clone()).await.unwrap();
    // More than is kept behind a snapshot.
    for _ in 0..23 {
        let round = (0..1000).map(|n| node.propose(put(format!("k{n}"), "v")));
        for proposed in futures::future::join_all(round).await {
            proposed.unwrap();
        }
    }
    let purged = node
        .raft()
        .wait(Some(std::time::Duration::from_secs(30)))
        .metrics(|m| m.purged.is_some_and(|id| id.index() >= 1000), "purged")
        .await
        .unwrap();
    assert!(purged.snapshot >= purged.purged);
    let before = (all(&node), node.engine().revision());
    let image = tempfile::tempdir().unwrap();
    crash_image(dir.path(), image.path());
    let revived = start(config(image.path())).await.unwrap();
    assert_eq!((all(&revived), revived.engine().revision()), before);
    revived.shutdown().await;
    node.shutdown().await;
    // And once more from a closed folder, whose log begins in the middle.
    let node = start(small).await.unwrap();
    assert_eq!((all(&node), node.engine().revision()), before);
    node.propose(put("after", "v")).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_survives_the_compaction_of_its_own_row() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    node.propose(put("a", "1")).await.unwrap();
    let deleted = node.propose(delete("a")).await.unwrap();
    let compact = Command {
        op: Some(Op::Compaction(CompactionRequest {
            revision: deleted.revision,
            physical: true,
        })),
        ..Command::default()
    };
    node.propose(compact).await.unwrap().reply.unwrap();
    node.shutdown().await;
    let node = start(config(dir.path())).await.unwrap();
    assert_eq!(node.engine().revision(), deleted.revision);
    let next = node.propose(put("b", "1")).await.unwrap();
    assert_eq!(next.revision, deleted.revision + 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_the_published_member_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    let grant = Command {
        op: Some(Op::LeaseGrant(LeaseGrantRequest { id: 77, ttl: 60 })),
        ..Command::default()
    };
    node.propose(grant).await.unwrap().reply.unwrap();
    wait_for(|| !node.engine().read(|state| state.members()).is_empty()).await;
    let members = node.engine().read(|state| state.members());
    assert_eq!(members[0].client_ur_ls, config(dir.path()).client_urls);
    node.shutdown().await;
    let node = start(config(dir.path())).await.unwrap();
    assert_eq!(node.engine().read(|state| state.members()), members);
    assert_eq!(node.engine().read(|state| state.leases()), [(77, 60)]);
    assert!(node.engine().lease_remaining_s(77).unwrap() >= 55);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_folder_and_a_lost_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    let error = start(config(dir.path())).await.err().unwrap();
    assert!(matches!(
        error,
        StartError::Storage(StorageError::Locked { .. })
    ));
    node.propose(put("a", "1")).await.unwrap();
    node.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = start(config(dir.path())).await.err().unwrap();
    assert!(
        error.to_string().contains("state.db beside it is not"),
        "{error}"
    );
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the condition never came"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
