//! The lean load generator of the benchmark, as parts.
//!
//! Knows HTTP/2 frames, etcd's requests and what a process has cost; must not know which server it
//! talks to. The generator speaks HTTP/2 by itself because a general client costs as much per
//! request as the server that is to be measured, and both share the same two cores.

pub mod cost;
pub mod latency;
pub mod load;
pub mod requests;
pub mod watch_load;
pub mod wire;
