//! What this host may ask a running agent: HTTP on a socket in the data folder, which only the agent's
//! user can open, and on a TCP address when `listen` names one.
//!
//! Answers come from the status document; nothing here can change what the agent does.

pub mod client;
mod metrics;
mod routes;
mod server;

pub use server::{ListenError, Server};

/// The socket's name in the data folder.
pub const SOCKET_NAME: &str = "agent.sock";
