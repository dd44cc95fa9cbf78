//! Which host comes in which wave; decided once, when the rollout begins.

use schemas::objects::{PolicySpec, Wave};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The frozen part of a rollout: an edit of its policy, or a host that joins, changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub policy: PolicySpec,
    /// Hosts in the order in which they are published.
    pub hosts: Vec<String>,
    /// Wave i covers `hosts[..ends[i]]`; strictly growing, the last is all hosts.
    pub ends: Vec<usize>,
}

impl Plan {
    pub fn new(policy: PolicySpec, hosts: impl IntoIterator<Item = String>) -> Self {
        let mut hosts: Vec<String> = hosts.into_iter().collect();
        hosts.sort_by_cached_key(|host| (bucket(host), host.clone()));
        hosts.dedup();
        let all = hosts.len();
        let mut ends: Vec<usize> = Vec::new();
        for wave in &policy.waves {
            let end = match *wave {
                Wave::Hosts(count) => usize::try_from(count).unwrap_or(all).min(all),
                // Rounded up: 10 percent of 3 hosts is one host and not none.
                Wave::Percent(percent) => {
                    (all * usize::try_from(percent).unwrap_or(100)).div_ceil(100)
                }
            };
            // A wave that adds nobody has nothing to prove and is left out.
            if end > ends.last().copied().unwrap_or(0) {
                ends.push(end.min(all));
            }
        }
        // A policy ends with 100 percent; whatever was stored, no host is forgotten.
        if ends.last().copied().unwrap_or(0) < all {
            ends.push(all);
        }
        Self {
            policy,
            hosts,
            ends,
        }
    }

    pub fn waves(&self) -> usize {
        self.ends.len()
    }

    /// Where a wave's new hosts begin.
    pub fn start(&self, wave: usize) -> usize {
        wave.checked_sub(1).map_or(0, |before| self.end(before))
    }

    pub fn end(&self, wave: usize) -> usize {
        self.ends.get(wave).copied().unwrap_or(self.hosts.len())
    }

    pub fn wave_of(&self, index: usize) -> usize {
        self.ends.partition_point(|end| *end <= index)
    }
}

/// A host's place in every rollout. Salted, so that it is not the order of other hash tables.
fn bucket(host: &str) -> u64 {
    let hash = Sha256::digest(format!("logconf/rollout/v1/{host}"));
    hash.iter()
        .take(8)
        .fold(0, |bucket, byte| (bucket << 8) | u64::from(*byte))
}
