//! The loss ledger: byte ranges that will not be delivered, each with file and reason, over restarts.
//!
//! A row is on disk before the checkpoint that passes its bytes, so that no gap is ever silent. Knows
//! the document; when it is written is the business of `checkpoint_store`.

use std::collections::VecDeque;
use std::path::Path;

use schemas::fleet::Loss;
use serde::{Deserialize, Serialize};

use crate::durable::{self, SealError};

pub const FILE_NAME: &str = "losses";
const MAGIC: &str = "logagent-losses";
const VERSION: u32 = 1;
/// Older rows make way; the sum of their bytes stays.
const ROWS_MAX: usize = 1_000;
/// A thousand rows with long paths need less.
const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot read the loss ledger: {0}")]
    Read(std::io::Error),
    #[error("the loss ledger is {0}: a new one is begun")]
    Seal(#[from] SealError),
    #[error("the loss ledger cannot be understood ({0}): a new one is begun")]
    Body(#[from] serde_json::Error),
}

/// See the module's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    total_bytes: u64,
    /// Oldest first.
    rows: VecDeque<Loss>,
}

impl Ledger {
    /// False when the row is there already: after a kill between ledger and checkpoint the same loss
    /// is noticed again.
    pub fn record(&mut self, loss: Loss) -> bool {
        let is_same = |known: &Loss| {
            Loss {
                at_ms: loss.at_ms,
                ..known.clone()
            } == loss
        };
        if self.rows.iter().any(is_same) {
            return false;
        }
        self.total_bytes += loss.to_offset.saturating_sub(loss.from_offset);
        self.rows.push_back(loss);
        if self.rows.len() > ROWS_MAX {
            self.rows.pop_front();
        }
        true
    }

    /// All that was ever lost, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The newest rows, oldest of them first.
    pub fn newest(&self, rows_max: usize) -> impl Iterator<Item = &Loss> {
        self.rows
            .iter()
            .skip(self.rows.len().saturating_sub(rows_max))
    }

    pub fn store(&self, folder: &Path) -> std::io::Result<()> {
        let body = serde_json::to_vec(self)?;
        let content = durable::seal(MAGIC, VERSION, &body);
        durable::replace(folder, FILE_NAME, None, &content)
    }
}

/// An empty ledger when there is none.
pub fn load(folder: &Path) -> Result<Ledger, LedgerError> {
    let path = folder.join(FILE_NAME);
    let content = durable::read_bounded(&path, FILE_MAX_BYTES).map_err(LedgerError::Read)?;
    match content {
        Some(content) => Ok(serde_json::from_slice(durable::unseal(
            MAGIC, VERSION, &content,
        )?)?),
        None => Ok(Ledger::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(from_offset: u64, to_offset: u64) -> Loss {
        Loss {
            path: "/var/log/a".to_owned(),
            topic: "t".to_owned(),
            file: "1:2".to_owned(),
            from_offset,
            to_offset,
            reason: "truncated".to_owned(),
            at_ms: from_offset,
        }
    }

    #[test]
    fn what_was_lost_is_known_after_a_restart_and_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = load(folder.path()).unwrap();
        assert!(ledger.record(loss(5, 15)));
        ledger.store(folder.path()).unwrap();
        let mut ledger = load(folder.path()).unwrap();
        let again = Loss {
            at_ms: 99,
            ..loss(5, 15)
        };
        assert!(!ledger.record(again));
        assert!(ledger.record(loss(20, 21)));
        assert_eq!(ledger.total_bytes(), 11);
        let newest: Vec<_> = ledger.newest(1).cloned().collect();
        assert_eq!(newest, [loss(20, 21)]);
    }

    #[test]
    fn rows_are_bounded_and_bytes_are_not_forgotten() {
        let mut ledger = Ledger::default();
        for at in 0..ROWS_MAX as u64 + 10 {
            ledger.record(loss(at, at + 2));
        }
        assert_eq!(ledger.newest(usize::MAX).count(), ROWS_MAX);
        assert_eq!(ledger.total_bytes(), 2 * (ROWS_MAX as u64 + 10));
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        ledger.record(loss(0, 1));
        ledger.store(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(load(folder.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn version_1_reads_as_it_was_written() {
        let golden = "logagent-losses 1 \
            7fb54e75964b4a2709389eaafba034758ae31b7ff418307ebcaca8d903445e6f\n\
            {\"total_bytes\":10,\"rows\":[{\"path\":\"/var/log/a\",\"topic\":\"t\",\"file\":\"1:2\",\
            \"from_offset\":5,\"to_offset\":15,\"reason\":\"truncated\",\"at_ms\":5}]}";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), golden).unwrap();
        let ledger = load(folder.path()).unwrap();
        assert_eq!(ledger.newest(9).cloned().collect::<Vec<_>>(), [loss(5, 15)]);
    }
}
