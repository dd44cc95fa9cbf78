//! Snapshot: the state as a database file of etcd in small pieces, with its digest at the end. What
//! the client has then is the file and 32 bytes: any etcdctl, etcdutl and configctl reads it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use schemas::etcdserverpb::SnapshotResponse;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tonic::{Code, Status};

use crate::api::{Context, Fault};
use crate::flags::ETCD_CLUSTER_VERSION;
use crate::metrics::Rpc;
use crate::raft::ProposeError;
use crate::storage::{SnapshotFile, StorageError};

/// Bytes of one message, as in etcd.
const PIECE_BYTES: usize = 32 * 1024;

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

/// Makes the file and streams it; it is removed when the stream ends, however it ends.
pub(super) async fn stream(context: &Arc<Context>) -> Result<Pieces, Status> {
    let sending = begin(context).await.map_err(|fault| {
        let status = fault.status();
        let metrics = &context.metrics;
        metrics.handled(Rpc::Snapshot, status.code() as i32);
        status
    })?;
    tracing::info!(bytes = sending.left, "sending a snapshot to a client");
    let pieces = futures::stream::unfold(sending, |mut sending| async move {
        sending.next().await.map(|piece| (piece, sending))
    });
    Ok(Box::pin(pieces))
}

async fn begin(context: &Arc<Context>) -> Result<Sending, NoSnapshot> {
    let copy = context.node.export_state(ETCD_CLUSTER_VERSION).await?;
    let file = File::open(copy.path()).await?;
    Ok(Sending {
        context: Arc::clone(context),
        left: file.metadata().await?.len(),
        file,
        _copy: copy,
        digest: Some(Sha256::new()),
        code: Code::Cancelled,
    })
}

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
enum NoSnapshot {
    #[error("etcdserver: the snapshot cannot be made: {0}")]
    Unmade(#[from] StorageError),
    #[error("etcdserver: the snapshot cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl NoSnapshot {
    fn status(&self) -> Status {
        if let Self::Unmade(StorageError::Stopped { .. }) = self {
            return Fault::NotProposed(ProposeError::Stopped).into();
        }
        tracing::warn!(error = %self, "no snapshot for a client");
        Status::internal(self.to_string())
    }
}

struct Sending {
    context: Arc<Context>,
    file: File,
    _copy: SnapshotFile,
    left: u64,
    /// Taken when everything is sent, or when something went wrong.
    digest: Option<Sha256>,
    /// The gRPC code to count at the end; Canceled unless something else happened.
    code: Code,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<SnapshotResponse, Status>> {
        let digest = self.digest.as_mut()?;
        if self.left == 0 {
            let digest = self.digest.take()?.finalize();
            self.code = Code::Ok;
            return Some(Ok(piece(0, Bytes::copy_from_slice(&digest))));
        }
        let size = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut blob = vec![0; size];
        if let Err(error) = self.file.read_exact(&mut blob).await {
            self.digest = None;
            let status = NoSnapshot::from(error).status();
            self.code = status.code();
            return Some(Err(status));
        }
        digest.update(&blob);
        self.left -= size as u64;
        Some(Ok(piece(self.left, blob.into())))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let metrics = &self.context.metrics;
        metrics.handled(Rpc::Snapshot, self.code as i32);
    }
}

fn piece(remaining_bytes: u64, blob: Bytes) -> SnapshotResponse {
    SnapshotResponse {
        header: None,
        remaining_bytes,
        blob,
        version: ETCD_CLUSTER_VERSION.to_owned(),
    }
}
