//! The report: Markdown from all that was measured.

use std::fmt::Write as _;

use crate::facts::Facts;
use crate::results::{Cell, Measured, Results, Summary};
use crate::store::{Kind, STORES};

const OURS: Kind = Kind::Center;

const HEAD: &str = "\
# config-center next to etcd

Written by `deploy/bench/kv.sh`; every figure below was measured by it, nothing is filled in by hand.
Servers, clients and the disk share one machine, so that a client that costs much leaves the server \
less. Every store runs as one member, unless a section says otherwise, with the same flags on the same \
disk, its fsync on, and takes turns with the others within each row. Before each window superseded revisions are compacted. Keys are \
random out of 100,000, or as many as a row says.

- **Go** is a program on the official clientv3: what users run. **lean** is a generator that costs \
little itself: the server is what is measured.
- **floor** is a tonic service that answers every put at once and stores nothing; **floor, grouped** \
answers twice per millisecond in groups, as behind any fsync. No store on this network path can be \
cheaper.
- **ratio** is config-center divided by etcd: above 1 is better for rates, below 1 for everything else.
- Latencies are exact percentiles of the middle round; rates are the mean of all rounds, in brackets the \
slowest and the fastest round.
";

pub(crate) fn render(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    for measured in &results.sections {
        text.push_str(&section(measured));
    }
    text
}

fn section(measured: &Measured) -> String {
    let mut text = format!("\n## {}\n\n", title(measured));
    text.push_str(&provenance(measured));
    match measured.section.as_str() {
        "million" | "failover" => text.push_str(&values_table(&measured.cells)),
        _ => {
            text.push_str(&rates_table(&measured.cells));
            text.push_str(&costs_table(&measured.cells));
            text.push_str(&latency_table(&measured.cells));
        }
    }
    text
}

fn title(measured: &Measured) -> &str {
    match measured.section.as_str() {
        "put-go" => "Put, official Go client",
        "put-lean" => "Put, lean client",
        "read" => "Range",
        "txn" => "Transactions and mixed load (four reads, one put)",
        "watch" => "Watch fan-out: from the put's start until every watcher has it",
        "million" => "A million keys",
        "members" => "Three members: connections spread over them, cost of all three together",
        "failover" => "Three members: from the kill of the leader to the next write",
        "growth" => "How the cost grows: keys, connections, members",
        "quick" => "Quick run",
        other => other,
    }
}

fn provenance(measured: &Measured) -> String {
    let Facts {
        cpu,
        cores,
        memory_gib,
        kernel,
        fdatasync_us: (median, p99),
    } = &measured.facts;
    let windows = if measured.quick {
        " Short windows: for a first look only."
    } else {
        ""
    };
    format!(
        "Commit {}, {} UTC. {cores} cores ({cpu}), {memory_gib} GiB, Linux {kernel}; appending 4 KiB and \
         fdatasync takes {median} µs (median), {p99} µs (p99).{windows}\n\n",
        measured.commit,
        utc(measured.unix_s),
    )
}

/// Distinct rows in their order.
fn rows(cells: &[Cell]) -> Vec<&str> {
    let mut rows: Vec<&str> = Vec::new();
    for cell in cells {
        if !rows.contains(&cell.row.as_str()) {
            rows.push(&cell.row);
        }
    }
    rows
}

fn find<'a>(cells: &'a [Cell], row: &str, kind: Kind) -> Option<&'a Cell> {
    cells
        .iter()
        .find(|cell| cell.row == row && cell.server == kind.name())
}

fn summary(cells: &[Cell], row: &str, kind: Kind) -> Option<Summary> {
    find(cells, row, kind)?.summary()
}

fn has_floor(cells: &[Cell]) -> bool {
    cells.iter().any(|cell| cell.server == Kind::Floor.name())
}

fn header(first: &str, columns: &[&str]) -> String {
    let mut text = format!("| {first} |");
    for column in columns {
        write!(text, " {column} |").expect("writing to a String");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    text
}

fn columns_of(cells: &[Cell]) -> Vec<Kind> {
    let mut kinds = STORES.to_vec();
    if has_floor(cells) {
        kinds.extend([Kind::Floor, Kind::GroupedFloor]);
    }
    kinds
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => format!("**{:.2}**", ours / theirs),
        _ => "–".to_owned(),
    }
}

fn rates_table(cells: &[Cell]) -> String {
    let kinds = columns_of(cells);
    let mut columns: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    columns.extend(["ratio to 3.7.1", "ratio to 3.4.23"]);
    let mut text = header("answers per second", &columns);
    for row in rows(cells) {
        write!(text, "| {row} |").expect("writing to a String");
        for kind in &kinds {
            let cell = summary(cells, row, *kind).map_or("–".to_owned(), |summary| {
                let errors = match summary.errors {
                    0 => String::new(),
                    count => format!(" ({count} errors)"),
                };
                let (low, high) = summary.spread;
                let spread = if low == high {
                    String::new()
                } else {
                    format!(" ({low:.0}–{high:.0})")
                };
                format!("{:.0}{spread}{errors}", summary.ops_per_s)
            });
            write!(text, " {cell} |").expect("writing to a String");
        }
        let rate = |kind| summary(cells, row, kind).map(|summary| summary.ops_per_s);
        for kind in [Kind::Etcd37, Kind::Etcd34] {
            write!(text, " {} |", ratio(rate(OURS), rate(kind))).expect("writing to a String");
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn costs_table(cells: &[Cell]) -> String {
    let kinds = columns_of(cells);
    let mut columns: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    columns.extend([
        "ratio to 3.7.1",
        "client",
        "fsyncs per answer: ours / 3.7.1 / 3.4.23",
    ]);
    let mut text = header("server CPU-ms per answer", &columns);
    for row in rows(cells) {
        write!(text, "| {row} |").expect("writing to a String");
        let cost = |kind| summary(cells, row, kind).map(|summary| summary.cpu_ms_per_op);
        for kind in &kinds {
            let cell = cost(*kind).map_or("–".to_owned(), |ms| format!("{ms:.4}"));
            write!(text, " {cell} |").expect("writing to a String");
        }
        let client = summary(cells, row, OURS).map_or("–".to_owned(), |ours| {
            format!("{:.4}", ours.client_cpu_ms_per_op)
        });
        let fsyncs: Vec<_> = STORES
            .iter()
            .map(|kind| {
                summary(cells, row, *kind)
                    .and_then(|summary| summary.fsyncs_per_op)
                    .map_or("–".to_owned(), |count| format!("{count:.3}"))
            })
            .collect();
        let ratio = ratio(cost(OURS), cost(Kind::Etcd37));
        writeln!(text, " {ratio} | {client} | {} |", fsyncs.join(" / "))
            .expect("writing to a String");
    }
    text.push('\n');
    text
}

fn latency_table(cells: &[Cell]) -> String {
    let kinds = columns_of(cells);
    let mut columns: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    columns.push("p99 ratio to 3.7.1");
    let mut text = header("p50 / p99 / p99.9 in ms", &columns);
    for row in rows(cells) {
        write!(text, "| {row} |").expect("writing to a String");
        for kind in &kinds {
            let cell = summary(cells, row, *kind).map_or("–".to_owned(), |one| {
                format!("{:.2} / {:.2} / {:.2}", one.p50_ms, one.p99_ms, one.p999_ms)
            });
            write!(text, " {cell} |").expect("writing to a String");
        }
        let p99 = |kind| summary(cells, row, kind).map(|summary| summary.p99_ms);
        writeln!(text, " {} |", ratio(p99(OURS), p99(Kind::Etcd37))).expect("writing to a String");
    }
    text
}

fn values_table(cells: &[Cell]) -> String {
    let mut columns: Vec<_> = STORES.iter().map(|kind| kind.name()).collect();
    columns.extend(["ratio to 3.7.1", "ratio to 3.4.23"]);
    let mut text = String::new();
    for row in rows(cells) {
        text.push_str(&header(row, &columns));
        let names = find(cells, row, OURS).map_or(&[][..], |cell| &cell.values);
        for (name, _) in names {
            write!(text, "| {name} |").expect("writing to a String");
            let value = |kind| find(cells, row, kind).and_then(|cell| cell.value(name));
            for kind in STORES {
                let cell = value(kind).map_or("–".to_owned(), |value| {
                    let decimals = if value < 100.0 { 2 } else { 0 };
                    format!("{value:.decimals$}")
                });
                write!(text, " {cell} |").expect("writing to a String");
            }
            for kind in [Kind::Etcd37, Kind::Etcd34] {
                write!(text, " {} |", ratio(value(OURS), value(kind)))
                    .expect("writing to a String");
            }
            text.push('\n');
        }
    }
    text
}

/// `2026-11-24 18:30`, from seconds since 1970 (days to civil date in the Gregorian calendar).
fn utc(unix_s: u64) -> String {
    let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (seconds / 3_600, seconds % 3_600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Round;
    use bench_kv::latency::Outcome;

    fn cell(server: Kind, ops: u64, server_cpu_ms: u64) -> Cell {
        Cell {
            row: "put".to_owned(),
            server: server.name().to_owned(),
            rounds: vec![Round {
                outcome: Outcome {
                    ops,
                    seconds: 2.0,
                    server_cpu_ms,
                    p99_us: 1_500,
                    ..Outcome::default()
                },
                fsyncs: Some(ops / 10),
            }],
            values: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_ours_over_theirs() {
        let cells = [
            cell(Kind::Center, 3_000, 300),
            cell(Kind::Etcd37, 2_000, 400),
        ];
        let rates = rates_table(&cells);
        assert!(
            rates.contains("| put | 1500 | 1000 | – | **1.50** | – |"),
            "{rates}"
        );
        let costs = costs_table(&cells);
        assert!(
            costs.contains("| 0.1000 | 0.2000 | – | **0.50** |"),
            "{costs}"
        );
        assert!(costs.contains("0.100 / 0.100 / –"), "{costs}");
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(1_795_545_000), "2026-11-24 18:30");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00");
    }
}
