//! Accepts the connections of the other members.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use schemas::peer::peer_server::PeerServer;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::MAX_MESSAGE_BYTES;
use super::directory::Timing;
use super::link::{PeerAcceptor, PeerDialer, Plain};
use super::service::PeerService;
use crate::raft::node::Node;
use crate::socket::{Listener, Socket};

/// Pause after the system refused a connection (too many open files), so as not to spin.
const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(50);
/// Until a TLS handshake must be over.
const ACCEPT_TIME: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Where and how members meet.
#[derive(Debug)]
pub struct PeerPort {
    /// Bound already: a taken port must be noticed before the data folder is touched.
    pub listeners: Vec<Listener>,
    pub dialer: Arc<dyn PeerDialer>,
    pub acceptor: Arc<dyn PeerAcceptor>,
}

impl PeerPort {
    /// Without encryption.
    #[must_use]
    pub fn plain(listeners: Vec<Listener>) -> Self {
        Self {
            listeners,
            dialer: Arc::new(Plain),
            acceptor: Arc::new(Plain),
        }
    }
}

/// The member behind the port. Until it is set, callers are told to come back.
#[derive(Default)]
pub(in crate::raft) struct PeerHost {
    node: OnceLock<Weak<Node>>,
}

impl PeerHost {
    pub(in crate::raft) fn set(&self, node: &Arc<Node>) {
        // Set once, by the start of the member.
        self.node.get_or_init(|| Arc::downgrade(node));
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.node.get()?.upgrade()
    }
}

/// Serves until `stopping`; then every connection is cut.
pub(in crate::raft) fn serve(
    listeners: Vec<Listener>,
    acceptor: &Arc<dyn PeerAcceptor>,
    host: &Arc<PeerHost>,
    timing: Timing,
    stopping: &CancellationToken,
) {
    for listener in listeners {
        let accepting = Accepting {
            acceptor: Arc::clone(acceptor),
            host: Arc::clone(host),
            timing,
            stopping: stopping.clone(),
        };
        tokio::spawn(accepting.run(listener));
    }
}

#[derive(Clone)]
struct Accepting {
    acceptor: Arc<dyn PeerAcceptor>,
    host: Arc<PeerHost>,
    timing: Timing,
    stopping: CancellationToken,
}

impl Accepting {
    async fn run(self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok(stream) => {
                    let accepting = self.clone();
                    tokio::spawn(async move {
                        let stopping = accepting.stopping.clone();
                        tokio::select! {
                            ended = accepting.connection(stream) => if let Err(error) = ended {
                                tracing::debug!(%error, "a peer connection ended with an error");
                            },
                            () = stopping.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer could not be accepted; trying again");
                    tokio::time::sleep(ACCEPT_RETRY_TIME).await;
                }
            }
        }
    }

    async fn connection(
        self,
        stream: Socket,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let link = tokio::time::timeout(ACCEPT_TIME, self.acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let service = PeerServer::new(PeerService::new(self.host))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let answer = service_fn(move |request: Request<Incoming>| service.clone().call(request));
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(Some(self.timing.election))
            .keep_alive_timeout(self.timing.election)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(link), answer)
            .await?;
        Ok(())
    }
}
