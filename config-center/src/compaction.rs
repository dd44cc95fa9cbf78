//! Automatic compaction: asks the core's schedule in regular intervals and proposes what is due,
//! while this member leads.

use std::sync::Arc;
use std::time::Duration;

use config_center_core::auto_compaction::{CompactionSchedule, Retention};
use config_center_core::{Caller, Refusal};
use schemas::command::command::Op;
use schemas::etcdserverpb::CompactionRequest;
use tokio_util::sync::CancellationToken;

use crate::raft::{Node, Proposed};

/// Runs until the server stops.
pub async fn run(node: Arc<Node>, retention: Retention, stopping: CancellationToken) {
    let engine = node.engine();
    let mut schedule = CompactionSchedule::new(retention, engine.now_ms(), engine.revision());
    let interval = Duration::from_millis(schedule.interval_ms());
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopping.cancelled() => return,
        }
        let revision = engine.revision();
        if node.is_leader()
            && let Some(target) = schedule.due(engine.now_ms(), revision)
            && compact(&node, target).await
        {
            schedule.done(engine.now_ms(), target);
        }
        schedule.look(revision);
    }
}

/// `true` when the history below is gone, by this compaction or by another.
async fn compact(node: &Node, revision: i64) -> bool {
    let request = CompactionRequest {
        revision,
        physical: false,
    };
    let proposed = node
        .propose(Caller::Member.command(Op::Compaction(request)))
        .await;
    match proposed {
        Ok(Proposed { reply: Ok(_), .. }) => {
            tracing::info!(revision, "finished auto compaction");
            true
        }
        Ok(Proposed {
            reply: Err(Refusal::Compacted),
            ..
        }) => true,
        Ok(Proposed {
            reply: Err(refusal),
            ..
        }) => {
            tracing::warn!(revision, %refusal, "auto compaction failed; it is tried again");
            false
        }
        Err(error) => {
            tracing::warn!(revision, %error, "auto compaction failed; it is tried again");
            false
        }
    }
}
