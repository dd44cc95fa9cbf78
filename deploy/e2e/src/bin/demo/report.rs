//! The demo's output: aligned plain text; colour on a terminal only, and never with `NO_COLOR`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use e2e::Verdict;

/// Where the figures end, counted from the first column of a step's text.
const TEXT_WIDTH: usize = 62;
const LABEL_WIDTH: usize = 9;

/// Prints steps with the time since the start.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    colour: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Cyan,
    Green,
    Red,
}

impl Report {
    pub(crate) fn new() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = std::io::stdout().is_terminal() && !no_colour;
        Self {
            started: Instant::now(),
            colour,
        }
    }

    pub(crate) fn title(&self, text: &str) {
        println!("\n{}\n", self.ink(Ink::Bold, text));
    }

    /// A step begins: what is done now.
    pub(crate) fn step(&self, label: &str, text: &str) {
        let at = format!("{:>6.1} s", self.started.elapsed().as_secs_f64());
        let label = self.ink(Ink::Cyan, &format!("{label:<LABEL_WIDTH$}"));
        println!("{}  {label} {text}", self.ink(Ink::Dim, &at));
    }

    /// What came of the step, and how long that took.
    pub(crate) fn result(&self, text: &str, took: Duration) {
        let dots = ".".repeat(TEXT_WIDTH.saturating_sub(text.chars().count()));
        let figure = self.ink(Ink::Green, &format!("{:>9}", duration(took)));
        self.below(&format!("{text} {} {figure}", self.ink(Ink::Dim, &dots)));
    }

    pub(crate) fn note(&self, text: &str) {
        self.below(&self.ink(Ink::Dim, text));
    }

    fn below(&self, text: &str) {
        println!("{:10}{:LABEL_WIDTH$} {text}", "", "");
    }

    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.chain([head[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded: Vec<_> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    // Names on the left, figures on the right.
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            padded.join("   ")
        };
        let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
        println!("\n  {}", self.ink(Ink::Dim, &line(&head)));
        for row in rows {
            println!("  {}", line(row));
        }
    }

    /// The last line when every number is right.
    pub(crate) fn success(&self, text: &str) {
        println!("\n{} {text}\n", self.ink(Ink::Green, "OK"));
    }

    pub(crate) fn failure(&self, text: &str) {
        eprintln!("\n{} {text}\n", self.ink(Ink::Red, "FAILED"));
    }

    pub(crate) fn commands(&self, commands: &[(&str, String)]) {
        for (what, command) in commands {
            println!("  {}\n    {command}", self.ink(Ink::Dim, what));
        }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Cyan => "36",
            Ink::Green => "32",
            Ink::Red => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

pub(crate) fn interrupted() {
    eprintln!("\ninterrupted: every process is stopped, the work folder is removed");
}

/// A row of the table of files.
pub(crate) fn verdict_row(file: &str, verdict: &Verdict) -> Vec<String> {
    let Verdict {
        written,
        delivered,
        lost,
        duplicated,
        reordered,
        ..
    } = verdict;
    let mut row = vec![file.to_owned()];
    row.extend([written, delivered, lost, duplicated, reordered].map(|&n| thousands(n)));
    row
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn duration(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1_000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(duration(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(duration(Duration::from_millis(84)), "84 ms");
        assert_eq!(duration(Duration::from_secs(75)), "75.0 s");
    }
}
