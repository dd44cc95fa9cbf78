//! How far a rollout is: the small document that every step rewrites.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub const ROLLOUT_FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Phase {
    Running,
    Paused,
    /// A failure asks to put the release back; nothing is published any more.
    RollingBack,
    RolledBack {
        by_release: u64,
    },
    Completed,
    Aborted,
    /// A later release took over, and the hosts that were not reached with it.
    Superseded {
        by_release: u64,
    },
}

impl Phase {
    /// True when nothing will ever happen again.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Running | Self::Paused | Self::RollingBack)
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::RollingBack => "rolling back",
            Self::RolledBack { .. } => "rolled back",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Superseded { .. } => "superseded",
        }
    }
}

/// Why a rollout stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// The operator, or "policy".
    pub by: String,
    pub reason: String,
    pub at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub format: u32,
    pub phase: Phase,
    /// The wave under way.
    pub wave: usize,
    /// `hosts[..published]` of the plan are written, or noted under `skipped`.
    pub published: usize,
    /// When the wave under way began, or was taken up again: deadlines count from here.
    pub wave_began_ms: Option<u64>,
    /// Since when the wave under way is applied everywhere.
    pub bake_began_ms: Option<u64>,
    /// Hosts that have failed as of the last step, and why.
    #[serde(default)]
    pub failures: BTreeMap<String, String>,
    /// Hosts that could not be written, and why: their keys were edited by hand.
    #[serde(default)]
    pub skipped: BTreeMap<String, String>,
    /// Failed hosts that an operator decided to go on without.
    #[serde(default)]
    pub accepted: BTreeSet<String>,
    /// The wave that an operator let pass, whatever it proved.
    #[serde(default)]
    pub accepted_wave: Option<usize>,
    /// Skipped hosts that are to be written once more.
    #[serde(default)]
    pub again: BTreeSet<String>,
    /// Failed hosts that got another chance, and when.
    #[serde(default)]
    pub retrying: BTreeSet<String>,
    #[serde(default)]
    pub retried_at_ms: Option<u64>,
    pub halt: Option<Halt>,
    /// Hosts that had applied it when it was completed: what they run later is another story.
    #[serde(default)]
    pub applied_at_end: Option<usize>,
    pub began_ms: u64,
    pub ended_ms: Option<u64>,
}

impl Progress {
    pub fn new(now_ms: u64) -> Self {
        Self {
            format: ROLLOUT_FORMAT,
            phase: Phase::Running,
            wave: 0,
            published: 0,
            wave_began_ms: None,
            bake_began_ms: None,
            failures: BTreeMap::new(),
            skipped: BTreeMap::new(),
            accepted: BTreeSet::new(),
            accepted_wave: None,
            again: BTreeSet::new(),
            retrying: BTreeSet::new(),
            retried_at_ms: None,
            halt: None,
            applied_at_end: None,
            began_ms: now_ms,
            ended_ms: None,
        }
    }
}
