//! Counters of this process and their Prometheus text, under etcd's names, so that dashboards made
//! for etcd read them.
//!
//! Counting is one relaxed atomic addition; everything expensive happens when somebody scrapes.
//! Knows no service: it is told what happened.

mod exposition;
mod operations;
mod process;
mod rpc;

pub use exposition::{Disk, Figures, Histogram, PeerTraffic, Version};
pub use operations::Operations;
pub use rpc::Rpc;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use rpc::RPC_COUNT;

/// gRPC's codes run from 0 to 16.
const CODES: usize = 17;

/// Everything that is counted, shared by all connections.
#[derive(Debug)]
pub struct Metrics {
    started: [AtomicU64; RPC_COUNT],
    handled: [[AtomicU64; CODES]; RPC_COUNT],
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) connections: AtomicI64,
    leader_id: AtomicU64,
    leader_changes: AtomicU64,
    process_started: SystemTime,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: [const { AtomicU64::new(0) }; RPC_COUNT],
            handled: [const { [const { AtomicU64::new(0) }; CODES] }; RPC_COUNT],
            proposals_failed: AtomicU64::new(0),
            connections: AtomicI64::new(0),
            leader_id: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            process_started: SystemTime::now(),
        }
    }
}

impl Metrics {
    pub(crate) fn started(&self, rpc: Rpc) {
        self.started[rpc as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A call ended with this gRPC code.
    pub(crate) fn handled(&self, rpc: Rpc, code: i32) {
        let code = usize::try_from(code).unwrap_or(2).min(CODES - 1);
        self.handled[rpc as usize][code].fetch_add(1, Ordering::Relaxed);
    }

    /// Tells who leads now (0: nobody); a change to a leader is counted.
    pub(crate) fn observe_leader(&self, leader_id: u64) {
        if leader_id != 0 && self.leader_id.swap(leader_id, Ordering::Relaxed) != leader_id {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}
