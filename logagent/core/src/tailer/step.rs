//! The words that a tailer and its adapter exchange: steps, what was seen, notes, views.

use crate::ack::BlockId;
use crate::framing::{Framing, Lines};
use crate::identity::{FileId, FileStat};

/// The adapter's descriptor of an open file; numbers are never used twice in one tailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u32);

/// Names a block in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub handle: Handle,
    pub block: BlockId,
}

/// Lines to publish, in order.
#[derive(Debug, Clone)]
pub struct Block {
    pub ticket: Ticket,
    pub lines: Lines,
    pub fate: Fate,
}

/// Where the lines of a block go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fate {
    #[default]
    Topic,
    /// The one line of this block was refused for good.
    DeadLetter {
        reason: String,
        /// Grows when the dead-letter topic refuses it too.
        attempt: u32,
    },
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The topic or the broker: the same lines may be taken later.
    Topic,
    /// A record: it will never be taken as it is.
    Record,
}

/// What the adapter is to do next.
#[derive(Debug)]
pub enum Step {
    /// Answer with `path_seen`.
    StatPath,
    /// Answer with `siblings_seen`.
    ListSiblings,
    /// Answer with `opened`.
    Open { handle: Handle, target: Target },
    /// Answer with `handle_seen`.
    StatHandle { handle: Handle },
    /// One `pread`; answer with `read_done`.
    Read {
        handle: Handle,
        offset: u64,
        max_bytes: usize,
    },
    /// Publish; answer with `block_done` or `block_failed` at any later time.
    Produce(Block),
    /// Make `rows` durable at once; answer with `persisted` at any later time, also when the disk
    /// refuses: collecting goes on then. Reading waits for the answer, nothing else does.
    Persist,
    /// Close the descriptor. No answer.
    Close { handle: Handle },
    /// Nothing to do before `until_ms`, unless a hint or an acknowledgement arrives.
    Idle { until_ms: u64 },
}

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The entry's path.
    Path,
    /// The file of this name in the path's directory.
    Sibling(String),
}

/// What `stat` found at the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSeen {
    /// A regular file, possibly through symlinks.
    File(FileStat),
    Missing,
    /// There, but not to be read: not a regular file, outside the allow-list, permission denied.
    Blocked(Blocked),
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    #[error("the file is not there")]
    Missing,
    /// A sentence for the status document.
    #[error("{0}")]
    Refused(String),
}

/// Tuning of one tail. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct TailerOptions {
    /// Bytes asked for by one read. A line longer than this is read in one larger request.
    pub block_bytes: usize,
    pub framing: Framing,
    /// Reading pauses when this much is produced and not acknowledged.
    pub max_unacked_bytes: u64,
    /// How long a rotated file must be quiet before it is finished.
    pub rotate_wait_ms: u64,
    /// The same for a file that was deleted, whose space is held by nobody else.
    pub deleted_wait_ms: u64,
    /// How long half a line at the end of a rotated file holds the next file back.
    pub partial_wait_ms: u64,
    /// How often the path is looked at without a hint.
    pub sweep_ms: u64,
    /// Pause before a failed block is read and sent again; doubles up to `max_retry_ms`.
    pub retry_ms: u64,
    pub max_retry_ms: u64,
    /// Pause before a file that could not be opened is tried again.
    pub unreadable_retry_ms: u64,
}

impl Default for TailerOptions {
    fn default() -> Self {
        Self {
            block_bytes: 256 * 1_024,
            // librdkafka's message.max.bytes (1,000,000) less key and framing.
            framing: Framing::lines(900 * 1_024),
            max_unacked_bytes: 8 << 20,
            rotate_wait_ms: 60_000,
            deleted_wait_ms: 4_000,
            partial_wait_ms: 2_000,
            sweep_ms: 1_000,
            retry_ms: 500,
            max_retry_ms: 30_000,
            unreadable_retry_ms: 1_000,
        }
    }
}

/// Something that happened and deserves a line in the log or in the loss ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Bytes that were written and will not be delivered.
    Lost {
        file: FileId,
        from_offset: u64,
        to_offset: u64,
        reason: String,
    },
    /// A rotated file cannot be opened; it is tried again.
    Unreadable { file: FileId, reason: String },
    /// Reading starts or goes on at `offset`.
    Opened { file: FileId, offset: u64 },
    /// The file no longer has the entry's path; it is read to its end.
    Rotated { file: FileId },
    /// The content before the offset is not the one that was read: reading starts at 0.
    Truncated { file: FileId, reason: String },
    /// NUL bytes that a writer with an old offset left after a truncation; not delivered.
    HoleSkipped {
        file: FileId,
        from_offset: u64,
        to_offset: u64,
    },
    /// A rotated file is read to its end and everything is acknowledged.
    Finished { file: FileId, offset: u64 },
}

/// One file of the tail, for the status document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    /// Stands in the tickets of this content's blocks.
    pub key: Handle,
    pub id: FileId,
    pub acked_offset: u64,
    pub read_offset: u64,
    pub size_bytes: u64,
    pub draining: bool,
}

/// What the status document says of the tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailView {
    /// False while there is no file at the path.
    pub present: bool,
    /// Why the path's file cannot be read, or why a block had to be sent again.
    pub error: Option<String>,
    pub files: Vec<FileView>,
}
