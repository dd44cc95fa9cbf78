//! One open file of a tail: what is read, what is acknowledged, what is known of its content.
//!
//! Knows nothing of paths, siblings or the other files of the chain.

use bytes::Bytes;

use super::long_line::LongLine;
use super::step::{Blame, Block, FileView, Handle, Note, TailerOptions, Ticket};
use super::suspects::Suspects;
use crate::ack::{AckTracker, Acked, BlockId};
use crate::checkpoint::{FileRow, RowState};
use crate::framing::{End, Lines, Split};
use crate::identity::{FileId, FileStat, HEAD_BYTES, Known, Print, Verdict, marker_at_end};
use crate::planted::{self, Bug};

/// So many NULs at the beginning of a file are a hole and no line.
const HOLE_MIN_BYTES: usize = 512;

/// Where the content is that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    InFile,
    /// The file was truncated: its copy, as copytruncate makes one, is looked for.
    Sought,
    /// It is nowhere any more: what is in flight can be acknowledged, but not sent again.
    Gone,
}

/// The answer to a read.
#[derive(Debug)]
pub(super) struct ReadDone<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a Bytes,
    pub(super) asked_bytes: usize,
    pub(super) now_ms: u64,
}

/// What became of a read.
#[derive(Debug)]
pub(super) enum Read {
    Nothing,
    Lines(Block),
    /// The file has another content than the known one.
    Replaced,
    /// The directory is to be looked at before these bytes are read again and sent.
    LookAround,
}

#[derive(Debug)]
pub(super) struct FileTail {
    /// Names this content in tickets.
    pub(super) key: Handle,
    /// The descriptor; none while the content is in no file.
    pub(super) fd: Option<Handle>,
    pub(super) id: FileId,
    place: Place,
    /// No longer at the entry's path.
    pub(super) draining: bool,
    /// No name leads to it any more: nobody but its writers can have it open.
    deleted: bool,
    /// Draining, at its end, quiet for long enough, and the last half line is sent.
    pub(super) finished: bool,
    /// Content known up to the end of the last whole line read.
    known: Known,
    acks: AckTracker<Print>,
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
    /// The read under way completes joined lines to which nothing was added for long.
    completing: bool,
    /// That was done since the file last grew.
    completed: bool,
    /// The next line is too long, and its end is elsewhere.
    long_line: Option<LongLine>,
    suspects: Suspects,
    /// A line longer than a block is being looked for.
    want_bytes: usize,
    /// The file lost its path, and whether its content is still the known one is to be proved.
    unproved: bool,
    /// Nothing was taken of the file yet.
    unread: bool,
    /// False before the first bytes: the file may have been filled and copied and cut to nothing
    /// since the last look, so before they are sent the directory is looked at.
    looked_around: bool,
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
            key: handle,
            fd: Some(handle),
            id: stat.id,
            place: Place::InFile,
            draining: false,
            deleted: false,
            finished: false,
            acks: AckTracker::new(known.offset, known.marker),
            known,
            seen_bytes: known.offset,
            stat,
            ready: true,
            recheck: true,
            partial_bytes: 0,
            end_bytes: known.offset,
            grew_ms: now_ms,
            finishing: false,
            completing: false,
            completed: false,
            long_line: None,
            suspects: Suspects::default(),
            want_bytes: 0,
            unproved: false,
            unread: known.head.len == 0,
            looked_around: known.offset > 0,
            skip_nuls: false,
            paused_until_ms: 0,
            retry_ms: 0,
            error: None,
        }
    }

    /// True when the directory is to be looked at: the file is empty, and something happened to it.
    pub(super) fn stat_seen(&mut self, stat: FileStat) -> bool {
        let is_news = stat.size != self.stat.size || stat.changed_ns != self.stat.changed_ns;
        let may_have_been_copied = (is_news || self.recheck) && stat.size == 0 && self.unread;
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
        may_have_been_copied
    }

    pub(super) fn start_draining(&mut self, now_ms: u64) {
        self.draining = true;
        self.unproved = self.known.head.len > 0;
        self.grew_ms = now_ms;
        self.ready = true;
    }

    pub(super) fn mark_deleted(&mut self) {
        self.deleted = true;
    }

    /// How long it must be quiet before it is finished.
    fn quiet_wait_ms(&self, options: &TailerOptions) -> u64 {
        if self.deleted {
            options.deleted_wait_ms.min(options.rotate_wait_ms)
        } else {
            options.rotate_wait_ms
        }
    }

    /// The newest stat, when there is nothing to do for the file before it changes.
    pub(super) fn resting(&self, now_ms: u64, options: &TailerOptions) -> Option<FileStat> {
        let rests = self.place == Place::InFile
            && !(self.draining || self.ready || self.recheck || self.unproved || self.finishing)
            && self.error.is_none()
            && self.is_settled()
            && self.due_ms(now_ms, options).is_none();
        rests.then_some(self.stat)
    }

    pub(super) fn stop_draining(&mut self) {
        self.draining = false;
        self.finishing = false;
        self.finished = false;
        self.ready = true;
    }

    /// The read that proves the content of a file that lost its path, before the files beside it
    /// are judged by what is known of this one.
    pub(super) fn proof(&self) -> Option<(u64, usize)> {
        let start = self.known.read_start();
        let len = (self.known.offset - start) as usize;
        (self.unproved && self.fd.is_some()).then_some((start, len.max(HEAD_BYTES)))
    }

    /// Takes the answer to it; false when the content is another one.
    pub(super) fn proved(&mut self, start: u64, bytes: &[u8]) -> bool {
        self.unproved = false;
        self.known.judge(start, bytes) == Verdict::Same || planted::is(Bug::MarkerUnchecked)
    }

    /// True when this tells nothing about the files beside it.
    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// The next read, if there may be something to read: offset and length.
    pub(super) fn next_read(
        &mut self,
        now_ms: u64,
        options: &TailerOptions,
    ) -> Option<(u64, usize)> {
        if now_ms < self.paused_until_ms || self.finished || self.fd.is_none() {
            return None;
        }
        let is_suspect = self.suspects.is_one(self.known.offset);
        let alone = self.suspects.alone();
        if is_suspect && !self.acks.is_settled() || alone.is_some_and(|it| self.acks.is_open(it)) {
            return None;
        }
        if !self.ready {
            let quiet_ms = now_ms.saturating_sub(self.grew_ms);
            self.finishing = self.draining && quiet_ms >= self.quiet_wait_ms(options);
            self.completing = self
                .completes_ms(options)
                .is_some_and(|at_ms| now_ms >= at_ms);
            if !self.finishing && !self.completing {
                return None;
            }
        }
        if let Some(LongLine::Sought { from }) = self.long_line {
            let start = LongLine::read_start(from, self.known.offset);
            return Some((start, options.block_bytes.max(HEAD_BYTES)));
        }
        let start = self.known.read_start();
        let overlap = (self.known.offset - start) as usize;
        let wanted = overlap + self.want_bytes.max(options.block_bytes);
        // The whole head is needed to compare it.
        Some((start, wanted.max(HEAD_BYTES)))
    }

    /// When joined lines are complete although no other line shows it.
    fn completes_ms(&self, options: &TailerOptions) -> Option<u64> {
        let timeout_ms = options.framing.join_timeout_ms()?;
        let waits = self.partial_bytes > 0 && !self.completed;
        waits.then(|| self.grew_ms.saturating_add(timeout_ms))
    }

    /// Whether later files of the chain must wait for this one.
    pub(super) fn holds_later_files(&self, now_ms: u64, options: &TailerOptions) -> bool {
        if self.finished {
            return false;
        }
        let join_ms = options.framing.join_timeout_ms().unwrap_or(0);
        let wait_ms = options.partial_wait_ms.max(join_ms);
        let waits_for_newline =
            self.partial_bytes > 0 && now_ms.saturating_sub(self.grew_ms) < wait_ms;
        self.place == Place::Sought
            || self.ready
            || now_ms < self.paused_until_ms
            || waits_for_newline
    }

    /// When something is to be done although nothing happens before.
    pub(super) fn due_ms(&self, now_ms: u64, options: &TailerOptions) -> Option<u64> {
        let quiet_ms = self.grew_ms.saturating_add(self.quiet_wait_ms(options));
        let partial_ms = self.grew_ms.saturating_add(options.partial_wait_ms);
        [
            (self.ready, self.paused_until_ms),
            (self.draining && !self.finished, quiet_ms),
            (self.draining && self.partial_bytes > 0, partial_ms),
        ]
        .into_iter()
        .filter(|(applies, at_ms)| *applies && *at_ms > now_ms)
        .map(|(_, at_ms)| at_ms)
        .chain(self.completes_ms(options).filter(|at_ms| *at_ms > now_ms))
        .min()
    }

    /// Takes the answer to a read; returns lines to produce.
    pub(super) fn read_done(
        &mut self,
        read: &ReadDone<'_>,
        options: &TailerOptions,
        notes: &mut Vec<Note>,
    ) -> Read {
        let &ReadDone {
            start,
            bytes,
            asked_bytes,
            now_ms,
        } = read;
        self.error = None;
        if let Some(LongLine::Sought { from }) = self.long_line {
            self.seek_line_end(read, from, options);
            return Read::Nothing;
        }
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
                return Read::Replaced;
            }
            Verdict::Rewritten => return Read::Replaced,
        }
        self.known.learn_head(start, bytes);
        if !self.looked_around && !bytes.is_empty() {
            // What is read next is compared with these bytes.
            self.looked_around = true;
            return Read::LookAround;
        }
        self.unread &= bytes.is_empty();
        let overlap = (self.known.offset - start) as usize;
        let at_end = bytes.len() < asked_bytes;
        self.saw_end(start + bytes.len() as u64, now_ms);
        let new = bytes.slice(overlap..);
        if let Some(LongLine::Found {
            whole_end,
            end,
            marker,
        }) = self.long_line.take()
        {
            let whole_bytes = whole_end - self.known.offset;
            let lines = options
                .framing
                .beginning_of(self.known.offset, &new, whole_bytes, end);
            self.want_bytes = 0;
            self.partial_bytes = 0;
            self.ready = true;
            return Read::Lines(self.issue(lines, marker));
        }
        let may_be_hole = self.skip_nuls || self.known.offset == 0;
        if may_be_hole && new.first() == Some(&0) {
            let nuls = new.iter().take_while(|byte| **byte == 0).count();
            // A unit that begins with a NUL is text.
            let nuls = nuls - nuls % options.framing.unit_bytes();
            let is_hole = (self.skip_nuls && nuls > 0) || nuls >= HOLE_MIN_BYTES;
            // The hole may go on behind this block.
            self.skip_nuls = is_hole && nuls == new.len();
            if is_hole {
                self.skip_hole(&bytes[..overlap + nuls], nuls as u64, notes);
                return Read::Nothing;
            }
        }
        let lines = self.split(&new, at_end, options);
        let taken = lines.as_ref().map_or(0, |lines| lines.len_bytes() as usize);
        self.partial_bytes = (new.len() - taken) as u64;
        // One unit beyond the longest line decides whether it is cut.
        let is_long = if at_end {
            self.partial_bytes >= options.block_bytes as u64
        } else {
            taken == 0
        };
        self.want_bytes = if is_long {
            options.framing.window_bytes()
        } else {
            0
        };
        self.ready = !at_end || self.long_line.is_some();
        self.finishing = false;
        self.completing = false;
        let Some(lines) = lines else {
            return Read::Nothing;
        };
        // A suspect goes alone: what follows it is still to be read.
        self.ready |= self.suspects.is_one(self.known.offset);
        let marker = marker_at_end(&bytes[..overlap + taken]);
        Read::Lines(self.issue(lines, marker))
    }

    /// The lines to produce of what was read behind the offset.
    fn split(&mut self, new: &Bytes, at_end: bool, options: &TailerOptions) -> Option<Lines> {
        let end = match (at_end, self.finishing, self.completing) {
            (true, true, _) => End::Finished,
            (true, false, true) => End::Quiet,
            _ => End::Open,
        };
        self.completed |= end == End::Quiet;
        let lines = match options.framing.split(self.known.offset, new, end) {
            Split::Records(lines) if self.suspects.is_one(self.known.offset) => Some(lines.first()),
            Split::Records(lines) => Some(lines),
            Split::Nothing => None,
            Split::LongLine => {
                let unit_bytes = options.framing.unit_bytes();
                let from = self.known.offset + (new.len() / unit_bytes * unit_bytes) as u64;
                self.long_line = Some(LongLine::Sought { from });
                None
            }
        };
        self.finished |= end == End::Finished && lines.is_none();
        lines
    }

    /// Looks for the end of a line that is too long. What is read is not kept.
    fn seek_line_end(&mut self, read: &ReadDone<'_>, from: u64, options: &TailerOptions) {
        let end = read.start + read.bytes.len() as u64;
        if end < from {
            // Another content: it is judged at the offset.
            self.long_line = None;
            self.ready = true;
            return;
        }
        self.saw_end(end, read.now_ms);
        let at_end = read.bytes.len() < read.asked_bytes;
        let found = LongLine::seek(read.start, read.bytes, from, &options.framing);
        self.partial_bytes = end - self.known.offset;
        self.ready = !at_end;
        if let LongLine::Found { .. } = found {
            self.ready = true;
            self.long_line = Some(found);
        } else if at_end && self.finishing {
            self.ready = true;
            self.long_line = Some(LongLine::Found {
                whole_end: end,
                end,
                marker: marker_at_end(read.bytes),
            });
        } else {
            self.long_line = Some(found);
        }
        self.want_bytes = options.framing.window_bytes();
        self.finishing = false;
        self.completing = false;
        self.completed = true;
    }

    fn saw_end(&mut self, end: u64, now_ms: u64) {
        self.seen_bytes = self.seen_bytes.max(end);
        if end > self.end_bytes {
            self.end_bytes = end;
            self.grew_ms = now_ms;
            self.finishing = false;
            self.completing = false;
            self.completed = false;
        }
    }

    /// Takes the lines as the next block; `marker` is the print of the bytes before their end.
    fn issue(&mut self, lines: Lines, marker: Print) -> Block {
        let start = lines.start();
        self.known.offset = lines.end();
        self.known.marker = marker;
        let block = self.acks.issue(lines.end(), marker);
        Block {
            ticket: Ticket {
                handle: self.key,
                block,
            },
            lines,
            fate: self.suspects.issue(block, start),
        }
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
        if self.draining && now_ms.saturating_sub(self.grew_ms) >= self.quiet_wait_ms(options) {
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
        let advanced = self.acks.done(block) == Acked::Advanced;
        if advanced {
            self.retry_ms = 0;
            self.error = None;
        }
        advanced
    }

    /// True when reading has to go back to the watermark.
    pub(super) fn block_failed(&mut self, block: BlockId, notes: &mut Vec<Note>) -> bool {
        if self.place != Place::Gone || !self.acks.is_open(block) {
            return self.acks.is_open(block);
        }
        // Where the block began is not known any more; what came before it is acknowledged or is
        // lost with it.
        let from_offset = self.acks.watermark();
        self.acks.done(block);
        notes.push(self.lost(
            from_offset,
            self.acks.issued_end(),
            "Kafka refused it, and the file was truncated meanwhile",
        ));
        false
    }

    fn lost(&self, from_offset: u64, to_offset: u64, reason: &str) -> Note {
        Note::Lost {
            file: self.id,
            from_offset,
            to_offset,
            reason: reason.into(),
        }
    }

    /// Reads and sends again what is not acknowledged. Later answers to it are ignored.
    pub(super) fn rewind(&mut self) {
        if self.place == Place::Gone {
            return;
        }
        self.known.offset = self.acks.rewind();
        self.known.marker = *self.acks.mark();
        self.read_again();
    }

    /// Reads and sends again from this block on. What was sent before it is still waited for.
    pub(super) fn rewind_to(&mut self, block: BlockId) {
        if let Some((offset, marker)) = self.acks.rewind_to(block) {
            self.known.offset = offset;
            self.known.marker = marker;
            self.read_again();
        }
    }

    fn read_again(&mut self) {
        self.ready = true;
        self.finished = false;
        self.completed = false;
        self.want_bytes = 0;
        self.long_line = None;
    }

    pub(super) fn back_off(&mut self, now_ms: u64, options: &TailerOptions) {
        self.retry_ms =
            (self.retry_ms * 2).clamp(options.retry_ms, options.max_retry_ms.max(options.retry_ms));
        self.paused_until_ms = now_ms + self.retry_ms;
    }

    pub(super) fn is_open(&self, block: BlockId) -> bool {
        self.acks.is_open(block)
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

    /// Notes why a block was refused, before reading goes back to it.
    pub(super) fn blame(&mut self, block: BlockId, blame: Blame, why: &str) {
        self.error = Some(why.into());
        if blame == Blame::Record
            && let Some((start, end)) = self.acks.range_of(block)
        {
            self.suspects.refused(block, start, end, why);
        }
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.acks.is_settled()
    }

    pub(super) fn unacked_bytes(&self) -> u64 {
        self.acks.unacked_bytes()
    }

    pub(super) fn row(&self, state: RowState) -> FileRow {
        let (marker, acked_offset) = if planted::is(Bug::CheckpointBeforeAck) {
            (self.known.marker, self.known.offset)
        } else {
            (*self.acks.mark(), self.acks.watermark())
        };
        let acked_offset = if self.draining && planted::is(Bug::DrainSkipped) {
            self.seen_bytes.max(self.stat.size)
        } else {
            acked_offset
        };
        FileRow {
            id: self.id,
            head: if self.unread {
                Print::default()
            } else {
                self.known.head
            },
            marker,
            acked_offset,
            seen_bytes: self.seen_bytes.max(self.stat.size),
            state,
        }
    }

    pub(super) fn view(&self) -> FileView {
        FileView {
            key: self.key,
            id: self.id,
            acked_offset: self.acks.watermark(),
            read_offset: self.known.offset,
            size_bytes: self.stat.size.max(self.known.offset),
            draining: self.draining,
        }
    }

    /// The file has a new content: this is the old one from here on, and the file is the other's.
    pub(super) fn part(&mut self, key: Handle, now_ms: u64, options: &TailerOptions) -> Self {
        let mut new = Self::new(key, self.stat, Known::default(), now_ms);
        new.fd = self.fd.take();
        new.draining = self.draining;
        new.seen_bytes = 0;
        new.end_bytes = 0;
        new.skip_nuls = true;
        new.paused_until_ms = self.paused_until_ms;
        // A half line of the old content is not waited for.
        self.grew_ms = now_ms.saturating_sub(options.partial_wait_ms);
        self.stat.size = self.seen_bytes;
        self.draining = true;
        self.ready = false;
        self.unproved = false;
        self.unread = false;
        self.long_line = None;
        self.place = Place::Sought;
        new
    }

    /// Whether the copy of the content is looked for, and which one that is.
    pub(super) fn sought(&self) -> Option<FileRow> {
        (self.place == Place::Sought).then(|| self.content_row())
    }

    /// The content as far as it was read.
    pub(super) fn content_row(&self) -> FileRow {
        FileRow {
            acked_offset: self.known.offset,
            marker: self.known.marker,
            ..self.row(RowState::Draining)
        }
    }

    /// The content was found in a copy.
    pub(super) fn adopt(&mut self, fd: Handle, stat: FileStat, now_ms: u64) {
        self.place = Place::InFile;
        self.fd = Some(fd);
        self.id = stat.id;
        self.stat = stat;
        self.grew_ms = now_ms;
        self.ready = true;
        self.recheck = true;
    }

    /// The content is nowhere.
    pub(super) fn give_up_content(&mut self, notes: &mut Vec<Note>) {
        self.place = Place::Gone;
        self.finished = true;
        if self.seen_bytes > self.known.offset {
            notes.push(self.lost(
                self.known.offset,
                self.seen_bytes,
                "the file was truncated before this was read, and no copy of it was found",
            ));
        }
    }

    /// Whether this is the content of that file.
    pub(super) fn is_in(&self, id: FileId) -> bool {
        self.id == id && self.is_in_file()
    }

    pub(super) fn is_in_file(&self) -> bool {
        self.place == Place::InFile
    }

    /// True when a restart could not find the content again.
    pub(super) fn is_gone(&self) -> bool {
        self.place == Place::Gone
    }

    /// Goes on behind a run of NULs. Nothing is in flight of this content yet.
    fn skip_hole(&mut self, before: &[u8], nuls: u64, notes: &mut Vec<Note>) {
        let from_offset = self.known.offset;
        let to_offset = from_offset + nuls;
        self.known.offset = to_offset;
        self.known.marker = marker_at_end(before);
        debug_assert!(
            self.acks.is_settled(),
            "a hole is only skipped before the first line"
        );
        self.acks.restart(to_offset, self.known.marker);
        self.partial_bytes = 0;
        self.ready = true;
        notes.push(Note::HoleSkipped {
            file: self.id,
            from_offset,
            to_offset,
        });
    }
}
