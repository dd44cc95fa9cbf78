//! Puts the parts together: binds the addresses, starts the member, serves connections, and takes
//! everything down in the right order.
//!
//! Start order: listen first (a taken port must not touch the data folder), then the member, then
//! the first connection. Stop order: no new connections, streams end with a reason, requests in
//! flight finish, lease expiry ends, consensus and databases close.

mod authority;
mod calls;
mod connection;
mod fleet;
mod frames;
mod gather;
mod listen;
mod loopback;
mod ping_policy;
mod shared_stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::etcdserverpb::Member;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::grpc::Services;
use crate::api::{Context, Limits, http};
use crate::auth::{SignedTokens, TokenError};
use crate::flags::{ListenUrl, Settings, TokenKind};
use crate::metrics::Metrics;
use crate::raft::{Node, NodeConfig, StartError};
use crate::socket::Place;
use crate::tls::{self, ServerTls, TlsError};
use crate::v2_expiry;
use crate::{compaction, expiry};

pub use listen::BindError;

use connection::{App, HttpOptions, Speaks};
use listen::Listening;
use loopback::Loopback;

/// How long requests in flight may take to finish once the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Where certificates of our own making lie in the data folder, as in etcd.
const CLIENT_FIXTURES: &str = "fixtures/client";
const PEER_FIXTURES: &str = "fixtures/peer";
/// Pause between two looks at the list of members.
const LISTED_RETRY_TIME: Duration = Duration::from_millis(2);

/// Why the server could not start; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// A running server.
pub struct Server {
    node: Arc<Node>,
    client_places: Vec<Place>,
    stopping: CancellationToken,
    /// Yields `None` once every acceptor and connection has dropped its sender.
    drained: mpsc::Receiver<()>,
    expiry: JoinHandle<()>,
    compaction: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, starts the member and serves.
    ///
    /// # Errors
    /// When an address cannot be had or the member cannot start.
    pub async fn start(settings: &Settings) -> Result<Self, ServeError> {
        let clients = listen::bind(&settings.listen_client_urls, "--listen-client-urls")?;
        let scrapers = listen::bind(&settings.listen_metrics_urls, "--listen-metrics-urls")?;
        let peers = listen::bind(&settings.listen_peer_urls, "--listen-peer-urls")?;
        let client_places = clients.iter().map(|client| client.place.clone()).collect();

        // Keys and certificates before the data folder: a wrong path must not touch it.
        let signed_tokens = match &settings.token_kind {
            TokenKind::Simple => None,
            TokenKind::Signed(jwt) => Some(SignedTokens::load(jwt)?),
        };
        let tls = client_tls(settings)?;
        let peers = peers.into_iter().map(|peer| peer.listener).collect();
        let peers = tls::peer_port(
            peers,
            settings.listen_peer_urls.iter().any(|url| url.is_secure),
            &settings.peer_tls,
            &settings.data_dir.join(PEER_FIXTURES),
            &hosts(&settings.listen_peer_urls),
        )?;
        let node = Node::start(node_config(settings), peers).await?;
        node.engine().set_token_ttl(settings.auth_token_ttl);
        wait_until_listed(&node, settings).await;
        let metrics = Arc::new(Metrics::default());
        let stopping = CancellationToken::new();
        let limits = Limits {
            max_txn_ops: settings.max_txn_ops,
            max_request_bytes: settings.max_request_bytes,
            watch_progress_interval: settings.watch_progress_interval,
            election_ms: settings.election_ms,
            quota_bytes: settings.quota_bytes,
            bcrypt_cost: settings.bcrypt_cost,
        };
        let context = Arc::new(Context::new(
            Arc::clone(&node),
            Arc::clone(&metrics),
            limits,
            stopping.clone(),
            signed_tokens,
        ));
        let expiry = tokio::spawn(expiry::run(
            Arc::clone(&node),
            Arc::clone(&metrics),
            stopping.clone(),
        ));

        // It ends with the server, and nothing waits for what it proposes.
        tokio::spawn(v2_expiry::run(Arc::clone(&node), stopping.clone()));

        let compaction = settings.auto_compaction.map(|retention| {
            let node = Arc::clone(&node);
            tokio::spawn(compaction::run(node, retention, stopping.clone()))
        });

        let options = HttpOptions {
            max_concurrent_streams: settings.max_concurrent_streams,
            keepalive_interval: settings.keepalive_interval,
            keepalive_timeout: settings.keepalive_timeout,
            keepalive_min_time: settings.keepalive_min_time,
        };
        // Nothing is ever sent: the channel only counts who still holds a sender.
        let (running, drained) = mpsc::channel(1);
        let services = Arc::new(Services::new(&context));
        let fleet_api = settings.fleet.as_ref().map(|fleet| {
            let loopback = Loopback::new(Arc::clone(&services), stopping.clone());
            fleet::start(fleet, &node, loopback, &stopping)
        });
        let api = Arc::new(App {
            http: http::router(
                Arc::clone(&context),
                Arc::clone(&services),
                &settings.http_rules,
                fleet_api,
            ),
            grpc: Some(services),
            node: Arc::clone(&node),
            metrics: Arc::clone(&metrics),
            options,
        });
        for client in clients {
            let speaks = spoken_at(&client, tls.as_ref());
            let accepting = connection::accept(
                client.listener,
                Arc::clone(&api),
                speaks,
                stopping.clone(),
                running.clone(),
            );
            tokio::spawn(accepting);
        }
        let scraped = Arc::new(App {
            grpc: None,
            http: http::metrics_router(context),
            node: Arc::clone(&node),
            metrics,
            options,
        });
        for scraper in scrapers {
            let speaks = spoken_at(&scraper, tls.as_ref());
            let accepting = connection::accept(
                scraper.listener,
                Arc::clone(&scraped),
                speaks,
                stopping.clone(),
                running.clone(),
            );
            tokio::spawn(accepting);
        }
        Ok(Self {
            node,
            client_places,
            stopping,
            drained,
            expiry,
            compaction,
        })
    }

    /// Where clients are served; the real ports, also when port 0 was asked for.
    #[must_use]
    pub fn client_places(&self) -> &[Place] {
        &self.client_places
    }

    /// Those of them that are TCP addresses.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        let tcp = |place: &Place| match place {
            Place::Tcp(address) => Some(*address),
            Place::Unix(_) => None,
        };
        self.client_places.iter().filter_map(tcp).collect()
    }

    /// The member behind the API.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Resolves when the member can no longer serve; the text says why.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Stops in order. Everything acknowledged was on disk before.
    pub async fn shutdown(mut self) {
        self.stopping.cancel();
        if tokio::time::timeout(DRAIN_TIME, self.drained.recv())
            .await
            .is_err()
        {
            tracing::warn!(
                "some connections did not finish within {} s and are cut",
                DRAIN_TIME.as_secs()
            );
        }
        if let Err(error) = self.expiry.await {
            tracing::error!(%error, "lease expiry had failed");
        }
        if let Some(compaction) = self.compaction
            && let Err(error) = compaction.await
        {
            tracing::error!(%error, "automatic compaction had failed");
        }
        self.node.shutdown().await;
    }
}

/// Clients that ask for the members right after the start must be shown where to go. A member that
/// cannot publish itself in time serves all the same: reads of its own data need nobody.
async fn wait_until_listed(node: &Node, settings: &Settings) {
    let deadline = Instant::now() + Duration::from_millis(2 * settings.election_ms);
    let listed = |member: &Member| {
        member.id == node.member_id() && member.client_ur_ls == settings.advertise_client_urls
    };
    while Instant::now() < deadline && !node.members().iter().any(listed) {
        tokio::time::sleep(LISTED_RETRY_TIME).await;
    }
}

/// `None` when nothing is configured; the flags have seen to it that no https url asks for it.
fn client_tls(settings: &Settings) -> Result<Option<Arc<ServerTls>>, TlsError> {
    if !settings.client_tls.is_configured() {
        return Ok(None);
    }
    let folder = settings.data_dir.join(CLIENT_FIXTURES);
    let hosts = hosts(&settings.listen_client_urls);
    ServerTls::for_clients(&settings.client_tls, &folder, &hosts).map(|tls| Some(Arc::new(tls)))
}

/// Where https is asked for, the flags have seen to it that there is a certificate.
fn spoken_at(listening: &Listening, tls: Option<&Arc<ServerTls>>) -> Speaks {
    match tls.filter(|_| listening.is_secure) {
        None => Speaks::Plain,
        Some(tls) if listening.is_plain => Speaks::Either(Arc::clone(tls)),
        Some(tls) => Speaks::Tls(Arc::clone(tls)),
    }
}

fn hosts(urls: &[ListenUrl]) -> Vec<String> {
    let named = urls.iter().filter_map(ListenUrl::host);
    let mut hosts: Vec<String> = named.map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

fn node_config(settings: &Settings) -> NodeConfig {
    NodeConfig {
        data_dir: settings.data_dir.clone(),
        name: settings.name.clone(),
        peer_urls: settings.advertise_peer_urls.clone(),
        client_urls: settings.advertise_client_urls.clone(),
        cluster_token: settings.cluster_token.clone(),
        initial_cluster: settings.initial_cluster.clone(),
        cluster_state: settings.cluster_state,
        force_new_cluster: settings.force_new_cluster,
        reconfiguration: settings.reconfiguration,
        heartbeat_ms: settings.heartbeat_ms,
        election_ms: settings.election_ms,
        snapshot_count: settings.snapshot_count,
        catchup_entries: settings.catchup_entries,
        max_request_bytes: settings.max_request_bytes,
    }
}
