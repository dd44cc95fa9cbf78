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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_watermark_waits_for_the_first_gap() {
        let mut acks = AckTracker::new(100, 'a');
        let ids = [(110, 'b'), (120, 'c'), (130, 'd')].map(|(end, mark)| acks.issue(end, mark));
        assert_eq!(acks.done(ids[1]), Acked::Held);
        assert_eq!(
            (acks.watermark(), *acks.mark(), acks.unacked_bytes()),
            (100, 'a', 30)
        );
        assert_eq!(acks.done(ids[0]), Acked::Advanced);
        assert_eq!((acks.watermark(), *acks.mark()), (120, 'c'));
        assert_eq!(acks.done(ids[0]), Acked::Stale);
        assert_eq!(acks.done(ids[2]), Acked::Advanced);
        assert!(acks.is_settled());
    }

    #[test]
    fn answers_of_an_older_epoch_are_ignored() {
        let mut acks = AckTracker::new(0, ());
        let old = acks.issue(10, ());
        let older = acks.issue(20, ());
        assert_eq!(acks.done(older), Acked::Held);
        assert_eq!(acks.rewind(), 0);
        let new = acks.issue(10, ());
        assert_eq!(acks.done(old), Acked::Stale);
        assert_eq!(acks.watermark(), 0);
        assert!(acks.is_open(new) && !acks.is_open(old));
        assert_eq!(acks.done(new), Acked::Advanced);
        assert_eq!(acks.watermark(), 10);
    }

    #[test]
    fn starting_over_names_what_is_still_in_flight() {
        let mut acks = AckTracker::new(0, ());
        let ids = [10, 25, 30].map(|end| acks.issue(end, ()));
        acks.done(ids[1]);
        assert_eq!(acks.restart(7, ()), [(ids[0], 0..10), (ids[2], 25..30)]);
        assert_eq!(
            (acks.watermark(), acks.issued_end(), acks.is_settled()),
            (7, 7, true)
        );
    }

    #[test]
    fn a_block_nobody_saw_is_taken_back() {
        let mut acks = AckTracker::new(0, ());
        let first = acks.issue(10, ());
        acks.issue(20, ());
        acks.withdraw_last();
        assert_eq!(acks.issued_end(), 10);
        acks.done(first);
        assert!(acks.is_settled());
        assert_eq!(acks.watermark(), 10);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Issue(u64),
        Done(proptest::sample::Index),
        Rewind,
    }

    proptest! {
        /// Against a map of every block ever issued.
        #[test]
        fn agrees_with_a_naive_set(acts in proptest::collection::vec(prop_oneof![
            4 => (1..50_u64).prop_map(Act::Issue),
            4 => any::<proptest::sample::Index>().prop_map(Act::Done),
            1 => Just(Act::Rewind),
        ], 0..200)) {
            let mut acks = AckTracker::new(0, 0);
            let mut issued: Vec<BlockId> = Vec::new();
            // Of the present epoch: by end offset, the id and whether it is done.
            let mut naive: BTreeMap<u64, (BlockId, bool)> = BTreeMap::new();
            let mut start = 0;
            for act in acts {
                match act {
                    Act::Issue(len) => {
                        let end = acks.issued_end() + len;
                        let id = acks.issue(end, end);
                        issued.push(id);
                        naive.insert(end, (id, false));
                    }
                    Act::Done(index) if !issued.is_empty() => {
                        let id = issued[index.index(issued.len())];
                        let open = naive.values_mut().find(|(known, done)| *known == id && !done);
                        let stale = open.is_none();
                        if let Some((_, done)) = open {
                            *done = true;
                        }
                        prop_assert_eq!(acks.done(id) == Acked::Stale, stale);
                    }
                    Act::Done(_) => {}
                    Act::Rewind => {
                        start = acks.watermark();
                        prop_assert_eq!(acks.rewind(), start);
                        naive.clear();
                    }
                }
                let watermark = naive
                    .iter()
                    .take_while(|(_, (_, done))| *done)
                    .last()
                    .map_or(start, |(end, _)| *end);
                prop_assert_eq!(acks.watermark(), watermark);
                prop_assert_eq!(*acks.mark(), watermark);
            }
        }
    }
}
