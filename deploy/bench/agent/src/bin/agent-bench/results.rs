//! What was measured, as it is kept between runs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::watched::Sample;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Results {
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) latency: Option<Latency>,
    pub(crate) reload: Option<Reload>,
    pub(crate) idle: Option<Idle>,
    pub(crate) outage: Option<Outage>,
}

/// One corpus with one compression.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) corpus: String,
    pub(crate) compression: String,
    pub(crate) commit: String,
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
    pub(crate) files: u64,
    pub(crate) runs: Vec<Run>,
}

/// One run of one program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) subject: String,
    pub(crate) seconds: f64,
    pub(crate) cost: Sample,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) commit: String,
    pub(crate) rows: Vec<LatencyRow>,
}

/// From the write of a line to its place in the broker's log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LatencyRow {
    pub(crate) subject: String,
    /// 1,000 lines a second.
    pub(crate) busy: Quantiles,
    /// A line now and then.
    pub(crate) quiet: Quantiles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) samples: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Quantiles {
    /// The nearest rank, so that every value was really measured.
    pub(crate) fn of(mut values_ms: Vec<f64>) -> Self {
        values_ms.sort_by(f64::total_cmp);
        let rank = |part: f64| {
            let at = (values_ms.len() as f64 * part).ceil() as usize;
            values_ms
                .get(at.saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Self {
            samples: values_ms.len(),
            p50_ms: rank(0.5),
            p99_ms: rank(0.99),
            max_ms: rank(1.0),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reload {
    pub(crate) commit: String,
    pub(crate) put_to_first_line: Quantiles,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) commit: String,
    pub(crate) rows: Vec<IdleRow>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdleRow {
    pub(crate) files: u64,
    pub(crate) descriptor_limit: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_percent: f64,
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) new_line: Quantiles,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outage {
    pub(crate) commit: String,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) rotations: u64,
    pub(crate) peak_rss_kib: u64,
    pub(crate) caught_up_s: f64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
}

impl Results {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn store(&self, path: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(
            path,
            serde_json::to_string_pretty(self)? + "\n",
        )?)
    }

    /// Takes the place of the same table of an earlier run.
    pub(crate) fn put(&mut self, table: Throughput) {
        let is_same = |known: &Throughput| {
            known.corpus == table.corpus && known.compression == table.compression
        };
        match self.throughput.iter().position(is_same) {
            Some(at) => self.throughput[at] = table,
            None => self.throughput.push(table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let hundred = Quantiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(
            (hundred.p50_ms, hundred.p99_ms, hundred.max_ms),
            (50.0, 99.0, 100.0)
        );
        assert_eq!(Quantiles::of(vec![7.0]).p99_ms, 7.0);
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
