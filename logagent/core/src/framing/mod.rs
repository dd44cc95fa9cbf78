//! Where the records of a block are. Records are slices of the block: no copy and no state between
//! blocks.
//!
//! A reader always reads on from the end of the last whole record, so one that was cut by the end
//! of a block is simply at the beginning of the next one. Nothing is carried, so half a line of an
//! old content can never be joined to half a line of a new one, and an offset that is remembered
//! never stands inside of a record.
//!
//! Rules: a line's value is its bytes without `\n` (a `\r` stays, any byte is allowed, an empty
//! line is a line). A line longer than `max_line_bytes` comes in pieces of exactly that many
//! bytes and a shorter last one, cut at the same places however the blocks fell; or, when that is
//! asked for, as its beginning alone. `records` holds the rules of joined lines and encodings.

mod encoding;
mod joining;
mod records;

use bytes::Bytes;
use schemas::objects::OnLongLine;

pub use encoding::TextEncoding;
pub use joining::Joining;
use records::Span;

/// One record: a line, a piece of a line that was too long, or several lines that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    /// Offset in the file of the first byte.
    pub start: u64,
    /// Offset in the file after this line and its newline.
    pub end: u64,
    /// The line is longer than allowed, and `bytes` is its beginning: its whole length.
    pub whole_bytes: Option<u64>,
}

/// What is known of what follows the bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come at any time.
    Open,
    /// Nothing came for so long that joined lines are complete. A half line still waits.
    Quiet,
    /// Nothing comes any more: what is there is all there is.
    Finished,
}

/// What is at the beginning of the bytes.
#[derive(Debug, Clone)]
pub enum Split {
    /// Not one whole record.
    Nothing,
    Records(Lines),
    /// A line that is too long, of which only the beginning is wanted, and whose end is not here.
    LongLine,
}

/// How the bytes of a file become records.
#[derive(Debug, Clone)]
pub struct Framing {
    max_line_bytes: usize,
    on_long_line: OnLongLine,
    encoding: Option<TextEncoding>,
    joining: Option<Joining>,
}

impl Framing {
    /// Each line is a record, as it is; long ones are split.
    #[must_use]
    pub fn lines(max_line_bytes: usize) -> Self {
        Self {
            max_line_bytes,
            on_long_line: OnLongLine::Split,
            encoding: None,
            joining: None,
        }
    }

    #[must_use]
    pub fn on_long_line(mut self, on_long_line: OnLongLine) -> Self {
        self.on_long_line = on_long_line;
        self
    }

    /// The newline is that of this encoding, and no character is cut in two.
    #[must_use]
    pub fn in_encoding(mut self, encoding: Option<TextEncoding>) -> Self {
        self.encoding = encoding;
        self
    }

    #[must_use]
    pub fn joined(mut self, joining: Option<Joining>) -> Self {
        self.joining = joining;
        self
    }

    /// How long joined lines wait for more. None: lines are not joined.
    #[must_use]
    pub fn join_timeout_ms(&self) -> Option<u64> {
        self.joining.as_ref().map(Joining::timeout_ms)
    }

    #[must_use]
    pub fn max_line_bytes(&self) -> usize {
        self.max_line_bytes
    }

    /// So many bytes always hold a record, or a line that is too long.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.max_line_bytes + 2 * self.unit_bytes()
    }

    /// Takes the whole records at the beginning of `bytes`, which lies at `start` in the file.
    #[must_use]
    pub fn split(&self, start: u64, bytes: &Bytes, end: End) -> Split {
        let is_plain = self.encoding.is_none()
            && self.joining.is_none()
            && self.on_long_line == OnLongLine::Split;
        if !is_plain {
            return self.split_records(start, bytes, end);
        }
        let lines = match end {
            End::Finished => Lines::finish(start, bytes, self.max_line_bytes),
            End::Open | End::Quiet => Lines::split(start, bytes, self.max_line_bytes),
        };
        lines.map_or(Split::Nothing, Split::Records)
    }

    /// The beginning of a line whose end was found elsewhere.
    #[must_use]
    pub fn beginning_of(&self, start: u64, bytes: &Bytes, whole_bytes: u64, end: u64) -> Lines {
        let cut = self.cut(bytes);
        Lines {
            start,
            bytes: bytes.slice(..cut),
            end,
            max_line_bytes: self.max_line_bytes,
            spans: Some(vec![Span {
                from: 0,
                len: cut,
                end: (end - start) as usize,
                whole_bytes: Some(whole_bytes),
            }]),
        }
    }

    /// Position after the first newline at or behind `from`, and the newline's length.
    #[must_use]
    pub fn find_newline(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        match &self.encoding {
            Some(encoding) => encoding.find_newline(bytes, from),
            None => memchr::memchr(b'\n', &bytes[from..]).map(|at| (from + at + 1, 1)),
        }
    }

    /// Length of what precedes the last newline, newline included. `start` is the offset of `bytes`.
    #[must_use]
    pub fn whole_lines_len(&self, start: u64, bytes: &[u8]) -> Option<usize> {
        match &self.encoding {
            Some(encoding) => encoding.whole_lines_len(start, bytes),
            None => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
        }
    }

    /// So many bytes are one unit of the file's text.
    #[must_use]
    pub fn unit_bytes(&self) -> usize {
        self.encoding.as_ref().map_or(1, TextEncoding::unit_bytes)
    }

    /// Where a line that is too long is cut.
    fn cut(&self, line: &[u8]) -> usize {
        match &self.encoding {
            Some(encoding) => encoding.cut(line, self.max_line_bytes),
            None => self.max_line_bytes.min(line.len()),
        }
    }
}

/// Whole records that follow each other in a file.
#[derive(Debug, Clone)]
pub struct Lines {
    start: u64,
    bytes: Bytes,
    /// Offset in the file after the last record.
    end: u64,
    max_line_bytes: usize,
    /// Where the records are, when they are not simply the lines.
    spans: Option<Vec<Span>>,
}

impl Lines {
    /// The whole lines at the beginning; what follows them is left out. None when there is not one
    /// whole line (or full piece).
    fn split(start: u64, bytes: &Bytes, max_line_bytes: usize) -> Option<Self> {
        let whole = whole_len(bytes, max_line_bytes);
        Self::plain(start, bytes.slice(..whole), max_line_bytes)
    }

    /// Everything, a last line without its newline included: the end of a finished file.
    fn finish(start: u64, bytes: &Bytes, max_line_bytes: usize) -> Option<Self> {
        Self::plain(start, bytes.clone(), max_line_bytes)
    }

    fn plain(start: u64, bytes: Bytes, max_line_bytes: usize) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self {
            start,
            end: start + bytes.len() as u64,
            bytes,
            max_line_bytes,
            spans: None,
        })
    }

    /// The record at position `at` and the position of the one after it. Begin with 0; keep the
    /// position to go on later, for instance when a queue was full.
    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> Option<(Line<'_>, usize)> {
        if let Some(spans) = &self.spans {
            return self.get_span(spans, at);
        }
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
                start: self.start + at as u64,
                end: self.start + next as u64,
                whole_bytes: None,
            },
            next,
        ))
    }

    fn get_span(&self, spans: &[Span], at: usize) -> Option<(Line<'_>, usize)> {
        let span = spans.get(at)?;
        let line = Line {
            bytes: self.bytes.get(span.from..span.from + span.len)?,
            start: self.start + span.from as u64,
            end: self.start + span.end as u64,
            whole_bytes: span.whole_bytes,
        };
        Some((line, at + 1))
    }

    /// The first record alone.
    #[must_use]
    pub fn first(&self) -> Self {
        let mut first = self.clone();
        if let Some((line, next)) = self.get(0) {
            first.end = line.end;
            match &mut first.spans {
                Some(spans) => spans.truncate(1),
                None => first.bytes.truncate(next),
            }
        }
        first
    }

    /// All records in order.
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

    /// Offset after the last record and its newline.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Length in the file, newlines included.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
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

#[cfg(test)]
mod tests;
