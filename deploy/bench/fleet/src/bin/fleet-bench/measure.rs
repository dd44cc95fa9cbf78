//! The measurements, each over a cluster and a fleet that are up.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench_fleet::Fleet;
use schemas::etcdserverpb::RangeRequest;
use schemas_client::prefix_end;
use sha2::{Digest as _, Sha256};

use super::cluster::Cluster;
use super::http;

const POLL: Duration = Duration::from_millis(5);
/// The API reads all hosts to say how a rollout stands, which is not what is measured.
const ASK_PAUSE: Duration = Duration::from_millis(200);
/// Nothing here takes this long unless it hangs.
const LONGEST: Duration = Duration::from_secs(120);
/// Agents that have lost their member are watched for trouble afterwards, for two heartbeats.
const AFTERMATH: Duration = Duration::from_secs(10);

/// From sending a publish to the acknowledgement of each agent's status that it runs it.
pub(crate) struct Publishing {
    /// Published to.
    pub(crate) hosts: usize,
    /// Agents that are connected.
    pub(crate) fleet: usize,
    pub(crate) rounds: usize,
    /// All hosts of all rounds, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Of each round, until its last host.
    pub(crate) slowest: Vec<Duration>,
}

pub(crate) struct Heartbeats {
    pub(crate) agents: usize,
    pub(crate) reports_per_s: f64,
    /// Of all members together.
    pub(crate) cores: f64,
}

pub(crate) struct Storm {
    pub(crate) agents: usize,
    /// Agents that lost their member.
    pub(crate) broken: usize,
    /// Until each of them had a watch again, sorted.
    pub(crate) back: Vec<Duration>,
    /// Breaks while and after the others came back.
    pub(crate) further_breaks: u64,
}

/// Names that no other fleet has: what was published to that one stays, and a host's document would
/// hold both.
pub(crate) fn hosts(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("of-{count}-{index:05}"))
        .collect()
}

fn rounds(hosts: usize) -> usize {
    match hosts {
        0..10 => 100,
        10..1_000 => 10,
        1_000..5_000 => 5,
        _ => 3,
    }
}

pub(crate) async fn publishing(
    cluster: &Cluster,
    fleet: &Fleet,
    hosts: &[String],
    agents: usize,
) -> anyhow::Result<Publishing> {
    let mut latencies = Vec::new();
    let mut slowest = Vec::new();
    let rounds = rounds(hosts.len());
    // Each set of hosts has an object of its own, and the first round creates it.
    let name = format!("{}-of-{agents}", hosts.len());
    for round in 0..=rounds {
        let path = format!("/var/log/{name}.log");
        let body = format!(
            "apiVersion: logconf/v1\nkind: Group\nmetadata: {{name: {name}}}\nspec: {{members: [{}], \
             logs: [{{path: {path}, topic: t{round}}}]}}\n",
            hosts.join(", ")
        );
        let sent = Instant::now();
        let (status, answer) =
            http::send(cluster.address(), "POST", "/api/v1/apply", &body).await?;
        anyhow::ensure!(status == 201, "the publish is answered {status}: {answer}");
        let rollout = answer["rollouts"][0]
            .as_str()
            .context("a rollout")?
            .to_owned();
        let expected = expected(cluster, &hosts[0], &format!("t{round}")).await?;
        let runs = |host: &String| {
            let running = fleet.member(host).running();
            running.filter(|(sha256, _)| *sha256 == expected)
        };
        until("all hosts apply it", LONGEST, || {
            hosts.iter().all(|host| runs(host).is_some())
        })
        .await?;
        let mut took: Vec<Duration> = hosts
            .iter()
            .filter_map(runs)
            .map(|(_, at)| at.saturating_duration_since(sent))
            .collect();
        took.sort();
        // The first one also makes the connections and the caches warm.
        if round > 0 {
            slowest.extend(took.last());
            latencies.extend(took);
        }
        until_completed(cluster, &rollout).await?;
    }
    latencies.sort();
    eprintln!(
        "  {} of {agents}: p50 {:?} p99 {:?}",
        hosts.len(),
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99)
    );
    Ok(Publishing {
        hosts: hosts.len(),
        fleet: agents,
        rounds,
        latencies,
        slowest,
    })
}

/// The hash of a host's document, once it holds this topic.
async fn expected(cluster: &Cluster, host: &str, topic: &str) -> anyhow::Result<String> {
    let client = cluster.client()?;
    let key = format!("/ningxin/backend/logagent/config/{host}");
    let began = Instant::now();
    loop {
        if let Some(kv) = client.get(key.clone()).await?.kv
            && String::from_utf8_lossy(&kv.value).contains(&format!("\"{topic}\""))
        {
            let digest = Sha256::digest(&kv.value);
            return Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        anyhow::ensure!(began.elapsed() < LONGEST, "{key} is not published");
        tokio::time::sleep(POLL).await;
    }
}

async fn until_completed(cluster: &Cluster, rollout: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let path = format!("/api/v1/rollouts/{rollout}");
    loop {
        let (_, shown) = http::send(cluster.address(), "GET", &path, "").await?;
        if shown["phase"] == "completed" {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < LONGEST, "the rollout stands: {shown}");
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

pub(crate) async fn heartbeats(
    cluster: &Cluster,
    fleet: &Fleet,
    watched: Duration,
) -> anyhow::Result<Heartbeats> {
    let reports = || {
        fleet
            .members()
            .map(|(_, member)| member.reports())
            .sum::<u64>()
    };
    let (reports_before, cpu_before, began) = (reports(), cluster.cpu()?, Instant::now());
    tokio::time::sleep(watched).await;
    let passed_s = began.elapsed().as_secs_f64();
    let measured = Heartbeats {
        agents: fleet.len(),
        reports_per_s: (reports() - reports_before) as f64 / passed_s,
        cores: (cluster.cpu()? - cpu_before).as_secs_f64() / passed_s,
    };
    eprintln!(
        "  heartbeats: {:.0}/s, {:.2} cores",
        measured.reports_per_s, measured.cores
    );
    Ok(measured)
}

pub(crate) async fn storm(cluster: &mut Cluster, fleet: &Fleet) -> anyhow::Result<Storm> {
    let breaks = || {
        fleet
            .members()
            .map(|(_, member)| member.breaks())
            .sum::<u64>()
    };
    let breaks_before = breaks();
    let killed = Instant::now();
    let gone = cluster.kill_leader().await?;
    let is_back =
        |member: &bench_fleet::Member| member.endpoint().is_some_and(|endpoint| endpoint != gone);
    until("all agents are back", LONGEST, || {
        fleet.members().all(|(_, member)| is_back(member))
    })
    .await?;
    let returned = fleet
        .members()
        .filter_map(|(_, member)| member.connected_at());
    let mut back: Vec<Duration> = returned
        .filter_map(|at| at.checked_duration_since(killed))
        .collect();
    back.sort();
    tokio::time::sleep(AFTERMATH).await;
    let broken = back.len();
    let further = breaks() - breaks_before;
    cluster.mend().await?;
    eprintln!("  storm: {broken} broken, all back after {:?}", back.last());
    Ok(Storm {
        agents: fleet.len(),
        broken,
        further_breaks: further.saturating_sub(broken as u64),
        back,
    })
}

/// Waits until the statuses of a fleet that has ended are gone.
pub(crate) async fn until_forgotten(cluster: &Cluster, ended: Instant) -> anyhow::Result<()> {
    let prefix = "/ningxin/backend/logagent/status/";
    let client = cluster.client()?;
    loop {
        let counted = client
            .range(RangeRequest {
                key: prefix.into(),
                range_end: prefix_end(prefix.as_bytes()),
                count_only: true,
                ..Default::default()
            })
            .await?;
        if counted.count == 0 {
            return Ok(());
        }
        anyhow::ensure!(ended.elapsed() < LONGEST, "{} statuses stay", counted.count);
        tokio::time::sleep(POLL * 20).await;
    }
}

/// Waits for a condition.
pub(crate) async fn until(
    what: &str,
    longest: Duration,
    holds: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds() {
        anyhow::ensure!(began.elapsed() < longest, "not in time: {what}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Of sorted values; the largest one at or below which this share of them lies.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}
