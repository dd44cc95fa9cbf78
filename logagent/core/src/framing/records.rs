//! Records that are not simply lines: joined lines, other newlines, long lines cut short.
//!
//! Where a record ends depends only on the bytes from its beginning on, never on where a block
//! ended, so that a restart finds the same records:
//!
//! ```text
//! joined by start ^\d        1 error        one record: "1 error\n  at x\n  at y"
//!                              at x
//!                              at y
//!                            2 fine         begins the next one
//! a group is complete        at a line that begins one, at `max_lines`, before the line with which
//!                            it would be longer than `max_line_bytes`, after `timeout_ms`
//! a line that is too long    is never joined: its pieces, or its beginning, are records alone
//! ```

use bytes::Bytes;
use schemas::objects::OnLongLine;

use super::{End, Framing, Lines, Split};

/// Where a record is in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: usize,
    pub(super) len: usize,
    /// After its newline.
    pub(super) end: usize,
    pub(super) whole_bytes: Option<u64>,
}

/// What begins at a position.
enum Next {
    Whole {
        len: usize,
        end: usize,
    },
    TooLong,
    /// Its end is not here.
    Half,
}

/// Lines that are joined and not complete.
struct Group {
    span: Span,
    lines: usize,
}

impl Framing {
    pub(super) fn split_records(&self, start: u64, bytes: &Bytes, end: End) -> Split {
        let mut spans = Vec::new();
        let mut group: Option<Group> = None;
        let mut at = 0;
        let mut is_cut_short = false;
        while at < bytes.len() {
            match self.next(bytes, at, end) {
                Next::Whole { len, end } => {
                    let line = &bytes[at..at + len];
                    self.add(start, line, at, end, &mut group, &mut spans);
                    at = end;
                }
                Next::TooLong => {
                    spans.extend(group.take().map(|group| group.span));
                    match self.too_long(bytes, at, end) {
                        Some(span) => {
                            at = span.end;
                            spans.push(span);
                        }
                        None => {
                            is_cut_short = true;
                            break;
                        }
                    }
                }
                Next::Half => break,
            }
        }
        // With what follows it, the group would be too long.
        let is_full = |group: &Group| bytes.len() - group.span.from > self.max_line_bytes;
        if let Some(group) =
            group.filter(|group| end != End::Open || (at < bytes.len() && is_full(group)))
        {
            spans.push(group.span);
        }
        match spans.last().map(|last| last.end) {
            None if is_cut_short => Split::LongLine,
            None => Split::Nothing,
            Some(taken) => Split::Records(Lines {
                start,
                bytes: bytes.slice(..taken),
                end: start + taken as u64,
                max_line_bytes: self.max_line_bytes,
                spans: Some(spans),
            }),
        }
    }

    fn next(&self, bytes: &[u8], at: usize, end: End) -> Next {
        let unit = self.unit_bytes();
        let rest = bytes.len() - at;
        // A newline right after the longest line still belongs to it.
        let window = at + rest.min(self.max_line_bytes + unit);
        if let Some((after, newline)) = self.find_newline(&bytes[..window], at) {
            return Next::Whole {
                len: after - newline - at,
                end: after,
            };
        }
        if rest >= self.max_line_bytes + unit {
            return Next::TooLong;
        }
        match end {
            End::Finished => Next::Whole {
                len: rest,
                end: bytes.len(),
            },
            End::Open | End::Quiet => Next::Half,
        }
    }

    fn add(
        &self,
        start: u64,
        line: &[u8],
        at: usize,
        end: usize,
        group: &mut Option<Group>,
        spans: &mut Vec<Span>,
    ) {
        let alone = Span {
            from: at,
            len: line.len(),
            end,
            whole_bytes: None,
        };
        let Some(joining) = &self.joining else {
            spans.push(alone);
            return;
        };
        if let Some(open) = group {
            let joined_len = at + line.len() - open.span.from;
            let fits = open.lines < joining.max_lines() && joined_len <= self.max_line_bytes;
            let continues = || match &self.encoding {
                Some(encoding) => {
                    joining.continues(encoding.decode(line, start + at as u64).as_bytes())
                }
                None => joining.continues(line),
            };
            if fits && continues() {
                open.span.len = joined_len;
                open.span.end = end;
                open.lines += 1;
                return;
            }
            spans.push(open.span);
        }
        *group = Some(Group {
            span: alone,
            lines: 1,
        });
    }

    /// A piece of a line that is too long, or its beginning; none when its end has to be known and
    /// is not here.
    fn too_long(&self, bytes: &[u8], at: usize, end: End) -> Option<Span> {
        let len = self.cut(&bytes[at..]);
        if self.on_long_line == OnLongLine::Split {
            return Some(Span {
                from: at,
                len,
                end: at + len,
                whole_bytes: None,
            });
        }
        let (after, newline) = match self.find_newline(bytes, at + self.max_line_bytes_in_units()) {
            Some(found) => found,
            None if end == End::Finished => (bytes.len(), 0),
            None => return None,
        };
        Some(Span {
            from: at,
            len,
            end: after,
            whole_bytes: Some((after - newline - at) as u64),
        })
    }

    /// No newline is before this in a line that is too long.
    fn max_line_bytes_in_units(&self) -> usize {
        self.max_line_bytes / self.unit_bytes() * self.unit_bytes()
    }
}
