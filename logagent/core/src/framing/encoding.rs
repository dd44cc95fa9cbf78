//! Text that is not UTF-8: where its newlines are, where it may be cut, and how it is converted.
//!
//! In UTF-16 a newline has two bytes and the byte 10 may be half of another character, so newlines
//! are looked for by units. Every other known encoding has the byte 10 for a newline alone.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// So many bytes of one character may be before a cut.
const CHARACTER_MAX_BYTES: usize = 4;

/// An encoding that lines are converted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextEncoding(&'static Encoding);

impl TextEncoding {
    /// None for UTF-8, of which nothing is converted, and for an unknown name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let encoding = Encoding::for_label(name.as_bytes())?;
        (encoding != UTF_8).then_some(Self(encoding))
    }

    /// So many times longer a line may be in UTF-8.
    #[must_use]
    pub fn growth(&self) -> usize {
        match self.unit_bytes() {
            1 if self.0.is_single_byte() => 3,
            _ => 2,
        }
    }

    pub(super) fn unit_bytes(&self) -> usize {
        if self.is_utf16() { 2 } else { 1 }
    }

    fn is_utf16(&self) -> bool {
        self.0 == UTF_16LE || self.0 == UTF_16BE
    }

    fn unit(&self, pair: &[u8]) -> u16 {
        match pair {
            [a, b] if self.0 == UTF_16LE => u16::from_le_bytes([*a, *b]),
            [a, b] => u16::from_be_bytes([*a, *b]),
            _ => 0,
        }
    }

    /// Position after the first newline at or behind `from`, and its length. Bytes begin with a
    /// whole unit.
    pub(super) fn find_newline(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        if !self.is_utf16() {
            return memchr::memchr(b'\n', bytes.get(from..)?).map(|at| (from + at + 1, 1));
        }
        let from = from.next_multiple_of(2);
        let places = memchr::memchr_iter(b'\n', bytes.get(from..)?);
        places.map(|at| from + at).find_map(|at| {
            let begin = at & !1;
            let pair = bytes.get(begin..begin + 2)?;
            (self.unit(pair) == u16::from(b'\n')).then_some((begin + 2, 2))
        })
    }

    /// Length up to the last newline, newline included; `start` is the offset in the file.
    pub(super) fn whole_lines_len(&self, start: u64, bytes: &[u8]) -> Option<usize> {
        if !self.is_utf16() {
            return memchr::memrchr(b'\n', bytes).map(|at| at + 1);
        }
        let odd = (start % 2) as usize;
        let bytes = bytes.get(odd..)?;
        memchr::memrchr_iter(b'\n', bytes).find_map(|at| {
            let begin = at & !1;
            let pair = bytes.get(begin..begin + 2)?;
            (self.unit(pair) == u16::from(b'\n')).then_some(odd + begin + 2)
        })
    }

    /// Where a line is cut that may have so many bytes: between characters.
    pub(super) fn cut(&self, line: &[u8], max_bytes: usize) -> usize {
        let longest = max_bytes.min(line.len());
        if self.is_utf16() {
            let even = longest & !1;
            let ends_in_half =
                even > 2 && (0xd800..0xdc00).contains(&self.unit(&line[even - 2..even]));
            return if ends_in_half { even - 2 } else { even };
        }
        if self.0.is_single_byte() {
            return longest;
        }
        let is_whole = |len: &usize| {
            let encoding = self.0;
            encoding
                .decode_without_bom_handling_and_without_replacement(&line[..*len])
                .is_some()
        };
        let shortest = longest.saturating_sub(CHARACTER_MAX_BYTES).max(1);
        // A line with bytes that mean nothing has no better place.
        (shortest..=longest).rev().find(is_whole).unwrap_or(longest)
    }

    /// The line in UTF-8. What means nothing becomes U+FFFD; a mark at the beginning of the file
    /// is no part of the first line.
    #[must_use]
    pub fn decode<'a>(&self, line: &'a [u8], start: u64) -> Cow<'a, str> {
        let line = match Encoding::for_bom(line) {
            Some((encoding, len)) if start == 0 && encoding == self.0 => &line[len..],
            _ => line,
        };
        self.0.decode_without_bom_handling(line).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::objects::ENCODINGS;

    #[test]
    fn every_name_that_the_center_accepts_is_known() {
        for name in ENCODINGS {
            let is_utf8 = name.starts_with("utf-8") || name == "utf8";
            assert_eq!(TextEncoding::named(name).is_none(), is_utf8, "{name}");
        }
    }

    #[test]
    fn cuts_fall_between_characters() {
        let gbk = TextEncoding::named("gbk").unwrap();
        let (bytes, _, _) = encoding_rs::GBK.encode("中文日志a中");
        assert_eq!(gbk.cut(&bytes, 4), 4);
        assert_eq!(gbk.cut(&bytes, 5), 4);
        assert_eq!(gbk.cut(&bytes, 9), 9);
        let utf16 = TextEncoding::named("utf-16le").unwrap();
        let bytes: Vec<u8> = "a😀b".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(utf16.cut(&bytes, 3), 2);
        assert_eq!(utf16.cut(&bytes, 4), 2);
        assert_eq!(utf16.cut(&bytes, 6), 6);
    }

    #[test]
    fn half_a_unit_is_no_newline() {
        // U+0A0D and U+0D0A hold the byte 10 and are no newlines.
        for (name, to_bytes) in [
            ("utf-16le", u16::to_le_bytes as fn(u16) -> [u8; 2]),
            ("utf-16be", u16::to_be_bytes),
        ] {
            let encoding = TextEncoding::named(name).unwrap();
            let text = "\u{a0d}\u{d0a}\n\u{a0a}";
            let bytes: Vec<u8> = text.encode_utf16().flat_map(to_bytes).collect();
            assert_eq!(encoding.find_newline(&bytes, 0), Some((6, 2)), "{name}");
            assert_eq!(encoding.find_newline(&bytes, 6), None);
            assert_eq!(encoding.whole_lines_len(0, &bytes), Some(6));
            assert_eq!(encoding.whole_lines_len(1, &bytes[1..]), Some(5));
        }
    }

    #[test]
    fn the_mark_at_the_beginning_is_no_text() {
        let encoding = TextEncoding::named("utf-16be").unwrap();
        assert_eq!(encoding.decode(b"\xfe\xff\0a", 0), "a");
        assert_eq!(encoding.decode(b"\xfe\xff\0a", 2), "\u{feff}a");
    }
}
