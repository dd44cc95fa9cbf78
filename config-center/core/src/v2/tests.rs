//! The v2 tree over the v3 keyspace: etcd's rules, and the edges where the two meet.

use bytes::Bytes;
use schemas::command::v2_write::Verb;
use schemas::command::{Command, V2Expire, V2Write, command::Op};
use schemas::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RequestOp, TxnRequest, request_op::Request,
};

use super::*;
use crate::state::{Change, Reply, State};

/// A state that is rebuilt from its stored changes whenever a test asks.
#[derive(Default)]
struct Store {
    state: State,
    stored: Vec<Change>,
}

impl Store {
    fn apply(&mut self, op: Op) -> Reply {
        let command = Command {
            op: Some(op),
            ..Command::default()
        };
        let applied = self.state.apply(&command);
        self.stored.extend(applied.changes);
        applied.reply.unwrap()
    }

    fn write(
        &mut self,
        verb: Verb,
        path: &str,
        with: impl FnOnce(&mut V2Write),
    ) -> Result<V2Notice, V2Refusal> {
        let mut request = V2Write {
            verb: verb as i32,
            path: clean_path(path),
            ..V2Write::default()
        };
        with(&mut request);
        match self.apply(Op::V2Write(request)) {
            Reply::V2(outcome) => *outcome,
            other => panic!("{other:?}"),
        }
    }

    fn set(&mut self, path: &str, value: &str) -> V2Notice {
        self.write(Verb::Set, path, |w| w.value = text(value))
            .unwrap()
    }

    fn put(&mut self, key: &str, value: &str) {
        self.apply(Op::Put(PutRequest {
            key: text(key),
            value: text(value),
            ..PutRequest::default()
        }));
    }

    fn delete(&mut self, key: &str) {
        self.apply(Op::DeleteRange(DeleteRangeRequest {
            key: text(key),
            ..DeleteRangeRequest::default()
        }));
    }

    fn expire(&mut self, now_ms: i64) -> V2Notice {
        match self.apply(Op::V2Expire(V2Expire { now_ms })) {
            Reply::V2(outcome) => outcome.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What v3 reads, without the revision.
    fn v3(&self, key: &str) -> Option<String> {
        let row = self.state.keys.get(key.as_bytes())?;
        Some(String::from_utf8(row.value.to_vec()).unwrap())
    }

    fn get(&self, path: &str) -> Result<V2View, V2Refusal> {
        self.state.v2_get(&clean_path(path), false)
    }

    /// Everything below a path, as `path` or `path=value`.
    fn all(&self, path: &str) -> Vec<String> {
        fn walk(view: &V2View, out: &mut Vec<String>) {
            let path = String::from_utf8(view.path.to_vec()).unwrap();
            match &view.value {
                Some(value) => out.push(format!("{path}={}", String::from_utf8_lossy(value))),
                None => out.push(format!("{path}/")),
            }
            view.nodes.iter().flatten().for_each(|node| walk(node, out));
        }
        let mut out = Vec::new();
        let view = self.state.v2_get(&clean_path(path), true).unwrap();
        view.nodes
            .iter()
            .flatten()
            .for_each(|node| walk(node, &mut out));
        out
    }

    /// The actions that a watcher sees from an index on.
    fn seen(&self, from: i64, path: &str, recursive: bool) -> Vec<String> {
        let mut cursor = V2Cursor {
            index: from,
            seen: 0,
            began: 0,
        };
        let mut told = Vec::new();
        while let (Some(event), on) = self
            .state
            .v2_next(cursor, &clean_path(path), recursive)
            .unwrap()
        {
            let value = |view: &V2View| match &view.value {
                Some(value) => format!("={}", String::from_utf8_lossy(value)),
                None => String::new(),
            };
            let prev = event
                .prev
                .as_ref()
                .map(|prev| format!(" was{}", value(prev)));
            told.push(format!(
                "{} {} {}{}{}",
                event.index,
                event.action,
                String::from_utf8_lossy(&event.node.path),
                value(&event.node),
                prev.unwrap_or_default()
            ));
            cursor = on;
        }
        told
    }

    /// Through the rows on disk and back.
    fn restarted(&self) -> Self {
        let mut restorer = State::restore();
        restorer.revision(self.state.revision());
        for change in self.stored.clone() {
            match change {
                Change::Revision(row) => restorer.row((*row).clone()).unwrap(),
                Change::LeasePut { id, ttl_s } => restorer.lease(id, ttl_s),
                Change::V2(change) => restorer.v2(change),
                Change::CompactTo { revision } => restorer.compacted(revision),
                other => panic!("{other:?}"),
            }
        }
        Self {
            state: restorer.finish().unwrap(),
            stored: self.stored.clone(),
        }
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, V2Refusal>) -> (V2Code, String) {
    let refusal = outcome.unwrap_err();
    (refusal.code, refusal.cause)
}

#[test]
fn a_file_is_a_key_and_a_key_is_a_file() {
    let mut store = Store::default();
    let made = store.set("/a/b", "1");
    assert_eq!(
        (made.index, made.node.created_index, &made.prev),
        (2, 2, &None)
    );
    assert_eq!(store.v3("/a/b").as_deref(), Some("1"));
    store.put("/a/c", "2");
    let found = store.get("/a/c").unwrap();
    assert_eq!(
        (found.value, found.created_index, found.modified_index),
        (Some(text("2")), 3, 3)
    );
    assert_eq!(store.all("/"), ["/a/", "/a/b=1", "/a/c=2"]);
    store.delete("/a/b");
    assert_eq!(
        refused(store.get("/a/b")),
        (V2Code::KeyNotFound, "/a/b".into())
    );
    assert_eq!(
        refused(store.get("/x/y/z")),
        (V2Code::KeyNotFound, "/x".into())
    );
    assert_eq!(
        refused(store.get("/a/c/d")),
        (V2Code::NotADirectory, "/a/c".into())
    );
}

#[test]
fn created_index_is_renewed_by_a_set_and_kept_by_an_update() {
    let mut store = Store::default();
    store.set("/f", "1");
    let again = store.set("/f", "2");
    assert_eq!(
        (again.node.created_index, again.node.modified_index),
        (3, 3)
    );
    assert_eq!(again.prev.unwrap().created_index, 2);
    let updated = store
        .write(Verb::Update, "/f", |w| w.value = text("3"))
        .unwrap();
    assert_eq!(
        (updated.node.created_index, updated.node.modified_index),
        (3, 4)
    );
    let swapped = store.write(Verb::CompareAndSwap, "/f", |w| {
        w.value = text("4");
        w.prev_value = text("3");
        w.prev_index = 4;
    });
    assert_eq!(swapped.unwrap().node.created_index, 3);
    assert_eq!(store.restarted().get("/f").unwrap().created_index, 3);
    // v3 puts set: the file is created anew.
    store.put("/f", "5");
    let found = store.get("/f").unwrap();
    assert_eq!((found.created_index, found.modified_index), (6, 6));
}

/// A write, and the code and cause of its refusal.
type RefusedCase = (Verb, &'static str, fn(&mut V2Write), V2Code, &'static str);

#[test]
fn refusals_name_their_cause_and_change_nothing() {
    let mut store = Store::default();
    store.set("/f", "one");
    store.set("/d/x", "1");
    let revision = store.state.revision();
    let table: [RefusedCase; 16] = [
        (Verb::Set, "/", |_| {}, V2Code::RootIsReadOnly, "/"),
        (
            Verb::Delete,
            "/",
            |w| w.recursive = true,
            V2Code::RootIsReadOnly,
            "/",
        ),
        (Verb::Set, "/f/x", |_| {}, V2Code::NotADirectory, "/f"),
        (Verb::Create, "/f/x/y", |_| {}, V2Code::NotADirectory, "/f"),
        (Verb::Set, "/d", |_| {}, V2Code::NotAFile, "/d"),
        (Verb::Set, "/d", |w| w.dir = true, V2Code::NotAFile, "/d"),
        (
            Verb::Set,
            "/none",
            |w| w.refresh = true,
            V2Code::KeyNotFound,
            "/none",
        ),
        (Verb::Create, "/f", |_| {}, V2Code::KeyExists, "/f"),
        (
            Verb::Create,
            "/d",
            |w| w.dir = true,
            V2Code::KeyExists,
            "/d",
        ),
        (Verb::Update, "/none", |_| {}, V2Code::KeyNotFound, "/none"),
        (
            Verb::Update,
            "/d",
            |w| w.value = text("x"),
            V2Code::NotAFile,
            "/d",
        ),
        (Verb::Delete, "/d", |_| {}, V2Code::NotAFile, "/d"),
        (
            Verb::Delete,
            "/d",
            |w| w.dir = true,
            V2Code::DirectoryNotEmpty,
            "/d",
        ),
        (
            Verb::CompareAndSwap,
            "/d",
            |w| w.prev_index = 3,
            V2Code::NotAFile,
            "/d",
        ),
        (
            Verb::CompareAndSwap,
            "/f",
            |w| w.prev_value = text("two"),
            V2Code::CompareFailed,
            "[two != one]",
        ),
        (
            Verb::CompareAndDelete,
            "/f",
            |w| {
                w.prev_value = text("two");
                w.prev_index = 7;
            },
            V2Code::CompareFailed,
            "[two != one] [7 != 2]",
        ),
    ];
    for (verb, path, with, code, cause) in table {
        let outcome = store.write(verb, path, with);
        assert_eq!(outcome.as_ref().unwrap_err().index, revision);
        assert_eq!(
            refused(outcome),
            (code, cause.to_owned()),
            "{verb:?} {path}"
        );
    }
    assert_eq!(store.state.revision(), revision);
    assert!(store.v3("/f/x").is_none());
}

#[test]
fn directories_live_by_themselves() {
    let mut store = Store::default();
    let made = store.write(Verb::Set, "/d/e", |w| w.dir = true).unwrap();
    assert_eq!((made.index, made.node.dir), (2, true));
    assert_eq!(store.state.revision(), 2, "a directory takes an index");
    assert_eq!(store.all("/"), ["/d/", "/d/e/"]);
    // The parents of a file stay when it goes.
    store.set("/p/q/f", "1");
    store.write(Verb::Delete, "/p/q/f", |_| {}).unwrap();
    assert_eq!(store.all("/p"), ["/p/q/"]);
    assert_eq!(store.restarted().all("/"), ["/d/", "/d/e/", "/p/", "/p/q/"]);
    store.write(Verb::Delete, "/p/q", |w| w.dir = true).unwrap();
    assert!(store.all("/p").is_empty());
    let gone = store
        .write(Verb::Delete, "/d", |w| w.recursive = true)
        .unwrap();
    assert!(gone.node.dir && gone.prev.unwrap().dir);
    assert_eq!(store.restarted().all("/"), ["/p/"]);
}

#[test]
fn a_directory_of_v3_keys_goes_with_them_until_v2_writes_into_it() {
    let mut store = Store::default();
    store.put("/v/a/k", "1");
    let shown = store.get("/v").unwrap();
    assert_eq!((shown.dir, shown.created_index), (true, 2));
    store.delete("/v/a/k");
    assert!(store.get("/v").is_err());
    store.put("/w/a/k", "1");
    store.set("/w/b", "2");
    store.delete("/w/a/k");
    store.write(Verb::Delete, "/w/b", |_| {}).unwrap();
    // Made by the set, with the index that it had been shown with.
    assert_eq!(store.get("/w").unwrap().created_index, 4);
}

#[test]
fn a_key_that_is_also_a_prefix_is_a_directory() {
    let mut store = Store::default();
    store.put("/a", "shadowed");
    assert_eq!(store.get("/a").unwrap().value, Some(text("shadowed")));
    store.put("/a/b", "1");
    store.put("/a-b", "sorts between");
    store.put("/a/c/d", "2");
    let view = store.get("/a").unwrap();
    assert!(view.dir && view.value.is_none());
    assert_eq!(
        store.all("/"),
        ["/a/", "/a/b=1", "/a/c/", "/a/c/d=2", "/a-b=sorts between"]
    );
    assert_eq!(
        refused(store.write(Verb::Set, "/a", |_| {})).0,
        V2Code::NotAFile
    );
    store
        .write(Verb::Delete, "/a", |w| w.recursive = true)
        .unwrap();
    assert_eq!(store.v3("/a"), None);
    assert_eq!(store.all("/"), ["/a-b=sorts between"]);
}

#[test]
fn keys_that_no_path_names_are_neither_shown_nor_touched() {
    let mut store = Store::default();
    let keys = ["plain", "/d/", "/d//x", "/d/./x", "/d/../x", "//", "/"];
    for key in keys {
        store.put(key, "v3 only");
    }
    store.apply(Op::Put(PutRequest {
        key: Bytes::from_static(b"/d/\xff"),
        ..PutRequest::default()
    }));
    assert!(store.all("/").is_empty());
    assert!(store.get("/d").is_err(), "nothing v2 can name lies there");
    assert!(store.seen(1, "/", true).is_empty());
    store.set("/d/f", "1");
    store
        .write(Verb::Delete, "/d", |w| w.recursive = true)
        .unwrap();
    for key in keys {
        assert!(store.v3(key).is_some(), "{key} was deleted");
    }
    // Paths in requests are cleaned, so all of these are one.
    for path in ["/x/y", "x/y", "//x///y/", "/x/./y", "/x/z/../y", "/../x/y"] {
        assert_eq!(clean_path(path), "/x/y", "{path}");
    }
    assert_eq!(clean_path(""), "/");
}

#[test]
fn in_order_keys_are_the_index_with_twenty_digits() {
    let mut store = Store::default();
    let first = store
        .write(Verb::CreateUnique, "/queue", |w| w.value = text("a"))
        .unwrap();
    assert_eq!(first.node.path, "/queue/00000000000000000002");
    assert_eq!(first.action, "create");
    let second = store
        .write(Verb::CreateUnique, "/", |w| w.value = text("b"))
        .unwrap();
    assert_eq!(second.node.path, "/00000000000000000003");
    assert_eq!(second.node.modified_index, 3);
}

#[test]
fn hidden_names_are_read_but_not_listed_nor_announced_above() {
    let mut store = Store::default();
    store.set("/d/_h/x", "1");
    store.set("/d/f", "2");
    assert_eq!(store.all("/"), ["/d/", "/d/f=2"]);
    assert_eq!(store.all("/d/_h"), ["/d/_h/x=1"]);
    assert_eq!(store.seen(1, "/d", true), ["3 set /d/f=2"]);
    assert_eq!(store.seen(1, "/d/_h", true), ["2 set /d/_h/x=1"]);
    store.set("/_top", "3");
    assert_eq!(store.seen(4, "/", true), [""; 0]);
    // A hidden directory still has to be empty.
    let outcome = store.write(Verb::Delete, "/d", |w| w.dir = true);
    assert_eq!(refused(outcome).0, V2Code::DirectoryNotEmpty);
}

#[test]
fn watchers_see_the_kind_of_each_write_whoever_made_it() {
    let mut store = Store::default();
    store.set("/f", "1"); // 2
    store.put("/f", "2"); // 3
    store
        .write(Verb::Update, "/f", |w| w.value = text("3"))
        .unwrap(); // 4
    store
        .write(Verb::CompareAndSwap, "/f", |w| {
            w.prev_value = text("3");
            w.value = text("4");
        })
        .unwrap(); // 5
    store
        .write(Verb::CompareAndDelete, "/f", |w| w.prev_value = text("4"))
        .unwrap(); // 6
    store
        .write(Verb::Create, "/f", |w| w.value = text("5"))
        .unwrap(); // 7
    store.delete("/f"); // 8
    let expected = [
        "2 set /f=1",
        "3 set /f=2 was=1",
        "4 update /f=3 was=2",
        "5 compareAndSwap /f=4 was=3",
        "6 compareAndDelete /f was=4",
        "7 create /f=5",
        "8 delete /f was=5",
    ];
    assert_eq!(store.seen(1, "/f", false), expected);
    assert_eq!(store.restarted().seen(1, "/f", false), expected);
    assert_eq!(store.seen(7, "/f", false), &expected[5..]);
    assert!(store.seen(9, "/f", false).is_empty());
    assert_eq!(store.seen(1, "/", true), expected);
    assert!(store.seen(1, "/", false).is_empty());
}

#[test]
fn a_transaction_is_one_index_with_several_events() {
    let mut store = Store::default();
    let put = |key: &str| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: text(key),
            ..PutRequest::default()
        })),
    };
    store.apply(Op::Txn(TxnRequest {
        success: vec![put("/t/a"), put("/t/b"), put("other")],
        ..TxnRequest::default()
    }));
    store.set("/t/c", "");
    assert_eq!(
        store.seen(1, "/t", true),
        ["2 set /t/a=", "2 set /t/b=", "3 set /t/c="]
    );
}

#[test]
fn whoever_watches_inside_a_directory_is_told_of_its_end() {
    let mut store = Store::default();
    store.set("/d/e/f", "1");
    store
        .write(Verb::Delete, "/d", |w| w.recursive = true)
        .unwrap();
    assert_eq!(store.seen(3, "/d/e/f", false), ["3 delete /d was"]);
    assert_eq!(store.seen(3, "/d", true), ["3 delete /d was"]);
    assert!(store.seen(3, "/dx", false).is_empty());
    assert_eq!(store.v3("/d/e/f"), None);
}

#[test]
fn whoever_watches_what_is_not_in_a_directory_that_goes_is_not_told() {
    let mut store = Store::default();
    store.set("/d/f", "1");
    let empty = store.write(Verb::Set, "/d/empty", |w| w.dir = true);
    let index = empty.unwrap().index + 1;
    store
        .write(Verb::Delete, "/d", |w| w.recursive = true)
        .unwrap();
    let told = [format!("{index} delete /d was")];
    assert_eq!(store.seen(index, "/d/f", false), told);
    assert_eq!(store.seen(index, "/d/empty", false), told);
    assert!(store.seen(index, "/d/none", false).is_empty());
    assert!(store.seen(index, "/d/f/none", false).is_empty());
    // Who asks for history is told all the same, as by etcd.
    let asked = V2Cursor {
        index,
        seen: 0,
        began: index,
    };
    let (event, _) = store.state.v2_next(asked, b"/d/none", false).unwrap();
    assert_eq!(event.unwrap().node.path, "/d");
}

#[test]
fn a_refresh_keeps_the_value_and_tells_nobody() {
    let mut store = Store::default();
    store
        .write(Verb::Set, "/f", |w| {
            w.value = text("kept");
            w.expires_at_ms = 1000;
        })
        .unwrap();
    for verb in [Verb::Set, Verb::Update] {
        let refreshed = store
            .write(verb, "/f", |w| {
                w.refresh = true;
                w.expires_at_ms = 5000;
            })
            .unwrap();
        assert_eq!(refreshed.node.value, Some(text("kept")));
    }
    assert_eq!(store.seen(1, "/f", false), ["2 set /f=kept"]);
    assert_eq!(store.restarted().seen(1, "/f", false), ["2 set /f=kept"]);
    assert_eq!(store.state.v2_next_end_ms(), Some(5000));
    assert_eq!(store.v3("/f").as_deref(), Some("kept"));
}

#[test]
fn what_runs_out_ends_one_by_one_with_an_index_each() {
    let mut store = Store::default();
    store
        .write(Verb::Set, "/f", |w| w.expires_at_ms = 2000)
        .unwrap();
    store
        .write(Verb::Set, "/d", |w| {
            w.dir = true;
            w.expires_at_ms = 1000;
        })
        .unwrap();
    store.set("/d/x", "1");
    let mut store = store.restarted();
    assert_eq!(store.state.v2_next_end_ms(), Some(1000));
    assert_eq!(store.expire(999).action, "", "too early");
    assert_eq!(store.state.revision(), 4);
    assert_eq!((store.expire(9000).index, store.expire(9000).index), (5, 6));
    assert_eq!(store.expire(9000).action, "");
    assert_eq!(
        store.seen(5, "/", true),
        ["5 expire /d was", "6 expire /f was="]
    );
    assert_eq!(store.seen(5, "/d/x", false), ["5 expire /d was"]);
    assert!(store.all("/").is_empty() && store.v3("/d/x").is_none());
    assert_eq!(store.state.v2_next_end_ms(), None);
}

#[test]
fn a_v3_write_takes_the_ttl_away() {
    let mut store = Store::default();
    store
        .write(Verb::Set, "/f", |w| w.expires_at_ms = 1000)
        .unwrap();
    store.put("/f", "stays");
    assert_eq!(store.get("/f").unwrap().expires_at_ms, 0);
    assert_eq!(store.restarted().get("/f").unwrap().expires_at_ms, 0);
    store.expire(5000);
    assert_eq!(store.v3("/f").as_deref(), Some("stays"));
    assert_eq!(
        (store.state.revision(), store.state.v2_next_end_ms()),
        (3, None)
    );
    // And so does a v2 write that gives none.
    store
        .write(Verb::Set, "/g", |w| w.expires_at_ms = 1000)
        .unwrap();
    store.write(Verb::Update, "/g", |_| {}).unwrap();
    assert_eq!(store.state.v2_next_end_ms(), None);
}

#[test]
fn a_lease_and_a_ttl_do_not_meet() {
    let mut store = Store::default();
    store.apply(Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 }));
    store.apply(Op::Put(PutRequest {
        key: text("/leased"),
        lease: 7,
        ..PutRequest::default()
    }));
    assert_eq!(store.get("/leased").unwrap().expires_at_ms, 0);
    store.put("/other", "");
    store.apply(Op::Put(PutRequest {
        key: text("/other"),
        lease: 7,
        ..PutRequest::default()
    }));
    // A v2 write is a put without a lease: the key outlives it.
    store.set("/other", "free");
    store.apply(Op::LeaseRevoke(LeaseRevokeRequest { id: 7 }));
    assert_eq!(store.all("/"), ["/other=free"]);
    assert_eq!(store.seen(6, "/leased", false), ["6 delete /leased was="]);
}

#[test]
fn history_is_the_last_thousand_events_and_ends_with_compaction() {
    let mut store = Store::default();
    for n in 0..1100 {
        if n % 2 == 0 {
            store.put("/k", "v3");
        } else {
            store.set("/k", "v2");
        }
    }
    let current = store.state.revision();
    assert_eq!(current, 1101);
    let at = |index| V2Cursor {
        index,
        seen: 0,
        began: 0,
    };
    let path = clean_path("/k");
    let refusal = store.state.v2_next(at(101), &path, false).unwrap_err();
    assert_eq!(refusal.code, V2Code::EventCleared);
    assert_eq!(
        refusal.cause,
        "the requested history has been cleared [102/101]"
    );
    assert_eq!(refusal.index, current);
    let (event, on) = store.state.v2_next(at(102), &path, false).unwrap();
    assert_eq!(
        (event.unwrap().index, on),
        (
            102,
            V2Cursor {
                index: 102,
                seen: 1,
                began: 0,
            }
        )
    );
    assert!(store.state.v2.events.len() <= 500);

    store.apply(Op::Compaction(CompactionRequest {
        revision: 1000,
        physical: false,
    }));
    let refusal = store.state.v2_next(at(1000), &path, false).unwrap_err();
    assert_eq!(
        refusal.cause,
        "the requested history has been cleared [1001/1000]"
    );
    let (event, _) = store.state.v2_next(at(1001), &path, false).unwrap();
    let event = event.unwrap();
    assert_eq!(event.prev.unwrap().value, Some(text("v3")));
    assert_eq!(event.node.value, Some(text("v2")));
}

#[test]
fn a_compaction_forgets_notes_without_an_object() {
    let mut store = Store::default();
    for path in ["/gone", "/kept"] {
        store.set(path, "1");
        store
            .write(Verb::Update, path, |w| w.value = text("2"))
            .unwrap();
    }
    store.delete("/gone");
    assert_eq!(store.state.v2.nodes.len(), 2);
    store.apply(Op::Compaction(CompactionRequest {
        revision: store.state.revision(),
        physical: false,
    }));
    assert_eq!(store.state.v2.nodes.len(), 1);
    assert_eq!(store.get("/kept").unwrap().created_index, 4);
    assert_eq!(store.restarted().state.v2.nodes.len(), 1);
}

#[test]
fn a_watcher_waits_at_the_next_index() {
    let mut store = Store::default();
    store.set("/f", "1");
    let path = clean_path("/f");
    let next = V2Cursor {
        index: 3,
        seen: 0,
        began: 0,
    };
    assert_eq!(store.state.v2_next(next, &path, false), Ok((None, next)));
    // An index of the future is waited for.
    let future = V2Cursor {
        index: 9,
        seen: 0,
        began: 0,
    };
    assert_eq!(
        store.state.v2_next(future, &path, false),
        Ok((None, future))
    );
    store.set("/f", "2");
    assert_eq!(
        store.state.v2_next(future, &path, false),
        Ok((None, future))
    );
    assert_eq!(
        store
            .state
            .v2_next(next, &path, false)
            .unwrap()
            .0
            .unwrap()
            .index,
        3
    );
}
