//! Runs the real programs as an operator would: own processes, own ports, own folders, real Kafka.
//!
//! Links neither product. What it learns of them it learns from the network, the disk and their
//! exit codes, so a test here fails for the same reasons for which a user would complain.
//!
//! Everything is blocking: a test reads from top to bottom, and a guard's `Drop` ends what the
//! test started even when it panics.

pub mod agent;
pub mod binaries;
pub mod broker;
pub mod center;
pub mod cluster;
pub mod delivery;
pub mod differential;
pub mod http;
pub mod lines;
pub mod nginx;
pub mod peer;
pub mod ports;
pub mod process;
pub mod raw;
pub mod script;
pub mod store;
pub mod tools;
pub mod v2;
pub mod wait;

pub use agent::{Agent, AgentSetup};
pub use broker::Kafka;
pub use center::Center;
pub use delivery::{Delivery, Verdict};
pub use lines::{LineFormat, LineWriter};
pub use peer::Peer;
pub use process::Process;
pub use store::Store;
pub use wait::{DEADLINE, wait_until};
