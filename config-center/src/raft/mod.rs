//! Consensus: the only folder that names openraft. Knows commands, entries and members; must not
//! name SQL.
//!
//! A proposal goes from its caller straight into the core's queue and the answer comes straight
//! back from the state machine: caller → core → `log.db` owner → core → state machine → caller.

mod identity;
mod log_store;
mod network;
mod node;
mod proposer;
mod state_machine;
mod tail;
#[cfg(test)]
mod tests;
mod types;

pub use node::{Node, NodeConfig, NodeStatus, ProposeError, Proposed, StartError};
