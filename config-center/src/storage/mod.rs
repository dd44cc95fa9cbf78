//! What survives a restart: the Raft log in `log/`, the state in `state.db`, and the lock that
//! keeps a second process out of the folder. The only folder that names sqlx.
//!
//! Knows rows and bytes; takes no decisions and must not name a Raft type.
//!
//! ```text
//! data folder
//!   LOCK        held while the process lives
//!   log/        segments: an append is acknowledged after its sync returned (docs/adr/0013)
//!   state.db    WAL, synchronous=NORMAL: batches that carry the index they were applied at;
//!               what a power cut takes away is applied again from the log
//!   snapshots/  copies of the state on their way to a member or a client; removed at start
//! ```
//!
//! Log and database have one owner each, and nobody else writes to them.

mod error;
mod etcd_file;
mod etcd_folder;
mod folder;
mod log_files;
mod log_record;
mod log_v1;
mod log_writer;
mod restore;
mod saved_snapshot;
mod snapshot_file;
mod sqlite;
mod state_auth;
mod state_db;
mod state_load;
mod state_purge;
mod state_size;
mod state_v2;
mod state_writer;
mod sync_times;
#[cfg(test)]
mod tests;

pub use error::{FailureSlot, StorageError};
pub use etcd_folder::EtcdFolder;
pub use folder::DataFolder;
pub use log_files::LogRecovery;
pub use log_record::{EntryId, EntryKind, EntryRow, Identity, VoteRow};
pub use log_writer::{Appended, LogHandle};
pub use restore::{RestoredAs, restore as restore_snapshot};
pub use saved_snapshot::{SavedSnapshot, inspect as inspect_snapshot};
pub use snapshot_file::SnapshotFile;
pub use state_load::LoadedState;
pub use state_size::StateSizes;
pub use state_writer::{Progress, StateBatch, StateHandle};
pub use sync_times::SyncCounts;
