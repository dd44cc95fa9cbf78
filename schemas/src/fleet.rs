//! The status document: what an agent writes under its own leased key, and operators read.
//!
//! Times are Unix milliseconds, sizes are bytes. Unknown fields are ignored on reading, so that a
//! newer agent can talk to an older reader.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the status document's layout.
pub const STATUS_SCHEMA: u32 = 1;

/// What one agent runs, right now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct AgentStatus {
    pub schema: u32,
    pub agent_version: String,
    /// Differs for every start of an agent: two values under one key are two agents.
    pub instance: String,
    pub hostname: String,
    /// The name under which the center knows this host: the last part of the config key.
    pub host: String,
    pub labels: BTreeMap<String, String>,
    pub config_key: String,
    pub config_source: ConfigSource,
    /// The newest configuration that the agent received.
    pub desired_seen: Option<ConfigMark>,
    /// The configuration whose files are open and whose pipeline runs.
    pub running: Option<RunningConfig>,
    pub last_attempt: Option<Attempt>,
    pub entries: Vec<EntryStatus>,
    pub files: Vec<FileStatus>,
    pub totals: Totals,
    pub in_flight: InFlight,
    /// Byte ranges known not to have been delivered, newest last; bounded. Kept over restarts.
    pub losses: Vec<Loss>,
    pub watching: Watching,
    /// Another living agent that reports under the same key.
    pub conflict: Option<OtherAgent>,
    pub warnings: Vec<String>,
    pub started_at_ms: u64,
    pub reported_at_ms: u64,
}

/// Where the running configuration came from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ConfigSource {
    /// Nothing received yet and no cache on disk.
    #[default]
    None,
    Center,
    /// The center could not be reached: the last good configuration from disk.
    Cache,
}

/// One version of a configuration: the store's mod_revision and the hash of the value's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct ConfigMark {
    pub revision: i64,
    pub sha256: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct RunningConfig {
    pub revision: i64,
    pub sha256: String,
    pub since_ms: u64,
}

/// The last time the agent tried to apply a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Attempt {
    pub revision: i64,
    pub sha256: String,
    pub result: AttemptResult,
    pub errors: Vec<Problem>,
    pub at_ms: u64,
    /// From receiving the configuration to the pipeline running, in microseconds.
    pub took_us: u64,
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// Every entry runs.
    #[default]
    Applied,
    /// The good entries run; `errors` names the others.
    PartlyApplied,
    /// Nothing was changed: the configuration that ran before goes on.
    Rejected,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Problem {
    /// Position in the array, from 0; absent when the whole document is meant.
    pub index: Option<usize>,
    pub field: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct EntryStatus {
    pub path: String,
    pub topic: String,
    pub state: EntryState,
    pub error: Option<String>,
    pub lines_acked: u64,
    pub bytes_acked: u64,
    /// Files that are open, rotated ones included.
    pub files: u64,
    /// What is written in them and not acknowledged by Kafka yet.
    pub lag_bytes: u64,
    /// When Kafka acknowledged the first line of the entry since it runs.
    pub first_ack_ms: Option<u64>,
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// The file does not exist yet.
    #[default]
    Waiting,
    Running,
    /// The entry runs, but its file cannot be read or Kafka refuses its lines.
    Failing,
    /// The entry was refused and does not run.
    Rejected,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct FileStatus {
    pub path: String,
    pub topic: String,
    /// Device and inode, `dev:ino` in hexadecimal.
    pub identity: String,
    /// Everything before this offset is acknowledged by Kafka.
    pub acked_offset: u64,
    pub read_offset: u64,
    pub size_bytes: u64,
    pub lag_bytes: u64,
    /// True for a file that was rotated away and is read to its end.
    pub draining: bool,
    pub lines_per_s: f64,
    pub last_ack_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Totals {
    pub lines_read: u64,
    pub lines_acked: u64,
    pub bytes_acked: u64,
    pub delivery_errors: u64,
    /// Of the loss ledger, so also what was lost before this start.
    pub lost_bytes: u64,
    /// Records that hold a piece or the beginning of a line that was too long.
    pub cut_lines: u64,
    /// Lines that went to the dead-letter topic.
    pub dead_letters: u64,
}

/// What is read and waits for Kafka. Reading pauses when it is full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct InFlight {
    pub bytes: u64,
    pub max_bytes: u64,
    /// Files that have more to send and may not read it yet.
    pub paused_files: u64,
}

/// Another agent that uses the same status key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct OtherAgent {
    pub instance: String,
    pub hostname: String,
    pub seen_at_ms: u64,
}

/// One row of the loss ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Loss {
    pub path: String,
    pub topic: String,
    /// Device and inode, as in the list of files.
    pub file: String,
    pub from_offset: u64,
    pub to_offset: u64,
    pub reason: String,
    pub at_ms: u64,
}

/// How the agent learns of new data.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Watching {
    /// File-system notifications, with a sweep as the truth behind them.
    #[default]
    Notify,
    /// Notifications are not to be had; the sweep alone finds new data.
    Polling,
}
