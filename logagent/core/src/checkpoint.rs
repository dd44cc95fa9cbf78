//! The checkpoint document: per entry and file, the offset up to which Kafka has everything.
//!
//! This is its layout, as bytes; writing it durably is the adapter's. A document is one header
//! line, for people and for `head -1`, followed by a JSON body:
//!
//! ```text
//! logagent-checkpoint 2 generation=42 bytes=187 sha256=9f86…\n
//! [{"path":"/var/log/a.log","topic":"t","active":true,"files":[…]}]
//! ```
//!
//! The checksum covers the header's own values too: a document is read as it was written, or it
//! is refused. Any change of the layout takes a new version, keeps the reader of the old one, and
//! adds a golden file under `tests/golden`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::{FileId, Print};

/// The layout that is written.
pub const VERSION: u32 = 2;
/// Without birth times of files: the body of version 2 without them.
const VERSION_WITHOUT_BIRTHS: u32 = 1;
const MAGIC: &str = "logagent-checkpoint ";
/// A header longer than this is not ours.
const MAX_HEADER_BYTES: usize = 256;

/// What is remembered of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    pub id: FileId,
    /// Print of the first bytes: tells a reused inode from the old file.
    pub head: Print,
    /// Print of the bytes just before `acked_offset`: tells a rewritten content from a grown one.
    pub marker: Print,
    /// Everything before it is acknowledged by Kafka.
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
    #[error("not a checkpoint: it does not begin with the words of one")]
    NotACheckpoint,
    #[error("checkpoint has version {0}, and this agent reads version {VERSION}")]
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
        // Strings, numbers and lists only: there is nothing that serde_json could refuse.
        let body = serde_json::to_vec(&self.entries).unwrap_or_default();
        let sum = checksum(VERSION, self.generation, &body);
        let mut bytes = format!(
            "{MAGIC}{VERSION} generation={} bytes={} sha256={sum}\n",
            self.generation,
            body.len()
        )
        .into_bytes();
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
        let start = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        let after_magic = start.strip_prefix(MAGIC.as_bytes());
        let Some(after_magic) = after_magic else {
            // A file cut within its first words is a truncated one.
            return Err(if MAGIC.as_bytes().starts_with(bytes) {
                DecodeError::Truncated {
                    expected: MAGIC.len(),
                    got: bytes.len(),
                }
            } else {
                DecodeError::NotACheckpoint
            });
        };
        let Some(header_len) = memchr::memchr(b'\n', after_magic) else {
            return Err(if bytes.len() < MAX_HEADER_BYTES {
                DecodeError::Truncated {
                    expected: MAX_HEADER_BYTES,
                    got: bytes.len(),
                }
            } else {
                DecodeError::NotACheckpoint
            });
        };
        let header = std::str::from_utf8(&after_magic[..header_len])
            .map_err(|_| DecodeError::NotACheckpoint)?;
        let (version, rest) = header.split_once(' ').unwrap_or((header, ""));
        let version = version.parse().map_err(|_| DecodeError::NotACheckpoint)?;
        if version != VERSION && version != VERSION_WITHOUT_BIRTHS {
            return Err(DecodeError::UnknownVersion(version));
        }
        let (generation, body_len, sum) = fields(rest).ok_or(DecodeError::NotACheckpoint)?;
        let body = &bytes[MAGIC.len() + header_len + 1..];
        let header_bytes = bytes.len() - body.len();
        let expected = header_bytes.saturating_add(body_len);
        if body.len() < body_len {
            return Err(DecodeError::Truncated {
                expected,
                got: bytes.len(),
            });
        }
        if body.len() > body_len {
            return Err(DecodeError::TooLong {
                expected,
                got: bytes.len(),
            });
        }
        if checksum(version, generation, body) != sum {
            return Err(DecodeError::BadChecksum);
        }
        let entries = serde_json::from_slice(body)
            .map_err(|error| DecodeError::BadContent(error.to_string()))?;
        Ok(Self {
            generation,
            entries,
        })
    }
}

fn fields(rest: &str) -> Option<(u64, usize, &str)> {
    let mut words = rest.split(' ');
    let generation = words.next()?.strip_prefix("generation=")?.parse().ok()?;
    let body_len = words.next()?.strip_prefix("bytes=")?.parse().ok()?;
    let sum = words.next()?.strip_prefix("sha256=")?;
    words
        .next()
        .is_none()
        .then_some((generation, body_len, sum))
}

fn checksum(version: u32, generation: u64, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(version.to_be_bytes());
    hash.update(generation.to_be_bytes());
    hash.update((body.len() as u64).to_be_bytes());
    hash.update(body);
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN_V1: &[u8] = include_bytes!("../tests/golden/checkpoint-v1");
    const GOLDEN_V2: &[u8] = include_bytes!("../tests/golden/checkpoint-v2");

    fn sample() -> Checkpoint {
        let row = |ino, state| FileRow {
            id: FileId {
                dev: 0xfd01,
                ino,
                born_ns: 1_795_554_309_250_000_000,
            },
            head: Print::of(b"head"),
            marker: Print::of(b"marker"),
            acked_offset: 4_096 * ino,
            seen_bytes: 5_000 * ino,
            state,
        };
        Checkpoint {
            generation: 42,
            entries: vec![
                EntryRows {
                    path: "/var/log/nginx/access.log".into(),
                    topic: "nginx_log".into(),
                    active: true,
                    files: vec![
                        row(1, RowState::Done),
                        row(2, RowState::Draining),
                        row(3, RowState::Current),
                    ],
                },
                EntryRows {
                    path: "/var/log/日志.log".into(),
                    topic: "t".into(),
                    active: false,
                    files: Vec::new(),
                },
            ],
        }
    }

    #[test]
    fn version_2_reads_and_writes_as_it_always_did() {
        assert_eq!(Checkpoint::decode(GOLDEN_V2), Ok(sample()));
        assert_eq!(
            sample().encode(),
            GOLDEN_V2,
            "the layout changed: take a new version"
        );
    }

    #[test]
    fn version_1_is_read_and_knows_no_births() {
        let mut want = sample();
        for row in want.entries.iter_mut().flat_map(|rows| &mut rows.files) {
            row.id.born_ns = 0;
        }
        assert_eq!(Checkpoint::decode(GOLDEN_V1), Ok(want));
    }

    #[test]
    fn an_empty_document_is_a_document() {
        let empty = Checkpoint::default();
        assert_eq!(Checkpoint::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn each_damage_has_its_own_name() {
        let good = sample().encode();
        let text = String::from_utf8(good.clone()).unwrap();
        let long = [good.clone(), b"x".to_vec()].concat();
        let other_generation = text.replace("generation=42", "generation=43");
        let other_offset = text.replace("\"acked_offset\":4096", "\"acked_offset\":9096");
        assert_ne!(other_offset, text);
        let newer = text.replace("logagent-checkpoint 2", "logagent-checkpoint 3");
        let empty: &[u8] = b"";
        let is = |bytes: &[u8]| Checkpoint::decode(bytes).unwrap_err();
        assert_eq!(is(empty), DecodeError::Empty);
        assert_eq!(is(&[0; 4_096]), DecodeError::ZeroFilled);
        assert_eq!(is(b"{\"version\":1}"), DecodeError::NotACheckpoint);
        assert_eq!(is(&[b'x'; 9_000]), DecodeError::NotACheckpoint);
        assert_eq!(is(newer.as_bytes()), DecodeError::UnknownVersion(3));
        assert_eq!(
            is(&long),
            DecodeError::TooLong {
                expected: good.len(),
                got: long.len()
            }
        );
        assert_eq!(is(other_generation.as_bytes()), DecodeError::BadChecksum);
        assert_eq!(is(other_offset.as_bytes()), DecodeError::BadChecksum);
        for cut in 1..good.len() {
            let error = is(&good[..cut]);
            assert!(
                matches!(error, DecodeError::Truncated { .. }),
                "cut at {cut}: {error}"
            );
        }
        let body = b"[{\"path\":7}]";
        let sum = checksum(VERSION, 1, body);
        let mut wrong = format!(
            "{MAGIC}{VERSION} generation=1 bytes={} sha256={sum}\n",
            body.len()
        );
        wrong.push_str(std::str::from_utf8(body).unwrap());
        assert!(matches!(is(wrong.as_bytes()), DecodeError::BadContent(_)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(Checkpoint::decode(&bytes).is_err());
        }

        #[test]
        fn any_change_is_noticed(at: proptest::sample::Index, byte: u8, zero_from: Option<bool>) {
            let good = sample().encode();
            let mut changed = good.clone();
            let at = at.index(changed.len());
            match zero_from {
                // A block that was never written back after a power loss.
                Some(true) => changed[at..].fill(0),
                Some(false) => changed.insert(at, byte),
                None => changed[at] = byte,
            }
            match Checkpoint::decode(&changed) {
                Ok(read) => prop_assert_eq!(read, sample(), "at {}", at),
                Err(_) => prop_assert_ne!(changed, good),
            }
        }

        #[test]
        fn what_is_written_is_read(
            generation: u64,
            rows in proptest::collection::vec((any::<([u64; 5], i64)>(), 0..3_u8), 0..6),
            path: String,
            topic: String,
            active: bool,
        ) {
            let files = rows
                .into_iter()
                .map(|(([dev, ino, hash, acked_offset, seen_bytes], born_ns), state)| FileRow {
                    id: FileId { dev, ino, born_ns },
                    head: Print { len: 7, hash },
                    marker: Print { len: 256, hash: !hash },
                    acked_offset,
                    seen_bytes,
                    state: [RowState::Current, RowState::Draining, RowState::Done]
                        [usize::from(state)],
                })
                .collect();
            let written = Checkpoint {
                generation,
                entries: vec![EntryRows { path, topic, active, files }],
            };
            prop_assert_eq!(Checkpoint::decode(&written.encode()), Ok(written));
        }
    }
}
