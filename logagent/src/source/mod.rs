//! Where lines come from: the file system, seen through `stat`, `open`, `pread` and hints.
//!
//! Knows descriptors and directories; must not know Kafka. What to look at next is the core's
//! decision, `tail` only carries it out.

pub mod allow;
pub mod blocks;
pub mod descriptor;
pub mod directories;
pub mod files;
pub mod gzip;
pub mod open_file;
pub mod outlet;
pub mod tail;
pub mod walk;
pub mod watcher;
