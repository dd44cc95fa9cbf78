//! One tail and what the supervisor remembers of it: when it is due, whether it makes way, how it
//! fares. No input or output happens here.

use std::path::PathBuf;

use logagent_core::checkpoint::FileRow;
use logagent_core::config::{Entry, EntryId};
use logagent_core::identity::FileStat;
use logagent_core::tailer::Handle;
use schemas::fleet::EntryState;

use crate::inbox::BlockLoad;
use crate::source::tail::Tail;
use crate::status::unix_ms;

/// A tail that ends as soon as nothing of it is in flight.
#[derive(Debug, Clone)]
pub(super) struct Stopping {
    /// Starts with the rows of this tail.
    pub(super) successor: Option<Entry>,
    /// Whose the rows are from now on.
    pub(super) rows_to: EntryId,
}

/// Whether a checkpoint that knows the entry is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saving {
    /// It is, or nothing waits for it yet.
    Settled,
    /// Reading waits for the next checkpoint.
    Wanted,
    /// Reading waits for the one of this generation.
    Until(u64),
}

/// What Kafka has acknowledged of one file.
#[derive(Debug)]
pub(super) struct Flow {
    file: Handle,
    lines: u64,
    pub(super) last_ack_ms: Option<u64>,
    window_lines: u64,
    window_ms: u64,
    lines_per_s: f64,
}

/// A rate is that of at least this long, however often somebody looks.
const RATE_WINDOW_MS: u64 = 1_000;

impl Flow {
    /// Of the last full window.
    pub(super) fn lines_per_s(&mut self, now_ms: u64) -> f64 {
        let passed_ms = now_ms.saturating_sub(self.window_ms);
        if passed_ms >= RATE_WINDOW_MS {
            let lines = self.lines - self.window_lines;
            let lines_per_s = lines as f64 * 1_000.0 / passed_ms as f64;
            self.lines_per_s = (lines_per_s * 10.0).round() / 10.0;
            self.window_lines = self.lines;
            self.window_ms = now_ms;
        }
        self.lines_per_s
    }
}

pub(super) struct Slot {
    pub(super) tail: Tail,
    pub(super) stopping: Option<Stopping>,
    /// When the timer of this tail is set.
    pub(super) due_ms: Option<u64>,
    pub(super) ran_ms: u64,
    /// What the path showed, when nothing is to be done before it shows something else.
    pub(super) resting: Option<FileStat>,
    /// It may not open a file now, and is in the queue of those that wait for one.
    pub(super) waits_for_descriptor: bool,
    /// When something of its files was last read or changed.
    pub(super) active_ms: u64,
    /// A hint came: the path is looked at on the next turn.
    pub(super) wake_pending: bool,
    /// After a panic: when it starts again from `saved_rows`.
    pub(super) panicked_until_ms: Option<u64>,
    /// The rows of the last checkpoint; `None` when it does not know the entry.
    pub(super) saved_rows: Option<Vec<FileRow>>,
    pub(super) saving: Saving,
    /// The resolved path under which hints find this tail, besides its own.
    pub(super) indexed: PathBuf,
    pub(super) lines_acked: u64,
    pub(super) bytes_acked: u64,
    pub(super) first_ack_ms: Option<u64>,
    flows: Vec<Flow>,
    failure: Option<String>,
    pub(super) state: EntryState,
    pub(super) error: Option<String>,
}

impl Slot {
    pub(super) fn new(tail: Tail, saved_rows: Option<Vec<FileRow>>) -> Self {
        Self {
            indexed: tail.path().to_owned(),
            tail,
            stopping: None,
            due_ms: None,
            ran_ms: 0,
            resting: None,
            waits_for_descriptor: false,
            active_ms: 0,
            wake_pending: false,
            panicked_until_ms: None,
            saved_rows,
            saving: Saving::Settled,
            lines_acked: 0,
            bytes_acked: 0,
            first_ack_ms: None,
            flows: Vec::new(),
            failure: None,
            state: EntryState::Waiting,
            error: None,
        }
    }

    /// True when this is news: it ends a failure, or it is the first one.
    pub(super) fn note_delivery(&mut self, file: Handle, load: BlockLoad, now_ms: u64) -> bool {
        self.lines_acked += load.lines;
        self.bytes_acked += load.bytes;
        let acked_ms = unix_ms();
        let flow = self.flow(file, now_ms);
        flow.lines += load.lines;
        flow.last_ack_ms = Some(acked_ms);
        let is_first = self.first_ack_ms.is_none() && load.lines > 0;
        if is_first {
            self.first_ack_ms = Some(acked_ms);
        }
        self.failure.take().is_some() || is_first
    }

    /// Made on first use; files that are gone are dropped by `forget_flows`.
    pub(super) fn flow(&mut self, file: Handle, now_ms: u64) -> &mut Flow {
        let known = self.flows.iter().position(|flow| flow.file == file);
        let at = known.unwrap_or_else(|| {
            self.flows.push(Flow {
                file,
                lines: 0,
                last_ack_ms: None,
                window_lines: 0,
                window_ms: now_ms,
                lines_per_s: 0.0,
            });
            self.flows.len() - 1
        });
        &mut self.flows[at]
    }

    pub(super) fn forget_flows(&mut self, is_open: impl Fn(Handle) -> bool) {
        self.flows.retain(|flow| is_open(flow.file));
    }

    /// True when this is news.
    pub(super) fn note_failure(&mut self, reason: String) -> bool {
        if self.failure.as_ref() == Some(&reason) {
            return false;
        }
        let id = self.tail.id();
        tracing::warn!(
            path = id.path,
            topic = id.topic,
            reason,
            "lines are refused: they wait"
        );
        self.failure = Some(reason);
        true
    }

    /// Works out the state again; true when it changed.
    pub(super) fn refresh_state(&mut self, trouble: Option<&str>) -> bool {
        let view = self.tail.tailer.view();
        let in_flight = view
            .files
            .iter()
            .any(|file| file.read_offset > file.acked_offset);
        let error = if self.panicked_until_ms.is_some() {
            Some("an internal error: see the agent's log".to_owned())
        } else {
            let waiting_for_kafka = trouble.filter(|_| in_flight).map(str::to_owned);
            self.failure.clone().or(view.error).or(waiting_for_kafka)
        };
        let state = match (&error, view.present) {
            (Some(_), _) => EntryState::Failing,
            (None, true) => EntryState::Running,
            (None, false) => EntryState::Waiting,
        };
        if state == self.state && error == self.error {
            return false;
        }
        let id = self.tail.id();
        match &error {
            Some(reason) => {
                tracing::warn!(
                    path = id.path,
                    topic = id.topic,
                    reason,
                    "an entry is failing"
                );
            }
            None => tracing::info!(path = id.path, topic = id.topic, ?state, "entry"),
        }
        self.state = state;
        self.error = error;
        true
    }
}
