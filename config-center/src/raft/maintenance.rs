//! What operators do with the database of one member: make it smaller, copy it.

use super::error::ProposeError;
use super::node::Node;
use crate::storage::{SnapshotFile, StorageError};

impl Node {
    /// Gives the free pages of this member's database back to the file system. Writes of this member
    /// wait meanwhile; the others go on.
    pub async fn defragment(&self) -> Result<(), ProposeError> {
        let vacuumed = self.state.vacuum().await;
        vacuumed.map_err(|_| ProposeError::Stopped)
    }

    /// A copy of everything that this member has applied, in etcd's format; the file goes with the
    /// value.
    pub async fn export_state(
        &self,
        storage_version: &'static str,
    ) -> Result<SnapshotFile, StorageError> {
        let file = SnapshotFile::in_folder(&self.snapshot_folder);
        let exported = self.state.export_into(file.clone(), storage_version).await;
        exported.map(|()| file)
    }
}
