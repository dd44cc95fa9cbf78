//! The disk, the writing program, the agent and the broker of one history.

use std::collections::{HashMap, HashSet};

use super::actions::Action;
use super::disk::Disk;
use super::verdict::{Kept, Model};
use crate::checkpoint::FileRow;
use crate::config::StartAt;
use crate::framing::Framing;
use crate::tailer::{
    Blame, Blocked, Handle, Note, PathSeen, Step, Tailer, TailerOptions, Target, Ticket,
};

const BASE: &str = "a.log";
/// Rotated files that are kept.
const ROTATIONS_KEPT: usize = 9;
/// More steps than this without a pause is a busy loop.
const STEPS_MAX: usize = 20_000;
const FINISH_MS: u64 = 60_000;

fn options() -> TailerOptions {
    TailerOptions {
        block_bytes: 512,
        framing: Framing::lines(4_096),
        max_unacked_bytes: 4_096,
        rotate_wait_ms: 3_000,
        deleted_wait_ms: 1_000,
        partial_wait_ms: 500,
        sweep_ms: 100,
        retry_ms: 50,
        max_retry_ms: 400,
        unreadable_retry_ms: 300,
    }
}

#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    /// Positions in the model; a half line has none.
    lines: Vec<usize>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Acked,
    Refused,
    /// Of an agent that is dead, or of an attempt that is over.
    Gone,
}

#[derive(Debug, Default)]
struct Durable {
    rows: Option<Vec<FileRow>>,
    /// What was acknowledged when the rows were taken.
    acked: HashSet<usize>,
}

pub(super) struct World {
    disk: Disk,
    model: Model,
    /// The program's descriptor, and where it writes next.
    writer_ino: u64,
    writer_offset: usize,
    /// A line begun and not completed.
    half: Vec<u8>,
    tailer: Option<Tailer>,
    fds: HashMap<Handle, u64>,
    persist_asked: bool,
    forbidden: bool,
    /// Files that were rotated before anybody knew of the entry.
    foreign: HashSet<u64>,
    /// What was copied of each file before it was truncated.
    copied: HashMap<u64, Vec<usize>>,
    /// Files that were quiet for so long after their rotation that nobody waits for more.
    finished: HashSet<u64>,
    durable: Durable,
    log: Vec<Kept>,
    sent: Vec<Sent>,
    notes: Vec<Note>,
}

fn rotated(number: usize) -> String {
    format!("{BASE}.{number}")
}

impl World {
    pub(super) fn new() -> Self {
        let mut disk = Disk::default();
        let writer_ino = disk.create(BASE);
        disk.hold(writer_ino);
        Self {
            disk,
            model: Model::default(),
            writer_ino,
            writer_offset: 0,
            half: Vec::new(),
            tailer: None,
            fds: HashMap::new(),
            persist_asked: false,
            forbidden: false,
            foreign: HashSet::new(),
            copied: HashMap::new(),
            finished: HashSet::new(),
            durable: Durable::default(),
            log: Vec::new(),
            sent: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn act(&mut self, action: &Action) {
        self.disk.now_ms += 1;
        match action {
            Action::Write { lines, length } => self.write(*lines, *length),
            Action::WriteHalf => {
                if self.half.is_empty() {
                    self.half = format!("{:06} half ", self.model.lines.len()).into_bytes();
                    let half = self.half.clone();
                    self.append(&half);
                }
            }
            Action::RenameLogrotate => self.rename(),
            Action::Reopen => self.reopen(),
            Action::Rotate => {
                self.rename();
                self.reopen();
            }
            Action::CopyTruncate { between } => self.copy_truncate(*between),
            Action::TruncateAndRegrow => {
                let before = self.disk.inode(self.writer_ino).content.len();
                self.truncate(true);
                while self.disk.inode(self.writer_ino).content.len() < before.min(3_000) {
                    self.write(1, 40);
                }
            }
            Action::TruncateUnderWriter => self.truncate(false),
            Action::DeleteAndRecreate => {
                self.complete_half();
                self.disk.unlink(BASE);
                self.forget_copies(self.writer_ino);
                self.disk.release(self.writer_ino);
                self.forget_lost();
                self.open();
            }
            Action::Gzip => self.gzip(),
            Action::Run { ms, ack, save } => self.run(*ms, *ack, *save),
            Action::Steps(steps) => {
                for _ in 0..*steps {
                    if self.step().is_some() {
                        break;
                    }
                }
            }
            Action::Ack(index) => {
                let flying = self.in_flight();
                if !flying.is_empty() {
                    self.ack(flying[index.index(flying.len())]);
                }
            }
            Action::Fail(index) => {
                let flying = self.in_flight();
                if !flying.is_empty() {
                    self.refuse(flying[index.index(flying.len())]);
                }
            }
            Action::Save => self.save(),
            Action::Kill { delivered } => self.kill(*delivered),
            Action::Start => self.start(),
            Action::HandOver => self.hand_over(),
            Action::Forbid(forbid) => {
                self.forbidden = *forbid;
                self.model.forbidden |= forbid;
            }
        }
        self.forget_what_was_before();
    }

    // The writing program and its surroundings.

    fn append(&mut self, bytes: &[u8]) {
        self.disk
            .write_at(self.writer_ino, self.writer_offset, bytes);
        self.writer_offset += bytes.len();
    }

    fn write(&mut self, lines: usize, length: usize) {
        for _ in 0..lines {
            let mut line = std::mem::take(&mut self.half);
            let written = line.len();
            if line.is_empty() {
                line = format!("{:06} ", self.model.lines.len()).into_bytes();
            }
            while line.len() < length.max(written + 1) {
                line.push(b'a' + (line.len() % 23) as u8);
            }
            let number = self.model.add_line(line.clone());
            self.append(&[&line[written..], b"\n"].concat());
            self.disk.note_line(self.writer_ino, number);
            let ino = self.writer_ino;
            let is_cut = written > 0 && self.log.iter().any(|kept| kept.value == line[..written]);
            if is_cut || self.foreign.contains(&ino) || self.finished.contains(&ino) {
                self.model.halves.insert(line[..written].to_vec());
                self.model.halves.insert(line[written..].to_vec());
                self.model.may_miss.insert(number);
                self.model.unordered.insert(number);
            }
        }
    }

    fn complete_half(&mut self) {
        if !self.half.is_empty() {
            self.write(1, 20);
        }
    }

    fn rename(&mut self) {
        if self.disk.lookup(BASE).is_none() {
            return;
        }
        self.shift();
        self.disk.rename(BASE, &rotated(1));
    }

    fn shift(&mut self) {
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

    fn reopen(&mut self) {
        if self.disk.lookup(BASE) == Some(self.writer_ino) {
            return;
        }
        self.complete_half();
        self.disk.release(self.writer_ino);
        self.forget_lost();
        self.open();
    }

    fn open(&mut self) {
        self.writer_ino = self.disk.create(BASE);
        self.foreign.remove(&self.writer_ino);
        self.finished.remove(&self.writer_ino);
        self.disk.hold(self.writer_ino);
        self.writer_offset = self.disk.inode(self.writer_ino).content.len();
    }

    fn copy_truncate(&mut self, between: usize) {
        // Only what stands at the path is copied.
        if self.disk.lookup(BASE) != Some(self.writer_ino) {
            return;
        }
        self.shift();
        // Before anything of it was sent, nobody can tell the copy from a file of its own.
        let copied = &self.disk.inode(self.writer_ino).lines;
        let seen = |line: &&usize| {
            let value = &self.model.lines[**line];
            self.log.iter().any(|kept| kept.value == *value)
        };
        if !copied.iter().any(|line| seen(&line)) {
            self.model.unordered.extend(copied);
        }
        if self.forbidden {
            self.model.may_miss.extend(copied);
        }
        self.model.halves.insert(self.half.clone());
        let copied = self.disk.inode(self.writer_ino).lines.clone();
        self.copied
            .entry(self.writer_ino)
            .or_default()
            .extend(copied);
        self.disk.copy(self.writer_ino, &rotated(1));
        if let Some(copy) = self.disk.lookup(&rotated(1)) {
            self.foreign.remove(&copy);
            self.finished.remove(&copy);
        }
        self.write(between, 30);
        self.truncate(true);
    }

    fn truncate(&mut self, appending: bool) {
        if !self.half.is_empty() {
            let half = std::mem::take(&mut self.half);
            self.model.halves.insert(half);
        }
        self.disk.truncate(self.writer_ino);
        if appending {
            self.writer_offset = 0;
        }
        self.forget_lost();
    }

    fn gzip(&mut self) {
        if self.disk.lookup(&rotated(1)).is_some() && self.disk.lookup(BASE).is_some() {
            let ino = self.disk.create(&(rotated(1) + ".gz"));
            self.disk.write_at(ino, 0, b"\x1f\x8bcompressed");
            if let Some(original) = self.disk.lookup(&rotated(1)) {
                self.forget_copies(original);
            }
            self.disk.unlink(&rotated(1));
            self.forget_lost();
        }
    }

    /// A copy whose original is not there any more may be a file of its own.
    fn forget_copies(&mut self, original: u64) {
        for line in self.copied.remove(&original).unwrap_or_default() {
            self.model.may_repeat(line);
            self.model.acked.remove(&line);
            self.durable.acked.remove(&line);
        }
    }

    /// While nobody knows of the entry, what is rotated is not its business.
    fn forget_what_was_before(&mut self) {
        if self.durable.rows.is_some() || self.persist_asked || !self.log.is_empty() {
            return;
        }
        for (name, ino) in self.disk.named() {
            if name != BASE {
                let lines = &self.disk.inode(ino).lines;
                self.model.may_miss.extend(lines);
                self.model.unordered.extend(lines);
                self.foreign.insert(ino);
            }
        }
        // Of a file that was never read nothing but its inode is known.
        self.disk.kept.extend(&self.foreign);
    }

    /// Lines that are neither acknowledged nor anywhere any more cannot be asked for.
    fn forget_lost(&mut self) {
        let named = self.disk.named().map(|(_, ino)| ino);
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

    // The broker.

    fn in_flight(&self) -> Vec<usize> {
        (0..self.sent.len())
            .filter(|at| self.sent[*at].state == State::InFlight)
            .collect()
    }

    fn ack(&mut self, at: usize) {
        self.sent[at].state = State::Acked;
        let Some(tailer) = &mut self.tailer else {
            return;
        };
        tailer.block_done(self.sent[at].ticket);
        self.model.acked.extend(&self.sent[at].lines);
    }

    fn refuse(&mut self, at: usize) {
        self.sent[at].state = State::Refused;
        self.log.retain(|kept| kept.block != at);
        self.model.refused = true;
        // It comes after what was acknowledged of a later file; and what follows it is sent again.
        self.model.unordered.extend(&self.sent[at].lines);
        let handle = self.sent[at].ticket.handle;
        for (nth, sent) in self.sent.iter_mut().enumerate() {
            let is_before = nth < at && sent.ticket.handle == handle;
            if sent.state == State::Gone || nth == at || is_before {
                continue;
            }
            for line in &sent.lines {
                *self.model.may_repeat.entry(*line).or_default() += 1;
            }
            if sent.ticket.handle == handle && sent.state != State::Refused {
                sent.state = State::Gone;
                for line in &sent.lines {
                    self.model.acked.remove(line);
                }
            }
        }
        let ticket = self.sent[at].ticket;
        if let Some(tailer) = &mut self.tailer {
            tailer.block_failed(ticket, Blame::Topic, "refused");
        }
        self.forget_lost();
    }

    // The agent.

    fn start(&mut self) {
        if self.tailer.is_some() {
            return;
        }
        let rows = self.durable.rows.clone();
        self.tailer = Some(Tailer::new(BASE, StartAt::Beginning, rows, options()));
    }

    fn kill(&mut self, delivered: u16) {
        let Some(tailer) = self.tailer.take() else {
            return;
        };
        drop(tailer);
        self.model.killed = true;
        let flying = self.in_flight();
        let kept = flying.len() * usize::from(delivered) / 1_000;
        // The broker has what came before something that it acknowledged.
        let acked = self
            .sent
            .iter()
            .rposition(|sent| sent.state == State::Acked);
        let before_acked = flying.iter().filter(|at| Some(**at) < acked).count();
        let kept = kept.max(before_acked);
        for (nth, at) in flying.iter().enumerate() {
            if nth >= kept {
                self.log.retain(|record| record.block != *at);
            }
        }
        for sent in &mut self.sent {
            if sent.state == State::InFlight {
                sent.state = State::Gone;
            }
        }
        // Sent again is what the checkpoint does not know; only what arrived is then there twice.
        let arrived: HashSet<usize> = self
            .log
            .iter()
            .filter_map(|kept| self.model.number_of(&kept.value))
            .collect();
        for line in arrived {
            if !self.durable.acked.contains(&line) {
                self.model.may_repeat(line);
            }
        }
        self.model.acked = self.durable.acked.clone();
        for (_, ino) in std::mem::take(&mut self.fds) {
            self.disk.release(ino);
        }
        self.persist_asked = false;
        self.forget_lost();
    }

    fn save(&mut self) {
        let Some(tailer) = &mut self.tailer else {
            return;
        };
        if let Some(rows) = tailer.rows() {
            self.durable.rows = Some(rows);
            self.durable.acked = self.model.acked.clone();
            // What is acknowledged behind a gap is not below the watermark.
            let mut behind_gap = HashSet::new();
            for sent in &self.sent {
                match sent.state {
                    State::InFlight => {
                        behind_gap.insert(sent.ticket.handle);
                    }
                    State::Acked if behind_gap.contains(&sent.ticket.handle) => {
                        for line in &sent.lines {
                            self.durable.acked.remove(line);
                        }
                    }
                    _ => {}
                }
            }
            if std::mem::take(&mut self.persist_asked) {
                tailer.persisted();
            }
        }
    }

    fn hand_over(&mut self) {
        let Some(tailer) = &mut self.tailer else {
            return;
        };
        tailer.begin_stop();
        for at in self.in_flight() {
            self.ack(at);
        }
        let Some(tailer) = self.tailer.take() else {
            return;
        };
        assert!(tailer.is_settled(), "everything is acknowledged");
        let rows = tailer.rows();
        for (_, ino) in std::mem::take(&mut self.fds) {
            self.disk.release(ino);
        }
        self.persist_asked = false;
        self.forget_lost();
        let mut tailer = Tailer::new(BASE, StartAt::Beginning, rows, options());
        tailer.must_save();
        self.tailer = Some(tailer);
    }

    fn run(&mut self, ms: u64, ack: bool, save: bool) {
        let end_ms = self.disk.now_ms + ms;
        if let Some(tailer) = &mut self.tailer {
            tailer.wake();
        }
        let mut steps = 0;
        while self.disk.now_ms < end_ms && self.tailer.is_some() {
            if let Some(until_ms) = self.step() {
                let flying = self.in_flight();
                if ack {
                    for at in &flying {
                        self.ack(*at);
                    }
                }
                if save {
                    self.save();
                }
                if !ack || flying.is_empty() {
                    self.disk.now_ms = until_ms.clamp(self.disk.now_ms + 1, end_ms);
                }
            }
            steps += 1;
            assert!(steps < STEPS_MAX, "a busy loop");
        }
        self.disk.now_ms = self.disk.now_ms.max(end_ms);
    }

    /// One step of the agent; until when it is idle, if it is.
    fn step(&mut self) -> Option<u64> {
        let tailer = self.tailer.as_mut()?;
        let forbidden = || Blocked::Refused("forbidden".into());
        match tailer.next(self.disk.now_ms) {
            Step::StatPath => {
                let seen = match self.disk.lookup(BASE) {
                    Some(ino) => PathSeen::File(self.disk.stat(ino)),
                    None => PathSeen::Missing,
                };
                tailer.path_seen(seen);
            }
            Step::ListSiblings => tailer.siblings_seen(self.disk.siblings(BASE)),
            Step::Open { handle, target } => {
                let name = match &target {
                    Target::Path => BASE,
                    Target::Sibling(name) => name,
                };
                match self.disk.lookup(name) {
                    Some(_) if self.forbidden && target == Target::Path => {
                        tailer.opened(handle, Err(forbidden()));
                    }
                    Some(ino) => {
                        self.disk.hold(ino);
                        self.fds.insert(handle, ino);
                        tailer.opened(handle, Ok(self.disk.stat(ino)));
                    }
                    None => tailer.opened(handle, Err(Blocked::Missing)),
                }
            }
            Step::StatHandle { handle } => {
                tailer.handle_seen(handle, Ok(self.disk.stat(self.fds[&handle])));
            }
            Step::Read {
                handle,
                offset,
                max_bytes,
            } => {
                let bytes = self.disk.read(self.fds[&handle], offset, max_bytes);
                tailer.read_done(handle, offset, Ok(bytes));
            }
            Step::Produce(block) => {
                let at = self.sent.len();
                let mut lines = Vec::new();
                for line in block.lines.iter() {
                    lines.extend(self.model.number_of(line.bytes));
                    self.log.push(Kept {
                        value: line.bytes.to_vec(),
                        block: at,
                    });
                }
                self.sent.push(Sent {
                    ticket: block.ticket,
                    lines,
                    state: State::InFlight,
                });
            }
            Step::Persist => self.persist_asked = true,
            Step::Close { handle } => {
                if let Some(ino) = self.fds.remove(&handle) {
                    self.disk.release(ino);
                    self.forget_lost();
                }
            }
            Step::Idle { until_ms } => {
                let notes = tailer.take_notes();
                for note in &notes {
                    if let Note::Finished { file, .. } = note {
                        self.finished.insert(file.ino);
                        // Read to its end, it is known by its inode and size alone.
                        self.disk.kept.insert(file.ino);
                    }
                }
                self.notes.extend(notes);
                return Some(until_ms);
            }
        }
        None
    }

    /// Everything is healed, and the agent has all the time it needs.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.forbidden = false;
        self.model.halves.insert(self.half.clone());
        self.start();
        self.run(FINISH_MS, true, true);
        self.model.judge(&self.log).map_err(|why| {
            let notes = &self.notes;
            format!("{why}; notes: {notes:?}")
        })
    }
}
