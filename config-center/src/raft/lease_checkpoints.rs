//! What is left of long leases, written into the log by the leader every five minutes: the next
//! leader goes on from there and does not give them their whole time again.

use config_center_core::Caller;
use schemas::command::command::Op;
use schemas::command::lease_checkpoint::Remaining;
use schemas::command::{Command, LeaseCheckpoint};

use super::error::ProposeError;
use super::node::Node;

/// Leases in one entry of the log.
const MAX_CHECKPOINTS: usize = 1_000;

impl Node {
    /// Writes down what is due by the clock of this member, the leader of this term. What is left
    /// is for that term to say: a later leader has renewed what this one has not heard of.
    pub async fn checkpoint_leases(&self, term: u64) -> Result<(), ProposeError> {
        // Held until it is applied, so that a renewal that comes meanwhile takes it back afterwards
        // and not before.
        let _writing = self.checkpointing.lock().await;
        let due = self.engine().take_lease_checkpoints(MAX_CHECKPOINTS);
        if due.is_empty() {
            return Ok(());
        }
        self.propose_as_leader_of(term, checkpoint(due)).await?;
        Ok(())
    }

    /// Takes back what was written down of these leases. Before their holders are told of a renewal:
    /// a leader that dies right after it must not leave them with less.
    pub(super) async fn forget_checkpoints(
        &self,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), ProposeError> {
        let engine = self.engine();
        let written: Vec<(i64, i64)> = ids
            .filter(|id| engine.lease_is_checkpointed(*id))
            .map(|id| (id, 0))
            .collect();
        if written.is_empty() {
            return Ok(());
        }
        let _writing = self.checkpointing.lock().await;
        self.propose(checkpoint(written)).await?;
        Ok(())
    }
}

fn checkpoint(leases: Vec<(i64, i64)>) -> Command {
    let leases = leases
        .into_iter()
        .map(|(id, remaining_s)| Remaining { id, remaining_s })
        .collect();
    Caller::Member.command(Op::LeaseCheckpoint(LeaseCheckpoint { leases }))
}
