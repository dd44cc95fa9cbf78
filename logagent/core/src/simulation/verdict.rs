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
    /// Several lines are one record.
    pub(super) joined: bool,
    /// The line that belongs to this one: where this one is, that one follows in the same record.
    pub(super) follows: HashMap<usize, usize>,
    /// Lines that the broker never takes.
    pub(super) poison: HashSet<usize>,
    /// Lines that came as dead letters.
    pub(super) letters: HashSet<usize>,
}

impl Model {
    /// `joined`: several lines may be one record.
    pub(super) fn new(joined: bool) -> Self {
        Self {
            joined,
            ..Self::default()
        }
    }

    pub(super) fn add_line(&mut self, value: Vec<u8>) -> usize {
        let number = self.lines.len();
        self.by_value.insert(value.clone(), number);
        self.lines.push(value);
        number
    }

    /// The lines of a record. None when there is something in it that was never written; halves of
    /// lines whose file went away are no lines.
    pub(super) fn numbers_of(&self, value: &[u8]) -> Option<Vec<usize>> {
        // A hole that a truncation left in front of a line may or may not be part of it.
        let nuls = value.iter().take_while(|byte| **byte == 0).count();
        let value = &value[nuls..];
        let lines: Vec<&[u8]> = if self.joined {
            value.split(|byte| *byte == b'\n').collect()
        } else {
            vec![value]
        };
        let whole =
            |line: &&[u8]| !self.halves.contains(*line) || self.by_value.contains_key(*line);
        let known = lines.into_iter().filter(whole);
        known.map(|line| self.by_value.get(line).copied()).collect()
    }

    /// A line that belongs to another one stands behind it.
    fn judge_joins(&self, lines: &[usize]) -> Result<(), String> {
        for (at, line) in lines.iter().enumerate() {
            if let Some(next) = self.follows.get(line)
                && lines.get(at + 1) != Some(next)
            {
                return Err(format!("not joined: {:?}", text(&self.lines[*line])));
            }
        }
        Ok(())
    }

    pub(super) fn may_repeat(&mut self, line: usize) {
        *self.may_repeat.entry(line).or_default() += 1;
    }

    pub(super) fn judge(&self, log: &[Kept]) -> Result<(), String> {
        let mut counts = vec![0; self.lines.len()];
        let (mut firsts, mut lasts) = (Vec::new(), vec![None; self.lines.len()]);
        for (at, kept) in log.iter().enumerate() {
            let Some(numbers) = self.numbers_of(&kept.value) else {
                return Err(format!("split or extra: {:?}", text(&kept.value)));
            };
            self.judge_joins(&numbers)?;
            for line in numbers {
                counts[line] += 1;
                if self.unordered.contains(&line) {
                    continue;
                }
                if counts[line] == 1 {
                    firsts.push(line);
                }
                lasts[line] = Some(at);
            }
        }
        for (line, count) in counts.iter().enumerate() {
            let value = text(&self.lines[line]);
            if self.poison.contains(&line) {
                if *count > 0 {
                    return Err(format!("taken although it never is: {value:?}"));
                }
                if !self.letters.contains(&line) && !self.may_miss.contains(&line) {
                    return Err(format!("no dead letter: {value:?}"));
                }
                continue;
            }
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
