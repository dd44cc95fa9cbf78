//! What members say to each other: `schemas/proto/config_center/peer.proto` over gRPC on the peer
//! port. Knows addresses, connections and messages; takes no decision about the data.
//!
//! ```text
//! leader ── Append (one stream per peer, pipelined) ──▶ follower     and a second one for heartbeats
//! member ── Forward (one stream, batched)           ──▶ leader       proposals, read indexes, leases
//! ```

mod directory;
mod forward;
mod guard;
mod link;
mod network;
mod serve;
mod serve_forward;
mod service;
pub(super) mod snapshot;
mod wire;

pub(super) use directory::{Directory, Timing};
pub(super) use forward::{Awaiting, Forwarder, NotForwarded};
pub use link::{BoxLink, Link, PeerAcceptor, PeerDialer, Plain};
pub(super) use network::PeerFactory;
pub use serve::PeerPort;
pub(super) use serve::{PeerHost, serve};
pub(super) use serve_forward::Outbox;

/// The question of a member that does not belong to a cluster yet.
pub(super) fn describe_request() -> tonic::Request<schemas::peer::DescribeRequest> {
    guard::anonymous(schemas::peer::DescribeRequest {})
}

/// The version of this protocol; a member that speaks another one is refused with both numbers.
const PROTOCOL_VERSION: u32 = 1;

/// The largest message that is read: a few of the largest entries and their frame.
const MAX_MESSAGE_BYTES: usize = 160 << 20;
