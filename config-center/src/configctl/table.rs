//! Tables for a terminal: columns as wide as they appear, CJK counting two cells.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

const COLUMN_GAP: usize = 3;
const RESET: &str = "\x1b[0m";

/// How a cell is painted when colours are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Good,
    Notice,
    Bad,
}

impl Paint {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Notice => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(crate) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        // A control character from the store must not reach the terminal.
        let text = text
            .into()
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        Self { text, paint }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    header: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            header: header.into_iter().map(Cell::from).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Lines that end with a newline; no blanks at the end of a line.
    pub(crate) fn render(&self, colours: bool) -> String {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let mut widths = vec![0; self.header.len()];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.text.width());
            }
        }
        let mut out = String::new();
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match cell.paint.code() {
                    Some(code) if colours => {
                        out.push_str(code);
                        out.push_str(&cell.text);
                        out.push_str(RESET);
                    }
                    _ => out.push_str(&cell.text),
                }
                if column + 1 < line.len() {
                    let gap = width - cell.text.width() + COLUMN_GAP;
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A size with three digits at most: `812 B`, `4.2 KiB`, `1.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let mut text = String::new();
    let written = if value < 9.95 {
        write!(text, "{value:.1} {}", UNITS[unit])
    } else {
        write!(text, "{value:.0} {}", UNITS[unit])
    };
    written.expect("writing to a String cannot fail");
    text
}

/// How long ago something was: `0.4 s`, `12 s`, `5 m`, `3 h`, `2 d`.
pub(crate) fn age(age_ms: u64) -> String {
    let seconds = age_ms / 1000;
    match seconds {
        0 => format!("{:.1} s", age_ms as f64 / 1000.0),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} m", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_keep_columns_straight() {
        let mut table = Table::new(["HOST", "STATE"]);
        table.row(["主机一".into(), Cell::painted("applied", Paint::Good)]);
        table.row(["h".into(), "pending".into()]);
        let plain = table.render(false);
        assert_eq!(
            plain,
            "HOST     STATE\n主机一   applied\nh        pending\n"
        );
        let coloured = table.render(true);
        assert!(
            coloured.contains("主机一   \x1b[32mapplied\x1b[0m\n"),
            "{coloured:?}"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(["A"]);
        table.row(["x\x1b[2Jy\n".into()]);
        assert_eq!(table.render(false), "A\nx\u{fffd}[2Jy\u{fffd}\n");
    }

    #[test]
    fn sizes_and_ages() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (4301, "4.2 KiB"),
            (10 << 20, "10 MiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "16384 PiB");
        for (ms, text) in [
            (412, "0.4 s"),
            (12_000, "12 s"),
            (300_000, "5 m"),
            (8_000_000, "2 h"),
        ] {
            assert_eq!(age(ms), text);
        }
    }
}
