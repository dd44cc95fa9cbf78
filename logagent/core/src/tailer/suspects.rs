//! Records of which the broker refused one for good. A refusal is told of a whole batch, so each of
//! them is sent alone until it is known which one it was; that one is given up as a dead letter.
//! Nothing of this survives a restart: the same refusals come again.

use super::step::Fate;
use crate::ack::BlockId;

/// So often a record is refused alone before it is given up: files that share a partition share
/// batches, until all of them send alone.
const ALONE_MAX: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Records that begin before this offset are sent alone.
    until_offset: u64,
    /// The block that is sent alone.
    alone: Option<BlockId>,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    start: u64,
    alone: u32,
    as_dead_letter: u32,
    reason: String,
}

impl Suspects {
    /// Whether the record at this offset is sent alone.
    pub(super) fn is_one(&self, offset: u64) -> bool {
        offset < self.until_offset
    }

    /// The block that was sent alone last. Nothing is sent before it is answered.
    pub(super) fn alone(&self) -> Option<BlockId> {
        self.alone
    }

    /// The block that begins at `start` is sent now.
    pub(super) fn issue(&mut self, block: BlockId, start: u64) -> Fate {
        self.alone = self.is_one(start).then_some(block);
        match &self.refused {
            Some(refused) if refused.start == start && refused.alone >= ALONE_MAX => {
                Fate::DeadLetter {
                    reason: refused.reason.clone(),
                    attempt: refused.as_dead_letter + 1,
                }
            }
            _ => Fate::Topic,
        }
    }

    /// A record of this block was refused for good.
    pub(super) fn refused(&mut self, block: BlockId, start: u64, end: u64, reason: &str) {
        self.until_offset = self.until_offset.max(end);
        if self.alone != Some(block) {
            return;
        }
        match &mut self.refused {
            Some(refused) if refused.start == start && refused.alone >= ALONE_MAX => {
                refused.as_dead_letter += 1;
            }
            Some(refused) if refused.start == start => refused.alone += 1,
            _ => {
                self.refused = Some(Refused {
                    start,
                    alone: 1,
                    as_dead_letter: 0,
                    reason: reason.to_owned(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_given_up_after_it_was_refused_alone() {
        let mut suspects = Suspects::default();
        let mut blocks = (0..).map(BlockId);
        let mut issue = |suspects: &mut Suspects, start| {
            let block = blocks.next().expect("there is no end of them");
            (block, suspects.issue(block, start))
        };
        // A batch of records that ends at 30 is refused: nobody knows which one it was.
        let (batch, fate) = issue(&mut suspects, 0);
        assert_eq!((fate, suspects.alone()), (Fate::Topic, None));
        suspects.refused(batch, 0, 30, "too large");
        assert!(suspects.is_one(0) && suspects.is_one(29) && !suspects.is_one(30));
        // The last one of them is it.
        let (first, _) = issue(&mut suspects, 0);
        assert_eq!(suspects.alone(), Some(first));
        for _ in 0..ALONE_MAX {
            let (last, fate) = issue(&mut suspects, 20);
            assert_eq!((fate, suspects.alone()), (Fate::Topic, Some(last)));
            suspects.refused(last, 20, 30, "too large");
        }
        for wanted in [1, 2] {
            let (letter, fate) = issue(&mut suspects, 20);
            let reason = "too large".to_owned();
            assert_eq!(
                fate,
                Fate::DeadLetter {
                    reason,
                    attempt: wanted
                }
            );
            suspects.refused(letter, 20, 30, "the letter too");
        }
        let (_, fate) = issue(&mut suspects, 30);
        assert_eq!((fate, suspects.alone()), (Fate::Topic, None));
    }
}
