//! The keyspace: every key's revisions in memory, reads at any revision that is not compacted, and
//! the history that watchers read.
//!
//! Knows nothing of leases beyond the number stored with a revision, nothing of persistence.

mod digest;
mod events;
mod history;
mod key_range;
mod keyspace;
mod read;

pub use digest::DigestRows;
pub use events::EventPage;
pub use key_range::KeyRange;
pub(crate) use keyspace::Keyspace;
pub(crate) use read::key_value;
