//! The state as a database file of etcd: what `Snapshot` answers, what any etcdctl and etcdutl read,
//! and what a user of etcd brings along; and the write-ahead log beside such a file.
//!
//! Knows etcd's buckets and how each of their pairs is encoded. Takes no decisions about members:
//! who restores a file says who the new members are.

mod export;
mod import;
mod schema;
mod wal;

pub(super) use export::export;
pub(super) use import::{EtcdFile, EtcdFileError, Summary, stored_facts};
#[cfg(test)]
pub(super) use wal::example as example_wal;
pub(super) use wal::{WalError, WalFacts, read as wal_facts};
