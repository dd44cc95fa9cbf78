//! Which file is this, and is its content still the one that we knew?
//!
//! A name says nothing (rotation moves it), an inode says little (it is reused), so content is
//! checked too: a fingerprint of the first bytes, and a marker, the bytes just before an offset.
//! This module compares; it never reads.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How much of a file's beginning goes into its fingerprint.
pub const HEAD_BYTES: usize = 1_024;
/// How many bytes before an offset are compared before anything after it is believed.
pub const MARKER_BYTES: usize = 256;

/// Device and inode: the name of a file as long as somebody holds it open or it has a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    pub dev: u64,
    pub ino: u64,
}

/// An inode and its birth time: the name of a file for ever, also after its inode is another's.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct FileId {
    pub dev: u64,
    pub ino: u64,
    /// `st_birthtime` in nanoseconds; 0 where the file system does not tell.
    #[serde(default, skip_serializing_if = "is_untold")]
    pub born_ns: i64,
}

fn is_untold(born_ns: &i64) -> bool {
    *born_ns == 0
}

impl FileId {
    #[must_use]
    pub fn inode(&self) -> Inode {
        Inode {
            dev: self.dev,
            ino: self.ino,
        }
    }

    /// The same inode, of which one side does not know the birth.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        self.inode() == other.inode() && (self.born_ns == 0 || other.born_ns == 0)
    }

    /// That of a file which is not there any more: equal to no file's.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for FileId {
    /// `dev:ino` in hexadecimal, as the status document writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}:{:x}", self.dev, self.ino)
    }
}

/// What `stat` or `fstat` says of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    pub id: FileId,
    pub size: u64,
    /// `st_ctime` in nanoseconds. Only ever compared for equality, so clock jumps do no harm;
    /// unlike `st_mtime` it cannot be set back by a program.
    pub changed_ns: i64,
}

/// Length and hash of some bytes of a file: enough to recognise them, too little to leak them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Print {
    pub len: u32,
    /// The first eight bytes of the SHA-256, big endian.
    pub hash: u64,
}

impl Print {
    /// The print of exactly these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self {
            len: bytes.len() as u32,
            hash: u64::from_be_bytes(first),
        }
    }

    /// Whether `bytes` begins with what was printed. Fewer bytes than printed never match; a print
    /// of nothing matches everything.
    #[must_use]
    pub fn begins(&self, bytes: &[u8]) -> bool {
        self.len == 0
            || bytes
                .get(..self.len as usize)
                .is_some_and(|head| Self::of(head) == *self)
    }
}

/// What is known of a file's content up to an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Print of the first bytes, up to [`HEAD_BYTES`].
    pub head: Print,
    /// Print of the bytes just before `offset`, up to [`MARKER_BYTES`].
    pub marker: Print,
    pub offset: u64,
}

/// Whether the content is still the known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is: what follows the offset is new.
    Same,
    /// The file ends before what we knew: it was truncated.
    Shorter,
    /// Other bytes stand before the offset: truncated and written again, or another file.
    Rewritten,
}

impl Known {
    /// Where a read must begin so that its first bytes prove the content: the marker comes with
    /// the new data in the same read, so nothing can change between proof and use.
    ///
    /// Near the beginning the whole head is read, which lets a short head grow for free.
    #[must_use]
    pub fn read_start(&self) -> u64 {
        if self.offset <= HEAD_BYTES as u64 {
            0
        } else {
            self.offset - u64::from(self.marker.len)
        }
    }

    /// Judges what one read at `start` returned. `start` is [`Known::read_start`], or 0 to check
    /// the head alone.
    #[must_use]
    pub fn judge(&self, start: u64, bytes: &[u8]) -> Verdict {
        if start == 0 && !self.head.begins(bytes) {
            return short_or(bytes.len() < self.head.len as usize);
        }
        let overlap = (self.offset - start) as usize;
        if start == 0 && overlap > bytes.len() && self.offset > HEAD_BYTES as u64 {
            // The head alone was read, and it matches.
            return Verdict::Same;
        }
        let Some(before) = bytes.get(..overlap) else {
            return Verdict::Shorter;
        };
        let from = overlap.saturating_sub(self.marker.len as usize);
        if self.marker.begins(&before[from..]) {
            Verdict::Same
        } else {
            Verdict::Rewritten
        }
    }

    /// Learns from a read that was judged the same: the head may have grown.
    pub fn learn_head(&mut self, start: u64, bytes: &[u8]) {
        if start == 0 && (self.head.len as usize) < HEAD_BYTES.min(bytes.len()) {
            self.head = Print::of(&bytes[..HEAD_BYTES.min(bytes.len())]);
        }
    }
}

fn short_or(shorter: bool) -> Verdict {
    if shorter {
        Verdict::Shorter
    } else {
        Verdict::Rewritten
    }
}

/// The print of the last bytes of `before`: the marker of the offset at its end.
#[must_use]
pub fn marker_at_end(before: &[u8]) -> Print {
    Print::of(&before[before.len().saturating_sub(MARKER_BYTES)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(content: &[u8], offset: usize) -> Known {
        let mut known = Known {
            marker: marker_at_end(&content[..offset]),
            offset: offset as u64,
            head: Print::default(),
        };
        known.head = Print::of(&content[..content.len().min(HEAD_BYTES)]);
        known
    }

    /// Reads like an adapter: from the known's start to the end of the content.
    fn judge(known: &Known, content: &[u8]) -> Verdict {
        let start = known.read_start();
        known.judge(start, content.get(start as usize..).unwrap_or_default())
    }

    fn numbered(lines: usize, tag: &str) -> Vec<u8> {
        (0..lines)
            .map(|n| format!("{tag} line {n}\n"))
            .collect::<String>()
            .into_bytes()
    }

    #[test]
    fn the_content_decides() {
        for lines in [0, 1, 3, 60, 90, 5_000] {
            let old = numbered(lines, "old");
            let known = known(&old, old.len());
            let mut grown = old.clone();
            grown.extend_from_slice(b"more\n");
            let table = [
                ("unchanged", old.clone(), Verdict::Same),
                ("grown", grown, Verdict::Same),
                (
                    "rewritten, longer",
                    numbered(lines + 9, "new"),
                    Verdict::Rewritten,
                ),
                (
                    "rewritten, same size",
                    numbered(lines, "new"),
                    Verdict::Rewritten,
                ),
                ("emptied", Vec::new(), Verdict::Shorter),
                ("zeroed", vec![0; old.len()], Verdict::Rewritten),
            ];
            for (case, content, want) in table {
                let want = if lines == 0 { Verdict::Same } else { want };
                assert_eq!(judge(&known, &content), want, "{case}, {lines} lines");
            }
        }
    }

    #[test]
    fn one_changed_byte_before_the_offset_is_seen() {
        let old = numbered(500, "old");
        let known = known(&old, old.len());
        for distance in 1..=MARKER_BYTES {
            let mut changed = old.clone();
            let at = changed.len() - distance;
            changed[at] ^= 1;
            assert_eq!(
                judge(&known, &changed),
                Verdict::Rewritten,
                "{distance} bytes before"
            );
        }
    }

    #[test]
    fn head_alone_is_a_proof_of_the_head_only() {
        let old = numbered(500, "old");
        let known = known(&old, old.len());
        assert_eq!(known.judge(0, &old[..HEAD_BYTES]), Verdict::Same);
        assert_eq!(
            known.judge(0, &numbered(500, "new")[..HEAD_BYTES]),
            Verdict::Rewritten
        );
        assert_eq!(known.judge(0, &old[..HEAD_BYTES - 1]), Verdict::Shorter);
    }

    #[test]
    fn a_short_head_grows_with_the_file() {
        let old = numbered(200, "old");
        let mut known = known(&old[..20], 20);
        assert_eq!(known.judge(0, &old[..700]), Verdict::Same);
        known.learn_head(0, &old[..700]);
        assert_eq!(known.head.len, 700);
        known.learn_head(0, &old);
        assert_eq!(known.head, Print::of(&old[..HEAD_BYTES]));
        known.learn_head(256, &old[..30]);
        assert_eq!(known.head.len as usize, HEAD_BYTES);
    }

    #[test]
    fn identity_prints_as_the_status_shows_it() {
        assert_eq!(
            FileId {
                dev: 0xfd01,
                ino: 255,
                born_ns: 9
            }
            .to_string(),
            "fd01:ff"
        );
    }
}
