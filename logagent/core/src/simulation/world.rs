//! The disk, the agent and the broker of one history. What the writing program and its surroundings
//! do is in `surroundings`.

mod surroundings;

use std::collections::{HashMap, HashSet};

use schemas::objects::{Multiline, OnLongLine};

use super::actions::{Action, Variant};
use super::disk::Disk;
use super::verdict::{Kept, Model};
use crate::checkpoint::FileRow;
use crate::config::StartAt;
use crate::framing::{Framing, Joining, TextEncoding};
use crate::tailer::{
    Blame, Blocked, Fate, Handle, Note, PathSeen, Step, Tailer, TailerOptions, Target, Ticket,
};

const BASE: &str = "a.log";
/// Rotated files that are kept.
const ROTATIONS_KEPT: usize = 9;
/// More steps than this without a pause is a busy loop.
const STEPS_MAX: usize = 20_000;
const FINISH_MS: u64 = 60_000;

/// Longer lines are cut in histories that cut.
const CUT_BYTES: usize = 64;

fn framing(variant: Variant) -> Framing {
    match variant {
        Variant::Plain => Framing::lines(4_096),
        Variant::Joined => {
            let joining = Joining::new(&Multiline {
                start: Some("^[0-9]{6} ".into()),
                continues: None,
                timeout_ms: Some(200),
                max_lines: Some(50),
            });
            Framing::lines(4_096).joined(joining.ok())
        }
        Variant::Utf16 => Framing::lines(4_096).in_encoding(TextEncoding::named("utf-16le")),
        Variant::Cut => Framing::lines(CUT_BYTES).on_long_line(OnLongLine::Truncate),
    }
}

fn options(variant: Variant) -> TailerOptions {
    TailerOptions {
        block_bytes: 512,
        framing: framing(variant),
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
    fate: Fate,
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
    variant: Variant,
    disk: Disk,
    model: Model,
    /// The program's descriptor, and where it writes next.
    writer_ino: u64,
    writer_offset: usize,
    /// A line begun and not completed, as text.
    half: Vec<u8>,
    /// The next line is one that the broker never takes.
    poisons: bool,
    /// The copy that is being made.
    copying: Option<u64>,
    /// Nothing of what it is made of was read when it was begun.
    copies_unread: bool,
    /// Files that the path was a link to, counted.
    link_targets: usize,
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
    pub(super) fn new(variant: Variant) -> Self {
        let mut disk = Disk::default();
        let writer_ino = disk.create(BASE);
        disk.hold(writer_ino);
        Self {
            variant,
            disk,
            model: Model::new(variant == Variant::Joined),
            writer_ino,
            writer_offset: 0,
            half: Vec::new(),
            poisons: false,
            copying: None,
            copies_unread: false,
            link_targets: 0,
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
                    let half = self.encoded(&self.half);
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
            // The beginning of a line behind a small hole is more hole than line.
            Action::TruncateUnderWriter if self.variant == Variant::Cut => {}
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
            Action::GzipBegin => self.gzip_begin(),
            Action::CopyBegin { part } => self.copy_begin(*part),
            Action::SwitchLink => self.switch_link(),
            Action::Continue => self.write_continuation(),
            Action::Poison => self.poisons = true,
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
                    self.refuse(flying[index.index(flying.len())], Blame::Topic);
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

    // The broker.

    fn in_flight(&self) -> Vec<usize> {
        (0..self.sent.len())
            .filter(|at| self.sent[*at].state == State::InFlight)
            .collect()
    }

    fn ack(&mut self, at: usize) {
        let lines = &self.sent[at].lines;
        if self.sent[at].fate == Fate::Topic
            && lines.iter().any(|line| self.model.poison.contains(line))
        {
            self.refuse(at, Blame::Record);
            return;
        }
        self.sent[at].state = State::Acked;
        let Some(tailer) = &mut self.tailer else {
            return;
        };
        tailer.block_done(self.sent[at].ticket);
        self.model.acked.extend(&self.sent[at].lines);
    }

    fn refuse(&mut self, at: usize, blame: Blame) {
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
            tailer.block_failed(ticket, blame, "refused");
        }
        self.forget_lost();
    }

    // The agent.

    fn start(&mut self) {
        if self.tailer.is_some() {
            return;
        }
        let rows = self.durable.rows.clone();
        self.tailer = Some(Tailer::new(
            BASE,
            StartAt::Beginning,
            rows,
            options(self.variant),
        ));
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
            let mut lines = self.sent[*at].lines.iter();
            if nth >= kept || lines.any(|line| self.model.poison.contains(line)) {
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
            .filter_map(|kept| self.model.numbers_of(&kept.value))
            .flatten()
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
        let mut tailer = Tailer::new(BASE, StartAt::Beginning, rows, options(self.variant));
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
                let seen = match self.disk.at_path(BASE) {
                    Some(ino) => PathSeen::File(self.disk.stat(ino)),
                    None => PathSeen::Missing,
                };
                tailer.path_seen(seen);
            }
            Step::ListSiblings => tailer.siblings_seen(self.disk.siblings(BASE)),
            Step::Open { handle, target } => {
                let ino = match &target {
                    Target::Path => self.disk.at_path(BASE),
                    Target::Sibling(name) => self.disk.lookup(name),
                };
                match ino {
                    Some(_) if self.forbidden && target == Target::Path => {
                        tailer.opened(handle, Err(forbidden()));
                    }
                    Some(ino) => {
                        self.disk.hold(ino);
                        self.fds.insert(handle, ino);
                        tailer.opened(handle, Ok(self.disk.stat_open(ino)));
                    }
                    None => tailer.opened(handle, Err(Blocked::Missing)),
                }
            }
            Step::StatHandle { handle } => {
                tailer.handle_seen(handle, Ok(self.disk.stat_open(self.fds[&handle])));
            }
            Step::Read {
                handle,
                offset,
                max_bytes,
            } => {
                let bytes = self.disk.read(self.fds[&handle], offset, max_bytes);
                let torn = || Blocked::Refused("breaks off".into());
                tailer.read_done(handle, offset, bytes.ok_or_else(torn));
                if self.variant == Variant::Joined {
                    // What was read is sent before something is added to it.
                    return self.step();
                }
            }
            Step::Produce(block) => {
                let at = self.sent.len();
                let mut lines = Vec::new();
                for line in block.lines.iter() {
                    let numbers = self.model.numbers_of(line.bytes).unwrap_or_default();
                    lines.extend(&numbers);
                    if block.fate == Fate::Topic {
                        self.log.push(Kept {
                            value: line.bytes.to_vec(),
                            block: at,
                        });
                    } else {
                        self.model.letters.extend(numbers);
                    }
                }
                self.sent.push(Sent {
                    ticket: block.ticket,
                    lines,
                    fate: block.fate,
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
        self.copy_end();
        while self.disk.named().any(|(_, ino)| self.disk.inode(ino).torn) {
            self.gzip();
        }
        let half = self.record_of(&self.half);
        self.model.halves.insert(half);
        self.forget_what_was_before();
        self.start();
        self.run(FINISH_MS, true, true);
        self.model.judge(&self.log).map_err(|why| {
            let notes = &self.notes;
            format!("{why}; notes: {notes:?}")
        })
    }
}
