//! History, the way back, and the audit that cannot be rewritten unseen.

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Kind, Stand},
};

on_both_stores!(
    every_version_can_be_restored,
    a_changed_audit_does_not_verify
);

async fn every_version_can_be_restored(kind: Kind) {
    let stand = Stand::start(kind).await;
    for topic in ["t1", "t2", "t3", "t4"] {
        let file = stand.file("g.yaml", &group("web", &hosts(1), "/a", topic));
        stand
            .configctl(&["apply", "-f", &file, "--reason", topic])
            .await
            .exits(0);
    }
    let config = async || stand.config("10.0.0.1").await;
    assert_eq!(config().await.unwrap(), format!("[{}]", entry("/a", "t4")));
    let history = stand
        .configctl(&["history", "Group/web"])
        .await
        .exits(0)
        .out;
    assert!(
        history.contains("anna") && history.contains("t3") && history.contains("~1 path"),
        "{history}"
    );
    assert!(
        stand
            .configctl(&["history", "10.0.0.1", "-o", "name"])
            .await
            .exits(0)
            .out
            .lines()
            .count()
            == 4
    );

    // Version N-3 of a group.
    stand
        .configctl(&["rollback", "Group/web", "--to", "1"])
        .await
        .exits(0);
    assert_eq!(config().await.unwrap(), format!("[{}]", entry("/a", "t1")));
    // Undo of the last publish, which was that restore.
    stand
        .configctl(&["rollback", "--reason", "slip"])
        .await
        .exits(0);
    assert_eq!(config().await.unwrap(), format!("[{}]", entry("/a", "t4")));
    // A release under which later ones lie is not undone by mistake.
    let refused = stand
        .configctl(&["rollback", "--release", "2"])
        .await
        .exits(4);
    assert!(
        refused.err.contains("was changed again after release 2"),
        "{}",
        refused.err
    );

    // A deleted host comes back.
    let host = "apiVersion: logconf/v1\nkind: Host\nmetadata: {name: h}\nspec: {logs: [{path: /h, topic: t}]}\n";
    stand
        .configctl_with(&["apply", "-f", "-"], host)
        .await
        .exits(0);
    stand.configctl(&["agents", "retire", "h"]).await.exits(0);
    assert_eq!(stand.config("h").await, None);
    let made = stand
        .configctl(&["history", "Host/h", "-o", "name"])
        .await
        .exits(0)
        .out;
    let first = made.lines().last().unwrap();
    stand
        .configctl(&["rollback", "Host/h", "--to", first])
        .await
        .exits(0);
    assert_eq!(
        stand.config("h").await.unwrap(),
        format!("[{}]", entry("/h", "t"))
    );
    stand
        .configctl(&["rollback", "Host/h", "--to", "1"])
        .await
        .exits(9);
    stand.configctl(&["show", "99"]).await.exits(9);
    let shown = stand
        .configctl(&["show", "Group/web", "--release", "2"])
        .await
        .exits(0)
        .out;
    assert!(shown.contains("topic: t2"), "{shown}");
    stand.stop().await;
}

async fn a_changed_audit_does_not_verify(kind: Kind) {
    let stand = Stand::start(kind).await;
    for topic in ["t1", "t2", "t3"] {
        let file = stand.file("g.yaml", &group("web", &hosts(1), "/a", topic));
        stand.configctl(&["apply", "-f", &file]).await.exits(0);
    }
    let copy = stand.configctl(&["audit", "-o", "json"]).await.exits(0).out;
    let file = stand.file("audit.json", &copy);
    stand.configctl(&["audit", "--file", &file]).await.exits(0);
    let forged = stand.file("forged.json", &copy.replacen("\"anna\"", "\"nobody\"", 1));
    let said = stand
        .configctl(&["audit", "--file", &forged])
        .await
        .exits(1);
    assert!(said.out.contains("record 1 was changed"), "{}", said.out);
    // The same in the store itself; the second record is the end of the first rollout.
    let key = stand.ns.audit_record(3);
    let record = stand
        .client
        .get(key.clone())
        .await
        .unwrap()
        .kv
        .unwrap()
        .value;
    stand
        .put(
            key,
            &String::from_utf8(record.to_vec())
                .unwrap()
                .replace("anna", "nobody"),
        )
        .await;
    let said = stand.configctl(&["audit", "--verify"]).await.exits(1);
    assert!(said.out.contains("record 3 was changed"), "{}", said.out);
    stand.stop().await;
}
