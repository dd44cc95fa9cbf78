//! The API as clients see it: a real server on a free port with a temporary data folder, driven
//! over the network with the generated clients and with raw bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod access_table;
mod auth;
mod cluster;
mod edges;
mod fixture;
mod fleet_access;
mod gateway;
mod http;
mod kv;
mod lease;
mod maintenance;
mod process;
mod range_stream;
mod services;
mod tls;
mod v2;
mod v2_auth;
mod watch;
mod watch_seam;
