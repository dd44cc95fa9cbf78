//! Finding files: what a start has to look for, what was rotated before anybody looked, and what
//! becomes of a file that cannot be opened.
//!
//! Opens nothing itself: it queues jobs, and judges their outcome.

use super::opening::{self, Aim, Candidate, Job, Opening, Outcome, Place};
use super::step::{Blocked, Handle, Note, PathSeen, Step, Target};
use super::{FileTail, MAX_DONE_ROWS, Phase, Tailer};
use crate::checkpoint::{FileRow, RowState};
use crate::config::StartAt;
use crate::identity::{FileId, FileStat, Known, Print};
use crate::planted::{self, Bug};
use crate::rotation::{self, Acquaintance, Sibling};

impl Tailer {
    /// The rows are read: their files are looked for, in order.
    pub(super) fn start_resuming(
        &mut self,
        rows: Option<Vec<FileRow>>,
        path: Option<PathSeen>,
        siblings: Vec<Sibling>,
    ) {
        let first_start = rows.is_none();
        let path = match path {
            Some(PathSeen::File(stat)) => Some(stat),
            Some(PathSeen::Blocked(Blocked::Refused(why))) => {
                self.path_error = Some(why);
                None
            }
            _ => None,
        };
        self.present = path.is_some();
        self.sees_nothing = path.is_none() && siblings.is_empty();
        let mut rows = rows.unwrap_or_default();
        learn_births(&mut rows, path.as_ref(), &siblings);
        let (done, open): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .partition(|row| row.state == RowState::Done);
        // Nothing is known of a file that was not read but its inode, which may be another file's
        // by now: it is read with those that were missed, in their order.
        let (unread, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|row| row.head.len == 0);
        self.unread = unread.into_iter().map(|row| row.id).collect();
        self.done = done.into();
        for row in &open {
            let is_known = |stat: &FileStat| self.is_known(stat);
            let places =
                opening::places_of(row, is_known, &self.base_name, path.as_ref(), &siblings);
            self.jobs.push_back(Job {
                aim: Aim::Row(row.clone()),
                places,
                wanted: None,
                before: None,
            });
        }
        if first_start {
            // What was rotated before this entry existed is none of its business.
            let old = rotation::newest_first(&self.base_name, &siblings);
            for sibling in old.into_iter().take(MAX_DONE_ROWS).rev() {
                self.done.push_back(FileRow {
                    id: sibling.stat.id,
                    head: Print::default(),
                    marker: Print::default(),
                    acked_offset: sibling.stat.size,
                    seen_bytes: sibling.stat.size,
                    state: RowState::Done,
                });
            }
        }
        self.phase = Phase::Resuming {
            first_start,
            path,
            siblings,
        };
        self.revision += 1;
    }

    /// The files that the rows know are open: now the ones that they do not know.
    fn finish_resuming(&mut self) {
        let Phase::Resuming {
            first_start,
            path,
            siblings,
        } = std::mem::replace(&mut self.phase, Phase::Running)
        else {
            return;
        };
        self.at_path = path;
        let unclaimed = path.filter(|stat| {
            self.chain.iter().all(|file| !file.is_in(stat.id)) && !self.is_unreadable(stat.id)
        });
        let aim = match self.start_at {
            StartAt::End if first_start => Aim::End,
            _ => Aim::Beginning,
        };
        if first_start {
            self.open_path(unclaimed, aim);
        } else {
            self.open_arrived(&siblings, unclaimed, aim);
            self.forget_vanished(&siblings);
        }
        self.next_sweep_ms = self.now_ms + self.options.sweep_ms;
    }

    /// Opens what was rotated away before anybody looked, then the file at the path.
    pub(super) fn open_arrived(&mut self, siblings: &[Sibling], path: Option<FileStat>, aim: Aim) {
        // While a file that is known by its content keeps the path, nothing else can have had it:
        // what is new beside it is a copy of it, perhaps still being made.
        let current = self.chain.back().filter(|file| !file.draining);
        // The same holds while that file cannot be opened.
        let is_kept = current.is_some_and(|file| !file.is_unread())
            || self.at_path.is_some_and(|stat| self.is_unreadable(stat.id));
        let keeps_path = path.is_none() && is_kept;
        let missed = if keeps_path {
            Vec::new()
        } else {
            self.strangers(siblings, path)
        };
        let missed = if planted::is(Bug::MissedRotationsIgnored) {
            Vec::new()
        } else {
            missed
        };
        // As many compressed files as known ones are not there any more: those they were.
        let is_there = |row: &&FileRow| siblings.iter().any(|s| s.stat.id == row.id);
        let vanished = self.done.iter().filter(|row| !is_there(row)).count();
        let gone = |file: &&super::FileTail| !siblings.iter().any(|s| file.is_in(s.stat.id));
        let mut compressed_known = vanished + self.chain.iter().filter(gone).count();
        let later: Vec<FileId> = missed.iter().map(|sibling| sibling.stat.id).collect();
        for sibling in missed {
            if rotation::is_being_made(&sibling.name, siblings) {
                // Its original is there and is read; later it is known by its content.
                self.look_around_at_sweep = true;
                continue;
            }
            let is_unpackable = rotation::is_unpackable(&sibling.name, siblings);
            if rotation::is_compressed(&sibling.name) && !is_unpackable {
                self.pass_compressed(&sibling, compressed_known > 0, "cannot be read");
                compressed_known = compressed_known.saturating_sub(1);
                let gone = |row: &FileRow| !siblings.iter().any(|s| s.stat.id == row.id);
                if let Some(it) = self.done.iter().position(gone) {
                    self.done.remove(it);
                }
                continue;
            }
            if self.is_unreadable(sibling.stat.id) {
                continue;
            }
            let id = sibling.stat.id;
            let aim = if is_unpackable {
                Aim::Unpack(self.candidates(siblings))
            } else {
                self.aim_of(&sibling.stat, Aim::Beginning)
            };
            let mut job = Job::new(aim, Target::Sibling(sibling.name), id);
            job.before = later
                .iter()
                .skip_while(|other| **other != id)
                .find(|other| self.chain.iter().any(|file| file.is_in(**other)))
                .copied();
            self.jobs.push_back(job);
        }
        self.open_path(path, aim);
    }

    /// The contents that a compressed file may hold: those that were read and whose files are not
    /// there any more. What is still to be read of them comes before this.
    fn candidates(&self, siblings: &[Sibling]) -> Vec<Candidate> {
        let is_gone = |id: FileId| !siblings.iter().any(|sibling| sibling.stat.id == id);
        let done = self.done.iter().map(|row| Candidate {
            row: row.clone(),
            is_open: false,
        });
        let open = self.chain.iter().map(|file| Candidate {
            row: file.content_row(),
            is_open: true,
        });
        let is_candidate =
            |candidate: &Candidate| candidate.row.head.len > 0 && is_gone(candidate.row.id);
        open.chain(done).filter(is_candidate).collect()
    }

    /// Files rotated away before anybody looked, oldest first.
    fn strangers(&self, siblings: &[Sibling], path: Option<FileStat>) -> Vec<Sibling> {
        let acquaintance = |sibling: &Sibling| {
            let id = sibling.stat.id;
            if path.is_some_and(|path| path.id == id) {
                // A second name of the file at the path: read there, after all the others.
                return Acquaintance::Read(usize::MAX - 1);
            }
            let is_compressed = rotation::is_compressed(&sibling.name);
            match self.acquaintance(&sibling.stat, is_compressed) {
                Acquaintance::Older if is_compressed => Acquaintance::Known,
                known => known,
            }
        };
        rotation::missed(&self.base_name, siblings, MAX_DONE_ROWS, acquaintance)
            .into_iter()
            .cloned()
            .collect()
    }

    /// True once when the directory does not show the file at the path there: it was rotated since
    /// the path was looked at, and that has to be known first.
    pub(super) fn lost_its_path(&mut self, siblings: &[Sibling]) -> bool {
        let expected = std::mem::take(&mut self.expects_rotation);
        let current = self.chain.back().filter(|file| !file.draining);
        let arrived = self.arrived.map(|stat| stat.id);
        let Some(id) = arrived.or(current.map(|file| file.id)) else {
            return false;
        };
        let has_path = siblings
            .iter()
            .any(|sibling| sibling.name == self.base_name && sibling.stat.id == id);
        // Said again, it is a symlink's target or a second name.
        self.expects_rotation = !expected && !has_path;
        self.expects_rotation
    }

    /// Looks for the copies of contents that their files do not have any more.
    pub(super) fn seek_copies(&mut self, siblings: &[Sibling]) {
        let strangers = self.strangers(siblings, None);
        for file in &self.chain {
            if let Some(row) = file.sought() {
                let places = opening::copies_of(&row, &strangers, siblings);
                let aim = Aim::Copy(file.key, row);
                self.jobs.push_back(Job {
                    aim,
                    places,
                    wanted: None,
                    before: None,
                });
            }
        }
    }

    /// Nothing can be read of a compressed file.
    fn pass_compressed(&mut self, sibling: &Sibling, is_known: bool, why: &str) {
        if !is_known {
            self.notes.push(Note::Lost {
                file: sibling.stat.id,
                from_offset: 0,
                to_offset: sibling.stat.size,
                reason: format!(
                    "{} was rotated and compressed before it was read, and {why} (compressed size)",
                    sibling.name
                ),
            });
        }
        self.remember_done(FileRow {
            id: sibling.stat.id,
            head: Print::default(),
            marker: Print::default(),
            acked_offset: sibling.stat.size,
            seen_bytes: sibling.stat.size,
            state: RowState::Done,
        });
    }

    /// The identity of what is not there any more is forgotten where births are not told, because
    /// its inode is free for another file; its content is not, because it may come again compressed.
    /// An empty directory says nothing: its disk may be mounted later.
    pub(super) fn forget_vanished(&mut self, siblings: &[Sibling]) {
        if !siblings.is_empty() {
            let is_there = |id| siblings.iter().any(|sibling| sibling.stat.id == id);
            self.done.retain(|row| is_there(row.id) || row.head.len > 0);
            let gone = |row: &&mut FileRow| !is_there(row.id) && row.id.born_ns == 0;
            for row in self.done.iter_mut().filter(gone) {
                row.id = FileId::none();
            }
            self.unread.retain(|id| is_there(*id));
        }
    }

    fn open_path(&mut self, path: Option<FileStat>, aim: Aim) {
        if let Some(stat) = path {
            let aim = self.aim_of(&stat, aim);
            self.jobs.push_back(Job::new(aim, Target::Path, stat.id));
        }
    }

    /// A finished file that comes back is read on, if its content proves it.
    fn aim_of(&self, stat: &FileStat, otherwise: Aim) -> Aim {
        let finished = self
            .done
            .iter()
            .find(|row| row.id == stat.id && row.head.len > 0);
        finished.map_or(otherwise, |row| Aim::RowOrBeginning(row.clone()))
    }

    fn is_known(&self, stat: &FileStat) -> bool {
        !matches!(
            self.acquaintance(stat, false),
            Acquaintance::Stranger | Acquaintance::Unread
        )
    }

    /// What is known of a rotated file. One that is not as it was when it was finished is a stranger.
    fn acquaintance(&self, stat: &FileStat, is_compressed: bool) -> Acquaintance {
        if let Some(at) = self.chain.iter().position(|file| file.is_in(stat.id)) {
            // Of an empty file nobody knows what it was before; being opened twice is prevented.
            return if self.chain[at].is_unread() {
                Acquaintance::Unread
            } else {
                Acquaintance::Read(self.done.len() + at)
            };
        }
        if self.unread.contains(&stat.id) {
            return Acquaintance::Unread;
        }
        let Some(at) = self.done.iter().position(|row| row.id == stat.id) else {
            return Acquaintance::Stranger;
        };
        let row = &self.done[at];
        let was_read = row.head.len > 0;
        match was_read {
            // Nobody writes to a compressed file.
            true if is_compressed => Acquaintance::Read(at),
            true if row.acked_offset == stat.size => Acquaintance::Read(at),
            false if row.seen_bytes <= stat.size => Acquaintance::Older,
            _ => Acquaintance::Stranger,
        }
    }

    pub(super) fn next_opening(&mut self) -> Option<Step> {
        loop {
            if let Some(opening) = &self.opening {
                let (offset, max_bytes) = opening.next_read()?;
                return Some(Step::Read {
                    handle: opening.handle,
                    offset,
                    max_bytes,
                });
            }
            let Some(job) = self.jobs.front_mut() else {
                if matches!(self.phase, Phase::Resuming { .. }) {
                    self.finish_resuming();
                    continue;
                }
                return None;
            };
            // A file that another row proved to be its own is not tried again.
            let place = job.places.pop_front();
            let Some(place) = place else {
                let is_row = matches!(job.aim, Aim::Row(_));
                let is_resuming = matches!(self.phase, Phase::Resuming { .. });
                if is_row && is_resuming && !std::mem::replace(&mut self.relooked, true) {
                    // It may have been copied and truncated since the directory was looked at.
                    self.look_again();
                    self.next_sweep_ms = self.now_ms;
                    return Some(self.next(self.now_ms));
                }
                let job = self.jobs.pop_front();
                self.file_is_gone(job);
                continue;
            };
            if self.chain.iter().any(|file| file.is_in(place.id)) {
                continue;
            }
            let (target, aim) = (place.target.clone(), job.aim.clone());
            let handle = self.new_handle();
            self.opening = Some(Opening::new(handle, place, aim));
            return Some(Step::Open { handle, target });
        }
    }

    fn file_is_gone(&mut self, job: Option<Job>) {
        let row = match job.map(|job| job.aim) {
            Some(Aim::Row(row)) => row,
            Some(Aim::Copy(key, _)) => {
                if let Some(file) = self.chain.iter_mut().find(|file| file.key == key) {
                    file.give_up_content(&mut self.notes);
                    self.revision += 1;
                }
                return;
            }
            _ => return,
        };
        if self.chain.iter().any(|file| file.is_in(row.id)) {
            return;
        }
        if row.seen_bytes > row.acked_offset {
            self.notes.push(Note::Lost {
                file: row.id,
                from_offset: row.acked_offset,
                to_offset: row.seen_bytes,
                reason: "the file was gone or rewritten when the agent came back".into(),
            });
        }
        // It may come back, with a disk that is mounted late; but where others are, its inode may be
        // another file's by now.
        if self.sees_nothing {
            self.remember_done(row);
        }
        self.revision += 1;
    }

    pub(super) fn judge_opening(&mut self, opening: Opening, outcome: Outcome) {
        match outcome {
            Outcome::More => self.opening = Some(opening),
            Outcome::Held(row) => {
                self.closing.push_back(opening.handle);
                self.jobs.pop_front();
                self.remember_done(FileRow {
                    id: opening.place.id,
                    ..row
                });
                self.revision += 1;
            }
            Outcome::NotThis if matches!(opening.aim, Aim::Unpack(_)) => {
                self.closing.push_back(opening.handle);
                self.jobs.pop_front();
                let stat = opening.stat_or(opening.place.id);
                if let Target::Sibling(name) = opening.place.target {
                    self.pass_compressed(&Sibling { name, stat }, false, "is damaged");
                    self.revision += 1;
                }
            }
            Outcome::NotThis => {
                self.closing.push_back(opening.handle);
                let is_replaced =
                    matches!(&opening.aim, Aim::Row(row) if row.id == opening.place.id);
                if is_replaced && opening.place.target != Target::Path {
                    // Another content, which nobody has read, wherever its name puts it.
                    self.unread.push(opening.place.id);
                    self.look_around |= matches!(self.phase, Phase::Running);
                }
            }
            Outcome::Take(stat, known) => {
                let before = self.jobs.pop_front().and_then(|job| job.before);
                if let Aim::Copy(key, _) = opening.aim {
                    let now_ms = self.now_ms;
                    if let Some(file) = self.chain.iter_mut().find(|file| file.key == key) {
                        file.adopt(opening.handle, stat, now_ms);
                        self.revision += 1;
                    } else {
                        self.closing.push_back(opening.handle);
                    }
                    return;
                }
                self.done.retain(|row| row.id != stat.id);
                self.take_file(&opening.place, opening.handle, stat, known, before);
            }
        }
    }

    fn take_file(
        &mut self,
        place: &Place,
        handle: Handle,
        stat: FileStat,
        known: Known,
        before: Option<FileId>,
    ) {
        self.unread.retain(|id| *id != stat.id);
        let mut file = FileTail::new(handle, stat, known, self.now_ms);
        self.notes.push(Note::Opened {
            file: file.id,
            offset: known.offset,
        });
        self.revision += 1;
        if place.target == Target::Path {
            self.path_error = None;
            self.chain.push_back(file);
            return;
        }
        file.start_draining(self.now_ms);
        let at_path = usize::from(self.chain.back().is_some_and(|file| !file.draining));
        let at = before.and_then(|id| self.chain.iter().position(|file| file.is_in(id)));
        self.chain
            .insert(at.unwrap_or(self.chain.len() - at_path), file);
    }

    /// The directory changed between looking and opening.
    pub(super) fn look_again(&mut self) {
        if let Phase::Resuming { .. } = self.phase {
            let rows = self.rows();
            self.unreadable.clear();
            self.closing
                .extend(self.chain.drain(..).filter_map(|file| file.fd));
            self.done.clear();
            self.phase = Phase::Starting { rows, path: None };
        }
        let is_running = matches!(self.phase, Phase::Running);
        for job in self.jobs.drain(..).filter(|_| is_running) {
            self.unreadable.extend(job.row().cloned());
            self.unread.extend(job.wanted);
        }
        self.look_around_at_sweep = true;
        self.next_sweep_ms = self.now_ms + self.options.sweep_ms / 10;
    }

    /// The file may not be opened. It is tried again, also after it was rotated away; meanwhile it
    /// holds no other file back.
    pub(super) fn refused(&mut self, opening: &Opening, why: &str) {
        let Some(job) = self.jobs.pop_front() else {
            return;
        };
        let row = match job.aim {
            Aim::Row(row) | Aim::RowOrBeginning(row) => row,
            Aim::Copy(key, _) => {
                if let Some(file) = self.chain.iter_mut().find(|file| file.key == key) {
                    file.give_up_content(&mut self.notes);
                }
                return;
            }
            Aim::Beginning | Aim::End | Aim::Unpack(_) => unread_row(opening.place.id),
        };
        if let Target::Sibling(name) = &opening.place.target {
            self.notes.push(Note::Unreadable {
                file: opening.place.id,
                reason: format!("{name}: {why}"),
            });
        }
        self.unreadable.push(row);
        self.unreadable_due_ms = self.now_ms + self.options.unreadable_retry_ms;
        self.revision += 1;
        if self.unreadable.len() > MAX_DONE_ROWS {
            let row = self.unreadable.remove(0);
            self.notes.push(Note::Lost {
                file: row.id,
                from_offset: row.acked_offset,
                to_offset: row.seen_bytes,
                reason: format!("too many files cannot be opened: {why}"),
            });
        }
    }

    pub(super) fn is_unreadable(&self, id: FileId) -> bool {
        self.unreadable.iter().any(|row| row.id == id)
            || self
                .jobs
                .iter()
                .any(|job| job.row().is_some_and(|row| row.id == id))
    }

    pub(super) fn unreadable_is_due(&self) -> bool {
        !self.unreadable.is_empty() && self.now_ms >= self.unreadable_due_ms
    }

    /// Looks for what could not be opened: when it is time, and before a newer file is opened.
    pub(super) fn try_unreadable(&mut self, siblings: &[Sibling]) {
        if !self.unreadable_is_due() && self.arrived.is_none() {
            return;
        }
        let rows = std::mem::take(&mut self.unreadable);
        for row in &rows {
            let is_known = |stat: &FileStat| self.is_known(stat);
            let path = self.at_path.as_ref();
            let places = opening::places_of(row, is_known, &self.base_name, path, siblings);
            self.jobs.push_back(Job {
                aim: Aim::Row(row.clone()),
                places,
                wanted: None,
                before: None,
            });
        }
    }
}

/// Rows of a time when births were not known are those of the files that have their inodes now: it
/// is the best that was known then.
fn learn_births(rows: &mut [FileRow], path: Option<&FileStat>, siblings: &[Sibling]) {
    for row in rows {
        let mut seen = path
            .into_iter()
            .chain(siblings.iter().map(|sibling| &sibling.stat));
        if let Some(stat) = seen.find(|stat| stat.id.may_be(&row.id)) {
            row.id = stat.id;
        }
    }
}

/// The row of a file of which nothing was read.
pub(super) fn unread_row(id: FileId) -> FileRow {
    FileRow {
        id,
        head: Print::default(),
        marker: Print::default(),
        acked_offset: 0,
        seen_bytes: 0,
        state: RowState::Draining,
    }
}
