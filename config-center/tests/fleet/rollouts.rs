//! Rollouts: waves gated on what agents report, stopped and helped by operators, carried on by
//! whoever comes next.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Agents, Kind, Stand},
};

on_both_stores!(
    a_rollout_pauses_at_a_failure_and_a_retry_completes_it,
    drivers_may_come_and_die,
    a_large_wave_takes_several_transactions,
    a_policy_may_put_a_release_back,
    operators_stop_and_end_rollouts,
    a_service_carries_rollouts_out_and_another_goes_on,
    a_killed_leader_stops_no_rollout,
);

fn with_policy(members: &[String], policy: &str) -> String {
    let group =
        group("web", members, "/var/log/app.log", "app").replace("logs:", "rollout: p, logs:");
    format!(
        "apiVersion: logconf/v1\nkind: RolloutPolicy\nmetadata: {{name: p}}\nspec: {policy}\n{group}"
    )
}

const SAFE: &str = "{waves: [{hosts: 1}, {percent: 10}, {percent: 50}, {percent: 100}]}";

/// The first hosts in the order of every rollout.
async fn order(stand: &Stand, count: usize) -> Vec<String> {
    let plan = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(count));
    assert_eq!(stand.config(&plan.hosts[0]).await, None);
    plan.hosts
}

async fn a_rollout_pauses_at_a_failure_and_a_retry_completes_it(kind: Kind) {
    let stand = Stand::start(kind).await;
    let agents = Agents::start(&stand, hosts(20)).await;
    let order = order(&stand, 20).await;
    agents.trouble(&order[1], "permission denied");
    let file = stand.file("fleet.yaml", &with_policy(&hosts(20), SAFE));
    let said = stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(1);
    let reason = format!("{}: /var/log/app.log: permission denied", order[1]);
    assert!(said.out.contains(&reason), "{}", said.out);
    let status = stand
        .configctl(&["rollout", "status", "0000000001-p"])
        .await
        .exits(1);
    assert!(
        status.out.contains("paused, wave 2 of 4") && status.out.contains(&reason),
        "{}",
        status.out
    );
    // The waves behind it were not touched.
    for host in &order[2..] {
        assert_eq!(stand.config(host).await, None, "{host}");
    }
    agents.mend(&order[1]).await;
    stand
        .configctl(&["rollout", "retry", "0000000001-p", "--reason", "chmod"])
        .await
        .exits(0);
    stand
        .configctl(&["rollout", "watch", "0000000001-p"])
        .await
        .exits(0);
    let status = stand
        .configctl(&["rollout", "status", "0000000001-p"])
        .await
        .exits(0);
    assert!(
        status.out.contains("completed") && status.out.contains("applied on 20/20 hosts"),
        "{}",
        status.out
    );
    for host in hosts(20) {
        assert_eq!(
            stand.config(&host).await.unwrap(),
            format!("[{}]", entry("/var/log/app.log", "app"))
        );
        assert_eq!(
            stand.writes(&host).await,
            1,
            "{host} was written more than once"
        );
    }
    let audit = stand.configctl(&["audit", "-o", "json"]).await.exits(0).out;
    for action in [
        "publish",
        "rollout.paused",
        "rollout.retry",
        "rollout.completed",
    ] {
        assert!(
            audit.contains(&format!("\"{action}\"")),
            "{action} is not in {audit}"
        );
    }
    stand.stop().await;
}

async fn drivers_may_come_and_die(kind: Kind) {
    let stand = Stand::start(kind).await;
    let _agents = Agents::start(&stand, hosts(40)).await;
    let file = stand.file("fleet.yaml", &with_policy(&hosts(40), SAFE));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    // Three drive at once, and one after the other is killed wherever it is.
    let mut drivers: Vec<_> = (0..3)
        .map(|_| {
            stand
                .command(&["rollout", "watch", "0000000001-p"])
                .spawn()
                .unwrap()
        })
        .collect();
    for driver in drivers.drain(..2) {
        let mut driver = driver;
        let early = tokio::time::timeout(Duration::from_millis(30), driver.wait()).await;
        // Through before its time: the others find nothing to do, which is as good.
        drop(early);
        // It may be through already: then there is nothing to kill.
        driver.kill().await.unwrap_or_default();
    }
    let last = drivers.remove(0).wait_with_output().await.unwrap();
    assert_eq!(
        last.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&last.stderr)
    );
    for host in hosts(40) {
        assert_eq!(
            stand.writes(&host).await,
            1,
            "{host} was not written exactly once"
        );
    }
    stand.configctl(&["audit", "--verify"]).await.exits(0);
    stand.stop().await;
}

async fn a_large_wave_takes_several_transactions(kind: Kind) {
    let stand = Stand::start(kind).await;
    let members: Vec<String> = (0..300).map(|index| format!("h{index:03}")).collect();
    let _agents = Agents::start(&stand, members.clone()).await;
    let file = stand.file("fleet.yaml", &group("all", &members, "/a", "t"));
    let said = stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);
    assert!(
        said.out.contains("applied on 300/300 hosts"),
        "{}",
        said.out
    );
    for host in &members {
        assert_eq!(stand.writes(host).await, 1, "{host}");
    }
    stand.stop().await;
}

async fn a_policy_may_put_a_release_back(kind: Kind) {
    let stand = Stand::start(kind).await;
    let agents = Agents::start(&stand, hosts(4)).await;
    let policy = "{waves: [{hosts: 1}, {percent: 100}], onFailure: rollback}";
    let first = stand.file("1.yaml", &with_policy(&hosts(4), policy));
    stand
        .configctl(&["apply", "-f", &first, "--wait"])
        .await
        .exits(0);
    let canary = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(4)).hosts
        [0]
    .clone();
    agents.trouble(&canary, "no such directory");
    let text = with_policy(&hosts(4), policy).replace("/var/log/app.log", "/var/log/new.log");
    let second = stand.file("2.yaml", &text);
    let said = stand
        .configctl(&["apply", "-f", &second, "--wait"])
        .await
        .exits(1);
    assert!(
        said.out.contains("rolled back"),
        "{} {}",
        said.out,
        said.err
    );
    stand
        .configctl(&["rollout", "watch", "--timeout", "5s"])
        .await;
    for host in hosts(4) {
        assert_eq!(
            stand.config(&host).await.unwrap(),
            format!("[{}]", entry("/var/log/app.log", "app")),
            "{host}"
        );
    }
    // The objects are back, too: what is declared and what runs are the same again.
    stand.configctl(&["diff", "-f", &first]).await.exits(0);
    stand.stop().await;
}

async fn operators_stop_and_end_rollouts(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("fleet.yaml", &with_policy(&hosts(10), SAFE));
    // No agent reports, so the first wave proves nothing and stays where it is.
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    stand
        .configctl(&["rollout", "pause", "0000000001-p", "--reason", "lunch"])
        .await
        .exits(0);
    let status = stand
        .configctl(&["rollout", "status", "0000000001-p", "-o", "json"])
        .await
        .exits(1)
        .out;
    assert!(
        status.contains("\"paused\"") && status.contains("lunch"),
        "{status}"
    );
    stand
        .configctl(&["rollout", "pause", "0000000001-p"])
        .await
        .exits(1);
    // Resuming lets the wave pass.
    stand
        .configctl(&["rollout", "resume", "0000000001-p"])
        .await
        .exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(10)).hosts;
    assert!(stand.config(&order[1]).await.is_some() || stand.config(&order[2]).await.is_some());
    stand
        .configctl(&["rollout", "abort", "0000000001-p"])
        .await
        .exits(0);
    stand
        .configctl(&["rollout", "retry", "0000000001-p"])
        .await
        .exits(1);
    stand
        .configctl(&["rollout", "watch", "0000000001-p"])
        .await
        .exits(1);
    assert_eq!(stand.config(&order[9]).await, None);
    stand
        .configctl(&["rollout", "status", "nothing"])
        .await
        .exits(9);
    // Ctrl-C ends the watching, not the rollout.
    let file = stand.file(
        "again.yaml",
        &with_policy(&hosts(10), SAFE).replace("topic: app", "topic: app2"),
    );
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let mut watching = stand.command(&["rollout", "watch"]).spawn().unwrap();
    let id = Pid::from_raw(i32::try_from(watching.id().unwrap()).unwrap()).unwrap();
    let mut said = BufReader::new(watching.stderr.take().unwrap()).lines();
    assert!(
        said.next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("0000000002-p: running")
    );
    kill_process(id, Signal::INT).unwrap();
    let output = watching.wait_with_output().await.unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stand
        .configctl(&["rollout", "status", "0000000002-p"])
        .await
        .exits(0);
    stand.stop().await;
}

async fn a_service_carries_rollouts_out_and_another_goes_on(kind: Kind) {
    let stand = Stand::start(kind).await;
    let _agents = Agents::start(&stand, hosts(30)).await;
    let policy = "{waves: [{hosts: 1}, {percent: 50}, {percent: 100}], bake: 500ms}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(30), policy));
    let mut first = stand.service().spawn().unwrap();
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(30)).hosts;
    // Nobody watches any more, and the second wave comes all the same.
    stand
        .eventually("wave 2", async || stand.config(&order[14]).await.is_some())
        .await;
    first.kill().await.unwrap();
    let mut second = stand.service().spawn().unwrap();
    stand
        .eventually("wave 3", async || stand.config(&order[29]).await.is_some())
        .await;
    stand
        .eventually("the end", async || {
            stand
                .configctl(&["rollout", "status", "0000000001-p"])
                .await
                .out
                .contains("completed")
        })
        .await;
    for host in hosts(30) {
        assert_eq!(stand.writes(&host).await, 1, "{host}");
    }
    let id = Pid::from_raw(i32::try_from(second.id().unwrap()).unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(second.wait().await.unwrap().code(), Some(0));
    stand.stop().await;
}

async fn a_killed_leader_stops_no_rollout(kind: Kind) {
    let mut stand = Stand::cluster(kind).await;
    let _agents = Agents::start(&stand, hosts(30)).await;
    let policy = "{waves: [{hosts: 1}, {percent: 50}, {percent: 100}], bake: 300ms}";
    let file = stand.file("fleet.yaml", &with_policy(&hosts(30), policy));
    // Our own members need no service beside them: the leader drives, and after it the next one.
    let _service = match kind {
        Kind::Own => None,
        Kind::Etcd => Some(stand.service().spawn().unwrap()),
    };
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let order = config_center_core::fleet::rollout::Plan::new(Default::default(), hosts(30)).hosts;
    stand
        .eventually("wave 2", async || stand.config(&order[14]).await.is_some())
        .await;
    stand.kill_leader().await;
    stand
        .eventually("wave 3", async || stand.config(&order[29]).await.is_some())
        .await;
    stand
        .eventually("the end", async || {
            stand
                .configctl(&["rollout", "status", "0000000001-p"])
                .await
                .out
                .contains("completed")
        })
        .await;
    for host in hosts(30) {
        assert_eq!(
            stand.writes(&host).await,
            1,
            "{host} was not written exactly once"
        );
    }
    stand.configctl(&["audit", "--verify"]).await.exits(0);
    stand.stop().await;
}
