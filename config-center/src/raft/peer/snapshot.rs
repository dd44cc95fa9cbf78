//! A copy of the state on its way from one member to another: the file in chunks, with its size and
//! digest ahead, so that what arrives damaged or cut is never installed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use openraft::StoredMembership;
use openraft::type_config::alias::SnapshotOf;
use schemas::peer as pb;
use sha2::{Digest as _, Sha256};
use tonic::{Status, Streaming};

use super::directory::Remote;
use super::wire;
use crate::raft::state_machine::{self, Meta};
use crate::raft::types::{TypeConfig, Vote, decode_membership, encode_membership};
use crate::storage::{SnapshotFile, StateHandle};

/// A piece of the file; small beside the connection's window.
const CHUNK_BYTES: usize = 256 * 1024;

/// A sender that says nothing for so long has gone.
const CHUNK_TIME: Duration = Duration::from_secs(30);

/// Makes the file of the snapshot, sends it and waits until it is installed; returns the receiver's
/// vote.
pub(super) async fn send(
    remote: &Remote,
    state: &StateHandle,
    vote: &Vote,
    copy: &SnapshotFile,
    time: Duration,
) -> Result<Vote, Status> {
    // An attempt that failed may have left a file, older than what the next one must contain.
    let copy = SnapshotFile::beside(copy);
    let meta = state_machine::copy(state, &copy)
        .await
        .map_err(|error| Status::internal(format!("copying the state: {error}")))?;
    let path = copy.path().to_owned();
    let (file, size_bytes, sha256) = tokio::task::spawn_blocking(move || digest(&path))
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::internal(format!("reading the snapshot: {error}")))?;
    let header = pb::SnapshotHeader {
        vote: Some(wire::vote(vote)),
        last: wire::optional(meta.last_log_id.as_ref()),
        membership_at: wire::optional(meta.last_membership.log_id().as_ref()),
        membership: encode_membership(meta.last_membership.membership()),
        size_bytes,
        sha256: sha256.into(),
    };
    tracing::info!(
        to = format!("{:x}", remote.id),
        size_bytes,
        "sending a snapshot"
    );
    let first = pb::SnapshotChunk {
        header: Some(header),
        data: Bytes::new(),
    };
    let chunks = stream::unfold((Some(first), file), |(first, mut file)| async move {
        if let Some(first) = first {
            return Some((first, (None, file)));
        }
        let (read, file) = tokio::task::spawn_blocking(move || {
            let mut data = vec![0; CHUNK_BYTES];
            let read = fill(&mut file, &mut data).map(|length| {
                data.truncate(length);
                data
            });
            (read, file)
        })
        .await
        .ok()?;
        // A fault ends the stream early: the receiver finds that bytes are missing.
        let data = read.ok().filter(|data| !data.is_empty())?;
        let chunk = pb::SnapshotChunk {
            header: None,
            data: data.into(),
        };
        Some((chunk, (None, file)))
    });
    let mut client = remote.bulk_client();
    let sending = client.snapshot(remote.stamp.on(Box::pin(chunks)));
    let answer = tokio::time::timeout(time, sending)
        .await
        .map_err(|_| Status::deadline_exceeded("the snapshot was not installed in time"))??
        .into_inner();
    wire::vote_back(answer.vote.as_ref())
}

/// The open file at its beginning, its size and its digest.
fn digest(path: &Path) -> io::Result<(File, u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let length = fill(&mut file, &mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        size += length as u64;
    }
    let file = File::open(path)?;
    Ok((file, size, hash.finalize().to_vec()))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A snapshot that arrived whole.
pub(super) struct Received {
    pub(super) vote: Vote,
    pub(super) snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
}

/// Takes the chunks into a file of this folder. Nothing of the member's state is touched.
pub(super) async fn receive(
    chunks: &mut Streaming<pb::SnapshotChunk>,
    folder: &Path,
) -> Result<Received, Status> {
    let first = next(chunks)
        .await?
        .ok_or_else(|| Status::invalid_argument("the snapshot is empty"))?;
    let header = first
        .header
        .ok_or_else(|| Status::invalid_argument("the snapshot has no header"))?;
    let vote = wire::vote_back(header.vote.as_ref())?;
    let membership = decode_membership(&header.membership)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let meta = Meta {
        last_log_id: wire::optional_back(header.last.as_ref()),
        last_membership: StoredMembership::new(
            wire::optional_back(header.membership_at.as_ref()),
            membership,
        ),
    };
    let target = SnapshotFile::in_folder(folder);
    let writing = |error: io::Error| Status::internal(format!("writing the snapshot: {error}"));
    let mut file = File::create_new(target.path()).map_err(writing)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(chunk) = next(chunks).await? {
        size += chunk.data.len() as u64;
        if size > header.size_bytes {
            return Err(Status::data_loss("the snapshot is longer than it said"));
        }
        let written = tokio::task::spawn_blocking(move || {
            hash.update(&chunk.data);
            file.write_all(&chunk.data).map(|()| (file, hash))
        });
        (file, hash) = written
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(writing)?;
    }
    if size != header.size_bytes {
        return Err(Status::data_loss(format!(
            "the snapshot ended after {size} of {} bytes",
            header.size_bytes
        )));
    }
    if hash.finalize().as_slice() != header.sha256.as_ref() {
        return Err(Status::data_loss("the snapshot does not have its digest"));
    }
    Ok(Received {
        vote,
        snapshot: SnapshotOf::<TypeConfig, SnapshotFile> {
            meta,
            snapshot: target,
        },
    })
}

async fn next(
    chunks: &mut Streaming<pb::SnapshotChunk>,
) -> Result<Option<pb::SnapshotChunk>, Status> {
    tokio::time::timeout(CHUNK_TIME, chunks.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the sender of the snapshot fell silent"))?
}
