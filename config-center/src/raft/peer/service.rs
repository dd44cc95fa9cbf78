//! The calls of the other members, handed to openraft and to the node.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest};
use schemas::peer as pb;
use schemas::peer::peer_server;
use tonic::{Request, Response, Status, Streaming};

use super::serve::PeerHost;
use super::{guard, serve_forward, snapshot, wire};
use crate::raft::error::{MemberFault, ProposeError};
use crate::raft::node::Node;

/// Answers of one stream.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub(super) struct PeerService {
    host: Arc<PeerHost>,
}

impl PeerService {
    pub(super) fn new(host: Arc<PeerHost>) -> Self {
        Self { host }
    }

    fn node(&self) -> Result<Arc<Node>, Status> {
        self.host
            .node()
            .ok_or_else(|| Status::unavailable("the member is starting or stopping"))
    }

    /// The node and the caller's id.
    fn admit<T>(&self, request: &Request<T>) -> Result<(Arc<Node>, u64), Status> {
        let node = self.node()?;
        let from = guard::check(request.metadata(), node.identity())?;
        if node.was_removed(from) {
            return Err(guard::removed());
        }
        Ok((node, from))
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the member has stopped: {error}"))
}

#[tonic::async_trait]
impl peer_server::Peer for PeerService {
    type AppendStream = Answers<pb::AppendResponse>;
    type ForwardStream = Answers<pb::ForwardResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (node, from) = self.admit(&request)?;
        let incoming = request.into_inner();
        let hearing = Arc::clone(&node);
        // openraft pulls: what it has not taken yet holds the sender back.
        let requests = futures::stream::unfold(incoming, move |mut incoming| {
            let node = Arc::clone(&hearing);
            async move {
                let received = match incoming.message().await {
                    Ok(Some(request)) => wire::append_back(request),
                    Ok(None) => return None,
                    Err(cut) => {
                        node.connection_lost(from);
                        Err(cut)
                    }
                };
                match received {
                    Ok(request) => {
                        node.contact().heard(from, &request.vote);
                        Some((request, incoming))
                    }
                    Err(status) => {
                        tracing::debug!(%status, from = format!("{from:x}"), "an append stream ended");
                        None
                    }
                }
            }
        });
        let results = node.raft().stream_append(requests);
        let answers = results.map(|result| match result {
            Ok(result) => Ok(wire::appended(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let (node, _) = self.admit(&request)?;
        let message = request.into_inner();
        let rpc = wire::vote_request_back(&message)?;
        let answer = if message.only_asking {
            node.raft().pre_vote(rpc).await
        } else {
            node.raft().vote(rpc).await
        };
        let answer = answer.map_err(stopped)?;
        Ok(Response::new(wire::vote_response(&answer)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let (node, from) = self.admit(&request)?;
        let mut chunks = request.into_inner();
        let received = snapshot::receive(&mut chunks, node.snapshot_folder()).await?;
        node.contact().heard(from, &received.vote);
        let installed = node
            .raft()
            .install_full_snapshot(received.vote, received.snapshot)
            .await
            .map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse {
            vote: Some(wire::vote(&installed.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (node, _) = self.admit(&request)?;
        let message = request.into_inner();
        let transfer = TransferLeaderRequest::new(
            wire::vote_back(message.from.as_ref())?,
            message.to,
            wire::optional_back(message.last.as_ref()),
        );
        let outcome = node.raft().handle_transfer_leader(transfer).await;
        let answer = match outcome.map_err(stopped)? {
            Ok(()) => pb::TransferLeaderResponse::default(),
            Err(refusal) => pb::TransferLeaderResponse {
                refusal: refusal.to_string(),
                vote: match &refusal {
                    TransferLeaderError::VoteChanged { actual, .. } => Some(wire::vote(actual)),
                    TransferLeaderError::LogNotFlushed { .. } => None,
                },
                last: match &refusal {
                    TransferLeaderError::VoteChanged { .. } => None,
                    TransferLeaderError::LogNotFlushed { actual, .. } => {
                        wire::optional(actual.as_ref())
                    }
                },
            },
        };
        Ok(Response::new(answer))
    }

    async fn forward(
        &self,
        request: Request<Streaming<pb::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (node, from) = self.admit(&request)?;
        let answers = serve_forward::serve(node, from, request.into_inner());
        Ok(Response::new(Box::pin(answers.map(Ok))))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersResponse>, Status> {
        let (node, _) = self.admit(&request)?;
        let change = request.into_inner().change;
        let change = change.ok_or_else(|| Status::invalid_argument("there is no change"))?;
        let deadline = node.request_deadline();
        let answer = match node.change_members_here(&change, deadline).await {
            Ok(changed) => pb::ChangeMembersResponse {
                refusal: String::new(),
                member_id: changed.member_id,
                members: changed.members,
                applied_index: changed.applied_index,
            },
            Err(MemberFault::Refused(refusal)) => pb::ChangeMembersResponse {
                refusal: refusal.to_string(),
                ..pb::ChangeMembersResponse::default()
            },
            // This code tells the asker that nothing was done.
            Err(MemberFault::Failed(error @ ProposeError::NoLeader)) => {
                return Err(Status::aborted(error.to_string()));
            }
            Err(MemberFault::Failed(error)) => return Err(Status::unavailable(error.to_string())),
        };
        Ok(Response::new(answer))
    }

    async fn describe(
        &self,
        request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        guard::check_protocol(request.metadata())?;
        let node = self.node()?;
        Ok(Response::new(pb::DescribeResponse {
            cluster_id: node.cluster_id(),
            member_id: node.member_id(),
            members: node.members(),
        }))
    }
}
