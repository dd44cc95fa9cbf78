//! The writing program, rotation, compression and links, as histories have them, with what each of
//! them allows to be missing, repeated or out of order.

use std::collections::HashSet;

use super::super::actions::Variant;
use super::super::verdict::Kept;
use super::{BASE, CUT_BYTES, ROTATIONS_KEPT, World, rotated};

impl World {
    /// As it stands in the file.
    pub(super) fn encoded(&self, text: &[u8]) -> Vec<u8> {
        match self.variant {
            Variant::Utf16 => text.iter().flat_map(|byte| [*byte, 0]).collect(),
            _ => text.to_vec(),
        }
    }

    /// The record of a line.
    pub(super) fn record_of(&self, text: &[u8]) -> Vec<u8> {
        let mut record = self.encoded(text);
        if self.variant == Variant::Cut {
            record.truncate(CUT_BYTES);
        }
        record
    }

    pub(super) fn is_path(&self, name: &str) -> bool {
        name == self.disk.link.as_deref().unwrap_or(BASE)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.disk
            .write_at(self.writer_ino, self.writer_offset, bytes);
        self.writer_offset += bytes.len();
    }

    pub(super) fn write(&mut self, lines: usize, length: usize) {
        for _ in 0..lines {
            let mut line = std::mem::take(&mut self.half);
            let written = line.len();
            if line.is_empty() {
                line = format!("{:06} ", self.model.lines.len()).into_bytes();
            }
            while line.len() < length.max(written + 1) {
                line.push(b'a' + (line.len() % 23) as u8);
            }
            let number = self.model.add_line(self.record_of(&line));
            if std::mem::take(&mut self.poisons) {
                self.model.poison.insert(number);
            }
            let rest = self.encoded(&[&line[written..], b"\n"].concat());
            self.append(&rest);
            self.disk.note_line(self.writer_ino, number);
            let ino = self.writer_ino;
            let half = self.record_of(&line[..written]);
            let is_half = |kept: &Kept| kept.value.ends_with(&half);
            let is_cut = written > 0 && self.log.iter().any(is_half);
            if is_cut || self.foreign.contains(&ino) || self.finished.contains(&ino) {
                let other_half = self.record_of(&line[written..]);
                self.model.halves.extend([half, other_half]);
                self.model.may_miss.insert(number);
                self.model.unordered.insert(number);
            }
        }
    }

    /// Another line of the last record, which is not sent yet: then both have to come together.
    pub(super) fn write_continuation(&mut self) {
        let lines = &self.disk.inode(self.writer_ino).lines;
        let last = self.model.lines.len().checked_sub(1);
        if self.variant != Variant::Joined
            || !self.half.is_empty()
            || self.copying.is_some()
            || last.is_none()
            || lines.last().copied() != last
        {
            return;
        }
        let line = format!("  {:06} more", self.model.lines.len()).into_bytes();
        let number = self.model.add_line(line.clone());
        self.append(&[line.as_slice(), b"\n"].concat());
        self.disk.note_line(self.writer_ino, number);
        let ino = self.writer_ino;
        let is_lost = self.foreign.contains(&ino) || self.finished.contains(&ino);
        if is_lost {
            self.model.may_miss.insert(number);
            self.model.unordered.insert(number);
        }
        let was_sent = last.is_some_and(|last| {
            let has = |kept: &Kept| {
                let numbers = self.model.numbers_of(&kept.value);
                numbers.is_some_and(|numbers| numbers.contains(&last))
            };
            self.model.poison.contains(&last) || self.log.iter().any(has)
        });
        if let Some(last) = last.filter(|_| !was_sent && !is_lost) {
            self.model.follows.insert(last, number);
        }
    }

    pub(super) fn complete_half(&mut self) {
        if !self.half.is_empty() {
            self.write(1, 20);
        }
    }

    pub(super) fn rename(&mut self) {
        // A symlink is switched, not rotated.
        if self.disk.lookup(BASE).is_none() || self.disk.link.is_some() {
            return;
        }
        self.copy_end();
        self.shift();
        self.disk.rename(BASE, &rotated(1));
    }

    pub(super) fn shift(&mut self) {
        for suffix in ["", ".gz"] {
            let last = rotated(ROTATIONS_KEPT) + suffix;
            self.disk.unlink(&last);
        }
        self.forget_lost();
        for number in (1..ROTATIONS_KEPT).rev() {
            for suffix in ["", ".gz"] {
                let (from, to) = (rotated(number) + suffix, rotated(number + 1) + suffix);
                self.disk.rename(&from, &to);
            }
        }
    }

    pub(super) fn reopen(&mut self) {
        if self.disk.at_path(BASE) == Some(self.writer_ino) {
            return;
        }
        self.copy_end();
        self.complete_half();
        self.disk.release(self.writer_ino);
        self.forget_lost();
        self.open();
    }

    pub(super) fn open(&mut self) {
        let path = self.disk.link.clone();
        self.writer_ino = self.disk.create(path.as_deref().unwrap_or(BASE));
        self.foreign.remove(&self.writer_ino);
        self.finished.remove(&self.writer_ino);
        self.disk.hold(self.writer_ino);
        self.writer_offset = self.disk.inode(self.writer_ino).content.len();
    }

    pub(super) fn copy_truncate(&mut self, between: usize) {
        if self.copying.is_none() && !self.begin_copy() {
            return;
        }
        self.end_copy(between);
    }

    /// False when there is nothing to copy.
    pub(super) fn begin_copy(&mut self) -> bool {
        // Only what stands at the path is copied.
        let is_there = self.disk.lookup(BASE) == Some(self.writer_ino);
        if !is_there || self.disk.link.is_some() {
            return false;
        }
        self.shift();
        self.disk.unlink(&rotated(1));
        self.forget_lost();
        self.disk.copy(self.writer_ino, &rotated(1));
        self.copying = self.disk.lookup(&rotated(1));
        if let Some(copy) = self.copying {
            self.foreign.remove(&copy);
            self.finished.remove(&copy);
            self.disk.hold(copy);
        }
        self.note_copied();
        true
    }

    /// Before anything of it was sent, nobody can tell the copy from a file of its own.
    pub(super) fn note_copied(&mut self) {
        let copied = self.disk.inode(self.writer_ino).lines.clone();
        let sent: HashSet<usize> = self
            .log
            .iter()
            .filter_map(|kept| self.model.numbers_of(&kept.value))
            .flatten()
            .collect();
        if !copied.iter().any(|line| sent.contains(line)) {
            self.model.unordered.extend(&copied);
        }
        if self.forbidden {
            self.model.may_miss.extend(&copied);
        }
        let half = self.record_of(&self.half);
        self.model.halves.insert(half);
        self.copied
            .entry(self.writer_ino)
            .or_default()
            .extend(copied);
    }

    /// Only a part is copied yet, up to the end of a line.
    pub(super) fn copy_begin(&mut self, part: u16) {
        if self.copying.is_some() || !self.half.is_empty() || !self.begin_copy() {
            return;
        }
        let Some(copy) = self.copying else { return };
        let inode = self.disk.inode(copy);
        let unit = self.encoded(b"\n").len();
        let ends: Vec<usize> = memchr::memchr_iter(b'\n', &inode.content)
            .map(|at| at + unit)
            .collect();
        // With a half of before, lines and newlines do not match: then it is all of it.
        if ends.len() == inode.lines.len() {
            let lines = ends.len() * usize::from(part) / 1_000;
            let len = lines.checked_sub(1).map_or(0, |last| ends[last]);
            self.disk.shorten(copy, len, lines);
        }
        // Of a file that nobody has read, the copy may be one of its own.
        let copied = self.disk.inode(self.writer_ino).lines.clone();
        self.model.follows.retain(|line, _| !copied.contains(line));
        self.copies_unread = !copied.iter().any(|line| self.model.acked.contains(line));
        if self.copies_unread {
            for line in copied {
                self.model.may_repeat(line);
                self.model.unordered.insert(line);
            }
        }
    }

    /// The rest is copied, and the file is cut to nothing.
    pub(super) fn copy_end(&mut self) {
        if self.copying.is_some() {
            self.end_copy(0);
        }
    }

    pub(super) fn end_copy(&mut self, between: usize) {
        let Some(copy) = self.copying.take() else {
            return;
        };
        self.note_copied();
        if std::mem::take(&mut self.copies_unread) {
            for line in self.disk.inode(self.writer_ino).lines.clone() {
                self.model.may_repeat(line);
                self.model.unordered.insert(line);
            }
        }
        self.disk.copy_into(self.writer_ino, copy);
        if self.foreign.contains(&copy) {
            // Begun before the entry was known: it is one of the files that are not its business.
            let lines = self.disk.inode(copy).lines.clone();
            self.model.may_miss.extend(&lines);
            self.model.unordered.extend(lines);
        }
        self.disk.release(copy);
        self.write(between, 30);
        self.truncate(true);
    }

    pub(super) fn truncate(&mut self, appending: bool) {
        if !self.half.is_empty() {
            let half = std::mem::take(&mut self.half);
            let half = self.record_of(&half);
            self.model.halves.insert(half);
        }
        self.disk.truncate(self.writer_ino);
        if appending {
            self.writer_offset = 0;
        }
        self.forget_lost();
    }

    /// Compresses the newest rotated file, or the one that was begun with.
    pub(super) fn gzip(&mut self) {
        let is_torn = |name: &String| {
            let packed = self.disk.lookup(&format!("{name}.gz"));
            packed.is_some_and(|packed| self.disk.inode(packed).torn)
        };
        let begun = (1..=ROTATIONS_KEPT).map(rotated).find(is_torn);
        let name = begun.unwrap_or_else(|| rotated(1));
        let packed_name = format!("{name}.gz");
        // logrotate does not compress what it still copies.
        if self.copying.is_some() {
            return;
        }
        let Some(original) = self.disk.lookup(&name) else {
            self.disk.unlink(&packed_name);
            self.forget_lost();
            return;
        };
        self.disk.unlink(&packed_name);
        let inode_lines = self.disk.inode(original).lines.clone();
        let was_sent = |line: &usize| self.model.acked.contains(line);
        if self.fds.values().any(|ino| *ino == original) && !inode_lines.iter().any(was_sent) {
            // Open and not read yet: nothing is known of it by which the compressed file is known.
            for line in inode_lines {
                self.model.may_repeat(line);
                self.model.unordered.insert(line);
            }
        }
        if original == self.writer_ino {
            // The rest never comes into the compressed file: nobody can tell it from one that only
            // begins alike.
            for line in self.disk.inode(original).lines.clone() {
                self.model.may_repeat(line);
                self.model.unordered.insert(line);
            }
            let half = self.record_of(&self.half);
            self.model.halves.insert(half);
        }
        let packed = self.disk.pack(original, &packed_name, false);
        if let Some(packed) = packed {
            self.finished.remove(&packed);
            if self.foreign.contains(&original) {
                self.foreign.insert(packed);
            } else {
                self.foreign.remove(&packed);
            }
        }
        self.forget_copies(original);
        self.disk.unlink(&name);
        self.forget_lost();
    }

    pub(super) fn gzip_begin(&mut self) {
        let (name, packed) = (rotated(1), rotated(1) + ".gz");
        if let Some(original) = self.disk.lookup(&name)
            && self.copying.is_none()
            && self.disk.lookup(&packed).is_none()
        {
            self.disk.pack(original, &packed, true);
        }
    }

    /// The file at the path goes away under another name that nobody looks for, or the link leads
    /// to a new file. The program follows.
    pub(super) fn switch_link(&mut self) {
        self.copy_end();
        self.complete_half();
        self.link_targets += 1;
        if self.disk.link.is_some() && self.link_targets.is_multiple_of(3) {
            self.disk.link = None;
        } else {
            if self.disk.link.is_none() {
                self.disk
                    .rename(BASE, &format!("before.{}", self.link_targets));
            }
            self.disk.link = Some(format!("target.{}", self.link_targets));
        }
        self.forget_copies(self.writer_ino);
        self.disk.release(self.writer_ino);
        self.forget_lost();
        self.open();
    }

    /// A copy whose original is not there any more may be a file of its own.
    pub(super) fn forget_copies(&mut self, original: u64) {
        for line in self.copied.remove(&original).unwrap_or_default() {
            self.model.may_repeat(line);
            self.model.acked.remove(&line);
            self.durable.acked.remove(&line);
        }
    }

    /// While nobody knows of the entry, what is rotated is not its business.
    pub(super) fn forget_what_was_before(&mut self) {
        if self.durable.rows.is_some() || self.persist_asked || !self.log.is_empty() {
            return;
        }
        for (name, ino) in self.disk.named() {
            if !self.is_path(name) {
                let lines = &self.disk.inode(ino).lines;
                self.model.may_miss.extend(lines);
                self.model.unordered.extend(lines);
                self.foreign.insert(ino);
            }
        }
    }

    /// Lines that are neither acknowledged nor anywhere any more cannot be asked for.
    pub(super) fn forget_lost(&mut self) {
        let is_found = |name: &str| name.starts_with(BASE) || self.is_path(name);
        let named = self.disk.named();
        let named = named.filter_map(|(name, ino)| is_found(name).then_some(ino));
        let held = self.fds.values().copied();
        let there: HashSet<usize> = named
            .chain(held)
            .flat_map(|ino| self.disk.inode(ino).lines.iter().copied())
            .collect();
        for line in 0..self.model.lines.len() {
            if !there.contains(&line) && !self.model.acked.contains(&line) {
                self.model.may_miss.insert(line);
            }
        }
    }
}
