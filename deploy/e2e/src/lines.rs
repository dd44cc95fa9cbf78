//! Numbered lines in nginx's formats, and the writer that appends, rotates and truncates.
//!
//! Every line is a function of its file's name and its number. A consumer can therefore tell a
//! line that arrived whole from one that was split or altered, without keeping what was written.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a line looks like around its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// nginx's `combined` access log.
    Access,
    /// nginx's error log.
    Error,
}

/// The lines of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFormat {
    /// Stands in every line; letters, digits and dots.
    pub name: String,
    pub style: Style,
    /// The time of line 0, in seconds since 1970.
    pub epoch_s: u64,
    /// How many lines share one second.
    pub lines_per_s: u64,
}

/// The time of line 0 unless a writer says otherwise: 24 November 2026, 00:00 UTC.
const EPOCH_S: u64 = 1_795_478_400;

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

impl LineFormat {
    pub fn access(name: &str) -> Self {
        let name = name.to_owned();
        Self {
            name,
            style: Style::Access,
            epoch_s: EPOCH_S,
            lines_per_s: 1_000,
        }
    }

    pub fn error(name: &str) -> Self {
        Self {
            style: Style::Error,
            ..Self::access(name)
        }
    }

    /// The same lines with line 0 at the present second.
    pub fn starting_now(self, lines_per_s: u64) -> Self {
        let age = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            epoch_s: age.map_or(EPOCH_S, |age| age.as_secs()),
            lines_per_s,
            ..self
        }
    }

    /// Appends line `seq` without its newline.
    pub fn append_line(&self, seq: u64, out: &mut Vec<u8>) {
        let time = Civil::from_epoch_s(self.epoch_s + seq / self.lines_per_s.max(1));
        let Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = time;
        let name = &self.name;
        let client = seq % 254 + 1;
        let written = match self.style {
            Style::Access => {
                let month = MONTHS[month as usize - 1];
                let bytes = 200 + seq * 7 % 5_000;
                write!(
                    out,
                    "203.0.113.{client} - - \
                     [{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \
                     \"GET /{name}/{seq:08} HTTP/1.1\" 200 {bytes} \
                     \"https://shop.example/catalogue\" \"{AGENT}\""
                )
            }
            Style::Error => write!(
                out,
                "{year}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02} [error] 812#812: \
                 *{seq} open() \"/srv/www/{name}\" failed (2: No such file or directory), \
                 client: 203.0.113.{client}, server: shop.example, \
                 request: \"GET /{name}/{seq:08} HTTP/1.1\", host: \"shop.example\""
            ),
        };
        written.expect("writing to a Vec");
    }

    pub fn line(&self, seq: u64) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        self.append_line(seq, &mut line);
        line
    }
}

/// The file name and number that a line carries, if it carries them.
pub fn parse(line: &[u8]) -> Option<(&str, u64)> {
    const BEFORE: &[u8] = b"\"GET /";
    let at = line
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)?;
    let rest = &line[at + BEFORE.len()..];
    let end = rest.iter().position(|&byte| byte == b' ')?;
    let (name, seq) = std::str::from_utf8(&rest[..end]).ok()?.split_once('/')?;
    Some((name, seq.parse().ok()?))
}

/// Appends numbered lines to a file, as nginx does.
#[derive(Debug)]
pub struct LineWriter {
    format: LineFormat,
    path: PathBuf,
    file: File,
    next_seq: u64,
    buffer: Vec<u8>,
}

impl LineWriter {
    pub fn create(path: &Path, format: LineFormat) -> anyhow::Result<Self> {
        Ok(Self {
            format,
            path: path.into(),
            file: open(path)?,
            next_seq: 0,
            buffer: Vec::new(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn format(&self) -> &LineFormat {
        &self.format
    }

    /// How many lines have been written to the file and its predecessors.
    pub fn written(&self) -> u64 {
        self.next_seq
    }

    /// Appends this many lines with one write call.
    pub fn write(&mut self, lines: u64) -> anyhow::Result<()> {
        self.buffer.clear();
        for seq in self.next_seq..self.next_seq + lines {
            self.format.append_line(seq, &mut self.buffer);
            self.buffer.push(b'\n');
        }
        self.file.write_all(&self.buffer)?;
        self.next_seq += lines;
        Ok(())
    }

    /// Renames the file to `path.1` and goes on writing to it, as nginx does until it is told.
    pub fn rename(&mut self) -> anyhow::Result<PathBuf> {
        let old = PathBuf::from(format!("{}.1", self.path.display()));
        fs::rename(&self.path, &old)?;
        Ok(old)
    }

    /// Opens the path anew: the `USR1` of a rotation.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Cuts the file to nothing; the next line starts at offset 0.
    pub fn truncate(&mut self) -> anyhow::Result<()> {
        Ok(self.file.set_len(0)?)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    Ok(File::options().create(true).append(true).open(path)?)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A point of time in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn from_epoch_s(epoch_s: u64) -> Self {
        let mut days = epoch_s / 86_400;
        let mut year = 1970;
        let in_year = |year: u64| if is_leap(year) { 366 } else { 365 };
        while days >= in_year(year) {
            days -= in_year(year);
            year += 1;
        }
        let february = if is_leap(year) { 29 } else { 28 };
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let in_day = epoch_s % 86_400;
        Self {
            year,
            month,
            day: days + 1,
            hour: in_day / 3_600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
        }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        let civil = |year, month, day, hour, minute, second| Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        };
        assert_eq!(Civil::from_epoch_s(0), civil(1970, 1, 1, 0, 0, 0));
        assert_eq!(
            Civil::from_epoch_s(951_782_399),
            civil(2000, 2, 28, 23, 59, 59)
        );
        assert_eq!(
            Civil::from_epoch_s(951_782_400),
            civil(2000, 2, 29, 0, 0, 0)
        );
        assert_eq!(
            Civil::from_epoch_s(1_735_689_599),
            civil(2024, 12, 31, 23, 59, 59)
        );
    }

    #[test]
    fn a_line_tells_its_file_and_number() {
        for format in [
            LineFormat::access("access.log"),
            LineFormat::error("error.log"),
        ] {
            for seq in [0, 1, 99_999_999, 123_456_789] {
                assert_eq!(parse(&format.line(seq)), Some((format.name.as_str(), seq)));
            }
        }
        for other in [
            "",
            "GET /a/1 ",
            "\"GET /a/1",
            "\"GET /a ",
            "\"GET /a/x ",
            "\"GET /a/-1 ",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_writer_follows_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut writer = LineWriter::create(&path, LineFormat::access("a")).unwrap();
        writer.write(3).unwrap();
        let old = writer.rename().unwrap();
        writer.write(2).unwrap();
        writer.reopen().unwrap();
        writer.write(4).unwrap();
        let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&old), lines(&path), writer.written()), (5, 4, 9));
        writer.truncate().unwrap();
        writer.write(1).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap().as_bytes().first(),
            Some(&b'2')
        );
        assert_eq!((lines(&path), writer.written()), (1, 10));
    }
}
