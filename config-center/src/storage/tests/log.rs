//! The owner of the log: what it answered is on disk, in the order it was asked.

use std::path::Path;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::outsider;
use crate::storage::{EntryId, EntryKind, EntryRow, FailureSlot, LogHandle, VoteRow};

fn row(index: u64) -> EntryRow {
    EntryRow {
        id: EntryId { term: 1, index },
        kind: EntryKind::Command,
        payload: Bytes::from(format!("payload {index}")),
    }
}

async fn append(log: &LogHandle, rows: Vec<EntryRow>) -> std::io::Result<()> {
    let (done, appended) = oneshot::channel();
    let answer = Box::new(move |result| drop(done.send(result)));
    log.append(rows, answer).await.unwrap();
    appended.await.unwrap()
}

async fn count(path: &Path) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM entries")
        .fetch_one(&mut outsider(path).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_answered_append_is_seen_by_another_process_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let (log, _) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    // One row, one full statement, several statements in one transaction.
    let mut next = 0;
    for rows in [1, 128, 129, 1_000] {
        append(&log, (next..next + rows).map(row).collect())
            .await
            .unwrap();
        next += rows;
        assert_eq!(count(&path).await.unsigned_abs(), next);
    }
    let read = log.read(0, u64::MAX >> 1).await.unwrap();
    assert_eq!(read, (0..next).map(row).collect::<Vec<_>>());
    log.close().await;
}

#[tokio::test]
async fn requests_sent_together_are_carried_out_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let (log, _) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    let vote = VoteRow {
        term: 2,
        node_id: 9,
        committed: true,
    };
    // Polled together, so they land in one batch; the same index is written twice on purpose.
    let (a, b, c, d, e) = tokio::join!(
        append(&log, vec![row(0), row(1), row(2)]),
        log.truncate_after(Some(0)),
        append(&log, vec![row(1), row(2), row(3)]),
        log.save_vote(vote),
        log.purge(EntryId { term: 1, index: 0 }),
    );
    a.unwrap();
    b.unwrap();
    c.unwrap();
    d.unwrap();
    e.unwrap();
    log.save_committed(EntryId { term: 1, index: 2 });
    log.close().await;
    let (log, recovery) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    assert_eq!(recovery.vote, Some(vote));
    assert_eq!(recovery.purged, Some(EntryId { term: 1, index: 0 }));
    assert_eq!(recovery.committed, Some(EntryId { term: 1, index: 2 }));
    assert_eq!(recovery.last, Some(EntryId { term: 1, index: 3 }));
    assert_eq!(
        log.read(0, 100).await.unwrap(),
        (1..4).map(row).collect::<Vec<_>>()
    );
    log.close().await;
}

#[tokio::test]
async fn the_commit_index_reaches_the_disk_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let (log, _) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    append(&log, vec![row(0)]).await.unwrap();
    log.save_committed(EntryId { term: 1, index: 0 });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut other = outsider(&path).await;
    loop {
        let stored: Option<i64> =
            sqlx::query_scalar("SELECT log_index FROM marks WHERE name = 'committed'")
                .fetch_optional(&mut other)
                .await
                .unwrap();
        if stored == Some(0) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    log.close().await;
}

#[tokio::test]
async fn a_failed_append_answers_with_the_failure_and_ends_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let failure = FailureSlot::default();
    let (log, _) = LogHandle::open(&path, failure.clone()).await.unwrap();
    append(&log, vec![row(0)]).await.unwrap();
    // An index that is taken: two writers, or a bug above.
    let error = append(&log, vec![row(1), row(0)]).await.unwrap_err();
    assert!(
        error.to_string().contains("appending to the log"),
        "{error}"
    );
    assert!(
        failure
            .wait()
            .await
            .contains("nothing more is acknowledged")
    );
    assert!(
        log.save_vote(VoteRow {
            term: 1,
            node_id: 1,
            committed: false
        })
        .await
        .is_err()
    );
    // Neither of the two rows is there.
    assert_eq!(count(&path).await, 1);
}
