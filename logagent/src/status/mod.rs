//! What this agent runs, for operators: gathered in one place, told to the center and to this host.
//!
//! `source` puts the document together, `reporter` keeps it under a lease in the center; the local
//! listener and the commands read the same document.

mod reporter;
mod source;

use parking_lot::Mutex;
use schemas::fleet::{
    Attempt, ConfigMark, ConfigSource, EntryStatus, OtherAgent, Problem, RunningConfig,
};
use tokio::sync::Notify;

pub use reporter::Reporter;
pub use source::StatusSource;

/// What the config side of the agent knows. Written by `agent`, read for each status.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub source: ConfigSource,
    pub desired_seen: Option<ConfigMark>,
    pub running: Option<RunningConfig>,
    pub last_attempt: Option<Attempt>,
    /// Of the running configuration.
    pub plan_warnings: Vec<Problem>,
    /// Entries of the running configuration that this host does not let run.
    pub rejected: Vec<EntryStatus>,
    /// Problems of the agent itself, such as an unreadable checkpoint.
    pub warnings: Vec<String>,
    /// Another agent that writes the same status key.
    pub conflict: Option<OtherAgent>,
    /// Why the status cannot be told to the center; `None` while it can.
    pub report_trouble: Option<String>,
}

/// The facts and the bell that says that they are new.
#[derive(Debug, Default)]
pub struct Board {
    facts: Mutex<Facts>,
    news: Notify,
}

impl Board {
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock());
        self.news.notify_one();
    }

    /// Resolves when the facts have changed.
    async fn news(&self) {
        self.news.notified().await;
    }

    /// Both are told with the next status: they do not ring the bell.
    fn set_conflict(&self, conflict: Option<OtherAgent>) {
        self.facts.lock().conflict = conflict;
    }

    fn set_report_trouble(&self, trouble: Option<String>) {
        self.facts.lock().report_trouble = trouble;
    }

    pub fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }
}

pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
