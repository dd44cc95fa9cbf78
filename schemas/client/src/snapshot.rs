//! A snapshot of the store, piece by piece.

use schemas::etcdserverpb::SnapshotResponse;
use tonic::Streaming;

use crate::{ClientError, attempt::transport_words};

/// The pieces of one snapshot, in order; the last one is the digest.
#[derive(Debug)]
pub struct SnapshotPieces {
    pub(crate) pieces: Streaming<SnapshotResponse>,
    /// For messages.
    pub(crate) endpoints: String,
}

impl SnapshotPieces {
    /// `None` after the last piece. A stream that breaks off is an error: what came is no snapshot.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, ClientError> {
        self.pieces
            .message()
            .await
            .map_err(|status| ClientError::Disconnected {
                operation: "snapshot",
                endpoint: self.endpoints.clone(),
                reason: transport_words(&status),
            })
    }
}
