//! Consensus and disk together, in one process.

mod cluster;
mod conformance;
mod membership;
mod restart;
mod writes;

use std::path::Path;

use bytes::Bytes;
use schemas::command::Command;
use schemas::command::command::Op;
use schemas::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse};

use std::sync::Arc;

use super::{ClusterState, Node, NodeConfig, PeerPort, Reconfiguration, StartError};

/// A member without a peer port.
async fn start(config: NodeConfig) -> Result<Arc<Node>, StartError> {
    Node::start(config, PeerPort::plain(Vec::new())).await
}

fn config(data_dir: &Path) -> NodeConfig {
    NodeConfig {
        data_dir: data_dir.to_owned(),
        name: "default".to_owned(),
        peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        client_urls: vec!["http://127.0.0.1:2379".to_owned()],
        cluster_token: "etcd-cluster".to_owned(),
        initial_cluster: Vec::new(),
        cluster_state: ClusterState::New,
        force_new_cluster: false,
        reconfiguration: Reconfiguration::default(),
        heartbeat_ms: 100,
        election_ms: 1000,
        snapshot_count: 10_000,
        catchup_entries: 20_000,
        max_request_bytes: 1_572_864,
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command {
        op: Some(Op::Put(PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        })),
        ..Command::default()
    }
}

fn delete(key: impl Into<Bytes>) -> Command {
    Command {
        op: Some(Op::DeleteRange(DeleteRangeRequest {
            key: key.into(),
            ..DeleteRangeRequest::default()
        })),
        ..Command::default()
    }
}

fn everything(revision: i64) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..RangeRequest::default()
    }
}

/// All keys at the newest revision.
fn all(node: &Node) -> RangeResponse {
    node.engine()
        .read(|state| state.range(&everything(0)))
        .unwrap()
}

/// What a crash at this moment leaves on disk. The copy is faithful because nothing is written
/// while it is made: the callers wait for their answers first, and copy the log after the state,
/// so that the state in the copy is never ahead of it.
fn crash_image(from: &Path, into: &Path) {
    for name in ["state.db", "state.db-wal"] {
        let source = from.join(name);
        if source.exists() {
            std::fs::copy(source, into.join(name)).unwrap();
        }
    }
    std::fs::create_dir(into.join("log")).unwrap();
    for segment in std::fs::read_dir(from.join("log")).unwrap() {
        let segment = segment.unwrap();
        std::fs::copy(segment.path(), into.join("log").join(segment.file_name())).unwrap();
    }
}
