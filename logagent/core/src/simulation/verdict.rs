//! The model: what was written, what may be missing, what may be there twice.

use std::collections::{HashMap, HashSet};

/// What the broker keeps of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) value: Vec<u8>,
    /// The block it came in.
    pub(super) block: usize,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Every whole line in the order of writing.
    pub(super) lines: Vec<Vec<u8>>,
    by_value: HashMap<Vec<u8>, usize>,
    /// Beginnings of lines that were never completed, because their file went away.
    pub(super) halves: HashSet<Vec<u8>>,
    /// Lines of which no bytes were left when they were not acknowledged yet.
    pub(super) may_miss: HashSet<usize>,
    /// How many more times a line may be there.
    pub(super) may_repeat: HashMap<usize, usize>,
    pub(super) acked: HashSet<usize>,
    /// Lines that may come early or late.
    pub(super) unordered: HashSet<usize>,
    /// A refusal lets later blocks overtake: then the last record of each line tells the order.
    pub(super) refused: bool,
    pub(super) killed: bool,
    /// A file that cannot be read is overtaken by those that can.
    pub(super) forbidden: bool,
}

impl Model {
    pub(super) fn add_line(&mut self, value: Vec<u8>) -> usize {
        let number = self.lines.len();
        self.by_value.insert(value.clone(), number);
        self.lines.push(value);
        number
    }

    /// A hole that a truncation left in front of a line may or may not be part of it.
    pub(super) fn number_of(&self, value: &[u8]) -> Option<usize> {
        let nuls = value.iter().take_while(|byte| **byte == 0).count();
        self.by_value.get(&value[nuls..]).copied()
    }

    pub(super) fn may_repeat(&mut self, line: usize) {
        *self.may_repeat.entry(line).or_default() += 1;
    }

    pub(super) fn judge(&self, log: &[Kept]) -> Result<(), String> {
        let mut counts = vec![0; self.lines.len()];
        let (mut firsts, mut lasts) = (Vec::new(), vec![None; self.lines.len()]);
        for (at, kept) in log.iter().enumerate() {
            let Some(line) = self.number_of(&kept.value) else {
                let nuls = kept.value.iter().take_while(|byte| **byte == 0).count();
                if self.halves.contains(&kept.value[nuls..]) {
                    continue;
                }
                return Err(format!("split or extra: {:?}", text(&kept.value)));
            };
            counts[line] += 1;
            if self.unordered.contains(&line) {
                continue;
            }
            if counts[line] == 1 {
                firsts.push(line);
            }
            lasts[line] = Some(at);
        }
        for (line, count) in counts.iter().enumerate() {
            let value = text(&self.lines[line]);
            if *count == 0 && !self.may_miss.contains(&line) {
                return Err(format!("lost: {value:?}"));
            }
            let allowed = 1 + self.may_repeat.get(&line).copied().unwrap_or(0);
            if *count > allowed {
                return Err(format!("{count} times instead of {allowed}: {value:?}"));
            }
        }
        let in_order = match (self.refused, self.killed) {
            (false, _) => firsts.is_sorted(),
            (true, false) => firsts.is_sorted() || lasts.iter().flatten().is_sorted(),
            // What the refusal sent again late, the kill may send again early.
            (true, true) => true,
        };
        if in_order || self.forbidden {
            Ok(())
        } else {
            let values: Vec<_> = log.iter().map(|kept| text(&kept.value)).collect();
            Err(format!("reordered: {values:?}"))
        }
    }
}

/// The number in front of a line is enough to know it.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned()
}
