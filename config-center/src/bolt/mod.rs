//! Files of bbolt, the database that etcd keeps its state in: written from sorted pairs, read back
//! without trust.
//!
//! Knows pages and buckets; knows nothing of what etcd puts into them, and must not touch SQL or
//! tokio. Numbers are little-endian, whatever machine wrote the file.
//!
//! ```text
//! page 0, 1   meta: magic, version, page size, root bucket, free list, pages used, transaction,
//!             checksum; the valid one of the newer transaction counts
//! page 2      the free list; empty in a file that was written in one go
//! page 3 …    leaves with pairs, branches above them with the first key of each child; the root
//!             bucket's leaf, last, names the buckets
//! ```
//!
//! A page that holds something large goes on in the pages behind it (`overflow`).

mod layout;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use read::{BoltError, Cursor, FileReader};
pub(crate) use write::FileWriter;
