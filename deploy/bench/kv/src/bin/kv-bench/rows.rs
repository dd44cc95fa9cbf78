//! The rows: which client, which operation, how many clients; and how a row is run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use bench_kv::latency::Outcome;
use clap::ValueEnum;

use crate::Arguments;
use crate::results::{Cell, Round};
use crate::server::{Kind, STORES, Server};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    PutGo,
    PutLean,
    Read,
    Txn,
    Watch,
    Million,
    /// Everything that `--quick` measures.
    Quick,
}

impl Section {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PutGo => "put-go",
            Self::PutLean => "put-lean",
            Self::Read => "read",
            Self::Txn => "txn",
            Self::Watch => "watch",
            Self::Million => "million",
            Self::Quick => "quick",
        }
    }
}

pub(crate) fn chosen(only: &[Section], quick: bool) -> Vec<Section> {
    if quick {
        return vec![Section::Quick];
    }
    if !only.is_empty() {
        return only.to_vec();
    }
    use Section::{Million, PutGo, PutLean, Read, Txn, Watch};
    vec![PutGo, PutLean, Read, Txn, Watch, Million]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Go,
    Lean,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Row {
    client: Client,
    operation: &'static str,
    clients: usize,
    connections: usize,
    value_bytes: usize,
}

const fn row(
    client: Client,
    operation: &'static str,
    clients: usize,
    connections: usize,
    value_bytes: usize,
) -> Row {
    Row {
        client,
        operation,
        clients,
        connections,
        value_bytes,
    }
}

use Client::{Go, Lean};

fn rows(section: Section) -> Vec<Row> {
    match section {
        Section::PutGo => vec![
            row(Go, "put", 1, 1, 256),
            row(Go, "put", 64, 50, 256),
            row(Go, "put", 500, 50, 256),
            row(Go, "put", 500, 50, 1024),
            row(Go, "put", 500, 500, 256),
        ],
        Section::PutLean => vec![
            row(Lean, "put", 1, 1, 256),
            row(Lean, "put", 64, 50, 256),
            row(Lean, "put", 500, 50, 256),
            row(Lean, "put", 500, 50, 1024),
            row(Lean, "put", 500, 500, 256),
        ],
        Section::Read => vec![
            row(Go, "range", 500, 50, 256),
            row(Go, "serializable-range", 500, 50, 256),
            row(Lean, "range", 500, 50, 256),
            row(Lean, "serializable-range", 500, 50, 256),
        ],
        Section::Txn => vec![
            row(Go, "txn", 500, 50, 256),
            row(Lean, "txn", 500, 50, 256),
            row(Go, "mixed", 500, 50, 256),
            row(Lean, "mixed", 500, 50, 256),
        ],
        Section::Watch => vec![
            row(Go, "watch", 100, 50, 256),
            row(Go, "watch", 1_000, 50, 256),
            row(Go, "watch", 10_000, 50, 256),
            row(Lean, "watch", 10_000, 50, 256),
        ],
        Section::Quick => vec![
            row(Go, "put", 1, 1, 256),
            row(Go, "put", 64, 50, 256),
            row(Go, "put", 500, 50, 256),
            row(Lean, "put", 500, 50, 1024),
            row(Go, "range", 500, 50, 256),
            row(Lean, "txn", 500, 50, 256),
            row(Lean, "watch", 1_000, 50, 256),
        ],
        Section::Million => Vec::new(),
    }
}

impl Row {
    fn name(&self) -> String {
        let client = match self.client {
            Go => "Go",
            Lean => "lean",
        };
        if self.operation == "watch" {
            return format!("{} watchers on one key, {client}", self.clients);
        }
        let size = match self.value_bytes {
            1024 => "1 KiB".to_owned(),
            bytes => format!("{bytes} B"),
        };
        format!(
            "{} {size}, {} clients / {} connections, {client}",
            self.operation.replace('-', " "),
            self.clients,
            self.connections
        )
    }

    fn applies_to(&self, kind: Kind) -> bool {
        kind.is_store() || self.operation == "put"
    }
}

struct Timing {
    rounds: usize,
    warmup_ms: u64,
    window_ms: u64,
    puts_watched: usize,
}

impl Timing {
    fn of(arguments: &Arguments) -> Self {
        if arguments.quick {
            return Self {
                rounds: 2,
                warmup_ms: 200,
                window_ms: 800,
                puts_watched: 10,
            };
        }
        Self {
            rounds: 3,
            warmup_ms: 500,
            window_ms: 2_500,
            puts_watched: 30,
        }
    }
}

pub(crate) fn measure(arguments: &Arguments, section: Section) -> anyhow::Result<Vec<Cell>> {
    let timing = Timing::of(arguments);
    let rows = rows(section);
    let mut servers = Vec::new();
    for kind in STORES {
        servers.push(Server::start(
            kind,
            program(arguments, kind),
            &arguments.work,
        )?);
    }
    if rows.iter().any(|row| row.operation == "put") {
        for kind in [Kind::Floor, Kind::GroupedFloor] {
            servers.push(Server::start(kind, &arguments.floor, &arguments.work)?);
        }
    }
    for server in servers.iter().filter(|server| server.kind.is_store()) {
        fill(arguments, server.endpoint, 100_000, 256)?;
    }
    let mut cells = Vec::new();
    for row in &rows {
        let mut taken: Vec<_> = servers
            .iter()
            .filter(|server| row.applies_to(server.kind))
            .map(|server| (server, Vec::new()))
            .collect();
        for number in 0..timing.rounds {
            for (server, rounds) in &mut taken {
                // The floors do not drift: one round less.
                if number > 0 && !server.kind.is_store() {
                    continue;
                }
                if server.kind.is_store() {
                    server.compact()?;
                }
                let before = server.fsyncs();
                let outcome = run_client(arguments, &timing, row, server)
                    .with_context(|| format!("{} against {}", row.name(), server.kind.name()))?;
                let fsyncs = before
                    .zip(server.fsyncs())
                    .map(|(before, after)| after - before);
                eprintln!(
                    "{}: {} {:.0}/s, {:.4} CPU-ms",
                    row.name(),
                    server.kind.name(),
                    outcome.ops as f64 / outcome.seconds,
                    outcome.server_cpu_ms as f64 / outcome.ops as f64
                );
                // Warm-up syncs too: they are scaled to the window like its puts.
                let share = if row.operation == "watch" {
                    1.0
                } else {
                    timing.window_ms as f64 / (timing.window_ms + timing.warmup_ms) as f64
                };
                rounds.push(Round {
                    outcome,
                    fsyncs: fsyncs.map(|count| (count as f64 * share) as u64),
                });
            }
        }
        cells.extend(taken.into_iter().map(|(server, rounds)| Cell {
            row: row.name(),
            server: server.kind.name().to_owned(),
            rounds,
            values: Vec::new(),
        }));
    }
    Ok(cells)
}

pub(crate) fn program(arguments: &Arguments, kind: Kind) -> &Path {
    match kind {
        Kind::Center => &arguments.center,
        Kind::Etcd37 => &arguments.etcd_37,
        Kind::Etcd34 => &arguments.etcd_34,
        Kind::Floor | Kind::GroupedFloor => &arguments.floor,
    }
}

/// Puts keys 0 to `count` once each; how it went.
pub(crate) fn fill(
    arguments: &Arguments,
    endpoint: SocketAddr,
    count: u64,
    value_bytes: usize,
) -> anyhow::Result<Outcome> {
    let mut command = Command::new(&arguments.lean);
    command.args(["run", "--op", "fill", "--endpoint", &endpoint.to_string()]);
    command.args(["--count", &count.to_string()]);
    command.args(["--value-bytes", &value_bytes.to_string()]);
    outcome(command).context("fill the store")
}

fn run_client(
    arguments: &Arguments,
    timing: &Timing,
    row: &Row,
    server: &Server,
) -> anyhow::Result<Outcome> {
    let is_watch = row.operation == "watch";
    let mut command = match row.client {
        Go => {
            let mut command = Command::new(&arguments.go);
            command.args(["--op", row.operation]);
            command
        }
        Lean if is_watch => {
            let mut command = Command::new(&arguments.lean);
            command.arg("watch");
            command
        }
        Lean => {
            let mut command = Command::new(&arguments.lean);
            command.args(["run", "--op", row.operation]);
            command
        }
    };
    let mut flag = |name: &str, value: String| {
        command.args([format!("--{name}"), value]);
    };
    flag("endpoint", server.endpoint.to_string());
    flag("server-pid", server.pid().to_string());
    flag("connections", row.connections.to_string());
    flag("value-bytes", row.value_bytes.to_string());
    if is_watch {
        flag("watchers", row.clients.to_string());
        flag("puts", timing.puts_watched.to_string());
    } else {
        flag("clients", row.clients.to_string());
        flag("warmup-ms", timing.warmup_ms.to_string());
        flag("window-ms", timing.window_ms.to_string());
    }
    outcome(command)
}

fn outcome(mut command: Command) -> anyhow::Result<Outcome> {
    let output = command.output()?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
    anyhow::ensure!(outcome.ops > 0, "{command:?} measured nothing");
    Ok(outcome)
}
