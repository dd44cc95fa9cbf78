//! What has been measured, kept as JSON between runs.

use std::path::Path;

use anyhow::Context;
use bench_kv::latency::Outcome;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) sections: Vec<Measured>,
}

/// One section as it was measured last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) section: String,
    pub(crate) commit: String,
    pub(crate) unix_s: u64,
    pub(crate) quick: bool,
    pub(crate) facts: Facts,
    pub(crate) cells: Vec<Cell>,
}

/// One row for one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) server: String,
    pub(crate) rounds: Vec<Round>,
    /// Measured values that are not rates, by their unit-bearing name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<(String, f64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) outcome: Outcome,
    pub(crate) fsyncs: Option<u64>,
}

/// The rounds of a cell taken together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) ops_per_s: f64,
    /// The lowest and the highest round, so that a reader sees the noise.
    pub(crate) spread: (f64, f64),
    pub(crate) cpu_ms_per_op: f64,
    pub(crate) client_cpu_ms_per_op: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) fsyncs_per_op: Option<f64>,
    pub(crate) errors: u64,
}

impl Cell {
    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.rounds.is_empty() {
            return None;
        }
        let sum = |get: &dyn Fn(&Outcome) -> f64| -> f64 {
            self.rounds.iter().map(|round| get(&round.outcome)).sum()
        };
        let ops = sum(&|outcome| outcome.ops as f64);
        // The middle round; of two the slower one.
        let middle = |get: &dyn Fn(&Outcome) -> u64| {
            let mut values: Vec<_> = self
                .rounds
                .iter()
                .map(|round| get(&round.outcome))
                .collect();
            values.sort_unstable();
            values[values.len() / 2] as f64 / 1_000.0
        };
        let rates = self
            .rounds
            .iter()
            .map(|round| round.outcome.ops as f64 / round.outcome.seconds);
        let fsyncs: Option<u64> = self.rounds.iter().map(|round| round.fsyncs).sum();
        Some(Summary {
            ops_per_s: ops / sum(&|outcome| outcome.seconds),
            spread: (
                rates.clone().fold(f64::INFINITY, f64::min),
                rates.fold(0.0, f64::max),
            ),
            cpu_ms_per_op: sum(&|outcome| outcome.server_cpu_ms as f64) / ops,
            client_cpu_ms_per_op: sum(&|outcome| outcome.client_cpu_ms as f64) / ops,
            p50_ms: middle(&|outcome| outcome.p50_us),
            p99_ms: middle(&|outcome| outcome.p99_us),
            p999_ms: middle(&|outcome| outcome.p999_us),
            fsyncs_per_op: fsyncs.map(|count| count as f64 / ops),
            errors: self.rounds.iter().map(|round| round.outcome.errors).sum(),
        })
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value)
    }
}

impl Results {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not what this program writes", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(crate) fn replace(&mut self, measured: Measured) {
        self.sections
            .retain(|known| known.section != measured.section);
        self.sections.push(measured);
    }

    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}
