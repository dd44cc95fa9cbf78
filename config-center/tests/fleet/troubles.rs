//! What goes wrong in a large fleet: statuses that are too large, clocks that are off, hosts that never
//! come back, a policy that is edited while it is in use, lines that do not flow.

use schemas::etcdserverpb::PutRequest;
use serde_json::{Value, json};

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Agents, Kind, Stand},
};

on_both_stores!(
    a_status_may_be_large_and_not_too_large,
    clocks_decide_nothing,
    a_policy_edited_meanwhile_is_for_the_next_rollout,
    hosts_that_never_come_halt_a_rollout,
    a_wave_waits_for_lines_to_flow,
    two_agents_under_one_name_halt_a_rollout,
);

fn with_policy(members: &[String], policy: &str) -> String {
    let group = group("web", members, "/a", "t").replace("logs:", "rollout: p, logs:");
    format!(
        "apiVersion: logconf/v1\nkind: RolloutPolicy\nmetadata: {{name: p}}\nspec: {policy}\n{group}"
    )
}

/// The status of a host that runs what its key holds, with some of its fields changed.
async fn report(stand: &Stand, host: &str, change: impl Fn(&mut Value)) -> bool {
    let kv = stand
        .client
        .get(stand.ns.config(host))
        .await
        .unwrap()
        .kv
        .unwrap();
    let sha256 = config_center_core::fleet::sha256_hex(&kv.value);
    let mut status = json!({
        "host": host,
        "running": { "revision": kv.mod_revision, "sha256": sha256, "since_ms": 1 },
        "entries": [{ "path": "/a", "topic": "t", "state": "running" }],
        "reported_at_ms": 1,
    });
    change(&mut status);
    let request = PutRequest {
        key: stand.ns.status(host).into(),
        value: status.to_string().into(),
        ..Default::default()
    };
    stand.client.put(request).await.is_ok()
}

async fn state(stand: &Stand, host: &str) -> String {
    let listed = stand
        .configctl(&["agents", "list", "-o", "json"])
        .await
        .exits(0)
        .out;
    let rows: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let row = rows.iter().find(|row| row["host"] == host).unwrap();
    row["state"].as_str().unwrap().to_owned()
}

async fn a_status_may_be_large_and_not_too_large(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("g.yaml", &group("web", &hosts(1), "/a", "t"));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let padded = async |bytes: usize| {
        report(&stand, "10.0.0.1", |status| {
            status["warnings"] = json!(["x".repeat(bytes)])
        })
        .await
    };
    stand
        .eventually("the key is written", async || {
            stand.config("10.0.0.1").await.is_some()
        })
        .await;
    assert!(!padded(5_000_000).await, "the store refuses 5 MB");
    assert_eq!(state(&stand, "10.0.0.1").await, "offline");
    assert!(padded(1_400_000).await);
    assert_eq!(state(&stand, "10.0.0.1").await, "applied");
    // What is no status at all is said to be none, and holds nobody else up.
    stand
        .put(stand.ns.status("10.0.0.1"), "{\"running\": 7}")
        .await;
    assert_eq!(state(&stand, "10.0.0.1").await, "unknown");
    stand.stop().await;
}

async fn clocks_decide_nothing(kind: Kind) {
    let stand = Stand::start(kind).await;
    let policy = "{waves: [{hosts: 1}, {percent: 100}]}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(2), policy));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(2)).hosts;
    for (host, clock_ms) in order.iter().zip([0_u64, 9_999_999_999_999]) {
        stand
            .eventually("its wave comes", async || {
                stand
                    .configctl(&["rollout", "watch", "--timeout", "100ms"])
                    .await;
                stand.config(host).await.is_some()
            })
            .await;
        assert!(
            report(&stand, host, |status| {
                status["reported_at_ms"] = json!(clock_ms);
                status["running"]["since_ms"] = json!(clock_ms);
            })
            .await
        );
    }
    stand
        .configctl(&["rollout", "watch", "--timeout", "30s"])
        .await
        .exits(0);
    let list = stand.configctl(&["agents", "list"]).await.exits(0).out;
    assert_eq!(list.matches("applied").count(), 2, "{list}");
    stand.stop().await;
}

async fn a_policy_edited_meanwhile_is_for_the_next_rollout(kind: Kind) {
    let stand = Stand::start(kind).await;
    let slow = "{waves: [{hosts: 1}, {percent: 50}, {percent: 100}]}";
    let file = stand.file("1.yaml", &with_policy(&hosts(6), slow));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let file = stand.file(
        "2.yaml",
        &with_policy(&hosts(6), "{waves: [{percent: 100}]}"),
    );
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let status = stand
        .configctl(&["rollout", "status", "0000000001-p"])
        .await
        .exits(0)
        .out;
    assert!(status.contains("wave 1 of 3"), "{status}");
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(6)).hosts;
    assert_eq!(
        stand.config(&order[5]).await,
        None,
        "the new policy is not the old rollout's"
    );
    let _agents = Agents::start(&stand, hosts(6)).await;
    stand
        .configctl(&["rollout", "watch", "0000000001-p", "--timeout", "30s"])
        .await
        .exits(0);
    for host in hosts(6) {
        assert_eq!(stand.writes(&host).await, 1, "{host}");
    }
    // The next one goes by it.
    let text = with_policy(&hosts(6), "{waves: [{percent: 100}]}").replace("topic: t", "topic: u");
    let file = stand.file("3.yaml", &text);
    let said = stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);
    assert!(said.out.contains("wave 1 of 1"), "{}", said.out);
    stand.stop().await;
}

async fn hosts_that_never_come_halt_a_rollout(kind: Kind) {
    let stand = Stand::start(kind).await;
    let policy = "{waves: [{hosts: 1}, {percent: 100}], progressDeadline: 1s}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(3), policy));
    let said = stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(1);
    assert!(
        said.out.contains("no host of wave 1 has applied it"),
        "{}",
        said.out
    );
    let failing = "{waves: [{hosts: 1}, {percent: 100}], offline: fail}";
    let text = with_policy(&hosts(3), failing).replace("topic: t", "topic: u");
    let file = stand.file("2.yaml", &text);
    let said = stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(1);
    assert!(said.out.contains("no agent reports"), "{}", said.out);
    stand.stop().await;
}

async fn a_wave_waits_for_lines_to_flow(kind: Kind) {
    let stand = Stand::start(kind).await;
    let policy = "{waves: [{hosts: 1}, {percent: 100}]}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(2), policy));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(2)).hosts;
    stand
        .eventually("wave 1", async || stand.config(&order[0]).await.is_some())
        .await;
    // It runs, lines were read, and Kafka has not taken any.
    let flow = async |acked: u64| {
        let change = |status: &mut Value| {
            status["entries"][0]["lines_acked"] = json!(acked);
            status["files"] = json!([{
                "path": "/a", "topic": "t", "read_offset": 500, "acked_offset": acked * 50,
                "size_bytes": 500,
            }]);
        };
        assert!(report(&stand, &order[0], change).await);
    };
    flow(0).await;
    stand
        .configctl(&["rollout", "watch", "--timeout", "1s"])
        .await
        .exits(7);
    assert_eq!(stand.config(&order[1]).await, None);
    flow(1).await;
    stand
        .eventually("wave 2", async || {
            stand
                .configctl(&["rollout", "watch", "--timeout", "100ms"])
                .await;
            stand.config(&order[1]).await == Some(format!("[{}]", entry("/a", "t")))
        })
        .await;
    stand.stop().await;
}

async fn two_agents_under_one_name_halt_a_rollout(kind: Kind) {
    let stand = Stand::start(kind).await;
    let policy = "{waves: [{hosts: 1}, {percent: 100}], bake: 1h}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(2), policy));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(2)).hosts;
    stand
        .eventually("wave 1", async || stand.config(&order[0]).await.is_some())
        .await;
    let watching = stand
        .command(&["rollout", "watch", "--timeout", "40s"])
        .spawn()
        .unwrap();
    // They take turns until somebody has noticed.
    stand
        .eventually("the rollout is paused", async || {
            for instance in ["one", "two"] {
                let name = |status: &mut Value| status["instance"] = json!(instance);
                assert!(report(&stand, &order[0], name).await);
            }
            let status = stand
                .configctl(&["rollout", "status", "0000000001-p"])
                .await
                .out;
            status.contains("paused") && status.contains("two agents report under this name")
        })
        .await;
    let watched = watching.wait_with_output().await.unwrap();
    assert_eq!(watched.status.code(), Some(1));
    stand.stop().await;
}
