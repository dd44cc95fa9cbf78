//! The tail of one entry: all decisions about its files, no access to them.
//!
//! A [`Tailer`] says what to do next ([`Tailer::next`] → [`Step`]), the adapter does it and
//! answers through the method named at the step. One tailer follows one (path, topic): the file
//! now at the path and the ones rotated away from it that are not finished yet, oldest first.
//!
//! # How to drive it
//!
//! ```text
//! loop {
//!     match tailer.next(now_ms) {                       // now_ms: monotonic milliseconds
//!         Step::StatPath => tailer.path_seen(stat(path)),               // follows symlinks
//!         Step::ListSiblings => tailer.siblings_seen(read_dir(prefix)), // names = base + anything
//!         Step::Open { handle, target } => match open(target) {         // O_NONBLOCK, then fstat
//!             Ok(fd, stat) => { fds.insert(handle, fd); tailer.opened(handle, Ok(stat)) }
//!             Err(why) => tailer.opened(handle, Err(why)),
//!         },
//!         Step::StatHandle { handle } => tailer.handle_seen(handle, fstat(fds[handle])),
//!         Step::Read { handle, offset, max_bytes } =>                   // ONE pread, short is fine
//!             tailer.read_done(handle, offset, pread(fds[handle], offset, max_bytes)),
//!         Step::Produce(block) => {
//!             let mut at = 0;
//!             while let Some((line, next)) = block.lines.get(at) {
//!                 // enqueue line.bytes; when the queue is full keep (block, at), stop calling
//!                 // next() for this tailer, and come back here when there is room
//!                 at = next;
//!             }
//!             // when the last record of the block is acknowledged: tailer.block_done(block.ticket)
//!             // when one was refused:                            tailer.block_failed(block.ticket)
//!         }
//!         Step::Persist => ask_the_disk(tailer.rows()), // when durable: tailer.persisted()
//!         Step::Close { handle } => drop(fds.remove(handle)),
//!         Step::Idle { until_ms } => break, // wait for: until_ms, a notify hint (then wake()),
//!                                           // or block_done/block_failed; then call next again
//!     }
//! }
//! ```
//!
//! Each answer must be given before `next` is called again, except those of `Produce` (later, in
//! any order) and `Persist` (later). After answers look at [`Tailer::revision`]: when it changed, [`Tailer::rows`] has
//! news for the checkpoint.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::checkpoint::{FileRow, RowState};
use crate::config::StartAt;
use crate::identity::{FileId, FileStat};
use crate::planted::{self, Bug};
use crate::rotation::Sibling;

mod file;
mod long_line;
mod opening;
mod resume;
mod step;
mod suspects;

use file::{FileTail, Read};
use opening::{Aim, Job, Opening, Outcome};
pub use step::{
    Blame, Block, Blocked, Fate, FileView, Handle, Note, PathSeen, Step, TailView, TailerOptions,
    Target, Ticket,
};

/// How many finished files are remembered, to know them again by identity.
const MAX_DONE_ROWS: usize = 16;

/// How far a start has come.
#[derive(Debug)]
enum Phase {
    /// Rows wait for a look at the path and the directory.
    Starting {
        rows: Option<Vec<FileRow>>,
        path: Option<PathSeen>,
    },
    /// The rows' files are being opened; then come the ones that no row knows.
    Resuming {
        first_start: bool,
        path: Option<FileStat>,
        siblings: Vec<Sibling>,
    },
    Running,
}

/// Whether a restart would know that this entry was started.
///
/// Without that, a file that is read, killed over and rotated away would be taken for one that was
/// there before the entry, and its rest would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    No,
    Asked,
    Yes,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tailer {
    base_name: String,
    start_at: StartAt,
    options: TailerOptions,
    now_ms: u64,
    phase: Phase,
    /// Oldest first; the file at the path, if open, is the last one.
    chain: VecDeque<FileTail>,
    /// Finished files, and the ones rotated before this entry was first started. Newest last.
    done: VecDeque<FileRow>,
    jobs: VecDeque<Job>,
    opening: Option<Opening>,
    outbox: Option<Block>,
    closing: VecDeque<Handle>,
    /// What the sweep under way still has to look at. None: the path.
    sweep: VecDeque<Option<Handle>>,
    next_sweep_ms: u64,
    /// A new file is at the path; the directory is looked at before it is opened.
    arrived: Option<FileStat>,
    /// The directory is to be looked at for another reason.
    look_around: bool,
    look_around_at_sweep: bool,
    /// The directory showed a rotation that the path did not show yet.
    expects_rotation: bool,
    /// What the last look at the path showed.
    at_path: Option<FileStat>,
    /// The directory was empty at the last look, as that of a disk that is not mounted is.
    sees_nothing: bool,
    /// Files that could not be opened: they are tried again.
    unreadable: Vec<FileRow>,
    unreadable_due_ms: u64,
    /// Files that were to be read and were not opened yet: missed, wherever their names put them.
    unread: Vec<FileId>,
    /// A resume found less than it looked for and has looked once more.
    relooked: bool,
    missing_due_ms: u64,
    present: bool,
    path_error: Option<String>,
    stopping: bool,
    saved: Saved,
    next_handle: u32,
    asked_bytes: usize,
    revision: u64,
    notes: Vec<Note>,
}

impl Tailer {
    /// `base_name` is the last part of the path. `rows` are the checkpoint's for this entry, in
    /// their order. `None` for an entry that the checkpoint does not know: what was rotated before
    /// is not its business. That is something else than an entry without files, which was started
    /// before any file was there.
    #[must_use]
    pub fn new(
        base_name: &str,
        start_at: StartAt,
        rows: Option<Vec<FileRow>>,
        options: TailerOptions,
    ) -> Self {
        Self {
            base_name: base_name.into(),
            start_at,
            options,
            now_ms: 0,
            saved: if rows.is_some() || planted::is(Bug::StartUnsaved) {
                Saved::Yes
            } else {
                Saved::No
            },
            phase: Phase::Starting { rows, path: None },
            chain: VecDeque::new(),
            done: VecDeque::new(),
            jobs: VecDeque::new(),
            opening: None,
            outbox: None,
            closing: VecDeque::new(),
            sweep: VecDeque::new(),
            next_sweep_ms: 0,
            arrived: None,
            look_around: false,
            look_around_at_sweep: false,
            expects_rotation: false,
            at_path: None,
            sees_nothing: false,
            unreadable: Vec::new(),
            unreadable_due_ms: 0,
            unread: Vec::new(),
            relooked: false,
            missing_due_ms: 0,
            present: false,
            path_error: None,
            stopping: false,
            next_handle: 0,
            asked_bytes: 0,
            revision: 0,
            notes: Vec::new(),
        }
    }

    /// Something may have changed: look at once instead of at the next sweep.
    pub fn wake(&mut self) {
        self.next_sweep_ms = 0;
    }

    /// How often the path is looked at without a hint from here on: a quiet file less often.
    pub fn set_sweep_ms(&mut self, sweep_ms: u64) {
        self.options.sweep_ms = sweep_ms;
    }

    /// How much may be produced and not acknowledged from here on; 0 pauses reading. The sweep goes
    /// on, so that a rotation is seen while the broker is down.
    pub fn set_max_unacked_bytes(&mut self, max_unacked_bytes: u64) {
        self.options.max_unacked_bytes = max_unacked_bytes;
    }

    /// What to do next. `now_ms` is monotonic.
    pub fn next(&mut self, now_ms: u64) -> Step {
        self.now_ms = self.now_ms.max(now_ms);
        self.retire_finished();
        if let Some(handle) = self.closing.pop_front() {
            return Step::Close { handle };
        }
        if let Some(block) = self.outbox.take() {
            return Step::Produce(block);
        }
        if self.stopping {
            return Step::Idle {
                until_ms: self.now_ms + self.options.sweep_ms,
            };
        }
        match &self.phase {
            Phase::Starting { path: None, .. } if self.next_sweep_ms > self.now_ms => {
                return Step::Idle {
                    until_ms: self.next_sweep_ms,
                };
            }
            Phase::Starting { path: None, .. } => return Step::StatPath,
            Phase::Starting { path: Some(_), .. } => return Step::ListSiblings,
            Phase::Resuming { .. } | Phase::Running => {}
        }
        if let Some(step) = self.next_opening() {
            return step;
        }
        if self.arrived.is_some() || self.look_around {
            for file in &self.chain {
                if let (Some((offset, max_bytes)), Some(handle)) = (file.proof(), file.fd) {
                    return Step::Read {
                        handle,
                        offset,
                        max_bytes,
                    };
                }
            }
        }
        let seeks_copies = || self.chain.iter().any(|file| file.sought().is_some());
        if self.arrived.is_some() || self.look_around || seeks_copies() {
            return Step::ListSiblings;
        }
        if self.sweep.is_empty() && self.next_sweep_ms <= self.now_ms {
            self.next_sweep_ms = self.now_ms + self.options.sweep_ms;
            self.sweep.push_back(None);
            let draining = self.chain.iter().filter(|file| file.draining);
            self.sweep
                .extend(draining.filter_map(|file| file.fd).map(Some));
        }
        match self.sweep.pop_front() {
            Some(None) => return Step::StatPath,
            Some(Some(handle)) => return Step::StatHandle { handle },
            None => {}
        }
        match self.saved {
            Saved::No => {
                self.saved = Saved::Asked;
                return Step::Persist;
            }
            Saved::Asked => {
                return Step::Idle {
                    until_ms: self.next_sweep_ms.max(self.now_ms + 1),
                };
            }
            Saved::Yes => {}
        }
        if let Some(step) = self.next_read() {
            return step;
        }
        let due = self
            .chain
            .iter()
            .filter_map(|file| file.due_ms(self.now_ms, &self.options));
        Step::Idle {
            until_ms: due.fold(self.next_sweep_ms, u64::min).max(self.now_ms + 1),
        }
    }

    /// Answers [`Step::StatPath`].
    pub fn path_seen(&mut self, seen: PathSeen) {
        if let Phase::Starting { path, .. } = &mut self.phase {
            if let PathSeen::Blocked(Blocked::Refused(why)) = seen {
                // Nothing can be concluded: the rows wait until the path can be looked at.
                self.path_error = Some(why);
                self.next_sweep_ms = self.now_ms + self.options.sweep_ms;
            } else {
                *path = Some(seen);
            }
            return;
        }
        // Where there is no file, one may have come and gone.
        let is_missing = !matches!(seen, PathSeen::File(_));
        let may_have_come = is_missing && self.now_ms >= self.missing_due_ms;
        if may_have_come {
            self.missing_due_ms = self.now_ms + self.options.unreadable_retry_ms;
        }
        self.look_around |= may_have_come
            || std::mem::take(&mut self.look_around_at_sweep)
            || self.unreadable_is_due();
        self.present = matches!(seen, PathSeen::File(_));
        self.at_path = match seen {
            PathSeen::File(stat) => Some(stat),
            _ => None,
        };
        let here = match seen {
            PathSeen::File(stat) => Some(stat),
            PathSeen::Missing | PathSeen::Blocked(Blocked::Missing) => {
                self.path_error = None;
                None
            }
            PathSeen::Blocked(Blocked::Refused(why)) => {
                self.path_error = Some(why);
                None
            }
        };
        if let Some(current) = self.chain.back_mut().filter(|file| !file.draining) {
            if let Some(stat) = here.filter(|stat| stat.id == current.id) {
                self.look_around |= current.stat_seen(stat);
                self.path_error = None;
                return;
            }
            current.start_draining(self.now_ms);
            self.notes.push(Note::Rotated { file: current.id });
            self.revision += 1;
            if planted::is(Bug::DrainSkipped) {
                current.give_up();
            }
        }
        let Some(stat) = here else { return };
        match self.chain.iter().position(|file| file.is_in(stat.id)) {
            // Renamed away and back.
            Some(at) => {
                if let Some(mut file) = self.chain.remove(at) {
                    file.stop_draining();
                    self.look_around |= file.stat_seen(stat);
                    self.chain.push_back(file);
                    self.revision += 1;
                }
            }
            None if self.is_unreadable(stat.id) => {}
            None => self.arrived = Some(stat),
        }
    }

    /// Answers [`Step::ListSiblings`]; an unreadable directory is an empty list.
    pub fn siblings_seen(&mut self, siblings: Vec<Sibling>) {
        if let Phase::Starting { rows, path } = &mut self.phase {
            let rows = std::mem::take(rows);
            let path = path.take();
            self.start_resuming(rows, path, siblings);
        } else {
            self.look_around = false;
            self.sees_nothing = siblings.is_empty() && !self.present;
            if self.lost_its_path(&siblings) {
                self.arrived = None;
                self.look_around_at_sweep = true;
                self.next_sweep_ms = 0;
                return;
            }
            self.seek_copies(&siblings);
            self.try_unreadable(&siblings);
            let arrived = self.arrived.take();
            self.open_arrived(&siblings, arrived, Aim::Beginning);
            self.forget_vanished(&siblings);
        }
    }

    /// Answers [`Step::Open`] with what `fstat` of the new descriptor says. After an error there
    /// is nothing to close.
    pub fn opened(&mut self, handle: Handle, result: Result<FileStat, Blocked>) {
        let Some(mut opening) = self.opening.take_if(|opening| opening.handle == handle) else {
            debug_assert!(false, "opened() answers no Step::Open");
            return;
        };
        match result {
            Ok(stat) if stat.id == opening.place.id => {
                let outcome = opening.opened(stat);
                self.judge_opening(opening, outcome);
            }
            Ok(_) => {
                self.closing.push_back(handle);
                self.look_again();
            }
            Err(Blocked::Missing) => self.look_again(),
            Err(Blocked::Refused(why)) => {
                self.refused(&opening, &why);
                self.path_error = Some(why);
            }
        }
    }

    /// The rows are not in a durable checkpoint under this entry's name, as those of another topic
    /// are not: nothing is sent before they are.
    pub fn must_save(&mut self) {
        self.saved = Saved::No;
    }

    /// Answers [`Step::Persist`].
    pub fn persisted(&mut self) {
        if self.saved == Saved::Asked {
            self.saved = Saved::Yes;
        }
    }

    /// Answers [`Step::StatHandle`].
    pub fn handle_seen(&mut self, handle: Handle, result: Result<FileStat, Blocked>) {
        let Some(file) = self.chain.iter_mut().find(|file| file.fd == Some(handle)) else {
            return;
        };
        match result {
            Ok(stat) => self.look_around |= file.stat_seen(stat),
            Err(why) => {
                file.read_failed(why.to_string(), self.now_ms, &self.options, &mut self.notes)
            }
        }
    }

    /// The file behind the descriptor has no name any more: it is not waited for as long as for one
    /// that was renamed.
    pub fn mark_deleted(&mut self, handle: Handle) {
        if let Some(file) = self.chain.iter_mut().find(|file| file.fd == Some(handle)) {
            file.mark_deleted();
        }
    }

    /// What the last look at the path showed, when there is nothing to do before a look shows
    /// something else. Until then the tailer need not be asked.
    #[must_use]
    pub fn resting(&self) -> Option<FileStat> {
        let is_calm = matches!(self.phase, Phase::Running)
            && self.saved == Saved::Yes
            && !self.stopping
            && self.chain.len() == 1
            && self.jobs.is_empty()
            && self.opening.is_none()
            && self.outbox.is_none()
            && self.closing.is_empty()
            && self.sweep.is_empty()
            && self.arrived.is_none()
            && !(self.look_around || self.look_around_at_sweep || self.expects_rotation)
            && self.unreadable.is_empty()
            && self.unread.is_empty()
            && self.path_error.is_none();
        let file = self.chain.front().filter(|_| is_calm)?;
        let stat = file.resting(self.now_ms, &self.options)?;
        (self.at_path == Some(stat)).then_some(stat)
    }

    /// Answers [`Step::Read`]; empty bytes mean the end of the file.
    pub fn read_done(&mut self, handle: Handle, offset: u64, result: Result<Bytes, Blocked>) {
        if let Some(mut opening) = self.opening.take_if(|opening| opening.handle == handle) {
            let outcome = match result {
                Ok(bytes) => opening.read(offset, &bytes, &self.options.framing),
                Err(_) => Outcome::NotThis,
            };
            self.judge_opening(opening, outcome);
            return;
        }
        let Some(at) = self.chain.iter().position(|file| file.fd == Some(handle)) else {
            return;
        };
        let file = &mut self.chain[at];
        if file.proof().is_some() {
            // What cannot be read is not proved to be another content either.
            let is_same = result.is_ok_and(|bytes| file.proved(offset, &bytes));
            if !is_same && file.proof().is_none() {
                self.content_replaced(at);
            }
            return;
        }
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(why) => {
                file.read_failed(why.to_string(), self.now_ms, &self.options, &mut self.notes);
                return;
            }
        };
        let notes_before = self.notes.len();
        let read = file::ReadDone {
            start: offset,
            bytes: &bytes,
            asked_bytes: self.asked_bytes,
            now_ms: self.now_ms,
        };
        match file.read_done(&read, &self.options, &mut self.notes) {
            Read::Nothing => {}
            Read::Lines(block) => self.outbox = Some(block),
            Read::Replaced => self.content_replaced(at),
            Read::LookAround => self.look_around = true,
        }
        self.revision += u64::from(self.notes.len() > notes_before);
    }

    /// Every record of the block is acknowledged by the broker. True when the watermark moved.
    pub fn block_done(&mut self, ticket: Ticket) -> bool {
        let file = self.chain.iter_mut().find(|file| file.key == ticket.handle);
        let advanced = file.is_some_and(|file| file.block_done(ticket.block));
        self.revision += u64::from(advanced);
        advanced
    }

    /// A record of the block was refused. Reading goes back to its beginning after a pause, and to
    /// the watermark in the later files of the chain, so that what is sent again is in order. When
    /// a record is to blame, those of the block are sent one at a time, and the one that is refused
    /// alone comes as a dead letter.
    pub fn block_failed(&mut self, ticket: Ticket, blame: Blame, why: &str) {
        if planted::is(Bug::FailureJumped) {
            self.block_done(ticket);
            return;
        }
        let Some(at) = self.chain.iter().position(|file| file.key == ticket.handle) else {
            return;
        };
        if !self.chain[at].block_failed(ticket.block, &mut self.notes) {
            return;
        }
        self.chain[at].blame(ticket.block, blame, why);
        self.chain[at].back_off(self.now_ms, &self.options);
        self.chain[at].rewind_to(ticket.block);
        self.chain
            .iter_mut()
            .skip(at + 1)
            .for_each(FileTail::rewind);
        self.outbox = None;
    }

    /// The file that a block's lines are of.
    #[must_use]
    pub fn file_of(&self, ticket: Ticket) -> Option<FileId> {
        let file = self.chain.iter().find(|file| file.key == ticket.handle)?;
        Some(file.id)
    }

    /// Whether an answer to this block is still waited for. What is not yet enqueued of a block
    /// that is not open (a failure before it made it void) can be dropped: it is read again.
    #[must_use]
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.chain
            .iter()
            .any(|file| file.key == ticket.handle && file.is_open(ticket.block))
    }

    /// No more reads; wait for [`Tailer::is_settled`], then take [`Tailer::rows`] and drop it.
    /// A block that was read and not yet handed out is not handed out any more.
    pub fn begin_stop(&mut self) {
        self.stopping = true;
        if let Some(block) = self.outbox.take()
            && let Some(file) = self
                .chain
                .iter_mut()
                .find(|file| file.key == block.ticket.handle)
        {
            file.withdraw_last();
        }
    }

    /// True when nothing is in flight (or it failed after `begin_stop`).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.outbox.is_none() && self.chain.iter().all(FileTail::is_settled)
    }

    /// What the checkpoint is to remember, in reading order. `None` for an entry that has not begun:
    /// then the checkpoint must not know it.
    #[must_use]
    pub fn rows(&self) -> Option<Vec<FileRow>> {
        let mut rows: Vec<FileRow> = self.done.iter().cloned().collect();
        match &self.phase {
            // Not looked at yet: nothing is known better than before.
            Phase::Starting { rows, .. } => return rows.clone(),
            Phase::Resuming {
                first_start: true, ..
            } => return None,
            Phase::Resuming { .. } | Phase::Running => {}
        }
        rows.extend(self.unreadable.iter().cloned());
        let waiting = self.jobs.iter().filter_map(|job| job.wanted);
        let unread = self.unread.iter().copied().chain(waiting);
        rows.extend(unread.map(resume::unread_row));
        let before = rows.len();
        rows.extend(self.jobs.iter().filter_map(Job::row).cloned());
        let readable = self.chain.iter().filter(|file| !file.is_gone());
        for (at, file) in readable.enumerate() {
            let state = if file.draining {
                RowState::Draining
            } else {
                RowState::Current
            };
            // Files being opened come after the ones that are open already.
            rows.insert(before + at, file.row(state));
        }
        Some(rows)
    }

    /// Changes whenever [`Tailer::rows`] does.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Notes since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// For the status document.
    #[must_use]
    pub fn view(&self) -> TailView {
        let file_error = || {
            self.chain
                .iter()
                .find_map(FileTail::error)
                .map(str::to_owned)
        };
        TailView {
            present: self.present,
            error: self.path_error.clone().or_else(file_error),
            files: self.chain.iter().map(FileTail::view).collect(),
        }
    }

    /// The next read of the oldest file that may have something, if nothing holds it back.
    fn next_read(&mut self) -> Option<Step> {
        let unacked_bytes: u64 = self.chain.iter().map(FileTail::unacked_bytes).sum();
        if unacked_bytes >= self.options.max_unacked_bytes {
            return None;
        }
        for file in &mut self.chain {
            if let Some((offset, max_bytes)) = file.next_read(self.now_ms, &self.options) {
                self.asked_bytes = max_bytes;
                let Some(handle) = file.fd else { continue };
                return Some(Step::Read {
                    handle,
                    offset,
                    max_bytes,
                });
            }
            if file.holds_later_files(self.now_ms, &self.options) {
                return None;
            }
        }
        None
    }

    /// What was read of the file is not in it any more. The old content waits for its copy to be
    /// found and for its acknowledgements; the new one is read from 0.
    fn content_replaced(&mut self, at: usize) {
        let key = self.new_handle();
        let new = self.chain[at].part(key, self.now_ms, &self.options);
        self.notes.push(Note::Truncated {
            file: new.id,
            reason: "the content before the offset is another one".into(),
        });
        if planted::is(Bug::CopyIgnored) {
            self.chain[at].give_up_content(&mut self.notes);
        }
        self.chain.insert(at + 1, new);
    }

    fn new_handle(&mut self) -> Handle {
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        handle
    }

    /// Closes files that are read, acknowledged and quiet. Only from the front: a later file may
    /// have to be sent again after a failure in an earlier one.
    fn retire_finished(&mut self) {
        while let Some(file) = self
            .chain
            .pop_front_if(|file| file.finished && file.is_settled())
        {
            let row = file.row(RowState::Done);
            self.notes.push(Note::Finished {
                file: row.id,
                offset: row.acked_offset,
            });
            // An empty file has nothing to be known by.
            if file.is_in_file() && !file.is_unread() {
                self.remember_done(row);
            }
            self.closing.extend(file.fd);
            self.revision += 1;
        }
    }

    fn remember_done(&mut self, mut row: FileRow) {
        row.state = RowState::Done;
        self.done
            .retain(|known| known.id != row.id || row.id.is_none());
        self.done.push_back(row);
        while self.done.len() > MAX_DONE_ROWS {
            self.done.pop_front();
        }
    }
}
