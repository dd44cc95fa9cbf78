//! The contiguous watermark of acknowledgements of one file.
//!
//! Blocks leave in order and are acknowledged in any order; the watermark is the offset below
//! which nothing is missing, and only it may be written to a checkpoint. The price is one queue
//! slot per block, nothing per line.

use std::collections::VecDeque;

/// Names one block in flight; numbers are never used twice for one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId(pub u64);

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Of an attempt that is over, or a second time: ignored.
    Stale,
    /// Counted, but something before it is still open.
    Held,
    /// The watermark moved.
    Advanced,
}

/// Follows the blocks of one file.
#[derive(Debug, Clone)]
pub struct AckTracker<M> {
    watermark: u64,
    /// What the caller attached to the watermark's block (the marker bytes before it).
    mark: M,
    issued_end: u64,
    next_seq: u64,
    /// In file order, so also in the order of their numbers.
    open: VecDeque<Segment<M>>,
}

#[derive(Debug, Clone)]
struct Segment<M> {
    seq: u64,
    end: u64,
    mark: M,
    done: bool,
}

impl<M: Clone> AckTracker<M> {
    /// Everything before `offset` counts as acknowledged.
    #[must_use]
    pub fn new(offset: u64, mark: M) -> Self {
        Self {
            watermark: offset,
            mark,
            issued_end: offset,
            next_seq: 0,
            open: VecDeque::new(),
        }
    }

    /// Registers the next block, which ends at `end` (exclusive, in file offsets).
    pub fn issue(&mut self, end: u64, mark: M) -> BlockId {
        debug_assert!(end > self.issued_end, "blocks follow each other");
        let seq = self.next_seq;
        self.next_seq += 1;
        self.open.push_back(Segment {
            seq,
            end,
            mark,
            done: false,
        });
        self.issued_end = end;
        BlockId(seq)
    }

    fn position(&self, id: BlockId) -> Option<usize> {
        self.open
            .binary_search_by_key(&id.0, |segment| segment.seq)
            .ok()
    }

    /// All records of the block are acknowledged.
    pub fn done(&mut self, id: BlockId) -> Acked {
        let slot = self.position(id).and_then(|at| self.open.get_mut(at));
        match slot {
            Some(segment) if !segment.done => segment.done = true,
            _ => return Acked::Stale,
        }
        let mut advanced = Acked::Held;
        while self.open.front().is_some_and(|segment| segment.done) {
            if let Some(segment) = self.open.pop_front() {
                self.watermark = segment.end;
                self.mark = segment.mark;
                advanced = Acked::Advanced;
            }
        }
        advanced
    }

    /// Whether the block is one that is still waited for.
    #[must_use]
    pub fn is_open(&self, id: BlockId) -> bool {
        self.position(id).is_some_and(|at| !self.open[at].done)
    }

    /// Where an open block begins and ends.
    #[must_use]
    pub fn range_of(&self, id: BlockId) -> Option<(u64, u64)> {
        let at = self.position(id)?;
        let before = at.checked_sub(1).and_then(|before| self.open.get(before));
        let start = before.map_or(self.watermark, |before| before.end);
        Some((start, self.open[at].end))
    }

    /// Forgets this block and the ones after it: reading starts again at its beginning, which is
    /// returned with the mark there. What came before it is still in flight and still counts.
    pub fn rewind_to(&mut self, id: BlockId) -> Option<(u64, M)> {
        let at = self.position(id)?;
        self.open.truncate(at);
        let (end, mark) = match self.open.back() {
            Some(before) => (before.end, before.mark.clone()),
            None => (self.watermark, self.mark.clone()),
        };
        self.issued_end = end;
        Some((end, mark))
    }

    /// Forgets all that is in flight: reading starts again at the watermark, which is returned.
    /// Acknowledgements of blocks issued before are ignored from here on.
    pub fn rewind(&mut self) -> u64 {
        self.restart(self.watermark, self.mark.clone());
        self.watermark
    }

    /// Starts over at `offset`: nothing that is in flight counts any more.
    pub fn restart(&mut self, offset: u64, mark: M) {
        self.open.clear();
        self.watermark = offset;
        self.issued_end = offset;
        self.mark = mark;
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
    fn answers_to_an_older_attempt_are_ignored() {
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
    fn a_failure_takes_back_what_follows_and_nothing_before() {
        let mut acks = AckTracker::new(0, 'a');
        let ids = [(10, 'b'), (20, 'c'), (30, 'd')].map(|(end, mark)| acks.issue(end, mark));
        assert_eq!(acks.rewind_to(ids[1]), Some((10, 'b')));
        assert_eq!(acks.issued_end(), 10);
        assert_eq!(acks.done(ids[2]), Acked::Stale);
        assert_eq!(acks.done(ids[0]), Acked::Advanced);
        assert_eq!(acks.rewind_to(ids[0]), None);
        let again = acks.issue(20, 'c');
        assert_eq!(acks.rewind_to(again), Some((10, 'b')));
        assert!(acks.is_settled());
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
        RewindTo(proptest::sample::Index),
    }

    proptest! {
        /// Against a map of every block ever issued.
        #[test]
        fn agrees_with_a_naive_set(acts in proptest::collection::vec(prop_oneof![
            4 => (1..50_u64).prop_map(Act::Issue),
            4 => any::<proptest::sample::Index>().prop_map(Act::Done),
            1 => Just(Act::Rewind),
            1 => any::<proptest::sample::Index>().prop_map(Act::RewindTo),
        ], 0..200)) {
            let mut acks = AckTracker::new(0, 0);
            let mut issued: Vec<BlockId> = Vec::new();
            // Of the present attempt: by end offset, the id and whether it is done.
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
                    Act::RewindTo(index) if !naive.is_empty() => {
                        let (end, (id, _)) =
                            naive.iter().nth(index.index(naive.len())).map(|(e, v)| (*e, *v)).unwrap();
                        let before = naive.range(..end).next_back().map_or(start, |(end, _)| *end);
                        // What is acknowledged without a gap is no longer open.
                        if end > acks.watermark() {
                            prop_assert_eq!(acks.rewind_to(id), Some((before, before)));
                            naive.split_off(&end);
                        } else {
                            prop_assert_eq!(acks.rewind_to(id), None);
                        }
                    }
                    Act::RewindTo(_) => {}
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
