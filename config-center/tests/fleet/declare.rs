//! validate, diff, apply, effective, export: files become what hosts collect.

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Kind, Stand},
};

const CONTRACT: &str = include_str!("../../core/tests/fleet-corpus/accept/contract.yaml");

on_both_stores!(
    the_contracts_example_is_applied,
    adding_error_log_keeps_access_log,
    mass_removal_is_asked_for,
    publishers_who_meet_lose_nothing,
    old_keys_are_imported,
    more_objects_than_a_transaction_holds,
    larger_documents_than_a_transaction_holds,
);

async fn the_contracts_example_is_applied(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("fleet.yaml", CONTRACT);
    assert!(
        stand
            .configctl(&["validate", "-f", &file])
            .await
            .exits(0)
            .out
            .starts_with("valid: 4 objects for 2 hosts")
    );
    let diff = stand.configctl(&["diff", "-f", &file]).await.exits(1);
    assert!(diff.out.contains("2 hosts · +3 paths"), "{}", diff.out);
    stand
        .configctl(&["apply", "-f", &file, "--dry-run"])
        .await
        .exits(0);
    assert_eq!(
        stand.config("192.168.56.20").await,
        None,
        "a dry run writes nothing"
    );

    stand
        .configctl(&["apply", "-f", &file, "--reason", "first"])
        .await
        .exits(0);
    stand.configctl(&["diff", "-f", &file]).await.exits(0);
    // The policy begins with one host; the order is fixed by a hash of the name.
    let written = [
        stand.config("192.168.56.1").await,
        stand.config("192.168.56.20").await,
    ];
    assert_eq!(written.iter().flatten().count(), 1, "{written:?}");

    // What is exported is what is there: applying it changes no revision.
    let exported = stand.configctl(&["export"]).await.exits(0).out;
    let revision = stand.revision().await;
    let again = stand
        .configctl_with(&["apply", "-f", "-"], &exported)
        .await
        .exits(0);
    assert!(again.out.contains("nothing written"), "{}", again.out);
    assert_eq!(stand.revision().await, revision);

    let why = stand
        .configctl(&["effective", "192.168.56.1", "--explain"])
        .await
        .exits(0)
        .out;
    assert!(
        why.contains("Host/192.168.56.1") && why.contains("not collected: excluded by"),
        "{why}"
    );
    let offline = stand
        .configctl(&["effective", "192.168.56.1", "-f", &file, "--explain"])
        .await
        .exits(0)
        .out;
    assert!(offline.contains("fleet.yaml:18:11"), "{offline}");
    stand.configctl(&["effective", "nobody"]).await.exits(9);
    let bad = stand.file(
        "bad.yaml",
        &CONTRACT.replace("topic: nginx_log_err", "tpoic: x"),
    );
    let refused = stand.configctl(&["validate", "-f", &bad]).await.exits(3);
    assert!(
        refused.err.contains("bad.yaml:7:42: LogSet/nginx: ")
            && refused.err.contains("did you mean \"topic\"?"),
        "{}",
        refused.err
    );
    stand.configctl(&["apply", "-f", &bad]).await.exits(3);
    stand
        .configctl(&["apply", "-f", "/nowhere.yaml"])
        .await
        .exits(6);
    stand.stop().await;
}

async fn adding_error_log_keeps_access_log(kind: Kind) {
    let stand = Stand::start(kind).await;
    // Written by hand before there was a fleet.
    let by_hand = format!("[{}]", entry("/l/access.log", "nginx_log"));
    stand.put(stand.ns.config("10.0.0.1"), &by_hand).await;
    let file = stand.file(
        "g.yaml",
        &group("web", &hosts(1), "/l/error.log", "nginx_err"),
    );
    stand
        .configctl(&["apply", "-f", &file, "--wait", "--timeout", "1s"])
        .await;
    assert_eq!(
        stand.config("10.0.0.1").await.unwrap(),
        format!(
            "[{},{}]",
            entry("/l/access.log", "nginx_log"),
            entry("/l/error.log", "nginx_err")
        )
    );
    // A path that the hand sends elsewhere is nobody's to decide but the operator's.
    let clash = stand.file(
        "clash.yaml",
        &group("web", &hosts(1), "/l/access.log", "other"),
    );
    let said = stand
        .configctl(&["apply", "-f", &clash, "--wait", "--timeout", "10s"])
        .await
        .exits(1);
    assert!(
        said.out.contains("/l/access.log edited by hand"),
        "{} {}",
        said.out,
        said.err
    );
    assert!(
        stand
            .config("10.0.0.1")
            .await
            .unwrap()
            .contains("nginx_log")
    );
    stand.stop().await;
}

async fn mass_removal_is_asked_for(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("g.yaml", &group("web", &hosts(8), "/a", "t"));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let empty = "apiVersion: logconf/v1\nkind: Group\nmetadata: {name: other}\nspec: {}\n";
    let refused = stand
        .configctl_with(&["apply", "-f", "-", "--prune"], empty)
        .await
        .exits(1);
    assert!(
        refused.err.contains("8 of 8 hosts would collect nothing"),
        "{}",
        refused.err
    );
    assert!(stand.config("10.0.0.3").await.is_some());
    stand
        .configctl_with(&["apply", "-f", "-", "--prune", "--allow-emptying"], empty)
        .await
        .exits(0);
    for host in hosts(8) {
        assert_eq!(stand.config(&host).await, None, "{host}");
    }
    stand.stop().await;
}

async fn publishers_who_meet_lose_nothing(kind: Kind) {
    let stand = Stand::start(kind).await;
    let files: Vec<String> = (0..6)
        .map(|index| {
            let text = group(&format!("g{index}"), &hosts(2), &format!("/{index}"), "t");
            stand.file(&format!("{index}.yaml"), &text)
        })
        .collect();
    let applies = files
        .iter()
        .map(|file| async { stand.configctl(&["apply", "-f", file]).await.exits(0) });
    futures::future::join_all(applies).await;
    let expected: Vec<String> = (0..6)
        .map(|index| entry(&format!("/{index}"), "t"))
        .collect();
    for host in hosts(2) {
        let wanted = Some(format!("[{}]", expected.join(",")));
        stand
            .eventually("all entries are there", async || {
                stand
                    .configctl(&["rollout", "watch", "--timeout", "1s"])
                    .await;
                stand.config(&host).await == wanted
            })
            .await;
    }
    let history = stand
        .configctl(&["history", "-o", "name"])
        .await
        .exits(0)
        .out;
    assert_eq!(
        history.lines().collect::<Vec<_>>(),
        ["6", "5", "4", "3", "2", "1"]
    );
    stand.configctl(&["audit", "--verify"]).await.exits(0);
    stand.stop().await;
}

async fn old_keys_are_imported(kind: Kind) {
    let stand = Stand::start(kind).await;
    stand
        .put(
            "/oldboy/config/192.168.0.1".into(),
            r#"[{"logpath":"/b,/a","topic":"t","service":"web"}]"#,
        )
        .await;
    stand
        .put(
            "/logagent/192.168.0.2/log_config".into(),
            r#"[{"path":"/c","topic":"t"}]"#,
        )
        .await;
    let printed = stand
        .configctl(&["import", "etcd", "--prefix", "/oldboy/config/"])
        .await
        .exits(0)
        .out;
    let valid = stand
        .configctl_with(&["validate", "-f", "-"], &printed)
        .await
        .exits(0);
    assert!(valid.out.contains("1 objects for 1 hosts"), "{}", valid.out);
    let apply = [
        "import",
        "etcd",
        "--prefix",
        "/oldboy/config/",
        "--apply",
        "--from",
        &stand.endpoint,
    ];
    stand.configctl(&apply).await.exits(0);
    assert_eq!(
        stand.config("192.168.0.1").await.unwrap(),
        r#"[{"path":"/a","topic":"t","headers":{"service":"web"}},{"path":"/b","topic":"t","headers":{"service":"web"}}]"#
    );
    let apply = [
        "import",
        "etcd",
        "--prefix",
        "/logagent/",
        "--suffix",
        "/log_config",
        "--apply",
    ];
    stand.configctl(&apply).await.exits(0);
    assert!(stand.config("192.168.0.2").await.is_some());
    stand
        .put("/oldboy/config/192.168.0.3".into(), "sample_value")
        .await;
    let refused = stand
        .configctl(&["import", "etcd", "--prefix", "/oldboy/config/", "--apply"])
        .await
        .exits(3);
    assert!(refused.err.contains("not JSON"), "{}", refused.err);
    stand
        .configctl(&["import", "etcd", "--prefix", "/nothing/"])
        .await
        .exits(9);
    stand.stop().await;
}

async fn more_objects_than_a_transaction_holds(kind: Kind) {
    let stand = Stand::start(kind).await;
    let names: Vec<String> = (0..250).map(|index| format!("h{index:03}")).collect();
    let host = |name: &String| {
        format!(
            "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{exclude: [/b]}}\n"
        )
    };
    let set = "---\napiVersion: logconf/v1\nkind: LogSet\nmetadata: {name: s}\nspec: {logs: [{path: /b, topic: t}]}\n";
    let mut text = group("all", &names, "/a", "t").replace("logs:", "use: [s], logs:") + set;
    text.extend(names.iter().map(host));
    let file = stand.file("many.yaml", &text);
    stand
        .configctl(&["apply", "-f", &file, "--wait", "--timeout", "30s"])
        .await
        .exits(0);
    for name in &names {
        assert_eq!(
            stand.config(name).await.unwrap(),
            format!("[{}]", entry("/a", "t")),
            "{name}"
        );
    }
    let releases = stand
        .configctl(&["history", "-o", "name"])
        .await
        .exits(0)
        .out;
    assert_eq!(releases.lines().count(), 3);
    // At no moment did a host collect what it excludes, which would have been one write more.
    assert!(stand.writes("h000").await <= 2);
    stand.configctl(&["diff", "-f", &file]).await.exits(0);
    let empty = "apiVersion: logconf/v1\nkind: Group\nmetadata: {name: other}\nspec: {}\n";
    let prune = ["apply", "-f", "-", "--prune", "--allow-emptying"];
    stand.configctl_with(&prune, empty).await.exits(0);
    for name in [&names[0], &names[249]] {
        assert_eq!(stand.config(name).await, None, "{name}");
    }
    stand.stop().await;
}

async fn larger_documents_than_a_transaction_holds(kind: Kind) {
    let stand = Stand::start(kind).await;
    let names: Vec<String> = (0..60).map(|index| format!("h{index:02}")).collect();
    let long = "x".repeat(180);
    let mut text = String::new();
    for name in &names {
        let logs: Vec<String> = (0..60)
            .map(|index| format!("{{path: /{name}/{long}/{index:02}.log, topic: t}}"))
            .collect();
        text.push_str(&format!(
            "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{logs: [{}]}}\n",
            logs.join(", ")
        ));
    }
    let file = stand.file("large.yaml", &text);
    stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);
    // One object, and a plan of sixty different documents: it does not fit beside it.
    let common = stand.file("common.yaml", &group("all", &names, "/common.log", "t"));
    stand
        .configctl(&["apply", "-f", &common, "--wait"])
        .await
        .exits(0);
    for name in &names {
        let document: Vec<serde_json::Value> =
            serde_json::from_str(&stand.config(name).await.unwrap()).unwrap();
        assert_eq!(document.len(), 61, "{name}");
    }
    stand.configctl(&["audit", "--verify"]).await.exits(0);
    stand.stop().await;
}
