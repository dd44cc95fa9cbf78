//! Finding files: what a start has to look for, what was rotated before anybody looked, and what
//! becomes of a file that cannot be opened.
//!
//! Opens nothing itself: it queues jobs, and judges their outcome.

use super::opening::{self, Aim, Job, Opening, Outcome, Place};
use super::step::{Blocked, Handle, Note, PathSeen, Step, Target};
use super::{FileTail, MAX_DONE_ROWS, Phase, Tailer};
use crate::checkpoint::{FileRow, RowState};
use crate::config::StartAt;
use crate::identity::{FileStat, Known, Print};
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
        let (done, open): (Vec<_>, Vec<_>) = rows
            .unwrap_or_default()
            .into_iter()
            .partition(|row| row.state == RowState::Done);
        self.done = done.into();
        for row in &open {
            let places = opening::places_of(row, &open, &self.base_name, path.as_ref(), &siblings);
            self.jobs.push_back(Job {
                aim: Aim::Row(row.clone()),
                places,
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
        let unclaimed = path.filter(|stat| self.chain.iter().all(|file| file.id != stat.id));
        let aim = match self.start_at {
            StartAt::End if first_start => Aim::End,
            _ => Aim::Beginning,
        };
        if first_start {
            self.open_path(unclaimed, aim);
        } else {
            self.open_arrived(&siblings, unclaimed, aim);
        }
        self.next_sweep_ms = self.now_ms + self.options.sweep_ms;
    }

    /// Opens what was rotated away before anybody looked, then the file at the path.
    pub(super) fn open_arrived(&mut self, siblings: &[Sibling], path: Option<FileStat>, aim: Aim) {
        let acquaintance = |stat: &FileStat| {
            if path.is_some_and(|path| path.id == stat.id) {
                // A second name of the file at the path: read there, after all the others.
                Acquaintance::Read(usize::MAX - 1)
            } else {
                self.acquaintance(stat)
            }
        };
        let missed: Vec<Sibling> =
            rotation::missed(&self.base_name, siblings, MAX_DONE_ROWS, acquaintance)
                .into_iter()
                .cloned()
                .collect();
        let missed = if planted::is(Bug::MissedRotationsIgnored) {
            Vec::new()
        } else {
            missed
        };
        for sibling in missed {
            if rotation::is_compressed(&sibling.name) {
                self.notes.push(Note::Lost {
                    file: sibling.stat.id,
                    from_offset: 0,
                    to_offset: sibling.stat.size,
                    reason: format!(
                        "{} was rotated and compressed before it was read (compressed size)",
                        sibling.name
                    ),
                });
                self.remember_done(FileRow {
                    id: sibling.stat.id,
                    head: Print::default(),
                    marker: Print::default(),
                    acked_offset: sibling.stat.size,
                    seen_bytes: sibling.stat.size,
                    state: RowState::Done,
                });
                continue;
            }
            let aim = self.aim_of(&sibling.stat, Aim::Beginning);
            self.jobs.push_back(Job::new(
                aim,
                Target::Sibling(sibling.name),
                sibling.stat.id,
            ));
        }
        self.open_path(path, aim);
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

    /// What is known of a rotated file. One that has grown since it was finished is a stranger.
    fn acquaintance(&self, stat: &FileStat) -> Acquaintance {
        if let Some(at) = self.chain.iter().position(|file| file.id == stat.id) {
            return Acquaintance::Read(self.done.len() + at);
        }
        let Some(at) = self.done.iter().position(|row| row.id == stat.id) else {
            return Acquaintance::Stranger;
        };
        let row = &self.done[at];
        let was_read = row.head.len > 0;
        match was_read {
            true if row.acked_offset >= stat.size => Acquaintance::Read(at),
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
                let job = self.jobs.pop_front();
                self.file_is_gone(job);
                continue;
            };
            if self.chain.iter().any(|file| file.id == place.id) {
                continue;
            }
            let handle = Handle(self.next_handle);
            self.next_handle += 1;
            let target = place.target.clone();
            self.opening = Some(Opening::new(handle, place, job.aim.clone()));
            return Some(Step::Open { handle, target });
        }
    }

    fn file_is_gone(&mut self, job: Option<Job>) {
        let Some(Job {
            aim: Aim::Row(row), ..
        }) = job
        else {
            return;
        };
        if row.seen_bytes > row.acked_offset {
            self.notes.push(Note::Lost {
                file: row.id,
                from_offset: row.acked_offset,
                to_offset: row.seen_bytes,
                reason: "the file was gone or rewritten when the agent came back".into(),
            });
        }
        // It may come back, with a disk that is mounted late for instance.
        self.remember_done(row);
        self.revision += 1;
    }

    pub(super) fn judge_opening(&mut self, opening: Opening, outcome: Outcome) {
        match outcome {
            Outcome::More => self.opening = Some(opening),
            Outcome::NotThis => self.closing.push_back(opening.handle),
            Outcome::Take(stat, known) => {
                self.jobs.pop_front();
                self.done.retain(|row| row.id != stat.id);
                self.take_file(&opening.place, opening.handle, stat, known);
            }
        }
    }

    fn take_file(&mut self, place: &Place, handle: Handle, stat: FileStat, known: Known) {
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
        self.chain.insert(self.chain.len() - at_path, file);
    }

    /// The directory changed between looking and opening.
    pub(super) fn look_again(&mut self) {
        if let Phase::Resuming { .. } = self.phase {
            let rows = self.rows();
            self.closing
                .extend(self.chain.drain(..).map(|file| file.handle));
            self.done.clear();
            self.phase = Phase::Starting { rows, path: None };
        }
        self.jobs.clear();
        self.next_sweep_ms = self.now_ms + self.options.sweep_ms / 10;
    }

    /// The file may not be opened. The one at the path is tried again with every sweep; a
    /// rotated one must not hold the others back.
    pub(super) fn refused(&mut self, opening: &Opening, why: &str) {
        let Some(job) = self.jobs.pop_front() else {
            return;
        };
        let row = job.row().cloned();
        if let Target::Sibling(name) = &opening.place.target {
            self.notes.push(Note::Lost {
                file: opening.place.id,
                from_offset: row.as_ref().map_or(0, |row| row.acked_offset),
                to_offset: row.as_ref().map_or(0, |row| row.seen_bytes),
                reason: format!("{name} was rotated away and cannot be opened: {why}"),
            });
        }
        if let Some(row) = row {
            self.remember_done(row);
        }
    }
}
