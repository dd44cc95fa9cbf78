//! Snapshot: a copy of the database of state in small pieces, with its digest at the end. What the
//! client has then is the copy and 32 bytes: `configctl cluster snapshot restore` reads it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use schemas::etcdserverpb::SnapshotResponse;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tonic::{Code, Status};

use crate::api::Context;
use crate::flags::ETCD_CLUSTER_VERSION;
use crate::metrics::Rpc;
use crate::storage::SnapshotFile;

/// Bytes of one message, as in etcd.
const PIECE_BYTES: usize = 32 * 1024;

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

/// Streams the file; it is removed when the stream ends, however it ends.
pub(super) async fn stream(context: &Arc<Context>, copy: SnapshotFile) -> Result<Pieces, Status> {
    let file = File::open(copy.path()).await.map_err(unreadable)?;
    let size = file.metadata().await.map_err(unreadable)?.len();
    let sending = Sending {
        context: Arc::clone(context),
        file,
        _copy: copy,
        left: size,
        digest: Some(Sha256::new()),
        code: Code::Cancelled,
    };
    tracing::info!(bytes = size, "sending a snapshot to a client");
    let pieces = futures::stream::unfold(sending, |mut sending| async move {
        sending.next().await.map(|piece| (piece, sending))
    });
    Ok(Box::pin(pieces))
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
            let status = unreadable(error);
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

#[expect(
    clippy::needless_pass_by_value,
    reason = "handed to map_err by its name"
)]
fn unreadable(error: std::io::Error) -> Status {
    Status::internal(format!("etcdserver: the snapshot cannot be read: {error}"))
}
