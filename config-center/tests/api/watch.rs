//! Watch over the network: the order of responses, ids, cancellation, compaction, progress.

use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::watch_create_request::FilterType;
use schemas::etcdserverpb::{CompactionRequest, RequestOp, TxnRequest, WatchCreateRequest};

use crate::fixture::{Fixture, bytes, put, told, watch_key, watch_letter, within};

#[tokio::test]
async fn created_comes_first_then_history_then_live() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    fixture.put("b", "1").await;
    fixture.put("a", "2").await;
    let mut watch = fixture.watch().await;
    let created = watch
        .created(WatchCreateRequest {
            start_revision: 2,
            ..watch_key("a")
        })
        .await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 4));
    assert!(!created.canceled);
    let history = watch.next().await;
    assert_eq!(told(&history), ["2 a=1", "4 a=2"]);
    assert_eq!(history.header.unwrap().revision, 4);
    fixture.put("b", "2").await;
    fixture.delete("a").await;
    let live = watch.next().await;
    assert_eq!(told(&live), ["6 a -"]);
    assert!(live.header.unwrap().revision >= 6);
    let tombstone = live.events[0].kv.as_ref().unwrap();
    assert_eq!((tombstone.version, tombstone.create_revision), (0, 0));
    fixture.stop().await;
}

#[tokio::test]
async fn ids_count_from_zero_and_skip_what_clients_chose() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    assert_eq!(watch.created(watch_key("a")).await.watch_id, 0);
    assert_eq!(watch.created(watch_key("a")).await.watch_id, 1);
    let chosen = WatchCreateRequest {
        watch_id: 2,
        ..watch_key("a")
    };
    assert_eq!(watch.created(chosen.clone()).await.watch_id, 2);
    assert_eq!(watch.created(watch_key("a")).await.watch_id, 3);
    let again = watch.created(chosen).await;
    assert!(again.canceled);
    assert_eq!(again.watch_id, -1);
    assert_eq!(
        again.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    // The refusal did not harm the watcher that has the id.
    fixture.put("a", "1").await;
    let mut heard: Vec<i64> = Vec::new();
    for _ in 0..4 {
        heard.push(watch.next().await.watch_id);
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3]);
    fixture.stop().await;
}

#[tokio::test]
async fn impossible_watchers_are_created_and_canceled_at_once() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    for (request, reason) in [
        (
            WatchCreateRequest {
                range_end: bytes("a"),
                ..watch_key("b")
            },
            "mvcc: watcher range is empty",
        ),
        (
            WatchCreateRequest {
                range_end: bytes("b"),
                ..watch_key("b")
            },
            "mvcc: watcher range is empty",
        ),
        (
            WatchCreateRequest {
                start_revision: -1,
                ..watch_key("a")
            },
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        let refused = watch.created(request).await;
        assert!(refused.canceled);
        assert_eq!(
            (refused.watch_id, refused.cancel_reason.as_str()),
            (-1, reason)
        );
        assert_eq!(refused.header.unwrap().revision, 1);
    }
    // No id was spent.
    assert_eq!(watch.created(watch_key("a")).await.watch_id, 0);
    fixture.stop().await;
}

#[tokio::test]
async fn an_empty_key_watches_from_the_smallest() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch
        .created(WatchCreateRequest {
            range_end: bytes("\0"),
            ..watch_key("")
        })
        .await;
    fixture.put("anything", "1").await;
    assert_eq!(told(&watch.next().await), ["2 anything=1"]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_future_revision_is_silence_until_it_comes() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch
        .created(WatchCreateRequest {
            start_revision: 4,
            ..watch_key("a")
        })
        .await;
    fixture.put("a", "2").await;
    fixture.put("a", "3").await;
    // Nothing may be said before this watcher's answer.
    assert_eq!(watch.created(watch_key("z")).await.watch_id, 1);
    fixture.put("a", "4").await;
    assert_eq!(told(&watch.next().await), ["4 a=4"]);
    fixture.stop().await;
}

#[tokio::test]
async fn below_the_compaction_it_is_created_then_canceled() {
    let fixture = Fixture::start().await;
    for value in ["1", "2", "3", "4"] {
        fixture.put("a", value).await;
    }
    let compaction = CompactionRequest {
        revision: 4,
        physical: false,
    };
    fixture.kv().compact(compaction).await.unwrap();
    let mut watch = fixture.watch().await;
    let created = watch
        .created(WatchCreateRequest {
            start_revision: 2,
            ..watch_key("a")
        })
        .await;
    assert!(!created.canceled);
    let canceled = watch.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!(
        (canceled.watch_id, canceled.compact_revision),
        (created.watch_id, 4)
    );
    assert_eq!(canceled.header.unwrap().revision, 0);
    assert_eq!(canceled.cancel_reason, "");
    // At the compacted revision itself it is legal.
    watch
        .created(WatchCreateRequest {
            start_revision: 4,
            ..watch_key("a")
        })
        .await;
    assert_eq!(told(&watch.next().await), ["4 a=3", "5 a=4"]);
    fixture.stop().await;
}

#[tokio::test]
async fn an_idle_watcher_survives_compactions_above_its_last_event() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("quiet")).await;
    for _ in 0..5 {
        fixture.put("busy", "x").await;
    }
    let compaction = CompactionRequest {
        revision: 6,
        physical: false,
    };
    fixture.kv().compact(compaction).await.unwrap();
    fixture.put("quiet", "1").await;
    assert_eq!(told(&watch.next().await), ["7 quiet=1"]);
    fixture.stop().await;
}

#[tokio::test]
async fn all_events_of_one_revision_come_together() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_letter('k')).await;
    let puts = (0..100).map(|number| RequestOp {
        request: Some(Request::RequestPut(put(&format!("k{number:03}"), "v"))),
    });
    let txn = TxnRequest {
        success: puts.collect(),
        ..TxnRequest::default()
    };
    fixture.kv().txn(txn).await.unwrap();
    let response = watch.next().await;
    assert_eq!(response.events.len(), 100);
    assert!(
        response
            .events
            .iter()
            .all(|event| event.kv.as_ref().unwrap().mod_revision == 2)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn catching_up_comes_in_bounded_portions() {
    let fixture = Fixture::start().await;
    // 2100 revisions in the history, written as fast as the server takes them.
    let writes = (0..2100).map(|number| {
        let mut kv = fixture.kv();
        async move { kv.put(put("k", &number.to_string())).await }
    });
    for done in futures::future::join_all(writes).await {
        done.unwrap();
    }
    let mut watch = fixture.watch().await;
    watch
        .created(WatchCreateRequest {
            start_revision: 2,
            ..watch_key("k")
        })
        .await;
    let mut next_revision = 2;
    while next_revision <= 2101 {
        let response = watch.next().await;
        assert!(response.events.len() <= 1000, "{}", response.events.len());
        assert_eq!(response.header.unwrap().revision, 2101);
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, next_revision);
            next_revision += 1;
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn prev_kv_is_the_value_before_and_absent_for_creates() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch
        .created(WatchCreateRequest {
            prev_kv: true,
            ..watch_key("a")
        })
        .await;
    fixture.put("a", "1").await;
    fixture.put("a", "2").await;
    fixture.delete("a").await;
    let mut previous = Vec::new();
    while previous.len() < 3 {
        for event in watch.next().await.events {
            previous.push(event.prev_kv.map(|kv| kv.value));
        }
    }
    assert_eq!(previous, [None, Some(bytes("1")), Some(bytes("2"))]);
    fixture.stop().await;
}

#[tokio::test]
async fn filters_work_on_the_server() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    let no_puts = WatchCreateRequest {
        filters: vec![FilterType::Noput as i32],
        ..watch_key("a")
    };
    let no_deletes = WatchCreateRequest {
        filters: vec![FilterType::Nodelete as i32],
        ..watch_key("a")
    };
    assert_eq!(watch.created(no_puts).await.watch_id, 0);
    assert_eq!(watch.created(no_deletes).await.watch_id, 1);
    fixture.put("a", "1").await;
    let first = watch.next().await;
    assert_eq!(
        (first.watch_id, told(&first)),
        (1, vec!["2 a=1".to_owned()])
    );
    fixture.delete("a").await;
    let second = watch.next().await;
    assert_eq!(
        (second.watch_id, told(&second)),
        (0, vec!["3 a -".to_owned()])
    );
    fixture.stop().await;
}

#[tokio::test]
async fn cancel_answers_for_known_ids_only() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("a")).await;
    watch.cancel(77).await;
    watch.cancel(0).await;
    let canceled = watch.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.watch_id, canceled.compact_revision), (0, 0));
    fixture.put("a", "1").await;
    // The canceled watcher says nothing more; its id is free for a client to choose.
    let again = WatchCreateRequest {
        watch_id: 5,
        start_revision: 2,
        ..watch_key("a")
    };
    assert_eq!(watch.created(again).await.watch_id, 5);
    assert_eq!(watch.next().await.watch_id, 5);
    fixture.stop().await;
}

#[tokio::test]
async fn progress_on_request_speaks_for_the_whole_stream() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let mut watch = fixture.watch().await;
    // Without a watcher there is nothing to say.
    watch.ask_progress().await;
    watch
        .created(WatchCreateRequest {
            start_revision: 2,
            ..watch_key("a")
        })
        .await;
    watch.create(watch_key("b")).await;
    let mut responses = Vec::new();
    watch.ask_progress().await;
    loop {
        let response = watch.next().await;
        let done = response.watch_id == -1;
        responses.push(response);
        if done {
            break;
        }
    }
    let progress = responses.pop().unwrap();
    // The history of the first watcher and the answer to the second came before.
    assert_eq!(
        responses
            .iter()
            .map(|response| response.events.len())
            .sum::<usize>(),
        1
    );
    assert_eq!(
        responses.iter().filter(|response| response.created).count(),
        1
    );
    assert_eq!(progress.header.unwrap().revision, 2);
    assert!(progress.events.is_empty() && !progress.created && !progress.canceled);
    // A watcher that waits for the future keeps the stream silent about progress.
    watch
        .created(WatchCreateRequest {
            start_revision: 100,
            ..watch_key("c")
        })
        .await;
    watch.ask_progress().await;
    assert_eq!(watch.created(watch_key("d")).await.watch_id, 3);
    fixture.stop().await;
}

#[tokio::test]
async fn periodic_progress_comes_to_those_who_asked() {
    let fixture = Fixture::start_with(&["--watch-progress-notify-interval=100ms"]).await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("a")).await;
    watch
        .created(WatchCreateRequest {
            progress_notify: true,
            ..watch_key("b")
        })
        .await;
    let first = watch.next().await;
    assert_eq!(
        (
            first.watch_id,
            first.events.len(),
            first.header.unwrap().revision
        ),
        (1, 0, 1)
    );
    fixture.put("c", "1").await;
    loop {
        let response = watch.next().await;
        assert_eq!((response.watch_id, response.events.len()), (1, 0));
        if response.header.unwrap().revision == 2 {
            break;
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn fragments_are_marked_and_complete() {
    // Messages above 1 KiB + 512 KiB are fragmented.
    let fixture = Fixture::start_with(&["--max-request-bytes=1500000"]).await;
    let value = "x".repeat(100_000);
    let puts = (0..14).map(|number| RequestOp {
        request: Some(Request::RequestPut(put(&format!("k{number:02}"), &value))),
    });
    let txn = TxnRequest {
        success: puts.collect(),
        ..TxnRequest::default()
    };
    fixture.kv().txn(txn.clone()).await.unwrap();
    fixture.kv().txn(txn).await.unwrap();
    let mut watch = fixture.watch().await;
    // With the previous values the second revision weighs 2.8 MB.
    let request = WatchCreateRequest {
        start_revision: 3,
        fragment: true,
        prev_kv: true,
        ..watch_letter('k')
    };
    watch.created(request).await;
    let first = watch.next().await;
    assert!(first.fragment);
    let second = watch.next().await;
    assert!(!second.fragment);
    assert_eq!(first.events.len() + second.events.len(), 14);
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_closed_its_side_still_hears() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("a")).await;
    let mut responses = watch.close_sending();
    fixture.put("a", "1").await;
    let response = within("event", responses.message()).await.unwrap().unwrap();
    assert_eq!(told(&response), ["2 a=1"]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_went_away_leaves_nothing_behind() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("a")).await;
    watch.created(watch_letter('b')).await;
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 2")
        .await;
    drop(watch);
    fixture
        .metric_becomes("etcd_debugging_mvcc_watcher_total 0")
        .await;
    fixture
        .metric_becomes("etcd_debugging_mvcc_watch_stream_total 0")
        .await;
    fixture.stop().await;
}

#[tokio::test]
async fn stopping_the_server_ends_streams_so_that_clients_reconnect() {
    let fixture = Fixture::start().await;
    let mut watch = fixture.watch().await;
    watch.created(watch_key("a")).await;
    let stopping = tokio::spawn(fixture.stop());
    let ended = within("end of stream", watch.responses.message())
        .await
        .unwrap_err();
    assert_eq!(ended.code(), tonic::Code::Unavailable);
    assert_eq!(ended.message(), "etcdserver: server stopped");
    stopping.await.unwrap();
}
