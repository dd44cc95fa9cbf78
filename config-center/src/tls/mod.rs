//! TLS for clients and peers: which files, which rules, and how a connection becomes an encrypted
//! one. Knows nothing of what is said on it.
//!
//! Files are looked at again for every handshake, so a renewed certificate, authority or revocation
//! list counts without a restart. A renewed file that cannot be used is reported, and what was
//! loaded before stays in force.

mod certificate;
mod complaints;
mod files;
mod identity;
mod peers;
mod pinned;
mod self_signed;
mod server;
mod settings;
mod suites;

pub use files::common_name;
pub use peers::{dialer, peer_port};
pub use server::{Accepted, ServerTls};
pub use settings::{TlsError, TlsSettings};
