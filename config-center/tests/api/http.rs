//! Health, version and metrics over plain HTTP/1.1, on the same port as gRPC.

use crate::fixture::{Fixture, get};

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn health_and_version_are_as_etcd_words_them() {
    let fixture = Fixture::start().await;
    for (path, health) in [
        ("/health", r#"{"health":"true"}"#),
        (
            "/health?serializable=true",
            r#"{"health":"true","reason":""}"#,
        ),
    ] {
        let answer = fixture.raw(&get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/json\r\n"),
            "{answer}"
        );
        assert_eq!(body(&answer), health);
    }
    let version = fixture.raw(&get("/version")).await;
    assert_eq!(
        body(&version),
        r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#
    );
    for path in ["/health", "/version", "/metrics"] {
        let posted = fixture.raw(&get(path).replace("GET", "POST")).await;
        assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
        assert!(posted.contains("allow: GET\r\n"), "{posted}");
    }
    let nothing = fixture.raw(&get("/nothing")).await;
    assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
    assert_eq!(body(&nothing), "nothing is served at /nothing\n");
    fixture.stop().await;
}

#[tokio::test]
async fn probes_are_told_which_check_fails() {
    let fixture = Fixture::start().await;
    for (path, expected) in [
        ("/livez", "ok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/readyz", "ok\n"),
        (
            "/readyz?verbose",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
             [+]non_learner ok\nok\n",
        ),
        (
            "/readyz?verbose&exclude=linearizable_read&exclude=non_learner&exclude=nope",
            "[+]data_corruption ok\n[+]serializable_read ok\nok\n",
        ),
        (
            "/readyz/data_corruption?verbose",
            "[+]data_corruption ok\nok\n",
        ),
    ] {
        let answer = fixture.raw(&get(path)).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{path}: {answer}"
        );
        assert_eq!(body(&answer), expected, "{path}");
    }
    for (path, status) in [("/readyz/nope", 404), ("/livez/non_learner", 404)] {
        let answer = fixture.raw(&get(path)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let posted = fixture.raw(&get("/readyz").replace("GET", "POST")).await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    fixture.stop().await;
}

#[tokio::test]
async fn metrics_count_what_clients_did() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    fixture.put("a", "2").await;
    assert!(fixture.kv().put(crate::fixture::put("", "")).await.is_err());
    let page = fixture.raw(&get("/metrics")).await;
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    for line in [
        "etcd_server_has_leader 1".to_owned(),
        "etcd_server_is_leader 1".to_owned(),
        "etcd_server_proposals_pending 0".to_owned(),
        "etcd_server_proposals_failed_total 0".to_owned(),
        "etcd_debugging_mvcc_current_revision 3".to_owned(),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{labels}}} 1"),
        format!("grpc_server_started_total{{{labels}}} 3"),
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is missing in\n{page}"
        );
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total"] {
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")))
            .unwrap();
        assert!(value.parse::<f64>().unwrap() > 0.0, "{name} {value}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn grpc_by_http1_is_not_mistaken_for_grpc() {
    let fixture = Fixture::start().await;
    let request = "POST /etcdserverpb.KV/Range HTTP/1.1\r\nhost: x\r\n\
                   content-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = fixture.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    fixture.stop().await;
}
