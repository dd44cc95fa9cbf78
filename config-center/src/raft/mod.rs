//! Consensus: the only folder that names openraft. Knows commands, entries and members; must not
//! name SQL.
//!
//! A proposal of the leader's own client goes straight into the core's queue, and the answer comes
//! straight back from the state machine. Any other member sends it to the leader, and answers from
//! its own state machine:
//!
//! ```text
//! client → writes → core → the log's owner and peers → core → state machine → client       at the leader
//! client → writes → peer/forward ⇢ peer/serve_forward → core → … ⇢ state machine → client  elsewhere
//! ```

mod bootstrap;
mod config;
mod contact;
mod error;
mod failover;
mod identity;
mod leadership;
mod lease_checkpoints;
mod log_store;
mod maintenance;
mod members;
mod membership;
mod node;
mod peer;
mod proposer;
mod reads;
mod removal;
mod restore;
mod state_machine;
mod status;
mod tail;
mod takeover;
#[cfg(test)]
mod tests;
mod types;
mod writes;

pub use config::{ClusterState, InitialMember, NodeConfig, Reconfiguration};
pub use error::{MemberFault, MemberRefusal, ProposeError, StartError};
pub use membership::ChangedMembers;
pub use node::Node;
pub use peer::{BoxLink, Link, PeerAcceptor, PeerDialer, PeerPort, Plain};
pub use restore::{RestoredMember, restore_member};
pub use status::NodeStatus;
pub use writes::Proposed;
