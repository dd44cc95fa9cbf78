//! Columns of text, and numbers as people read them.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

const GAP: usize = 2;

/// Rows of equal length, the first of them the heads. The last column is not padded.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.width() + GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// `1.5 MiB`; below a kibibyte the bytes themselves.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `12 s`, `5 min`, `3 h 20 min`, `4 d 3 h`.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// Bytes of a log as one line of text: a terminal must not obey them.
pub(super) fn printable(bytes: &[u8], width_max: usize) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if text.width() >= width_max {
            text.push('…');
            break;
        }
        if character.is_control() {
            // Writing into a String cannot fail.
            let written = write!(text, "{}", character.escape_default());
            debug_assert!(written.is_ok());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let rows = [row(["PATH", "N"]), row(["/日志", "1"]), row(["/a", "22"])];
        assert_eq!(columns(&rows), "PATH   N\n/日志  1\n/a     22\n");
        assert_eq!(columns(&[]), "");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [size(0), size(1_023), size(1_536), size(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(
            [span(900), span(61_000), span(3_660_000), span(90_000_000)],
            ["0 s", "1 min", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn a_log_cannot_steer_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\r", 80), "a\\u{1b}[2Jb\u{fffd}\\r");
        assert_eq!(printable(b"abcdef", 3), "abc…");
    }
}
