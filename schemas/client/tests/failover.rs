//! Several endpoints, some of them dead, hung or unwilling: what is asked again and what is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::{sync::atomic::Ordering, time::Duration};

use fake::{Act, Fake, refused_address, silent_listener};
use schemas::{
    etcdserverpb::{PutRequest, ResponseHeader, WatchCreateRequest, WatchResponse},
    mvccpb::Event,
};
use schemas_client::{Client, ClientError, Code, ConnectOptions};

fn options<const N: usize>(endpoints: [&str; N]) -> ConnectOptions {
    ConnectOptions {
        dial_timeout: Duration::from_millis(800),
        request_timeout: Duration::from_secs(3),
        ..ConnectOptions::new(endpoints)
    }
}

fn client<const N: usize>(endpoints: [&str; N]) -> Client {
    Client::new(options(endpoints)).unwrap()
}

fn put() -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_read_moves_on_when_the_first_endpoint_refuses() {
    let dead = format!("http://{}", refused_address().await);
    let alive = Fake::start().await;
    let found = client([&dead, &alive.url]).get("k").await.unwrap();
    assert_eq!((found.revision, found.kv.unwrap().mod_revision), (7, 5));
}

#[tokio::test]
async fn a_read_moves_on_when_the_first_endpoint_hangs() {
    let (_listener, hung) = silent_listener().await;
    let alive = Fake::start().await;
    let client = client([&hung, &alive.url]);
    assert_eq!(client.get("k").await.unwrap().revision, 7);
    // The endpoint that answered is asked first from now on.
    let tight = Client::new(ConnectOptions {
        request_timeout: Duration::from_secs(3),
        ..options([&hung, &alive.url])
    })
    .unwrap();
    for _ in 0..5 {
        tight.get("k").await.unwrap();
    }
    assert_eq!(alive.ranges(), 6);
}

#[tokio::test]
async fn a_read_moves_on_when_the_server_accepts_it_and_never_answers() {
    let hung = Fake::start().await;
    hung.plan_ranges([Act::Hang]);
    let alive = Fake::start().await;
    assert_eq!(
        client([&hung.url, &alive.url])
            .get("k")
            .await
            .unwrap()
            .revision,
        7
    );
    assert_eq!((hung.ranges(), alive.ranges()), (1, 1));
}

#[tokio::test]
async fn a_write_moves_on_while_it_was_not_sent() {
    let dead = format!("http://{}", refused_address().await);
    let (_listener, hung) = silent_listener().await;
    let alive = Fake::start().await;
    client([&dead, &hung, &alive.url]).put(put()).await.unwrap();
    assert_eq!(alive.puts(), 1);
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_not_sent_again() {
    for act in [
        Act::Hang,
        Act::Die,
        Act::Refuse(Code::Unavailable, "etcdserver: request timed out"),
    ] {
        let first = Fake::start().await;
        first.plan_puts([act.clone()]);
        let second = Fake::start().await;
        let error = client([&first.url, &second.url])
            .put(put())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::OutcomeUnknown { .. }),
            "{act:?}: {error}"
        );
        assert!(error.to_string().contains(&first.url), "{error}");
        assert_eq!((first.puts(), second.puts()), (1, 0), "{act:?}");
    }
}

#[tokio::test]
async fn a_refused_write_is_the_answer() {
    let first = Fake::start().await;
    first.plan_puts([Act::Refuse(
        Code::ResourceExhausted,
        "etcdserver: too many requests",
    )]);
    let second = Fake::start().await;
    let error = client([&first.url, &second.url])
        .put(put())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
    assert_eq!(second.puts(), 0);
}

#[tokio::test]
async fn a_read_is_asked_again_while_the_store_has_no_leader() {
    let only = Fake::start().await;
    let refusal = Act::Refuse(Code::Unavailable, "etcdserver: no leader");
    only.plan_ranges([refusal.clone(), refusal]);
    client([&only.url]).get("k").await.unwrap();
    assert_eq!(only.ranges(), 3);
}

#[tokio::test]
async fn a_store_without_leader_is_named_when_time_is_up() {
    let only = Fake::start().await;
    only.plan_ranges(vec![
        Act::Refuse(Code::Unavailable, "etcdserver: no leader");
        1000
    ]);
    let short = ConnectOptions {
        request_timeout: Duration::from_millis(300),
        ..options([&only.url])
    };
    let error = Client::new(short).unwrap().get("k").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
    assert!(
        error.to_string().contains("etcdserver: no leader"),
        "{error}"
    );
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let first = Fake::start().await;
    let url = first.url.clone();
    let client = client([&url]);
    client.put(put()).await.unwrap();
    first.plan_ranges([Act::Die]);
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    let listener = tokio::net::TcpListener::bind(url.trim_start_matches("http://"))
        .await
        .unwrap();
    let second = Fake::start_on(listener).await;
    client.put(put()).await.unwrap();
    assert_eq!(second.puts(), 1);
}

#[tokio::test]
async fn nobody_there_names_every_endpoint() {
    let dead = [refused_address().await, refused_address().await].map(|a| format!("http://{a}"));
    let client = client([&dead[0], &dead[1]]);
    for error in [
        client.get("k").await.unwrap_err(),
        client.put(put()).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{text}");
        assert!(text.contains(&dead[0]) && text.contains(&dead[1]), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
}

#[tokio::test]
async fn silence_everywhere_ends_at_the_deadline() {
    let (_a, first) = silent_listener().await;
    let (_b, second) = silent_listener().await;
    let short = ConnectOptions {
        request_timeout: Duration::from_millis(400),
        ..options([&first, &second])
    };
    let client = Client::new(short).unwrap();
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    // The write was never sent either, which the error must not leave open.
    let error = client.put(put()).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_spent_token_is_renewed_once_and_other_refusals_are_not() {
    let store = Fake::start().await;
    let with_user = |password: &str| {
        Client::new(ConnectOptions {
            username: Some("root".into()),
            password: Some(password.into()),
            ..options([&store.url])
        })
        .unwrap()
    };
    let client = with_user("right");
    client.get("k").await.unwrap();
    client.get("k").await.unwrap();
    store.plan_ranges([Act::Refuse(
        Code::Unauthenticated,
        "etcdserver: invalid auth token",
    )]);
    client.get("k").await.unwrap();
    let tokens = store.script.tokens.lock().unwrap().clone();
    let seen: Vec<_> = tokens
        .iter()
        .map(|t| t.as_deref().unwrap_or("none"))
        .collect();
    assert_eq!(seen, ["token.1", "token.1", "token.1", "token.2"]);

    store.plan_ranges([Act::Refuse(
        Code::PermissionDenied,
        "etcdserver: permission denied",
    )]);
    let error = client.get("k").await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert_eq!(store.script.authentications.load(Ordering::SeqCst), 2);

    let error = with_user("wrong").get("k").await.unwrap_err();
    assert!(error.is_denied(), "{error}");
}

#[tokio::test]
async fn a_range_larger_than_the_usual_limit_arrives() {
    let store = Fake::start().await;
    let size = 9 * 1024 * 1024;
    store.script.value_bytes.store(size, Ordering::SeqCst);
    let found = client([&store.url]).get("k").await.unwrap();
    assert_eq!(found.kv.unwrap().value.len(), size);
}

fn response(revision: i64) -> WatchResponse {
    WatchResponse {
        header: Some(ResponseHeader {
            revision,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_watch_is_confirmed_then_delivers_then_tells_why_it_ended() {
    let dead = format!("http://{}", refused_address().await);
    let store = Fake::start().await;
    *store.script.watch.lock().unwrap() = vec![
        WatchResponse {
            created: true,
            ..response(7)
        },
        WatchResponse {
            events: vec![Event::default()],
            ..response(8)
        },
        WatchResponse {
            canceled: true,
            compact_revision: 6,
            ..response(0)
        },
    ];
    let client = client([&dead, &store.url]);
    let mut watch = client.watch(WatchCreateRequest::default()).await.unwrap();
    assert_eq!(
        (watch.created_revision(), watch.endpoint()),
        (7, store.url.as_str())
    );
    assert_eq!(watch.next().await.unwrap().events.len(), 1);
    let error = watch.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::WatchCanceled {
                compact_revision: 6,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_watch_refused_at_creation_is_an_error() {
    let store = Fake::start().await;
    *store.script.watch.lock().unwrap() = vec![WatchResponse {
        created: true,
        canceled: true,
        watch_id: -1,
        cancel_reason: "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
            .into(),
        ..response(7)
    }];
    let error = client([&store.url])
        .watch(WatchCreateRequest::default())
        .await
        .unwrap_err();
    assert!(error.is_denied(), "{error}");
}

#[tokio::test]
async fn a_watch_on_a_dying_server_ends_with_its_name() {
    let store = Fake::start().await;
    *store.script.watch.lock().unwrap() = vec![WatchResponse {
        created: true,
        ..response(7)
    }];
    let client = client([&store.url]);
    let mut watch = client.watch(WatchCreateRequest::default()).await.unwrap();
    store.plan_ranges([Act::Die]);
    client.get("k").await.unwrap_err();
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains(&store.url), "{error}");
}

#[tokio::test]
async fn bad_options_are_refused_with_words() {
    let error = Client::new(ConnectOptions::new(Vec::<String>::new())).unwrap_err();
    assert!(matches!(error, ClientError::NoEndpoints), "{error}");
    let error = Client::new(ConnectOptions {
        ca: Some("/nowhere/ca.pem".into()),
        ..ConnectOptions::new(["127.0.0.1:2379"])
    })
    .unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
