//! Where the other members are, and the connections to them. Addresses may change while a
//! connection object lives: each new connection looks them up again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use schemas::peer as pb;
use schemas::peer::change_members_request::Change;
use schemas::peer::peer_client::PeerClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::MAX_MESSAGE_BYTES;
use super::guard::Stamp;
use super::link::{BoxLink, Counted, PeerDialer, Traffic, is_listening};
use crate::metrics::PeerTraffic;
use crate::raft::error::{MemberFault, MemberRefusal, ProposeError};
use crate::raft::membership::ChangedMembers;
use crate::storage::Identity;

/// HTTP/2 windows: one slow stream may have this much on its way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What a connection waits for.
#[derive(Debug, Clone, Copy)]
pub(in crate::raft) struct Timing {
    pub(in crate::raft) election: Duration,
}

/// Everybody this member may call.
#[derive(Debug)]
pub(in crate::raft) struct Directory {
    me: Identity,
    timing: Timing,
    dialer: Arc<dyn PeerDialer>,
    remotes: RwLock<FxHashMap<u64, Arc<Remote>>>,
}

/// One other member.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) id: u64,
    pub(super) stamp: Stamp,
    pub(super) timing: Timing,
    urls: Arc<RwLock<Vec<Uri>>>,
    traffic: Arc<Traffic>,
    /// Entries, heartbeats, votes and what is forwarded.
    channel: Channel,
    /// Snapshots, so that nothing else waits behind one.
    bulk: Channel,
}

impl Directory {
    pub(in crate::raft) fn new(me: Identity, timing: Timing, dialer: Arc<dyn PeerDialer>) -> Self {
        Self {
            me,
            timing,
            dialer,
            remotes: RwLock::default(),
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Remote>> {
        self.remotes.read().get(&id).map(Arc::clone)
    }

    /// The member under this id, from now on at these urls.
    pub(super) fn learn(&self, id: u64, peer_urls: &[String]) -> Arc<Remote> {
        let urls = parse(peer_urls);
        if let Some(known) = self.get(id) {
            let mut current = known.urls.write();
            if *current != urls {
                *current = urls;
            }
            drop(current);
            return known;
        }
        let urls = Arc::new(RwLock::new(urls));
        let traffic = Arc::new(Traffic::default());
        let connector = Connector {
            dialer: Arc::clone(&self.dialer),
            urls: Arc::clone(&urls),
            traffic: Arc::clone(&traffic),
        };
        let endpoint = endpoint(self.timing);
        let remote = Arc::new(Remote {
            id,
            stamp: Stamp::new(self.me, id),
            timing: self.timing,
            urls,
            traffic,
            channel: endpoint.connect_with_connector_lazy(connector.clone()),
            bulk: endpoint.connect_with_connector_lazy(connector),
        });
        // Another caller may have been faster; then its connections are the ones to keep.
        Arc::clone(self.remotes.write().entry(id).or_insert(remote))
    }

    /// Takes over the addresses of a membership; those who are not in it are forgotten.
    pub(in crate::raft) fn update<'a>(
        &self,
        members: impl IntoIterator<Item = (u64, &'a [String])>,
    ) {
        let mut present = Vec::new();
        for (id, peer_urls) in members {
            if id != self.me.member_id {
                self.learn(id, peer_urls);
                present.push(id);
            }
        }
        self.remotes.write().retain(|id, _| present.contains(id));
    }

    /// Bytes so far, by member.
    pub(in crate::raft) fn traffic(&self) -> Vec<PeerTraffic> {
        let remotes = self.remotes.read();
        let mut traffic: Vec<PeerTraffic> = remotes
            .values()
            .map(|remote| remote.traffic.of(remote.id))
            .collect();
        traffic.sort_unstable_by_key(|peer| peer.member_id);
        traffic
    }

    /// Whether a member's process is known to have ended: every one of its addresses refuses
    /// connections. A host that does not answer proves nothing.
    pub(in crate::raft) async fn has_ended(&self, id: u64) -> bool {
        let Some(remote) = self.get(id) else {
            return false;
        };
        let urls = remote.urls.read().clone();
        for url in &urls {
            if is_listening(url).await != Some(false) {
                return false;
            }
        }
        !urls.is_empty()
    }

    /// Has the leader carry a change out. `NoLeader` means that it certainly did nothing.
    pub(in crate::raft) async fn change_members(
        &self,
        leader: u64,
        change: Change,
    ) -> Result<ChangedMembers, MemberFault> {
        let remote = self.get(leader).ok_or(ProposeError::NoLeader)?;
        let request = pb::ChangeMembersRequest {
            change: Some(change),
        };
        let answer = remote
            .client()
            .change_members(remote.stamp.on(request))
            .await
            .map_err(|status| match status.code() {
                Code::Aborted => ProposeError::NoLeader,
                _ => ProposeError::LeaderChanged,
            })?
            .into_inner();
        if !answer.refusal.is_empty() {
            return Err(match MemberRefusal::from_text(&answer.refusal) {
                Some(refusal) => refusal.into(),
                None => ProposeError::LeaderChanged.into(),
            });
        }
        Ok(ChangedMembers {
            member_id: answer.member_id,
            members: answer.members,
            applied_index: answer.applied_index,
        })
    }

    /// A client for a peer url whose member is not known yet.
    pub(in crate::raft) fn stranger(
        dialer: Arc<dyn PeerDialer>,
        timing: Timing,
        url: &str,
    ) -> PeerClient<Channel> {
        let connector = Connector {
            dialer,
            urls: Arc::new(RwLock::new(parse(&[url.to_owned()]))),
            traffic: Arc::default(),
        };
        client(endpoint(timing).connect_with_connector_lazy(connector))
    }
}

impl Remote {
    pub(super) fn client(&self) -> PeerClient<Channel> {
        client(self.channel.clone())
    }

    pub(super) fn bulk_client(&self) -> PeerClient<Channel> {
        client(self.bulk.clone())
    }

    pub(super) fn urls(&self) -> String {
        let urls: Vec<String> = self.urls.read().iter().map(ToString::to_string).collect();
        urls.join(",")
    }
}

fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn endpoint(timing: Timing) -> Endpoint {
    // The name is never resolved: the connector knows where to go.
    Endpoint::from_static("http://member")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // A host that vanished without a word is noticed after an election timeout.
        .http2_keep_alive_interval(timing.election)
        .keep_alive_timeout(timing.election)
        .keep_alive_while_idle(true)
}

/// The flags and the membership changes let only valid urls through.
fn parse(peer_urls: &[String]) -> Vec<Uri> {
    peer_urls
        .iter()
        .filter_map(|url| url.parse().ok())
        .collect()
}

/// Makes a connection to the first of the member's addresses that answers.
#[derive(Debug, Clone)]
struct Connector {
    dialer: Arc<dyn PeerDialer>,
    urls: Arc<RwLock<Vec<Uri>>>,
    traffic: Arc<Traffic>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<BoxLink>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<BoxLink>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = Arc::clone(&self.dialer);
        let urls = self.urls.read().clone();
        let traffic = Arc::clone(&self.traffic);
        Box::pin(async move {
            let mut last = io::Error::other("the member has no peer url");
            for url in &urls {
                match dialer.dial(url).await {
                    Ok(link) => {
                        let link: BoxLink = Box::new(Counted { link, traffic });
                        return Ok(TokioIo::new(link));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}
