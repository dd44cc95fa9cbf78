//! The measurements as a page.

use std::time::Duration;

use super::Part;
use super::measure::quantile;

/// Writes the page.
pub(crate) fn render(commit: &str, parts: &[Part]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "# The fleet\n\nMade by `deploy/bench/fleet.sh` from commit {commit}, on {cores} cores which members \
         and agents share. Agents are simulated: each has its own connection, watch and lease, and reports \
         every 5 s as the agent does. Nothing is filled in by hand.\n\n## Publish → applied\n\nFrom sending \
         `POST /api/v1/apply` to the store's acknowledgement of the status in which the agent says that it \
         runs the new configuration; all hosts in one wave. The target column is for one member.\n\n\
         | members | published to | agents | rounds | p50 ms | p99 ms | last host ms, median | target |\n\
         |--:|--:|--:|--:|--:|--:|--:|---|\n"
    );
    for part in parts {
        for row in &part.publishing {
            let target = match row.hosts {
                1 => "p99 ≤ 200 ms",
                1_000 => "p99 ≤ 2 s",
                5_000 => "all ≤ 10 s",
                _ => "",
            };
            let mut slowest = row.slowest.clone();
            slowest.sort();
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} | {target} |\n",
                part.members,
                row.hosts,
                row.fleet,
                row.rounds,
                ms(quantile(&row.latencies, 0.5)),
                ms(quantile(&row.latencies, 0.99)),
                ms(quantile(&slowest, 0.5)),
            ));
        }
    }
    text.push_str(
        "\n## Heartbeats\n\nCPU time of all members together while agents do nothing but report and renew \
         their leases.\n\n| members | agents | reports/s | cores | target |\n|--:|--:|--:|--:|---|\n",
    );
    for part in parts {
        if let Some(beats) = &part.heartbeats {
            text.push_str(&format!(
                "| {} | {} | {:.0} | {:.2} | ≤ 0.5 for 5,000 |\n",
                part.members, beats.agents, beats.reports_per_s, beats.cores
            ));
        }
    }
    text.push_str(
        "\n## After the leader is killed\n\nUntil each agent that lost its member watches its key at another \
         one; breaks of other connections, and second breaks, in the 10 s after that.\n\n\
         | members | agents | lost their member | p50 ms | p99 ms | last ms | further breaks | target |\n\
         |--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for part in parts {
        if let Some(storm) = &part.storm {
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} | last ≤ 10 s |\n",
                part.members,
                storm.agents,
                storm.broken,
                ms(quantile(&storm.back, 0.5)),
                ms(quantile(&storm.back, 0.99)),
                ms(storm.back.last().copied().unwrap_or_default()),
                storm.further_breaks,
            ));
        }
    }
    text
}

fn ms(span: Duration) -> String {
    format!("{:.0}", span.as_secs_f64() * 1_000.0)
}
