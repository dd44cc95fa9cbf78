//! Where the lines of a block are. Lines are slices of the block: no copy, no allocation, no
//! state between blocks.
//!
//! A reader always reads on from the end of the last whole line, so a line that was cut by the
//! end of one block is simply at the beginning of the next one. Nothing is carried, so half a
//! line of an old content can never be joined to half a line of a new one.
//!
//! Rules: a line's value is its bytes without `\n` (a `\r` stays, any byte is allowed, an empty
//! line is a line). A line longer than `max_line_bytes` comes in pieces of exactly that many
//! bytes and a shorter last one, cut at the same places however the blocks fell.

use bytes::Bytes;

/// One line, or one piece of a line that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    /// Offset in the file after this line and its newline.
    pub end: u64,
}

/// Whole lines that follow each other in a file.
#[derive(Debug, Clone)]
pub struct Lines {
    start: u64,
    bytes: Bytes,
    max_line_bytes: usize,
}

impl Lines {
    /// Takes the whole lines at the beginning of `bytes`, which lies at `start` in the file; what
    /// follows them is left out. None when there is not one whole line (or full piece) in it.
    #[must_use]
    pub fn split(start: u64, bytes: &Bytes, max_line_bytes: usize) -> Option<Self> {
        let whole = whole_len(bytes, max_line_bytes);
        (whole > 0).then(|| Self {
            start,
            bytes: bytes.slice(..whole),
            max_line_bytes,
        })
    }

    /// Takes everything, a last line without its newline included: the end of a finished file.
    #[must_use]
    pub fn finish(start: u64, bytes: &Bytes, max_line_bytes: usize) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self {
            start,
            bytes: bytes.clone(),
            max_line_bytes,
        })
    }

    /// The line at position `at` and the position of the one after it. Begin with 0; keep the
    /// position to go on later, for instance when a queue was full.
    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> Option<(Line<'_>, usize)> {
        let rest = self.bytes.get(at..)?;
        if rest.is_empty() {
            return None;
        }
        let max = self.max_line_bytes;
        // A newline right after a full piece still belongs to it.
        let window = &rest[..rest.len().min(max + 1)];
        let (len, next) = match memchr::memchr(b'\n', window) {
            Some(newline) => (newline, at + newline + 1),
            None if rest.len() <= max => (rest.len(), at + rest.len()),
            None => (max, at + max),
        };
        Some((
            Line {
                bytes: &rest[..len],
                end: self.start + next as u64,
            },
            next,
        ))
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Line<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (line, next) = self.get(at)?;
            at = next;
            Some(line)
        })
    }

    /// Offset of the first byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Length in the file, newlines included.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// How many bytes at the beginning of `bytes` are whole lines or full pieces.
fn whole_len(bytes: &[u8], max_line_bytes: usize) -> usize {
    let after_newline = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
    let rest = bytes.len() - after_newline;
    // A piece is cut only when a byte is known to follow it: a newline there belongs to it.
    let pieces = rest.saturating_sub(1) / max_line_bytes;
    after_newline + pieces * max_line_bytes
}
