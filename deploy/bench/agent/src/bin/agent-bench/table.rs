//! The report: Markdown from the results.

use std::fmt::Write as _;
use std::fs;

use crate::results::{Quantiles, Results, Run, Throughput};

const HEAD: &str = "\
# logagent next to kcat, rsyslog and syslog-ng

Written by `deploy/bench/agent.sh`; every figure was measured by it. The lines of a corpus go into one \
partition of the same warm Apache Kafka 4.3.1, programs take turns, and after each run the topic is \
read back: every line is there, unaltered. Broker, program and disk share the machine. All producers get \
`acks=all`, `enable.idempotence=true` (but *kcat plain*), `linger.ms=5`, the same key per file and the \
same compression.

- Time runs from the start of the process until the broker holds the last line; connecting and, for \
logagent, fetching its configuration from etcd are part of it.
- CPU is the program's own, user and system, all threads. Memory is its highest RSS.
- *bare producer loop* is the floor: read 1 MiB, cut lines, produce; no bookkeeping, and librdkafka's \
default queue.
- kcat sends one file, so it is missing where there are more. It and the bare loop know only lines, so \
both are missing where records have several.
- Values are means of the rounds; in brackets the slowest and the fastest.
- **Ratios** are logagent divided by the other: above 1 is better for MB/s, below 1 for CPU.
";

const OURS: &str = "logagent";

struct Mean {
    mb_per_s: f64,
    spread: (f64, f64),
    lines_per_s: f64,
    cpu_s_per_gb: f64,
    peak_mib: u64,
    duplicated: u64,
    out_of_order: u64,
}

pub(crate) fn render(results: &Results) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    writeln!(text, "\n{}", machine()?)?;
    for table in &results.throughput {
        throughput(&mut text, table)?;
    }
    if let Some(latency) = &results.latency {
        writeln!(
            text,
            "\n## From the write of a line to the broker's log\n\nBy the broker's stamp, in whole \
             milliseconds; `linger.ms=5` is part of it. Commit {}.\n\n| program | 1,000 lines/s: p50 | \
             p99 | highest | a line now and then: p50 | p99 | highest |\n|---|---:|---:|---:|---:|---:|---:|",
            latency.commit
        )?;
        for row in &latency.rows {
            let (busy, quiet) = (quantiles(row.busy), quantiles(row.quiet));
            writeln!(text, "| {} | {busy} | {quiet} |", row.subject)?;
        }
    }
    if let Some(reload) = &results.reload {
        writeln!(
            text,
            "\n## From a put in etcd to the first line of the new file\n\n{} reloads, each adding a \
             file to the configuration. Commit {}.\n\n| p50 | p99 | highest |\n|---:|---:|---:|\n| {} |",
            reload.put_to_first_line.samples,
            reload.commit,
            quantiles(reload.put_to_first_line)
        )?;
    }
    if let Some(idle) = &results.idle {
        writeln!(
            text,
            "\n## Files in which nothing happens\n\nlogagent with one pattern over all of them. Then a \
             line in one file or another: from its write to the broker's log. Commit {}.\n\n| files | \
             `ulimit -n` | descriptors | CPU, % of a core | RSS MiB | new line: p50 | p99 | highest \
             |\n|---:|---:|---:|---:|---:|---:|---:|---:|",
            idle.commit
        )?;
        for row in &idle.rows {
            writeln!(
                text,
                "| {} | {} | {} | {:.2} over {:.0} s | {} | {} |",
                row.files,
                row.descriptor_limit,
                row.descriptors,
                row.cpu_percent,
                row.seconds,
                row.rss_kib / 1024,
                quantiles(row.new_line)
            )?;
        }
    }
    if let Some(outage) = &results.outage {
        writeln!(
            text,
            "\n## An outage of the broker\n\nThe broker is stopped while {:.0} MB are written and the \
             file rotates {} times. Commit {}.\n\n| outage s | highest RSS MiB | caught up after s | \
             duplicated | out of order |\n|---:|---:|---:|---:|---:|\n| {:.0} | {} | {:.1} | {} | {} |",
            outage.bytes as f64 / 1e6,
            outage.rotations,
            outage.commit,
            outage.seconds,
            outage.peak_rss_kib / 1024,
            outage.caught_up_s,
            outage.duplicated,
            outage.out_of_order
        )?;
    }
    Ok(text)
}

fn quantiles(of: Quantiles) -> String {
    format!(
        "{:.0} ms | {:.0} ms | {:.0} ms",
        of.p50_ms, of.p99_ms, of.max_ms
    )
}

fn throughput(text: &mut String, table: &Throughput) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n## {}, {} file{}, compression.codec={}\n\n{} records, {:.0} MB. Commit {}.\n",
        table.corpus,
        table.files,
        if table.files == 1 { "" } else { "s" },
        table.compression,
        table.lines,
        table.bytes as f64 / 1e6,
        table.commit
    )?;
    text.push_str(
        "| program | MB/s | thousand lines/s | CPU-s/GB | highest RSS MiB | duplicated | out of order | MB/s ratio | CPU ratio |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut subjects: Vec<&str> = Vec::new();
    for run in &table.runs {
        if !subjects.contains(&run.subject.as_str()) {
            subjects.push(&run.subject);
        }
    }
    let ours = mean(table, OURS);
    for subject in subjects {
        let Some(one) = mean(table, subject) else {
            continue;
        };
        let ratio = |get: fn(&Mean) -> f64| match &ours {
            Some(ours) if subject != OURS => format!("**{:.2}**", get(ours) / get(&one)),
            _ => "–".to_owned(),
        };
        writeln!(
            text,
            "| {subject} | {:.1} ({:.1}–{:.1}) | {:.0} | {:.2} | {} | {} | {} | {} | {} |",
            one.mb_per_s,
            one.spread.0,
            one.spread.1,
            one.lines_per_s / 1_000.0,
            one.cpu_s_per_gb,
            one.peak_mib,
            one.duplicated,
            one.out_of_order,
            ratio(|mean| mean.mb_per_s),
            ratio(|mean| mean.cpu_s_per_gb),
        )?;
    }
    Ok(())
}

fn mean(table: &Throughput, subject: &str) -> Option<Mean> {
    let runs: Vec<&Run> = table
        .runs
        .iter()
        .filter(|run| run.subject == subject)
        .collect();
    let count = runs.len() as f64;
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    let cpu_ms: u64 = runs.iter().map(|run| run.cost.cpu_ms).sum();
    let megabytes = table.bytes as f64 / 1e6;
    let rates = runs.iter().map(|run| megabytes / run.seconds);
    Some(Mean {
        peak_mib: runs.iter().map(|run| run.cost.peak_rss_kib).max()? / 1024,
        mb_per_s: megabytes * count / seconds,
        spread: (
            rates.clone().fold(f64::INFINITY, f64::min),
            rates.fold(0.0, f64::max),
        ),
        lines_per_s: table.lines as f64 * count / seconds,
        cpu_s_per_gb: cpu_ms as f64 / (megabytes * count),
        duplicated: runs.iter().map(|run| run.duplicated).sum(),
        out_of_order: runs.iter().map(|run| run.out_of_order).sum(),
    })
}

fn machine() -> anyhow::Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_matches([' ', '\t', ':']))
        .unwrap_or("unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{} cores ({model}), Linux {}.",
        std::thread::available_parallelism()?,
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watched::Sample;

    #[test]
    fn ratios_are_ours_over_theirs() {
        let run = |subject: &str, seconds, cpu_ms| Run {
            subject: subject.to_owned(),
            seconds,
            cost: Sample {
                cpu_ms,
                peak_rss_kib: 2048,
            },
            duplicated: 0,
            out_of_order: 0,
        };
        let results = Results {
            throughput: vec![Throughput {
                corpus: "nginx lines".to_owned(),
                compression: "lz4".to_owned(),
                commit: "abc".to_owned(),
                bytes: 200_000_000,
                lines: 1_000_000,
                files: 1,
                runs: vec![run(OURS, 2.0, 600), run("rsyslog", 4.0, 2_400)],
            }],
            ..Results::default()
        };
        let text = render(&results).unwrap();
        assert!(
            text.contains(
                "| rsyslog | 50.0 (50.0–50.0) | 250 | 12.00 | 2 | 0 | 0 | **2.00** | **0.25** |"
            ),
            "{text}"
        );
        assert!(
            text.contains("## nginx lines, 1 file, compression.codec=lz4"),
            "{text}"
        );
    }
}
