//! Lets leases run out: the leader proposes to revoke what has expired, so that keys vanish on all
//! members by consensus and never by somebody's clock.

use std::sync::Arc;
use std::time::Duration;

use config_center_core::Caller;
use futures::future::join_all;
use schemas::command::command::Op;
use schemas::etcdserverpb::LeaseRevokeRequest;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::raft::Node;

/// The longest sleep: a change of leader is noticed this late at most. A new lease cannot be
/// missed, because the shortest TTL is longer.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// The shortest sleep while leases run out one after the other.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);
/// Revocations of one round. A full round is followed by the longest sleep: 1000 per second.
const ROUND_REVOCATIONS: usize = 500;

/// Runs until the server stops.
pub async fn run(node: Arc<Node>, metrics: Arc<Metrics>, stopping: CancellationToken) {
    loop {
        metrics.observe_leader(node.status().leader_id);
        // A new leader first gives every lease its full TTL.
        let pause = if let Some(term) = node.take_over_leases() {
            checkpoint(&node, term).await;
            round(&node, term).await
        } else {
            LONGEST_SLEEP
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
    }
}

async fn checkpoint(node: &Node, term: u64) {
    if let Err(error) = node.checkpoint_leases(term).await {
        // What is left of them is written down again at their next turn.
        tracing::warn!(%error, "the remaining time of leases could not be written down");
    }
}

/// Revokes what has run out by the clock of the leader of this term; answers how long to sleep.
async fn round(node: &Node, term: u64) -> Duration {
    let engine = node.engine();
    let expired = engine.leases_expired(ROUND_REVOCATIONS);
    let full = expired.len() == ROUND_REVOCATIONS;
    // Together, so that they share a sync of the log.
    let outcomes = join_all(expired.iter().map(|id| revoke(node, term, *id))).await;
    let failed = outcomes.iter().filter(|done| !**done).count();
    if failed > 0 {
        // They are offered again after the clock's retry interval.
        tracing::warn!(failed, "expired leases could not be revoked yet");
    }
    if full {
        return LONGEST_SLEEP;
    }
    match engine.leases_due_ms() {
        Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(engine.now_ms()))
            .clamp(SHORTEST_SLEEP, LONGEST_SLEEP),
        None => LONGEST_SLEEP,
    }
}

/// `true` when the lease is gone, by this revocation or by another. A process that was stopped for a
/// while must not end what the next leader has renewed meanwhile, so nobody else carries this out.
async fn revoke(node: &Node, term: u64, id: i64) -> bool {
    let revoke = Caller::Member.command(Op::LeaseRevoke(LeaseRevokeRequest { id }));
    node.propose_as_leader_of(term, revoke).await.is_ok()
}
