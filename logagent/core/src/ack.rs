//! The contiguous watermark of acknowledgements of one file.
//!
//! Blocks leave in order and are acknowledged in any order; the watermark is the offset below
//! which nothing is missing, and only it may be written to a checkpoint. The price is one queue
//! slot per block, nothing per line.

use std::collections::VecDeque;

/// Names one block in flight. An older epoch belongs to a content or an attempt that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId {
    pub epoch: u32,
    pub seq: u64,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Of an epoch that is over, or a second time: ignored.
    Stale,
    /// Counted, but something before it is still open.
    Held,
    /// The watermark moved.
    Advanced,
}

/// Follows the blocks of one file.
#[derive(Debug, Clone)]
pub struct AckTracker<M> {
    epoch: u32,
    watermark: u64,
    /// What the caller attached to the watermark's block (the marker bytes before it).
    mark: M,
    issued_end: u64,
    base_seq: u64,
    open: VecDeque<Segment<M>>,
}

#[derive(Debug, Clone)]
struct Segment<M> {
    end: u64,
    mark: M,
    done: bool,
}

impl<M: Clone> AckTracker<M> {
    /// Everything before `offset` counts as acknowledged.
    #[must_use]
    pub fn new(offset: u64, mark: M) -> Self {
        Self {
            epoch: 0,
            watermark: offset,
            mark,
            issued_end: offset,
            base_seq: 0,
            open: VecDeque::new(),
        }
    }

    /// Registers the next block, which ends at `end` (exclusive, in file offsets).
    pub fn issue(&mut self, end: u64, mark: M) -> BlockId {
        debug_assert!(end > self.issued_end, "blocks follow each other");
        let seq = self.base_seq + self.open.len() as u64;
        self.open.push_back(Segment {
            end,
            mark,
            done: false,
        });
        self.issued_end = end;
        BlockId {
            epoch: self.epoch,
            seq,
        }
    }

    /// All records of the block are acknowledged.
    pub fn done(&mut self, id: BlockId) -> Acked {
        let slot = match id.seq.checked_sub(self.base_seq) {
            Some(index) if id.epoch == self.epoch => self.open.get_mut(index as usize),
            _ => None,
        };
        match slot {
            Some(segment) if !segment.done => segment.done = true,
            _ => return Acked::Stale,
        }
        let mut advanced = Acked::Held;
        while self.open.front().is_some_and(|segment| segment.done) {
            if let Some(segment) = self.open.pop_front() {
                self.watermark = segment.end;
                self.mark = segment.mark;
                self.base_seq += 1;
                advanced = Acked::Advanced;
            }
        }
        advanced
    }

    /// Whether the block is one that is still waited for.
    #[must_use]
    pub fn is_open(&self, id: BlockId) -> bool {
        id.epoch == self.epoch
            && id
                .seq
                .checked_sub(self.base_seq)
                .and_then(|index| self.open.get(index as usize))
                .is_some_and(|segment| !segment.done)
    }

    /// Forgets what is in flight: reading starts again at the watermark, which is returned.
    /// Acknowledgements of blocks issued before are ignored from here on.
    pub fn rewind(&mut self) -> u64 {
        self.restart(self.watermark, self.mark.clone());
        self.watermark
    }

    /// Starts over at `offset`, as for a file whose content was replaced. Returns what was in
    /// flight: each block with its range. It can still succeed or fail, but not be read again.
    pub fn restart(&mut self, offset: u64, mark: M) -> Vec<(BlockId, std::ops::Range<u64>)> {
        let mut start = self.watermark;
        let mut orphans = Vec::new();
        for (seq, segment) in (self.base_seq..).zip(self.open.drain(..)) {
            if !segment.done {
                orphans.push((
                    BlockId {
                        epoch: self.epoch,
                        seq,
                    },
                    start..segment.end,
                ));
            }
            start = segment.end;
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.base_seq = 0;
        self.watermark = offset;
        self.issued_end = offset;
        self.mark = mark;
        orphans
    }

    /// Takes back the block issued last, which nobody has seen yet.
    pub fn withdraw_last(&mut self) {
        if self.open.pop_back().is_some() {
            self.issued_end = self
                .open
                .back()
                .map_or(self.watermark, |segment| segment.end);
        }
    }

    /// The offset below which everything is acknowledged.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// What was attached to the last acknowledged block.
    #[must_use]
    pub fn mark(&self) -> &M {
        &self.mark
    }

    /// End of the last block issued.
    #[must_use]
    pub fn issued_end(&self) -> u64 {
        self.issued_end
    }

    /// Bytes between the watermark and the last block issued.
    #[must_use]
    pub fn unacked_bytes(&self) -> u64 {
        self.issued_end - self.watermark
    }

    /// True when nothing is in flight.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }
}
