//! A line that is too long and of which only the beginning is wanted. Its end is looked for without
//! keeping what is read; then its beginning is read again, with the proof that the content is still
//! the known one. The offset stays at the beginning of the line meanwhile, so nothing of the search
//! has to survive a restart.

use crate::framing::Framing;
use crate::identity::{MARKER_BYTES, Print, marker_at_end};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LongLine {
    /// No newline stands before this offset.
    Sought { from: u64 },
    Found {
        /// Offset after the line, before its newline.
        whole_end: u64,
        end: u64,
        /// Print of the bytes before `end`.
        marker: Print,
    },
}

impl LongLine {
    /// Where the next read of the search begins: enough before it to make a marker of.
    pub(super) fn read_start(from: u64, line_start: u64) -> u64 {
        from - (from - line_start).min(MARKER_BYTES as u64)
    }

    /// Looks at what was read at `start`, where `from` is where the search goes on.
    pub(super) fn seek(start: u64, bytes: &[u8], from: u64, framing: &Framing) -> Self {
        let known = (from - start) as usize;
        match framing.find_newline(bytes, known) {
            Some((after, newline)) => Self::Found {
                whole_end: start + (after - newline) as u64,
                end: start + after as u64,
                marker: marker_at_end(&bytes[..after]),
            },
            None => {
                let unit_bytes = framing.unit_bytes();
                Self::Sought {
                    from: start + (bytes.len() / unit_bytes * unit_bytes) as u64,
                }
            }
        }
    }
}
