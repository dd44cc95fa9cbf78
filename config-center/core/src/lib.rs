//! The pure heart of config-center: what a replicated command does to the keyspace, the leases and
//! the members, and which watchers it concerns.
//!
//! Nothing in this crate reads a clock, a file or a socket, and nothing awaits: the same commands
//! in the same order give the same state on every member. Requests and responses are the etcd
//! messages themselves, so nothing is copied between two vocabularies.
//!
//! `fleet` is the other half: what operators want hosts to collect, and how a change travels. It
//! builds on the store's operations and not on the store's state, so neither half names the other.

mod alarm;
pub mod auth;
pub mod auto_compaction;
#[cfg(test)]
mod contract_tests;
pub mod fleet;
pub mod lease;
#[cfg(test)]
mod model_check;
pub mod mvcc;
#[cfg(not(feature = "planted"))]
mod planted;
#[cfg(feature = "planted")]
pub mod planted;
pub mod quota;
pub mod refusal;
pub mod restore;
pub mod state;
mod txn;
pub mod v2;
pub mod validation;
pub mod watch;
mod write;

pub use alarm::Alarm;
pub use auth::{Access, AuthChange, Caller};
pub use lease::LeaseClock;
pub use mvcc::{EventPage, KeyRange};
pub use refusal::{Code, Refusal};
pub use restore::{RestoreError, Restorer};
pub use state::{Applied, Change, Reply, RevisionRow, State};
pub use watch::WatcherGroups;
