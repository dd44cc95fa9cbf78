//! The limits at the door, the order of answers, and what happens when the disk fails.

use std::time::Duration;

use futures::future::join_all;

use super::{all, config, put, start};
use crate::raft::ProposeError;
use crate::storage::{EntryId, EntryKind, EntryRow};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_get_each_their_own_revision() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    let first = node.engine().revision();
    let proposals = (0..2_000).map(|n| node.propose(put(format!("k{n}"), "v")));
    let mut revisions: Vec<i64> = join_all(proposals)
        .await
        .into_iter()
        .map(|proposed| proposed.unwrap().revision)
        .collect();
    revisions.sort_unstable();
    let expected: Vec<i64> = (first + 1..=first + 2_000).collect();
    assert_eq!(revisions, expected);
    assert_eq!(all(&node).count, 2_000);
    assert_eq!(node.status().pending_proposals, 0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_is_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    for n in 0..200 {
        let revision = node
            .propose(put("k", format!("{n}")))
            .await
            .unwrap()
            .revision;
        node.read_barrier().await.unwrap();
        assert!(node.engine().revision() >= revision);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_one_byte_too_many_is_refused_and_the_next_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    let before = node.engine().revision();
    let error = node
        .propose(put("k", vec![0; 1_572_864]))
        .await
        .unwrap_err();
    assert_eq!(error, ProposeError::TooLarge);
    assert_eq!(error.to_string(), "etcdserver: request is too large");
    assert_eq!(node.engine().revision(), before);
    let written = node.propose(put("k", vec![7; 1_572_000])).await.unwrap();
    assert_eq!(written.revision, before + 1);
    node.shutdown().await;
    // 1.5 MB through the log and back.
    let node = start(config(dir.path())).await.unwrap();
    assert_eq!(all(&node).kvs[0].value, vec![7; 1_572_000]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_shutdown_every_call_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    node.shutdown().await;
    let answer = tokio::time::timeout(Duration::from_secs(5), node.propose(put("k", "v"))).await;
    assert_eq!(answer.unwrap().unwrap_err(), ProposeError::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_the_member_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    node.propose(put("before", "v")).await.unwrap();
    // Somebody else's entry takes the place of the next one.
    let taken = EntryRow {
        id: EntryId { term: 1, index: 0 },
        kind: EntryKind::Blank,
        payload: bytes::Bytes::new(),
    };
    node.log.append(vec![taken], Box::new(drop)).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), node.propose(put("k", "v"))).await;
    answer.unwrap().unwrap_err();
    let why = tokio::time::timeout(Duration::from_secs(20), node.failed()).await;
    assert!(!why.unwrap().is_empty());
    assert_eq!(all(&node).count, 1);
    node.shutdown().await;
}

/// Not a check but a figure: `cargo test -p config-center --lib throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a figure"]
async fn throughput_in_process() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await.unwrap();
    for clients in [1, 64, 500] {
        let (writers, each) = (clients, 20_000 / clients);
        let started = std::time::Instant::now();
        let cpu = cpu_ms();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let node = std::sync::Arc::clone(&node);
                tokio::spawn(async move {
                    for n in 0..each {
                        let key = format!("bench/{writer}/{n}");
                        node.propose(put(key, vec![b'x'; 256])).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let puts = f64::from(writers * each);
        eprintln!(
            "{clients} clients: {:.0} puts/s, {:.4} CPU-ms per put",
            puts / started.elapsed().as_secs_f64(),
            (cpu_ms() - cpu) / puts,
        );
    }
    node.shutdown().await;
}

fn cpu_ms() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6
}
