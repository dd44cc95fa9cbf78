//! What a simulated agent does when it is given a configuration. Data only.

use std::time::Duration;

/// How an agent behaves from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// From receiving a configuration to running it.
    pub apply_delay: Duration,
    /// Entries whose path begins with the first text cannot be read, for the reason given second.
    pub trouble: Option<(String, String)>,
    /// Configurations are refused as a whole, and what ran before goes on.
    pub refuses: Option<String>,
    /// The agent hangs: it neither reports nor renews its lease.
    pub is_silent: bool,
    /// What its clock shows beside that of everybody else.
    pub clock_skew_ms: i64,
    /// Its Kafka takes nothing: lines are read and not acknowledged.
    pub is_clogged: bool,
    /// Makes the status document this much larger.
    pub padding_bytes: usize,
}
