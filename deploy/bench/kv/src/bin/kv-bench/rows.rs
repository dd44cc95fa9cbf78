//! The rows: which client, which operation, how many clients; and how a row is run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use bench_kv::latency::Outcome;
use clap::ValueEnum;

use crate::Arguments;
use crate::results::{Cell, Round};
use crate::store::{Kind, STORES, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    PutGo,
    PutLean,
    Read,
    Txn,
    Watch,
    Million,
    /// Three members.
    Members,
    /// How long a cluster is without a leader when its leader is killed.
    Failover,
    /// How the cost of a put grows with keys, connections and members.
    Growth,
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
            Self::Members => "members",
            Self::Failover => "failover",
            Self::Growth => "growth",
            Self::Quick => "quick",
        }
    }
}

pub(crate) fn chosen(only: &[Section], quick: bool) -> Vec<Section> {
    if !only.is_empty() {
        return only.to_vec();
    }
    if quick {
        return vec![Section::Quick];
    }
    use Section::{Failover, Growth, Members, Million, PutGo, PutLean, Read, Txn, Watch};
    vec![
        PutGo, PutLean, Read, Txn, Members, Failover, Watch, Million, Growth,
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Go,
    Lean,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    client: Client,
    operation: &'static str,
    clients: usize,
    connections: usize,
    value_bytes: usize,
    /// What else sets the row apart.
    state: State,
}

/// What the store is like while a row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Usual,
    Keys(u64),
    Members(usize),
}

/// Keys in a store, unless a row says otherwise.
pub(crate) const USUAL_KEYS: u64 = 100_000;

pub(crate) const fn row(
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
        state: State::Usual,
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
        Section::Members => vec![
            row(Go, "put", 500, 50, 256),
            row(Go, "put", 500, 500, 256),
            row(Lean, "put", 500, 50, 256),
            row(Go, "range", 500, 50, 256),
            row(Lean, "range", 500, 50, 256),
        ],
        // Their rows depend on what was measured before them.
        Section::Million | Section::Failover | Section::Growth => Vec::new(),
    }
}

impl Row {
    pub(crate) const fn with(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    fn keys(&self) -> u64 {
        match self.state {
            State::Keys(keys) => keys,
            State::Usual | State::Members(_) => USUAL_KEYS,
        }
    }

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
        let state = match self.state {
            State::Usual => String::new(),
            State::Keys(keys) => format!(", {keys} keys"),
            State::Members(1) => ", 1 member".to_owned(),
            State::Members(count) => format!(", {count} members"),
        };
        format!(
            "{} {size}, {} clients / {} connections, {client}{state}",
            self.operation.replace('-', " "),
            self.clients,
            self.connections
        )
    }

    fn applies_to(&self, kind: Kind) -> bool {
        kind.is_store() || self.operation == "put"
    }
}

pub(crate) struct Timing {
    rounds: usize,
    warmup_ms: u64,
    window_ms: u64,
    puts_watched: usize,
}

impl Timing {
    pub(crate) fn with_rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    pub(crate) fn of(arguments: &Arguments) -> Self {
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
            warmup_ms: 400,
            window_ms: 2_000,
            puts_watched: 30,
        }
    }
}

pub(crate) fn measure(arguments: &Arguments, section: Section) -> anyhow::Result<Vec<Cell>> {
    let timing = Timing::of(arguments);
    let rows = rows(section);
    let members = if section == Section::Members { 3 } else { 1 };
    let mut stores = Vec::new();
    for kind in STORES {
        let program = program(arguments, kind);
        stores.push(Store::start_members(
            kind,
            program,
            &arguments.work,
            members,
        )?);
    }
    if members == 1 && rows.iter().any(|row| row.operation == "put") {
        for kind in [Kind::Floor, Kind::GroupedFloor] {
            stores.push(Store::start(kind, &arguments.floor, &arguments.work)?);
        }
    }
    for store in stores.iter().filter(|store| store.kind.is_store()) {
        fill(arguments, store.first().endpoint, USUAL_KEYS, 256)?;
    }
    let mut cells = Vec::new();
    for row in &rows {
        cells.extend(measure_row(arguments, &timing, row, &stores)?);
    }
    Ok(cells)
}

/// One row: the stores take turns.
pub(crate) fn measure_row(
    arguments: &Arguments,
    timing: &Timing,
    row: &Row,
    stores: &[Store],
) -> anyhow::Result<Vec<Cell>> {
    let mut taken: Vec<_> = stores
        .iter()
        .filter(|store| row.applies_to(store.kind))
        .map(|store| (store, Vec::new()))
        .collect();
    for number in 0..timing.rounds {
        for (store, rounds) in &mut taken {
            // The floors do not drift: one round less.
            if number > 0 && !store.kind.is_store() {
                continue;
            }
            rounds.push(measure_round(arguments, timing, row, store)?);
        }
    }
    let cells = taken.into_iter().map(|(store, rounds)| Cell {
        row: row.name(),
        server: store.kind.name().to_owned(),
        rounds,
        values: Vec::new(),
    });
    Ok(cells.collect())
}

fn measure_round(
    arguments: &Arguments,
    timing: &Timing,
    row: &Row,
    store: &Store,
) -> anyhow::Result<Round> {
    if store.kind.is_store() {
        store.compact()?;
    }
    let before = store.fsyncs();
    let outcome = run_client(arguments, timing, row, store)
        .with_context(|| format!("{} against {}", row.name(), store.kind.name()))?;
    let fsyncs = before
        .zip(store.fsyncs())
        .map(|(before, after)| after - before);
    eprintln!(
        "{}: {} {:.0}/s, {:.4} CPU-ms",
        row.name(),
        store.kind.name(),
        outcome.ops as f64 / outcome.seconds,
        outcome.server_cpu_ms as f64 / outcome.ops as f64
    );
    // Warm-up syncs too: they are scaled to the window like its puts.
    let share = if row.operation == "watch" {
        1.0
    } else {
        timing.window_ms as f64 / (timing.window_ms + timing.warmup_ms) as f64
    };
    Ok(Round {
        outcome,
        fsyncs: fsyncs.map(|count| (count as f64 * share) as u64),
    })
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
    store: &Store,
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
    let joined = |values: Vec<String>| values.join(",");
    let endpoints = store.endpoints();
    flag(
        "endpoint",
        joined(endpoints.iter().map(ToString::to_string).collect()),
    );
    let pids = store.pids();
    flag(
        "server-pid",
        joined(pids.iter().map(ToString::to_string).collect()),
    );
    flag("connections", row.connections.to_string());
    flag("value-bytes", row.value_bytes.to_string());
    if is_watch {
        flag("watchers", row.clients.to_string());
        flag("puts", timing.puts_watched.to_string());
    } else {
        flag("clients", row.clients.to_string());
        flag("keys", row.keys().to_string());
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
