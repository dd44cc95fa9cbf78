//! One open file of a tail: what is read, what is acknowledged, what is known of its content.
//!
//! Knows nothing of paths, siblings or the other files of the chain.

use bytes::Bytes;

use super::step::{FileView, Handle, Note, TailerOptions, Ticket};
use crate::ack::{AckTracker, Acked, BlockId};
use crate::checkpoint::{FileRow, RowState};
use crate::framing::Lines;
use crate::identity::{FileId, FileStat, Known, Print, Verdict, marker_at_end};
use crate::planted::{self, Bug};

/// A block whose content is gone from the file: it can be acknowledged, but not sent again.
#[derive(Debug)]
struct Orphan {
    block: BlockId,
    range: std::ops::Range<u64>,
}

/// The answer to a read.
#[derive(Debug)]
pub(super) struct ReadDone<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a Bytes,
    pub(super) asked_bytes: usize,
    pub(super) now_ms: u64,
}

#[derive(Debug)]
pub(super) struct FileTail {
    pub(super) handle: Handle,
    pub(super) id: FileId,
    /// No longer at the entry's path.
    pub(super) draining: bool,
    /// Draining, at its end, quiet for long enough, and the last half line is sent.
    pub(super) finished: bool,
    /// Content known up to the end of the last whole line read.
    known: Known,
    acks: AckTracker<Print>,
    orphans: Vec<Orphan>,
    /// The newest stat; size zero before the first one.
    stat: FileStat,
    /// Largest size that the present content certainly had: from reads, and from every stat but
    /// the newest, which may already be that of another content.
    seen_bytes: u64,
    /// Something may be there to read.
    ready: bool,
    /// Look once more at the next sweep even if stat shows no change: a write in the same clock
    /// tick as the last stat changes neither size nor ctime.
    recheck: bool,
    /// Bytes of the half line at the end of the file.
    partial_bytes: u64,
    /// End of the file at the last read that reached it.
    end_bytes: u64,
    /// When the file last grew.
    grew_ms: u64,
    /// The read under way is the last one: take the half line too.
    finishing: bool,
    /// A line longer than a block is being looked for.
    want_bytes: usize,
    /// After a truncation, NULs at the beginning are a hole left by a writer with an old offset.
    skip_nuls: bool,
    paused_until_ms: u64,
    retry_ms: u64,
    error: Option<String>,
}

impl FileTail {
    /// A file whose content is known up to `known.offset`, all of it acknowledged.
    pub(super) fn new(handle: Handle, stat: FileStat, known: Known, now_ms: u64) -> Self {
        Self {
            handle,
            id: stat.id,
            draining: false,
            finished: false,
            acks: AckTracker::new(known.offset, known.marker),
            known,
            orphans: Vec::new(),
            seen_bytes: known.offset,
            stat,
            ready: true,
            recheck: true,
            partial_bytes: 0,
            end_bytes: known.offset,
            grew_ms: now_ms,
            finishing: false,
            want_bytes: 0,
            skip_nuls: false,
            paused_until_ms: 0,
            retry_ms: 0,
            error: None,
        }
    }

    pub(super) fn stat_seen(&mut self, stat: FileStat) {
        if stat.size != self.stat.size || stat.changed_ns != self.stat.changed_ns {
            self.finished &= stat.size == self.stat.size;
            self.seen_bytes = self.seen_bytes.max(self.stat.size);
            self.stat = stat;
            self.ready = true;
            self.recheck = true;
        } else if self.recheck {
            self.recheck = false;
            self.ready = true;
        }
    }

    pub(super) fn start_draining(&mut self, now_ms: u64) {
        self.draining = true;
        self.grew_ms = now_ms;
        self.ready = true;
    }

    pub(super) fn stop_draining(&mut self) {
        self.draining = false;
        self.finishing = false;
        self.finished = false;
        self.ready = true;
    }

    /// The next read, if there may be something to read: offset and length.
    pub(super) fn next_read(
        &mut self,
        now_ms: u64,
        options: &TailerOptions,
    ) -> Option<(u64, usize)> {
        if now_ms < self.paused_until_ms || self.finished {
            return None;
        }
        if !self.ready {
            let quiet_ms = now_ms.saturating_sub(self.grew_ms);
            if !self.draining || quiet_ms < options.rotate_wait_ms {
                return None;
            }
            self.finishing = true;
        }
        let start = self.known.read_start();
        let overlap = (self.known.offset - start) as usize;
        Some((start, overlap + self.want_bytes.max(options.block_bytes)))
    }

    /// Whether later files of the chain must wait for this one.
    pub(super) fn holds_later_files(&self, now_ms: u64, options: &TailerOptions) -> bool {
        if self.finished {
            return false;
        }
        let waits_for_newline =
            self.partial_bytes > 0 && now_ms.saturating_sub(self.grew_ms) < options.partial_wait_ms;
        self.ready || now_ms < self.paused_until_ms || waits_for_newline
    }

    /// When something is to be done although nothing happens before.
    pub(super) fn due_ms(&self, now_ms: u64, options: &TailerOptions) -> Option<u64> {
        let quiet_ms = self.grew_ms.saturating_add(options.rotate_wait_ms);
        let partial_ms = self.grew_ms.saturating_add(options.partial_wait_ms);
        [
            (self.ready, self.paused_until_ms),
            (self.draining && !self.finished, quiet_ms),
            (self.draining && self.partial_bytes > 0, partial_ms),
        ]
        .into_iter()
        .filter(|(applies, at_ms)| *applies && *at_ms > now_ms)
        .map(|(_, at_ms)| at_ms)
        .min()
    }

    /// Takes the answer to a read; returns lines to produce.
    pub(super) fn read_done(
        &mut self,
        read: &ReadDone<'_>,
        options: &TailerOptions,
        notes: &mut Vec<Note>,
    ) -> Option<(Ticket, Lines)> {
        let &ReadDone {
            start,
            bytes,
            asked_bytes,
            now_ms,
        } = read;
        self.error = None;
        let verdict = self.known.judge(start, bytes);
        let verdict = match verdict {
            Verdict::Rewritten if planted::is(Bug::MarkerUnchecked) => Verdict::Same,
            verdict => verdict,
        };
        match verdict {
            Verdict::Same => {}
            Verdict::Shorter => {
                if self.stat.size > start + bytes.len() as u64 {
                    self.seen_bytes = self.seen_bytes.max(self.stat.size);
                }
                self.start_over("the file was truncated", notes);
                return None;
            }
            Verdict::Rewritten => {
                self.start_over("the file was truncated and written again", notes);
                return None;
            }
        }
        self.known.learn_head(start, bytes);
        let overlap = (self.known.offset - start) as usize;
        let at_end = bytes.len() < asked_bytes;
        let end = start + bytes.len() as u64;
        self.seen_bytes = self.seen_bytes.max(end);
        if end > self.end_bytes {
            self.end_bytes = end;
            self.grew_ms = now_ms;
            self.finishing = false;
        }
        let new = bytes.slice(overlap..);
        if self.skip_nuls && !new.is_empty() {
            let nuls = new.iter().take_while(|byte| **byte == 0).count();
            if nuls < new.len() {
                self.skip_nuls = false;
            }
            if nuls > 0 {
                self.skip_hole(&bytes[..overlap + nuls], nuls as u64, notes);
                return None;
            }
        }
        let lines = match Lines::split(self.known.offset, &new, options.max_line_bytes) {
            Some(lines) => Some(lines),
            None if self.finishing && at_end => {
                self.finished = true;
                Lines::finish(self.known.offset, &new, options.max_line_bytes)
            }
            None => None,
        };
        let taken = lines.as_ref().map_or(0, Lines::len_bytes);
        self.partial_bytes = (new.len() - taken) as u64;
        if at_end {
            self.ready = false;
            let is_long = self.partial_bytes >= options.block_bytes as u64;
            self.want_bytes = if is_long {
                options.max_line_bytes + 2
            } else {
                0
            };
        } else {
            self.ready = true;
            // One byte beyond the longest line decides whether it is cut.
            self.want_bytes = if taken == 0 {
                options.max_line_bytes + 2
            } else {
                0
            };
        }
        self.finishing = false;
        let lines = lines?;
        self.known.offset = lines.end();
        self.known.marker = marker_at_end(&bytes[..overlap + taken]);
        let block = self.acks.issue(lines.end(), self.known.marker);
        Some((
            Ticket {
                handle: self.handle,
                block,
            },
            lines,
        ))
    }

    /// The read itself failed: the file is left alone for a while. One that no longer has the
    /// path is given up when it stays unreadable, because the next file waits for it.
    pub(super) fn read_failed(
        &mut self,
        why: String,
        now_ms: u64,
        options: &TailerOptions,
        notes: &mut Vec<Note>,
    ) {
        if self.draining && now_ms.saturating_sub(self.grew_ms) >= options.rotate_wait_ms {
            self.finished = true;
            self.ready = false;
            let to_offset = self.seen_bytes.max(self.stat.size);
            if to_offset > self.known.offset {
                notes.push(Note::Lost {
                    file: self.id,
                    from_offset: self.known.offset,
                    to_offset,
                    reason: format!("rotated away and unreadable: {why}"),
                });
            }
        }
        self.error = Some(why);
        self.back_off(now_ms, options);
    }

    /// True when the watermark moved.
    pub(super) fn block_done(&mut self, block: BlockId) -> bool {
        self.orphans.retain(|orphan| orphan.block != block);
        let advanced = self.acks.done(block) == Acked::Advanced;
        if advanced {
            self.retry_ms = 0;
            self.error = None;
        }
        advanced
    }

    /// True when reading has to go back to the watermark.
    pub(super) fn block_failed(&mut self, block: BlockId, notes: &mut Vec<Note>) -> bool {
        if let Some(at) = self.orphans.iter().position(|orphan| orphan.block == block) {
            let range = self.orphans.swap_remove(at).range;
            notes.push(Note::Lost {
                file: self.id,
                from_offset: range.start,
                to_offset: range.end,
                reason: "Kafka refused it, and the file was truncated meanwhile".into(),
            });
        }
        self.acks.is_open(block)
    }

    /// Reads and sends again what is not acknowledged. Later answers to it are ignored.
    pub(super) fn rewind(&mut self) {
        self.known.offset = self.acks.rewind();
        self.known.marker = *self.acks.mark();
        self.ready = true;
        self.finished = false;
        self.want_bytes = 0;
    }

    pub(super) fn back_off(&mut self, now_ms: u64, options: &TailerOptions) {
        self.retry_ms =
            (self.retry_ms * 2).clamp(options.retry_ms, options.max_retry_ms.max(options.retry_ms));
        self.paused_until_ms = now_ms + self.retry_ms;
    }

    pub(super) fn is_open(&self, block: BlockId) -> bool {
        self.acks.is_open(block) || self.orphans.iter().any(|orphan| orphan.block == block)
    }

    /// The block issued last was never handed out.
    pub(super) fn withdraw_last(&mut self) {
        self.acks.withdraw_last();
    }

    /// Planted bug: a file that lost its path is not read to its end.
    pub(super) fn give_up(&mut self) {
        self.finished = true;
        self.ready = false;
    }

    pub(super) fn set_error(&mut self, why: &str) {
        self.error = Some(why.into());
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.acks.is_settled() && self.orphans.is_empty()
    }

    pub(super) fn unacked_bytes(&self) -> u64 {
        let orphaned: u64 = self
            .orphans
            .iter()
            .map(|o| o.range.end - o.range.start)
            .sum();
        self.acks.unacked_bytes() + orphaned
    }

    pub(super) fn row(&self, state: RowState) -> FileRow {
        let (marker, acked_offset) = if planted::is(Bug::CheckpointBeforeAck) {
            (self.known.marker, self.known.offset)
        } else {
            (*self.acks.mark(), self.acks.watermark())
        };
        FileRow {
            id: self.id,
            head: self.known.head,
            marker,
            acked_offset,
            seen_bytes: self.seen_bytes.max(self.stat.size),
            state,
        }
    }

    pub(super) fn view(&self) -> FileView {
        FileView {
            id: self.id,
            acked_offset: self.acks.watermark(),
            read_offset: self.known.offset,
            size_bytes: self.stat.size.max(self.known.offset),
            draining: self.draining,
        }
    }

    /// New content from 0. What is in flight of the old one is only waited for.
    fn start_over(&mut self, reason: &str, notes: &mut Vec<Note>) {
        if self.seen_bytes > self.known.offset {
            notes.push(Note::Lost {
                file: self.id,
                from_offset: self.known.offset,
                to_offset: self.seen_bytes,
                reason: format!("{reason} before this was read"),
            });
        }
        notes.push(Note::Truncated {
            file: self.id,
            reason: reason.into(),
        });
        let orphans = self.acks.restart(0, Print::default());
        self.orphans.extend(
            orphans
                .into_iter()
                .map(|(block, range)| Orphan { block, range }),
        );
        self.known = Known::default();
        self.seen_bytes = 0;
        self.end_bytes = 0;
        self.partial_bytes = 0;
        self.want_bytes = 0;
        self.finishing = false;
        self.ready = true;
        self.recheck = true;
        self.skip_nuls = true;
    }

    /// Goes on behind a run of NULs. Nothing is in flight of this content yet.
    fn skip_hole(&mut self, before: &[u8], nuls: u64, notes: &mut Vec<Note>) {
        let from_offset = self.known.offset;
        let to_offset = from_offset + nuls;
        self.known.offset = to_offset;
        self.known.marker = marker_at_end(before);
        let orphans = self.acks.restart(to_offset, self.known.marker);
        debug_assert!(
            orphans.is_empty(),
            "a hole is only skipped before the first line"
        );
        self.partial_bytes = 0;
        self.ready = true;
        notes.push(Note::HoleSkipped {
            file: self.id,
            from_offset,
            to_offset,
        });
    }
}
