//! Lets v2 nodes run out: the leader proposes the end of each, by its wall clock, so that they
//! vanish on all members by consensus.

use std::sync::Arc;
use std::time::Duration;

use config_center_core::{Caller, Reply};
use schemas::command::{V2Expire, command::Op};
use tokio_util::sync::CancellationToken;

use crate::api::v2::now_ms;
use crate::raft::Node;

/// How often the leader looks, as etcd's does.
const INTERVAL: Duration = Duration::from_millis(500);

/// Runs until the server stops.
pub async fn run(node: Arc<Node>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stopping.cancelled() => return,
        }
        while is_due(&node) && end_one(&node).await {}
    }
}

fn is_due(node: &Node) -> bool {
    let due_ms = node.engine().read(|state| state.v2_next_end_ms());
    due_ms.is_some_and(|due_ms| due_ms <= now_ms()) && node.is_leader()
}

/// `true` when the node that ran out first is gone and others may follow.
async fn end_one(node: &Node) -> bool {
    let op = Op::V2Expire(V2Expire { now_ms: now_ms() });
    match node.propose(Caller::Member.command(op)).await {
        Ok(proposed) => matches!(proposed.reply, Ok(Reply::V2(_))),
        Err(error) => {
            // It is still due at the next look.
            tracing::warn!(%error, "a v2 node could not be ended yet");
            false
        }
    }
}
