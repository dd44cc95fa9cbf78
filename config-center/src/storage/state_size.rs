//! How large `state.db` is, in the three senses that operators and the quota care about.

use std::sync::atomic::{AtomicI64, Ordering};

/// All without the write-ahead log, which is bounded by itself and empties when it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSizes {
    /// All pages. Grows with what is written and shrinks only when the database is defragmented, as
    /// etcd's file does.
    pub database_bytes: i64,
    /// Pages that hold something.
    pub in_use_bytes: i64,
    /// All pages but the ones that an empty database has: what the quota is compared with, so that
    /// the smallest quota leaves as much room as it says.
    pub data_bytes: i64,
}

/// The figures of the last measurement, for readers elsewhere.
#[derive(Debug)]
pub(super) struct SharedSizes {
    database: AtomicI64,
    in_use: AtomicI64,
    data: AtomicI64,
}

impl SharedSizes {
    pub(super) fn new(sizes: StateSizes) -> Self {
        Self {
            database: AtomicI64::new(sizes.database_bytes),
            in_use: AtomicI64::new(sizes.in_use_bytes),
            data: AtomicI64::new(sizes.data_bytes),
        }
    }

    pub(super) fn set(&self, sizes: StateSizes) {
        self.database.store(sizes.database_bytes, Ordering::Relaxed);
        self.in_use.store(sizes.in_use_bytes, Ordering::Relaxed);
        self.data.store(sizes.data_bytes, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> StateSizes {
        StateSizes {
            database_bytes: self.database.load(Ordering::Relaxed),
            in_use_bytes: self.in_use.load(Ordering::Relaxed),
            data_bytes: self.data.load(Ordering::Relaxed),
        }
    }
}
