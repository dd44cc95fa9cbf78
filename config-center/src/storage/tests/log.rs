//! The owner of the log: what it answered is on disk, in the order it was asked, and is found again
//! whatever the disk lost of what it did not answer.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use crate::storage::{
    EntryId, EntryKind, EntryRow, FailureSlot, Identity, LogHandle, LogRecovery, StorageError,
    VoteRow,
};

fn row(index: u64) -> EntryRow {
    sized(index, 10)
}

fn sized(index: u64, bytes: usize) -> EntryRow {
    let number = index.to_string();
    let mut payload = vec![b' '; bytes - number.len()];
    payload.extend_from_slice(number.as_bytes());
    EntryRow {
        id: EntryId { term: 1, index },
        kind: EntryKind::Command,
        payload: payload.into(),
    }
}

async fn open(path: &Path) -> (LogHandle, LogRecovery) {
    LogHandle::open(path, FailureSlot::default()).await.unwrap()
}

async fn append(log: &LogHandle, rows: Vec<EntryRow>) -> std::io::Result<()> {
    let (done, appended) = oneshot::channel();
    let answer = Box::new(move |result| drop(done.send(result)));
    log.append(rows, answer).await.unwrap();
    appended.await.unwrap()
}

async fn everything(log: &LogHandle) -> Vec<EntryRow> {
    log.read(0, u64::MAX >> 1).await.unwrap()
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// What a crash at this moment leaves: nothing is written while it is made.
fn crash_image(path: &Path, into: &Path) -> PathBuf {
    let image = into.join("log");
    std::fs::create_dir_all(&image).unwrap();
    for segment in segments(path) {
        std::fs::copy(&segment, image.join(segment.file_name().unwrap())).unwrap();
    }
    image
}

#[tokio::test]
async fn an_answered_append_is_found_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, recovery) = open(&path).await;
    assert_eq!(recovery, LogRecovery::default());
    let mut next = 0;
    for rows in [1, 128, 129, 1_000] {
        append(&log, (next..next + rows).map(row).collect())
            .await
            .unwrap();
        next += rows;
        let elsewhere = tempfile::tempdir().unwrap();
        let (crashed, recovery) = open(&crash_image(&path, elsewhere.path())).await;
        assert_eq!(recovery.first, Some(0));
        assert_eq!(recovery.last.unwrap().index + 1, next);
        assert_eq!(everything(&crashed).await.len() as u64, next);
        crashed.close().await;
    }
    assert_eq!(
        everything(&log).await,
        (0..next).map(row).collect::<Vec<_>>()
    );
    assert_eq!(log.read(5, 7).await.unwrap(), [row(5), row(6)]);
    log.close().await;
}

#[tokio::test]
async fn requests_sent_together_are_carried_out_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = open(&path).await;
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
    let (log, recovery) = open(&path).await;
    assert_eq!(recovery.vote, Some(vote));
    assert_eq!(recovery.purged, Some(EntryId { term: 1, index: 0 }));
    assert_eq!(recovery.committed, Some(EntryId { term: 1, index: 2 }));
    assert_eq!(recovery.last, Some(EntryId { term: 1, index: 3 }));
    assert_eq!(everything(&log).await, (1..4).map(row).collect::<Vec<_>>());
    log.close().await;
}

#[tokio::test]
async fn the_commit_index_reaches_the_disk_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = open(&path).await;
    append(&log, vec![row(0)]).await.unwrap();
    let committed = EntryId { term: 1, index: 0 };
    log.save_committed(committed);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let elsewhere = tempfile::tempdir().unwrap();
        let (crashed, recovery) = open(&crash_image(&path, elsewhere.path())).await;
        crashed.close().await;
        if recovery.committed == Some(committed) {
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
    let path = dir.path().join("log");
    let failure = FailureSlot::default();
    let (log, _) = LogHandle::open(&path, failure.clone()).await.unwrap();
    append(&log, vec![row(0)]).await.unwrap();
    // An index that is taken: two writers, or a bug above.
    let error = append(&log, vec![row(1), row(0)]).await.unwrap_err();
    assert!(error.to_string().contains("entry 2 comes next"), "{error}");
    assert!(
        failure
            .wait()
            .await
            .contains("nothing more is acknowledged")
    );
    let vote = VoteRow {
        term: 1,
        node_id: 1,
        committed: false,
    };
    assert!(log.save_vote(vote).await.is_err());
    // Neither of the two rows is there.
    let (log, _) = open(&path).await;
    assert_eq!(everything(&log).await, [row(0)]);
    log.close().await;
}

/// Long enough for several segments; what is purged goes with its files, what is not stays.
#[tokio::test]
async fn purged_segments_go_and_what_the_log_remembers_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = open(&path).await;
    let identity = Identity {
        member_id: 3,
        cluster_id: 4,
    };
    log.save_identity(identity).await.unwrap();
    let vote = VoteRow {
        term: 1,
        node_id: 3,
        committed: true,
    };
    log.save_vote(vote).await.unwrap();
    let megabyte = |index| sized(index, 1 << 20);
    for index in 0..30 {
        append(&log, vec![megabyte(index)]).await.unwrap();
    }
    let before = segments(&path).len();
    assert!(before >= 4, "{before} segments");
    log.truncate_after(Some(27)).await.unwrap();
    log.purge(EntryId { term: 1, index: 20 }).await.unwrap();
    assert!(segments(&path).len() < before);
    append(&log, vec![row(28)]).await.unwrap();
    let check = async |path: &Path| {
        let (log, recovery) = open(path).await;
        assert_eq!(recovery.identity, Some(identity));
        assert_eq!(recovery.vote, Some(vote));
        assert_eq!(recovery.first, Some(21));
        assert_eq!(recovery.last, Some(EntryId { term: 1, index: 28 }));
        let mut expected: Vec<_> = (21..28).map(megabyte).collect();
        expected.push(row(28));
        assert_eq!(everything(&log).await, expected);
        log.close().await;
    };
    log.close().await;
    check(&path).await;
    // A segment whose removal did not reach the disk, without its neighbour.
    std::fs::write(path.join("00000001.log"), "whatever it was").unwrap();
    check(&path).await;
    // Purged beyond the end, as after a snapshot of a peer.
    let (log, _) = open(&path).await;
    log.purge(EntryId { term: 2, index: 90 }).await.unwrap();
    append(&log, vec![row(91)]).await.unwrap();
    log.close().await;
    let (log, recovery) = open(&path).await;
    assert_eq!((recovery.first, segments(&path).len()), (Some(91), 1));
    assert_eq!(everything(&log).await, [row(91)]);
    log.close().await;
}

/// The last record is cut at many places and loses single bytes: what was answered before
/// it is there, and the log goes on.
#[tokio::test]
async fn a_record_that_never_became_whole_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = open(&path).await;
    append(&log, vec![row(0), row(1)]).await.unwrap();
    let whole = std::fs::read(&segments(&path)[0]).unwrap();
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let begin = used(&whole);
    append(&log, vec![row(2)]).await.unwrap();
    log.close().await;
    let whole = std::fs::read(&segments(&path)[0]).unwrap();
    // Each part of a record is longer than the step.
    for lost in (begin..used(&whole)).step_by(3) {
        let mut cut = whole.clone();
        cut[lost..].fill(0);
        let mut holed = whole.clone();
        holed[lost] = !holed[lost];
        for bytes in [cut, holed] {
            std::fs::write(&segments(&path)[0], &bytes).unwrap();
            let (log, recovery) = open(&path).await;
            assert_eq!(recovery.last.unwrap().index, 1, "byte {lost}");
            append(&log, vec![sized(2, 3)]).await.unwrap();
            log.close().await;
            let (log, _) = open(&path).await;
            assert_eq!(everything(&log).await, [row(0), row(1), sized(2, 3)]);
            log.close().await;
        }
    }
}

#[tokio::test]
async fn damage_in_what_was_answered_is_said_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = open(&path).await;
    for index in 0..3 {
        append(&log, vec![row(index)]).await.unwrap();
    }
    log.close().await;
    let segment = segments(&path)[0].clone();
    let good = std::fs::read(&segment).unwrap();
    let second = good.windows(10).position(|at| at == b"         1").unwrap();
    let refused = async |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        std::fs::write(&segment, &bytes).unwrap();
        let opened = LogHandle::open(&path, FailureSlot::default()).await;
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
        opened.err().unwrap()
    };
    let error = refused(second, b'x').await;
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    let error = refused(7, 9).await;
    let is_unknown = matches!(error, StorageError::UnknownFormat { found: 9, .. });
    assert!(is_unknown, "{error}");
    let error = refused(0, b'x').await;
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    std::fs::write(&segment, &good).unwrap();
    std::fs::rename(&segment, path.join("00000002.log")).unwrap();
    let opened = LogHandle::open(&path, FailureSlot::default()).await;
    let error = opened.err().unwrap();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
}
