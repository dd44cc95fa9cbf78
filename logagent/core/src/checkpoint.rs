//! The checkpoint document: per entry and file, the offset up to which Kafka has everything.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// First words of the file, before the version.
const MAGIC: &str = "logagent-checkpoint";
/// Version of the layout that is written.
pub const VERSION: u32 = 1;
/// Longer than any header line.
const HEADER_MAX_BYTES: usize = 256;

/// What follows the header line, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    generation: u64,
    entries: Vec<EntryRows>,
}

impl Checkpoint {
    /// The bytes to write to disk: `logagent-checkpoint VERSION LENGTH SHA256`, a newline, and a
    /// body of JSON to which length and hash belong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = Body {
            generation: self.generation,
            entries: self.entries.clone(),
        };
        // Only strings, numbers and lists: there is nothing that JSON could refuse.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let header = format!("{MAGIC} {VERSION} {} {}\n", body.len(), hash_of(&body));
        let mut bytes = header.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what `encode` wrote, and refuses everything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(DecodeError::ZeroFilled);
        }
        let head = &bytes[..bytes.len().min(HEADER_MAX_BYTES)];
        let end = memchr::memchr(b'\n', head).ok_or(DecodeError::NotACheckpoint)?;
        let header = std::str::from_utf8(&head[..end]).map_err(|_| DecodeError::NotACheckpoint)?;
        let mut words = header.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(DecodeError::NotACheckpoint);
        }
        let version = words.next().and_then(|word| word.parse().ok());
        match version.ok_or(DecodeError::NotACheckpoint)? {
            VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other)),
        }
        let expected = words.next().and_then(|word| word.parse::<usize>().ok());
        let expected = expected.ok_or(DecodeError::NotACheckpoint)?;
        let body = &bytes[end + 1..];
        if body.len() < expected {
            return Err(DecodeError::Truncated {
                expected,
                got: body.len(),
            });
        }
        if body.len() > expected {
            return Err(DecodeError::TooLong {
                expected,
                got: body.len(),
            });
        }
        if words.next() != Some(hash_of(body).as_str()) || words.next().is_some() {
            return Err(DecodeError::BadChecksum);
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| DecodeError::BadContent(error.to_string()))?;
        Ok(Self {
            generation: body.generation,
            entries: body.entries,
        })
    }
}

/// SHA-256 in lower-case hexadecimal.
fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let row = FileRow {
            id: FileId {
                dev: 1,
                ino: u64::MAX,
            },
            head: Print::of(b"first line"),
            marker: Print::of(b"last line"),
            acked_offset: 4_242,
            seen_bytes: 5_000,
            state: RowState::Draining,
        };
        let entry = |path: &str, active, files| EntryRows {
            path: path.into(),
            topic: "nginx_log".into(),
            active,
            files,
        };
        Checkpoint {
            generation: 7,
            entries: vec![
                entry("/var/log/\u{65e5}\u{5fd7}\n.log", true, vec![row]),
                entry("/b", false, vec![]),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for checkpoint in [example(), Checkpoint::default()] {
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let good = example().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Checkpoint::decode(&bad).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_reason_is_named() {
        let table: [(&[u8], DecodeError); 5] = [
            (b"", DecodeError::Empty),
            (&[0; 4_096], DecodeError::ZeroFilled),
            (b"garbage", DecodeError::NotACheckpoint),
            (
                b"logagent-checkpoint 9 2 x\n{}",
                DecodeError::UnknownVersion(9),
            ),
            (
                b"logagent-checkpoint 1 5 x\n{}",
                DecodeError::Truncated {
                    expected: 5,
                    got: 2,
                },
            ),
        ];
        for (bytes, expected) in table {
            assert_eq!(Checkpoint::decode(bytes), Err(expected));
        }
    }

    #[test]
    fn version_1_stays_readable() {
        let golden = Checkpoint {
            generation: 3,
            entries: vec![],
        }
        .encode();
        let text = String::from_utf8(golden).unwrap();
        let body = "{\"generation\":3,\"entries\":[]}";
        assert!(
            text.starts_with("logagent-checkpoint 1 29 ") && text.ends_with(body),
            "{text}"
        );
    }
}
