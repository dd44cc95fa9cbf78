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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, in the plainest words: a record's bytes and the offset after it.
    fn naive(content: &[u8], max: usize, with_rest: bool) -> Vec<(Vec<u8>, u64)> {
        let mut records = Vec::new();
        let mut start = 0;
        while start < content.len() {
            let newline = content[start..].iter().position(|byte| *byte == b'\n');
            let (line, after) = match newline {
                Some(len) => (&content[start..start + len], start + len + 1),
                None if with_rest => (&content[start..], content.len()),
                None => {
                    // Without its newline, only full pieces that something follows are known.
                    let rest = &content[start..];
                    let known = rest.len().saturating_sub(1) / max * max;
                    (&rest[..known], start + known)
                }
            };
            let mut at = start;
            for piece in line.chunks(max) {
                at += piece.len();
                records.push((piece.to_vec(), at as u64));
            }
            if line.is_empty() && newline.is_some() {
                records.push((Vec::new(), after as u64));
            } else if let Some(last) = records.last_mut().filter(|_| !line.is_empty()) {
                last.1 = after as u64;
            }
            if newline.is_none() {
                break;
            }
            start = after;
        }
        records
    }

    fn records(lines: &Lines) -> Vec<(Vec<u8>, u64)> {
        lines
            .iter()
            .map(|line| (line.bytes.to_vec(), line.end))
            .collect()
    }

    /// Reads like a tail: always on from the end of the last whole line, `block` bytes at a time.
    fn read_in_blocks(content: &[u8], max: usize, blocks: &[usize]) -> Vec<(Vec<u8>, u64)> {
        let (mut offset, mut out, mut want, mut turn) = (0, Vec::new(), 0, 0);
        loop {
            let block = want.max(blocks[turn % blocks.len()]);
            turn += 1;
            let end = content.len().min(offset + block);
            let bytes = Bytes::copy_from_slice(&content[offset..end]);
            if let Some(lines) = Lines::split(offset as u64, &bytes, max) {
                out.extend(records(&lines));
                offset = lines.end() as usize;
                want = 0;
            } else if end < content.len() {
                want = max + 2;
            } else {
                out.extend(
                    Lines::finish(offset as u64, &bytes, max)
                        .iter()
                        .flat_map(records),
                );
                return out;
            }
        }
    }

    #[track_caller]
    fn check(content: &[u8], max: usize, want: &[&[u8]], rest: &[u8]) {
        let bytes = Bytes::copy_from_slice(content);
        let lines = Lines::split(0, &bytes, max);
        let got: Vec<_> = lines
            .iter()
            .flat_map(records)
            .map(|(line, _)| line)
            .collect();
        assert_eq!(got, want);
        let end = lines.map_or(0, |lines| lines.end());
        assert_eq!(&content[end as usize..], rest);
    }

    #[test]
    fn lines_are_bytes_without_the_newline() {
        check(b"", 9, &[], b"");
        check(b"half", 9, &[], b"half");
        check(b"a\nb\n", 9, &[b"a", b"b"], b"");
        check(
            b"a\r\n\n\0\xff\nrest",
            9,
            &[b"a\r", b"", b"\0\xff"],
            b"rest",
        );
        check(b"\n\n\n", 9, &[b"", b"", b""], b"");
    }

    #[test]
    fn long_lines_come_in_pieces() {
        check(b"abcd\n", 4, &[b"abcd"], b"");
        check(b"abcde\n", 4, &[b"abcd", b"e"], b"");
        check(b"abcdefgh\nx\n", 4, &[b"abcd", b"efgh", b"x"], b"");
        // A newline may still follow a piece that fills the block: it waits.
        check(b"abcd", 4, &[], b"abcd");
        check(b"abcde", 4, &[b"abcd"], b"e");
        check(b"abcdefgh", 4, &[b"abcd"], b"efgh");
    }

    #[test]
    fn every_byte_value_passes() {
        let content: Vec<u8> = (0..=255).chain([b'\n']).collect();
        let bytes = Bytes::from(content.clone());
        let lines = Lines::split(0, &bytes, 1_000).unwrap();
        let joined: Vec<u8> = lines
            .iter()
            .flat_map(|l| [l.bytes, b"\n"].concat())
            .collect();
        assert_eq!(joined, content);
    }

    #[test]
    fn lines_are_slices_of_the_block() {
        let bytes = Bytes::from_static(b"one\ntwo\n");
        let lines = Lines::split(100, &bytes, 9).unwrap();
        let (line, next) = lines.get(4).unwrap();
        assert_eq!(line.bytes.as_ptr(), bytes[4..].as_ptr());
        assert_eq!((line.bytes, line.end, next), (&b"two"[..], 108, 8));
        assert_eq!(lines.get(8), None);
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![3 => Just(b'\n'), 6 => any::<u8>(), 3 => Just(b'\r'), 9 => Just(b'x')];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn one_block_is_split_as_defined(content in content(), max in 1..30_usize) {
            let bytes = Bytes::copy_from_slice(&content);
            let split = Lines::split(0, &bytes, max);
            let got: Vec<_> = split.iter().flat_map(records).collect();
            prop_assert_eq!(got, naive(&content, max, false));
        }

        /// However the blocks fall, and wherever a reader starts again, the records are the same.
        #[test]
        fn chunking_changes_nothing(
            content in content(),
            max in 1..30_usize,
            blocks in proptest::collection::vec(1..50_usize, 1..6),
            restart: proptest::sample::Index,
        ) {
            let want = naive(&content, max, true);
            prop_assert_eq!(&read_in_blocks(&content, max, &blocks), &want);
            if !want.is_empty() {
                let at = restart.index(want.len());
                let offset = want[at].1;
                let again = read_in_blocks(&content[offset as usize..], max, &blocks);
                let again: Vec<_> =
                    again.into_iter().map(|(line, end)| (line, end + offset)).collect();
                prop_assert_eq!(&again[..], &want[at + 1..]);
            }
        }
    }
}
