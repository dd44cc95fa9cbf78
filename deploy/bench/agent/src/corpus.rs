//! The lines: nginx's combined format, alone or with a long body, each a function of its number.
//!
//! A consumer can tell a line that arrived whole, once, from one that was lost, doubled, split or
//! altered, without keeping what was written: it makes the line again and compares.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "curl/8.14.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
];
const PATHS: [&str; 6] = [
    "/catalogue/shoes/running",
    "/api/v1/orders",
    "/assets/app.3f9c1d.js",
    "/search?q=blue+jacket&page=",
    "/",
    "/images/products/large",
];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 304, 302, 404, 500];

/// What the lines of a corpus look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// About 208 bytes.
    Access,
    /// An access line with a body of up to 8 KiB, as services that log requests write it.
    Long,
    /// A record of several lines: an access line and a stack trace below it.
    Trace,
}

/// The longest body of a long line.
const BODY_MAX_BYTES: u64 = 8 * 1024;

impl Kind {
    /// Appends line `number` without its newline.
    pub fn append_line(self, number: u64, out: &mut Vec<u8>) {
        append_line(number, out);
        if self == Self::Long {
            let length = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let length = (length % BODY_MAX_BYTES) as usize;
            out.extend_from_slice(b" body=");
            let words = b"{\"sku\":40512,\"colour\":\"blue\",\"size\":\"L\",\"price\":19.90},";
            let start = number as usize % words.len();
            out.extend(words.iter().cycle().skip(start).take(length));
        }
        if self == Self::Trace {
            for frame in 0..3 + number % 12 {
                let source_line = (number * 31 + frame * 7) % 2_000;
                write!(
                    out,
                    "\n\tat example.shop.Catalogue.step{frame}(Catalogue.java:{source_line})"
                )
                .expect("writing to a Vec");
            }
        }
    }
}

/// Appends an access line without its newline; about 208 bytes on average.
pub fn append_line(number: u64, out: &mut Vec<u8>) {
    // A mixed copy of the number varies the fields as real clients do.
    let mixed = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = mixed ^ (mixed >> 29);
    let pick = |shift: u32, count: usize| (mixed >> shift) as usize % count;
    let second = number / 1_000;
    write!(
        out,
        "{}.{}.{}.{} - - [24/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET {}/{number} HTTP/1.1\" {} {} \
         \"https://shop.example/catalogue\" \"{}\"",
        pick(8, 223) + 1,
        pick(16, 256),
        pick(24, 256),
        pick(32, 254) + 1,
        second / 3_600 % 24,
        second / 60 % 60,
        second % 60,
        PATHS[pick(40, PATHS.len())],
        STATUSES[pick(48, STATUSES.len())],
        pick(3, 60_000),
        AGENTS[pick(56, AGENTS.len())],
    )
    .expect("writing to a Vec");
}

/// The number of a line that is exactly what `append_line` makes of it.
pub fn number_of(kind: Kind, line: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
    const AFTER: &[u8] = b" HTTP/1.1\"";
    let end = memchr::memmem::find(line, AFTER)?;
    let start = memchr::memrchr(b'/', &line[..end])? + 1;
    let number = std::str::from_utf8(&line[start..end]).ok()?.parse().ok()?;
    scratch.clear();
    kind.append_line(number, scratch);
    (scratch == line).then_some(number)
}

/// Some files that hold the numbers from 0 on in their order, each an equal share.
#[derive(Debug, Clone, Copy)]
pub struct Corpus {
    pub kind: Kind,
    pub lines: u64,
    pub files: u64,
}

impl Corpus {
    /// Lines of each file; the last one may have fewer.
    fn share(&self) -> u64 {
        self.lines.div_ceil(self.files)
    }

    /// Writes the files `00000.log` and so on into an empty folder; returns their bytes.
    pub fn write(&self, folder: &Path) -> anyhow::Result<u64> {
        std::fs::create_dir_all(folder)?;
        let mut line = Vec::new();
        let mut bytes = 0;
        for index in 0..self.files {
            let path = folder.join(format!("{index:05}.log"));
            let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            let first = index * self.share();
            for number in first..(first + self.share()).min(self.lines) {
                line.clear();
                self.kind.append_line(number, &mut line);
                line.push(b'\n');
                out.write_all(&line)?;
                bytes += line.len() as u64;
            }
            out.into_inner()?.sync_all()?;
        }
        Ok(bytes)
    }
}

/// Which numbers have arrived, and how well.
#[derive(Debug)]
pub struct Tally {
    corpus: Corpus,
    seen: Vec<bool>,
    /// Of each file.
    last: Vec<Option<u64>>,
    scratch: Vec<u8>,
    pub duplicated: u64,
    pub altered: u64,
    pub out_of_order: u64,
}

impl Tally {
    pub fn new(corpus: Corpus) -> Self {
        Self {
            corpus,
            seen: vec![false; corpus.lines as usize],
            last: vec![None; corpus.files as usize],
            scratch: Vec::new(),
            duplicated: 0,
            altered: 0,
            out_of_order: 0,
        }
    }

    pub fn take(&mut self, line: &[u8]) {
        let number = number_of(self.corpus.kind, line, &mut self.scratch);
        let Some((number, seen)) =
            number.and_then(|number| Some((number, self.seen.get_mut(number as usize)?)))
        else {
            self.altered += 1;
            return;
        };
        self.duplicated += u64::from(std::mem::replace(seen, true));
        let last = &mut self.last[(number / self.corpus.share()) as usize];
        self.out_of_order += u64::from(last.is_some_and(|last| number < last));
        *last = Some(number);
    }

    pub fn lost(&self) -> u64 {
        self.seen.iter().filter(|seen| !**seen).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Vec<u8> {
        let mut line = Vec::new();
        append_line(number, &mut line);
        line
    }

    #[test]
    fn a_line_tells_its_number_only_when_whole() {
        let mut scratch = Vec::new();
        for number in [0, 7, 999_999] {
            let mut line = line(number);
            assert_eq!(number_of(Kind::Access, &line, &mut scratch), Some(number));
            line.pop();
            assert_eq!(number_of(Kind::Access, &line, &mut scratch), None);
            let mut long = Vec::new();
            Kind::Long.append_line(number, &mut long);
            assert_eq!(number_of(Kind::Long, &long, &mut scratch), Some(number));
            let mut trace = Vec::new();
            Kind::Trace.append_line(number, &mut trace);
            assert_eq!(number_of(Kind::Trace, &trace, &mut scratch), Some(number));
            // A record that was cut at one of its lines is an altered one.
            trace.truncate(trace.iter().rposition(|byte| *byte == b'\n').unwrap());
            assert_eq!(number_of(Kind::Trace, &trace, &mut scratch), None);
        }
    }

    #[test]
    fn lines_are_as_long_as_promised() {
        let bytes: usize = (0..10_000).map(|number| line(number).len() + 1).sum();
        assert!((180..230).contains(&(bytes / 10_000)), "{}", bytes / 10_000);
        let mut long = Vec::new();
        (0..1_000).for_each(|number| Kind::Long.append_line(number, &mut long));
        assert!(
            (3_000..6_000).contains(&(long.len() / 1_000)),
            "{}",
            long.len()
        );
    }

    #[test]
    fn a_tally_finds_every_fault() {
        let mut tally = Tally::new(Corpus {
            kind: Kind::Access,
            lines: 5,
            files: 1,
        });
        for number in [0, 2, 1, 2] {
            tally.take(&line(number));
        }
        tally.take(b"something else");
        tally.take(&line(99));
        assert_eq!(
            (
                tally.lost(),
                tally.duplicated,
                tally.altered,
                tally.out_of_order
            ),
            (2, 1, 2, 1)
        );
    }

    #[test]
    fn order_is_that_of_each_file() {
        let corpus = Corpus {
            kind: Kind::Access,
            lines: 6,
            files: 2,
        };
        let mut tally = Tally::new(corpus);
        for number in [3, 0, 4, 1, 2, 5] {
            tally.take(&line(number));
        }
        assert_eq!((tally.lost(), tally.out_of_order), (0, 0));
        let folder = std::env::temp_dir().join(format!("corpus-{}", std::process::id()));
        let bytes = corpus.write(&folder).unwrap();
        let sizes = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
        assert_eq!(sizes("00000.log") + sizes("00001.log"), bytes);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
