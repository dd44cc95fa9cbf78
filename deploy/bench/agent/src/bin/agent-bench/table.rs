//! The report: Markdown from the runs.

use std::fmt::Write as _;
use std::fs;

use crate::Run;
use crate::subject::Subject;

const HEAD: &str = "\
# logagent next to kcat and rsyslog

Written by `deploy/bench/agent.sh`; every figure was measured by it. One file of nginx lines goes into \
one partition of the same warm Apache Kafka 4.3.1, programs take turns, and after each run the topic is \
read back: every line is there, unaltered. Broker, program and disk share the machine. All producers get \
`acks=all`, `enable.idempotence=true` (but *kcat plain*), `linger.ms=5`, the same key and the same \
compression.

- Time runs from the start of the process until the broker holds the last line; connecting and, for \
logagent, fetching its configuration from etcd are part of it.
- CPU is the program's own, user and system, all threads. Memory is its highest RSS.
- *bare producer loop* is the floor: read 1 MiB, cut lines, produce; no bookkeeping.
- Values are means of the rounds; in brackets the slowest and the fastest.
- **Ratios** are logagent divided by the other: above 1 is better for MB/s, below 1 for CPU.
";

struct Mean {
    mb_per_s: f64,
    spread: (f64, f64),
    cpu_s_per_gb: f64,
    peak_mib: u64,
    duplicated: u64,
    out_of_order: u64,
}

pub(crate) fn render(runs: &[Run], bytes: u64, lines: u64, commit: &str) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    writeln!(text, "\n{}\n", machine(commit)?)?;
    writeln!(text, "{lines} lines, {:.0} MB.", bytes as f64 / 1e6)?;
    let mut compressions: Vec<&str> = Vec::new();
    for run in runs {
        if !compressions.contains(&run.compression.as_str()) {
            compressions.push(&run.compression);
        }
    }
    for compression in compressions {
        writeln!(text, "\n## compression.codec={compression}\n")?;
        text.push_str(
            "| program | MB/s | CPU-s/GB | highest RSS MiB | duplicated | out of order | MB/s ratio | CPU ratio |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let mean = |subject| mean(runs, compression, subject, bytes);
        let ours = mean(Subject::Logagent);
        for subject in [
            Subject::Logagent,
            Subject::Floor,
            Subject::KcatIdempotent,
            Subject::KcatPlain,
            Subject::Rsyslog,
        ] {
            let Some(one) = mean(subject) else { continue };
            let ratio = |get: fn(&Mean) -> f64| match &ours {
                Some(ours) if subject != Subject::Logagent => {
                    format!("**{:.2}**", get(ours) / get(&one))
                }
                _ => "–".to_owned(),
            };
            writeln!(
                text,
                "| {} | {:.1} ({:.1}–{:.1}) | {:.2} | {} | {} | {} | {} | {} |",
                subject.name(),
                one.mb_per_s,
                one.spread.0,
                one.spread.1,
                one.cpu_s_per_gb,
                one.peak_mib,
                one.duplicated,
                one.out_of_order,
                ratio(|mean| mean.mb_per_s),
                ratio(|mean| mean.cpu_s_per_gb),
            )?;
        }
    }
    Ok(text)
}

fn mean(runs: &[Run], compression: &str, subject: Subject, bytes: u64) -> Option<Mean> {
    let runs: Vec<_> = runs
        .iter()
        .filter(|run| run.compression == compression && run.subject == subject)
        .collect();
    let count = runs.len() as f64;
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    let cpu_ms: u64 = runs.iter().map(|run| run.cost.cpu_ms).sum();
    let rates = runs.iter().map(|run| bytes as f64 / 1e6 / run.seconds);
    Some(Mean {
        peak_mib: runs.iter().map(|run| run.cost.peak_rss_kib).max()? / 1024,
        mb_per_s: bytes as f64 / 1e6 * count / seconds,
        spread: (
            rates.clone().fold(f64::INFINITY, f64::min),
            rates.fold(0.0, f64::max),
        ),
        cpu_s_per_gb: cpu_ms as f64 / 1e3 / (bytes as f64 / 1e9 * count),
        duplicated: runs.iter().map(|run| run.duplicated).sum(),
        out_of_order: runs.iter().map(|run| run.out_of_order).sum(),
    })
}

fn machine(commit: &str) -> anyhow::Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_matches([' ', '\t', ':']))
        .unwrap_or("unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "Commit {commit}; {} cores ({model}), Linux {}.",
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
        let run = |subject, seconds, cpu_ms| Run {
            compression: "lz4".to_owned(),
            subject,
            seconds,
            cost: Sample {
                cpu_ms,
                peak_rss_kib: 2048,
            },
            duplicated: 0,
            out_of_order: 0,
        };
        let runs = [
            run(Subject::Logagent, 2.0, 600),
            run(Subject::Rsyslog, 4.0, 2_400),
        ];
        let text = render(&runs, 200_000_000, 1_000_000, "abc").unwrap();
        assert!(
            text.contains(
                "| rsyslog | 50.0 (50.0–50.0) | 12.00 | 2 | 0 | 0 | **2.00** | **0.25** |"
            ),
            "{text}"
        );
        assert!(!text.contains("kcat idempotent |"), "{text}");
    }
}
