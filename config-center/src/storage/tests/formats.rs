//! What was written by a released format can be read for ever; what is unknown is refused and left
//! as it is.

use bytes::Bytes;
use config_center_core::v2::V2Cursor;
use config_center_core::{Access, Alarm, Caller, Refusal};
use schemas::etcdserverpb::RangeRequest;

use super::{execute, outsider};
use crate::storage::{
    DataFolder, EntryId, EntryKind, FailureSlot, Identity, LogHandle, StateHandle, StorageError,
    VoteRow,
};

#[tokio::test]
async fn a_log_of_format_1_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (database, path) = (dir.path().join("log.db"), dir.path().join("log"));
    execute(&database, include_str!("../golden/log-v1.sql")).await;
    let (log, recovery) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    assert!(!database.exists() && path.is_dir());
    let id = |term, index| Some(EntryId { term, index });
    assert_eq!(
        recovery.identity,
        Some(Identity {
            member_id: u64::MAX - 1,
            cluster_id: 7,
        })
    );
    assert_eq!(
        recovery.vote,
        Some(VoteRow {
            term: 3,
            node_id: u64::MAX - 1,
            committed: true,
        })
    );
    assert_eq!(
        (recovery.purged, recovery.committed, recovery.last),
        (id(1, 4), id(3, 6), id(3, 7))
    );
    let entries = log.read(0, 100).await.unwrap();
    let kinds: Vec<EntryKind> = entries.iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [EntryKind::Blank, EntryKind::Command, EntryKind::Membership]
    );
    assert_eq!(
        &entries[1].payload[..],
        b"\x08\x01\x52\x06\x0a\x01k\x12\x01v"
    );
    log.close().await;
    // The crash came before the database was removed: it is not looked at again.
    execute(&database, "CREATE TABLE t (x)").await;
    let (log, again) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    assert_eq!(again, recovery);
    assert!(!database.exists());
    log.close().await;
    // The crash came before the files were complete: they are made again.
    let unfinished = path.with_extension("new");
    std::fs::rename(&path, &unfinished).unwrap();
    execute(&database, include_str!("../golden/log-v1.sql")).await;
    let (log, again) = LogHandle::open(&path, FailureSlot::default())
        .await
        .unwrap();
    assert_eq!(again, recovery);
    assert!(!unfinished.exists());
    log.close().await;
}

#[tokio::test]
async fn a_state_of_format_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    execute(&folder.state_db(), include_str!("../golden/state-v1.sql")).await;
    let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    // Above the newest row on purpose: the stored revision counts.
    assert_eq!(loaded.state.revision(), 9);
    assert_eq!(loaded.progress.applied, Some(EntryId { term: 3, index: 6 }));
    assert_eq!(loaded.state.leases(), [(77, 60)]);
    assert_eq!(
        loaded.state.lease(77).unwrap().1,
        [Bytes::from_static(b"a")]
    );
    assert_eq!(loaded.state.members()[0].name, "default");
    let everything = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let range = loaded.state.range(&everything).unwrap();
    assert_eq!(range.count, 1);
    assert_eq!(
        (&range.kvs[0].value[..], range.kvs[0].version),
        (&b"2"[..], 2)
    );
    state.close().await;
}

#[tokio::test]
async fn a_state_of_format_2_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    execute(&folder.state_db(), include_str!("../golden/state-v2.sql")).await;
    let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    assert_eq!(loaded.state.leases_remaining(), [(77, 60, 45)]);
    let nospace = Alarm {
        kind: 1,
        member_id: u64::MAX - 1,
    };
    assert_eq!(loaded.state.alarms(), [nospace]);
    state.close().await;
}

#[tokio::test]
async fn a_state_of_format_3_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    execute(&folder.state_db(), include_str!("../golden/state-v3.sql")).await;
    let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    let made = loaded.state.v2_get(b"/d", false).unwrap();
    assert_eq!((made.dir, made.created_index), (true, 6));
    let from = V2Cursor {
        index: 6,
        seen: 0,
        began: 6,
    };
    let (event, _) = loaded.state.v2_next(from, b"/d", false).unwrap();
    assert_eq!(event.unwrap().action, "set");
    state.close().await;
}

#[tokio::test]
async fn a_state_of_format_4_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    execute(&folder.state_db(), include_str!("../golden/state-v4.sql")).await;
    let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    let stored = loaded.state;
    assert_eq!(stored.revision(), 9);
    assert!(stored.auth_is_enabled());
    assert_eq!(stored.auth_revision(), 8);
    assert_eq!(stored.users(), ["ann", "root"]);
    assert_eq!(&stored.user("root").unwrap().password[..], b"hash1");
    assert!(stored.user("ann").unwrap().options.unwrap().no_password);
    let ann = Caller::User {
        name: "ann".to_owned(),
        auth_revision: 8,
    };
    let may_read = |key: &'static str| {
        let range = RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..RangeRequest::default()
        };
        stored.authorize(&ann, Access::Range(&range))
    };
    assert_eq!(may_read("a"), Ok(()));
    assert_eq!(may_read("b"), Err(Refusal::PermissionDenied));
    state.close().await;
}

/// What an upgrade adds says nothing that was not true before.
#[tokio::test]
async fn a_state_of_format_1_becomes_one_of_today() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    execute(&folder.state_db(), include_str!("../golden/state-v1.sql")).await;
    for _ in 0..2 {
        let (state, loaded) = StateHandle::open(&folder, FailureSlot::default())
            .await
            .unwrap();
        assert_eq!(loaded.state.leases_remaining(), [(77, 60, 0)]);
        assert_eq!(loaded.state.alarms(), []);
        let root = loaded.state.v2_get(b"/", false).unwrap();
        assert!(root.nodes.unwrap().is_empty());
        assert!(!loaded.state.auth_is_enabled());
        assert_eq!(loaded.state.auth_revision(), 1);
        assert!(loaded.state.users().is_empty() && loaded.state.roles().is_empty());
        state.close().await;
    }
    let today = dir.path().join("today.db");
    execute(&today, include_str!("../golden/state-v4.sql")).await;
    assert_eq!(columns(&folder.state_db()).await, columns(&today).await);
}

#[tokio::test]
async fn what_is_written_today_is_the_newest_format() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    let (state, _) = StateHandle::open(&folder, FailureSlot::default())
        .await
        .unwrap();
    state.close().await;
    let golden = dir.path().join("golden.db");
    execute(&golden, include_str!("../golden/state-v4.sql")).await;
    assert_eq!(columns(&folder.state_db()).await, columns(&golden).await);
}

/// Every column with its type, null-ness and place in the primary key.
async fn columns(path: &std::path::Path) -> Vec<(String, String, String, i64, i64)> {
    let mut connection = outsider(path).await;
    sqlx::query_as(
        "SELECT t.name, c.name, c.type, c.\"notnull\", c.pk
            FROM sqlite_schema t, pragma_table_info(t.name) c
            WHERE t.type = 'table' ORDER BY t.name, c.cid",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    execute(&path, include_str!("../golden/log-v1.sql")).await;
    execute(&path, "UPDATE format SET version = 2").await;
    let before = std::fs::read(&path).unwrap();
    let error = LogHandle::open(&dir.path().join("log"), FailureSlot::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(
        error,
        StorageError::UnknownFormat {
            found: 2,
            known: 1,
            ..
        }
    ));
    let text = error.to_string();
    assert!(
        text.contains("has format 2, and this program knows format 1"),
        "{text}"
    );
    assert!(!text.contains('\n'));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn foreign_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other_program = dir.path().join("other.db");
    execute(&other_program, "CREATE TABLE t (x)").await;
    let the_other_one = dir.path().join("state.db");
    execute(&the_other_one, include_str!("../golden/state-v1.sql")).await;
    let no_database = dir.path().join("text.db");
    std::fs::write(&no_database, "not a database\n".repeat(100)).unwrap();
    for path in [other_program, the_other_one, no_database] {
        let before = std::fs::read(&path).unwrap();
        let beside = tempfile::tempdir().unwrap();
        std::fs::copy(&path, beside.path().join("log.db")).unwrap();
        let error = LogHandle::open(&beside.path().join("log"), FailureSlot::default())
            .await
            .err()
            .unwrap();
        let path = beside.path().join("log.db");
        assert!(
            matches!(error, StorageError::Foreign { .. }),
            "{path:?}: {error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before, "{path:?}");
    }
}

#[tokio::test]
async fn a_hole_in_a_log_of_format_1_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    for (nth, fault) in [
        "DELETE FROM entries WHERE log_index = 6",
        "DELETE FROM entries WHERE log_index = 5",
    ]
    .into_iter()
    .enumerate()
    {
        let folder = dir.path().join(nth.to_string());
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("log.db");
        execute(&path, include_str!("../golden/log-v1.sql")).await;
        execute(&path, fault).await;
        let error = LogHandle::open(&folder.join("log"), FailureSlot::default())
            .await
            .err()
            .unwrap();
        assert!(
            matches!(error, StorageError::Damaged { .. }),
            "{fault}: {error}"
        );
    }
}
