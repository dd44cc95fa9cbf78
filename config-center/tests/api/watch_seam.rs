//! The seam between history and live events: watchers created while others write must see every
//! revision exactly once and in order, and progress must never run ahead of events.

use std::sync::Arc;

use schemas::etcdserverpb::WatchCreateRequest;

use crate::fixture::{Fixture, put, watch_letter, within};

const WRITERS: usize = 8;
const WRITES_EACH: usize = 100;

async fn write_all(fixture: &Fixture) {
    let writers = (0..WRITERS).map(|writer| {
        let mut kv = fixture.kv();
        async move {
            for number in 0..WRITES_EACH {
                kv.put(put(&format!("k{writer}"), &number.to_string()))
                    .await
                    .unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_arrives_once_and_in_order() {
    let fixture = Arc::new(Fixture::start().await);
    let last = i64::try_from(WRITERS * WRITES_EACH).unwrap() + 1;
    let mut readers = Vec::new();
    for start in 0..20_i64 {
        let fixture = Arc::clone(&fixture);
        readers.push(tokio::spawn(async move {
            // Spread over the time of writing: each begins once so much has happened.
            let begin = start * last / 20;
            let reached = async {
                while fixture.server_revision() < begin {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            within("writers", reached).await;
            let mut watch = fixture.watch().await;
            // Half of them resume from a revision, half begin with what comes next.
            let start_revision = if start % 2 == 0 { 2 } else { 0 };
            let created = watch
                .created(WatchCreateRequest {
                    start_revision,
                    ..watch_letter('k')
                })
                .await;
            let mut expected = match start_revision {
                0 => created.header.unwrap().revision + 1,
                _ => start_revision,
            };
            let mut progress = 0;
            watch.ask_progress().await;
            while expected <= last {
                let response = watch.next().await;
                let revision = response.header.unwrap().revision;
                if response.watch_id == -1 {
                    assert!(revision < expected, "progress {revision} before {expected}");
                    assert!(revision >= progress);
                    progress = revision;
                    watch.ask_progress().await;
                    continue;
                }
                for event in &response.events {
                    assert_eq!(event.kv.as_ref().unwrap().mod_revision, expected);
                    expected += 1;
                }
                assert!(revision >= expected - 1);
            }
        }));
    }
    write_all(&fixture).await;
    for reader in readers {
        within("reader", reader).await.unwrap();
    }
    Arc::into_inner(fixture).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let fixture = Fixture::start().await;
    let mut silent = fixture.watch().await;
    silent.created(watch_letter('k')).await;
    let mut attentive = fixture.watch().await;
    attentive.created(watch_letter('k')).await;
    let value = "x".repeat(64 * 1024);
    let last: i64 = 201;
    let writing = async {
        for _ in 0..200 {
            fixture.put("k", &value).await;
        }
    };
    let reading = async {
        let mut seen = 1;
        while seen < last {
            for event in attentive.next().await.events {
                seen += 1;
                assert_eq!(event.kv.unwrap().mod_revision, seen);
            }
        }
    };
    within(
        "the attentive client",
        futures::future::join(writing, reading),
    )
    .await;
    // Nothing was lost for the silent one either, it only comes later.
    let mut seen = 1;
    while seen < last {
        for event in silent.next().await.events {
            seen += 1;
            assert_eq!(event.kv.unwrap().mod_revision, seen);
        }
    }
    fixture.stop().await;
}
