//! The adapters around the pure core: consensus and disk below it, the etcd API above it.

pub mod api;
pub mod auth;
mod bolt;
pub mod compaction;
pub mod configctl;
pub mod engine;
pub mod expiry;
pub mod flags;
pub mod fleet;
pub mod logging;
pub mod metrics;
pub mod proxy;
pub mod raft;
pub mod server;
pub mod socket;
pub mod storage;
pub mod tls;
pub mod v2_expiry;
