//! Which lines belong to the one before them. Knows one line at a time.

use std::sync::Arc;

use regex::bytes::Regex;
use schemas::objects::{Multiline, line_pattern};

const DEFAULT_TIMEOUT_MS: u32 = 2_000;
const DEFAULT_MAX_LINES: u32 = 500;

/// How lines are joined.
#[derive(Debug, Clone)]
pub struct Joining {
    pattern: Arc<Regex>,
    /// The pattern is that of a line that begins a record; else of one that continues it.
    begins: bool,
    timeout_ms: u64,
    max_lines: usize,
}

impl Joining {
    /// The error is a sentence for the operator.
    pub fn new(multiline: &Multiline) -> Result<Self, String> {
        if let Some(fault) = multiline.faults().into_iter().next() {
            return Err(fault);
        }
        let begins = multiline.start.is_some();
        let pattern = multiline
            .start
            .as_deref()
            .or(multiline.continues.as_deref());
        Ok(Self {
            pattern: Arc::new(line_pattern(pattern.unwrap_or_default())?),
            begins,
            timeout_ms: multiline.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).into(),
            max_lines: multiline.max_lines.unwrap_or(DEFAULT_MAX_LINES) as usize,
        })
    }

    /// Whether this line belongs to the one before it.
    pub(super) fn continues(&self, line: &[u8]) -> bool {
        self.pattern.is_match(line) != self.begins
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    pub(super) fn max_lines(&self) -> usize {
        self.max_lines
    }
}
