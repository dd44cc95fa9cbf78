//! logagent: tails files as the config center says and publishes every line to Kafka.
//!
//! The decisions are in `logagent-core`; this crate is the adapters around them and the binary.
//! One thread (`pipeline`) owns all tails; the runtime (`agent`) follows the center and reports.

pub mod address;
pub mod agent;
pub mod backoff;
pub mod budget;
pub mod checkpoint_store;
pub mod commands;
pub mod config_cache;
pub mod durable;
pub mod flags;
pub mod inbox;
pub mod ledger;
pub mod local;
pub mod pipeline;
pub mod remote;
pub mod settings;
pub mod sink;
pub mod source;
pub mod status;
pub mod supervisor;
