//! Keys edited by hand: seen, adopted, restored.

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Agents, Kind, Stand},
};

on_both_stores!(an_edit_by_hand_is_drift, hosts_are_retired);

async fn an_edit_by_hand_is_drift(kind: Kind) {
    let stand = Stand::start(kind).await;
    let _agents = Agents::start(&stand, hosts(2)).await;
    let file = stand.file("g.yaml", &group("web", &hosts(2), "/a", "t"));
    stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);
    let published = format!("[{}]", entry("/a", "t"));
    let edited = format!("[{},{}]", entry("/a", "canary"), entry("/hand", "t"));
    stand.put(stand.ns.config("10.0.0.1"), &edited).await;
    let list = stand.configctl(&["agents", "list"]).await.exits(0);
    assert!(
        list.out
            .lines()
            .any(|line| line.contains("10.0.0.1") && line.contains("drifted")),
        "{}",
        list.out
    );
    assert!(
        list.err.contains("edited outside at revision") && list.err.contains("+ /hand → t"),
        "{}",
        list.err
    );

    stand
        .configctl(&["agents", "restore", "10.0.0.1", "--reason", "no"])
        .await
        .exits(0);
    assert_eq!(stand.config("10.0.0.1").await.unwrap(), published);
    stand
        .configctl(&["agents", "restore", "10.0.0.1"])
        .await
        .exits(1);
    stand
        .configctl(&["agents", "restore", "10.0.0.9"])
        .await
        .exits(9);

    stand.put(stand.ns.config("10.0.0.1"), &edited).await;
    let revision = stand.writes("10.0.0.1").await;
    let said = stand
        .configctl(&["agents", "adopt", "10.0.0.1"])
        .await
        .exits(0);
    assert!(said.out.contains("~ /a: topic t → canary"), "{}", said.out);
    assert_eq!(stand.config("10.0.0.1").await.unwrap(), edited);
    assert_eq!(
        stand.writes("10.0.0.1").await,
        revision,
        "adopting leaves the key as it is"
    );
    let list = stand.configctl(&["agents", "list"]).await.exits(0);
    assert!(!list.out.contains("drifted"), "{}", list.out);
    // From now on it is the host's own: the group's next change goes past it.
    let file = stand.file("g2.yaml", &group("web", &hosts(2), "/a", "u"));
    stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);
    assert_eq!(stand.config("10.0.0.1").await.unwrap(), edited);
    assert_eq!(
        stand.config("10.0.0.2").await.unwrap(),
        format!("[{}]", entry("/a", "u"))
    );
    stand.stop().await;
}

async fn hosts_are_retired(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("g.yaml", &group("web", &hosts(2), "/a", "t"));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    stand
        .configctl(&["agents", "retire", "10.0.0.1"])
        .await
        .exits(0);
    assert_eq!(stand.config("10.0.0.1").await, None);
    assert!(stand.config("10.0.0.2").await.is_some());
    let shown = stand.configctl(&["show", "Group/web"]).await.exits(0).out;
    assert!(!shown.contains("10.0.0.1"), "{shown}");
    stand
        .configctl(&["agents", "retire", "10.0.0.1"])
        .await
        .exits(9);
    stand.stop().await;
}
