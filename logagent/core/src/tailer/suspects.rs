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
