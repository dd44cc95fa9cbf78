//! openraft's way to the peers.
//!
//! Entries go over one stream that lives as long as openraft's replication session: requests are
//! pulled as fast as the connection takes them, answers come back in their order. Heartbeats have a
//! stream of their own, which outlives each of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use schemas::peer as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::directory::{Directory, Remote};
use super::{guard, snapshot, wire};
use crate::raft::removal::Removal;
use crate::raft::types::{PeerNode, TypeConfig, Vote};
use crate::storage::{SnapshotFile, StateHandle};

/// Heartbeats that are on their way; openraft sends the next one after the answer.
const HEARTBEATS_IN_FLIGHT: usize = 4;

/// Makes one [`Peer`] per target and purpose.
#[derive(Clone)]
pub(in crate::raft) struct PeerFactory {
    directory: Arc<Directory>,
    removal: Removal,
    /// What snapshots are copies of.
    state: StateHandle,
}

impl PeerFactory {
    pub(in crate::raft) fn new(
        directory: Arc<Directory>,
        removal: Removal,
        state: StateHandle,
    ) -> Self {
        Self {
            directory,
            removal,
            state,
        }
    }
}

/// What openraft calls a network: everything that goes to one member.
pub(in crate::raft) struct Peer {
    remote: Arc<Remote>,
    removal: Removal,
    state: StateHandle,
    /// The stream of a client that sends one request at a time.
    heartbeats: Option<Heartbeats>,
    /// Whether each request is answered before the next one: heartbeats.
    is_sequential: bool,
}

struct Heartbeats {
    requests: mpsc::Sender<pb::AppendRequest>,
    answers: Streaming<pb::AppendResponse>,
    /// Requests whose answer was not waited for.
    abandoned: usize,
}

impl RaftNetworkFactory<TypeConfig> for PeerFactory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        Peer {
            remote: self.directory.learn(target, &node.peer_urls),
            removal: self.removal.clone(),
            state: self.state.clone(),
            heartbeats: None,
            is_sequential: false,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        Peer {
            is_sequential: true,
            ..self.new_client(target, node).await
        }
    }
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl Peer {
    /// A peer that is not there is `Unreachable`: openraft backs off, and comes back.
    fn fault(&self, status: &Status) -> RPCError<TypeConfig> {
        if guard::says_removed(status) {
            self.removal.is_told();
        }
        let text = format!(
            "member {:x} at {}: {}",
            self.remote.id,
            self.remote.urls(),
            status.message()
        );
        match status.code() {
            Code::Cancelled | Code::Aborted => RPCError::Network(NetworkError::from_string(text)),
            _ => RPCError::Unreachable(Unreachable::from_string(text)),
        }
    }

    /// The answer of one call, in time.
    async fn within<T>(
        &self,
        time: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Rpc<T> {
        match tokio::time::timeout(time, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.fault(&status)),
            Err(_) => Err(self.fault(&Status::deadline_exceeded("no answer in time"))),
        }
    }

    async fn open_heartbeats(&self) -> Rpc<Heartbeats> {
        let (requests, outgoing) = mpsc::channel(HEARTBEATS_IN_FLIGHT);
        let request = self.remote.stamp.on(ReceiverStream::new(outgoing));
        let mut client = self.remote.client();
        let answers = self
            .within(self.remote.timing.election, client.append(request))
            .await?;
        Ok(Heartbeats {
            requests,
            answers,
            abandoned: 0,
        })
    }

    /// One request and its answer. The future may be dropped at any await: the answer that nobody
    /// waits for any more is then skipped by the next call.
    async fn exchange(
        &mut self,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Rpc<StreamAppendResult<TypeConfig>> {
        if self
            .heartbeats
            .as_ref()
            .is_some_and(|stream| stream.abandoned >= HEARTBEATS_IN_FLIGHT)
        {
            self.heartbeats = None;
        }
        if self.heartbeats.is_none() {
            self.heartbeats = Some(self.open_heartbeats().await?);
        }
        let outcome = match &mut self.heartbeats {
            Some(stream) => stream.exchange(wire::append(request)).await,
            None => Err(Status::unavailable("the stream was not opened")),
        };
        // After anything but success the other side has ended the stream.
        if !matches!(outcome, Ok(Ok(_))) {
            self.heartbeats = None;
        }
        outcome.map_err(|status| self.fault(&status))
    }
}

impl Heartbeats {
    async fn exchange(
        &mut self,
        request: pb::AppendRequest,
    ) -> Result<StreamAppendResult<TypeConfig>, Status> {
        self.requests
            .send(request)
            .await
            .map_err(|_| Status::unavailable("the stream has ended"))?;
        self.abandoned += 1;
        loop {
            let answer = self
                .answers
                .message()
                .await?
                .ok_or_else(|| Status::unavailable("the peer ended the stream"))?;
            self.abandoned -= 1;
            let result = wire::appended_back(&answer)?;
            if self.abandoned == 0 || result.is_err() {
                return Ok(result);
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        self.exchange(&rpc).await.map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.is_sequential {
            let answers = futures::stream::once(async move {
                let request = input.next().await?;
                Some(self.exchange(&request).await)
            });
            let answers: BoxStream<'s, _> =
                Box::pin(answers.filter_map(|answer| async move { answer }));
            return Box::pin(async move { Ok(answers) });
        }
        Box::pin(async move {
            let outgoing = input.map(|request| wire::append(&request));
            let request = self.remote.stamp.on(outgoing);
            let mut client = self.remote.client();
            let answers = self
                .within(self.remote.timing.election, client.append(request))
                .await?;
            let peer: &'s Self = self;
            let answers = answers.map(move |answer| {
                answer
                    .and_then(|answer| wire::appended_back(&answer))
                    .map_err(|status| peer.fault(&status))
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_for_vote(&rpc, false, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_for_vote(&rpc, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = snapshot::send(
            &self.remote,
            &self.state,
            &vote,
            &snapshot.snapshot,
            option.soft_ttl(),
        );
        tokio::select! {
            sent = sending => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(status) => Err(self.fault(&status).into()),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let message = pb::TransferLeaderRequest {
            from: Some(wire::vote(request.from_leader())),
            to: *request.to_node_id(),
            last: wire::optional(request.last_log_id()),
        };
        let mut client = self.remote.client();
        let call = client.transfer_leader(self.remote.stamp.on(message));
        let answer = self.within(option.soft_ttl(), call).await?;
        if answer.refusal.is_empty() {
            return Ok(Ok(()));
        }
        let refusal = match &answer.vote {
            Some(actual) => TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: wire::vote_back(Some(actual)).map_err(|status| self.fault(&status))?,
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: wire::optional_back(answer.last.as_ref()),
            },
        };
        Ok(Err(refusal))
    }
}

impl Peer {
    async fn ask_for_vote(
        &self,
        rpc: &VoteRequest<TypeConfig>,
        only_asking: bool,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let message = wire::vote_request(rpc, only_asking);
        let mut client = self.remote.client();
        let call = client.vote(self.remote.stamp.on(message));
        let answer = self.within(option.soft_ttl(), call).await?;
        wire::vote_response_back(&answer).map_err(|status| self.fault(&status))
    }
}
