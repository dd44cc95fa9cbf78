//! The checkpoint document: per entry and file, the offset up to which Kafka has everything.

use serde::{Deserialize, Serialize};

use crate::identity::{FileId, Print};

/// What is remembered of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    pub id: FileId,
    /// Print of the first bytes: tells a reused inode from the old file.
    pub head: Print,
    /// Print of the bytes just before `acked_offset`: tells a rewritten content from a grown one.
    pub marker: Print,
    pub acked_offset: u64,
    /// Largest size seen: what is missing is a known loss if the file cannot be found again.
    pub seen_bytes: u64,
    pub state: RowState,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// The file at the entry's path.
    Current,
    /// Rotated away or deleted, and not finished yet.
    Draining,
    /// Not to be read (again): finished, or already rotated when the entry was first started.
    Done,
}

/// What is remembered of one entry. Files are in reading order, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRows {
    pub path: String,
    pub topic: String,
    /// False for an entry that was stopped: its offsets are kept for a later start.
    pub active: bool,
    pub files: Vec<FileRow>,
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Grows by one with every write; the larger of two readable ones is the newer.
    pub generation: u64,
    pub entries: Vec<EntryRows>,
}

/// Why bytes are not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("checkpoint is empty")]
    Empty,
    #[error("checkpoint is filled with zero bytes")]
    ZeroFilled,
    #[error("not a checkpoint: it does not begin with the magic words")]
    NotACheckpoint,
    #[error("checkpoint has the unknown version {0}")]
    UnknownVersion(u32),
    #[error("checkpoint is truncated: {got} of {expected} bytes")]
    Truncated { expected: usize, got: usize },
    #[error("checkpoint has bytes after its end: {got} instead of {expected}")]
    TooLong { expected: usize, got: usize },
    #[error("checkpoint's checksum does not match its content")]
    BadChecksum,
    #[error("checkpoint's content cannot be read: {0}")]
    BadContent(String),
}

impl Checkpoint {
    /// The bytes to write to disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads what `encode` wrote, and refuses everything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        Err(DecodeError::Empty)
    }
}
