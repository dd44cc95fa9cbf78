//! The gRPC proxy: each call of a client becomes the same call to a member. Calls of all clients
//! share a few connections to the cluster.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;
use tower_service::Service;

use super::{ACCEPT_RETRY_TIME, Command, Common, MAX_CLIENTS, refuse, without_scheme};
use crate::raft::{BoxLink, PeerDialer};
use crate::socket::Socket;
use crate::tls::{self, ServerTls, TlsSettings};

/// A member that vanished without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Clients that cancel many watches at once are not attackers.
const MAX_CANCELLED_STREAMS: usize = 1024;

/// Pass gRPC calls on to the members of a cluster.
#[derive(Debug, clap::Parser)]
#[command(name = "config-center grpc-proxy")]
pub(super) struct Flags {
    #[command(subcommand)]
    _command: Command,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    to_members: ToMembers,
    #[command(flatten)]
    to_clients: ToClients,
    /// Where --auto-tls keeps its certificate
    #[arg(long, global = true, default_value = "default.proxy")]
    data_dir: PathBuf,
    /// Streams that one client may have open
    #[arg(long, global = true, default_value_t = u32::MAX)]
    max_concurrent_streams: u32,
    #[command(flatten)]
    refused: Refused,
    #[command(flatten)]
    _idle: Idle,
}

/// TLS towards the cluster.
#[derive(Debug, clap::Args)]
struct ToMembers {
    /// Certificate shown to the members; its common name must be empty
    #[arg(long, global = true)]
    cert: Option<PathBuf>,
    #[arg(long, global = true)]
    key: Option<PathBuf>,
    /// Authority of the members' certificates
    #[arg(long, global = true)]
    cacert: Option<PathBuf>,
    /// Trust any certificate of a member
    #[arg(long, global = true)]
    insecure_skip_tls_verify: bool,
}

/// TLS towards the clients.
#[derive(Debug, clap::Args)]
struct ToClients {
    #[arg(long, global = true)]
    cert_file: Option<PathBuf>,
    #[arg(long, global = true)]
    key_file: Option<PathBuf>,
    #[arg(long, global = true)]
    trusted_ca_file: Option<PathBuf>,
    #[arg(long, global = true)]
    client_crl_file: Option<PathBuf>,
    #[arg(long, global = true)]
    auto_tls: bool,
    #[arg(long, global = true, value_delimiter = ',')]
    listen_cipher_suites: Vec<String>,
}

/// What would change what clients see or rely on.
#[derive(Debug, clap::Args)]
struct Refused {
    #[arg(long, global = true, hide = true, default_value = "")]
    namespace: String,
    #[arg(long, global = true, hide = true, default_value = "")]
    resolver_prefix: String,
    #[arg(long, global = true, hide = true, default_value = "")]
    experimental_leasing_prefix: String,
    #[arg(long, global = true, hide = true, default_value = "")]
    metrics_addr: String,
    #[arg(long, global = true, hide = true)]
    experimental_serializable_ordering: bool,
}

/// Accepted for etcd's sake: leaving them out harms nobody.
#[derive(Debug, clap::Args)]
struct Idle {
    #[arg(long, global = true, hide = true, default_value = "")]
    advertise_client_url: String,
    #[arg(long, global = true, hide = true, default_value_t = 0)]
    resolver_ttl: u32,
    #[arg(long, global = true, hide = true, default_value_t = 0)]
    max_send_bytes: u64,
    #[arg(long, global = true, hide = true, default_value_t = 0)]
    max_recv_bytes: u64,
    #[arg(long, global = true, hide = true)]
    enable_pprof: bool,
    #[arg(long, global = true, hide = true)]
    debug: bool,
}

impl Refused {
    fn check(&self) -> Result<(), String> {
        let plain = "calls are passed on as they are";
        refuse("namespace", &self.namespace, plain)?;
        refuse(
            "experimental-leasing-prefix",
            &self.experimental_leasing_prefix,
            plain,
        )?;
        refuse(
            "resolver-prefix",
            &self.resolver_prefix,
            "the proxy does not register itself",
        )?;
        refuse(
            "metrics-addr",
            &self.metrics_addr,
            "the members serve their metrics",
        )?;
        if self.experimental_serializable_ordering {
            return Err(format!(
                "--experimental-serializable-ordering is not supported: {plain}"
            ));
        }
        Ok(())
    }
}

pub(super) async fn run(flags: Flags) -> Result<(), String> {
    flags.common.refuse_discovery()?;
    flags.refused.check()?;
    let members = flags.to_members.members(&flags.common.endpoints)?;
    let tls = flags
        .to_clients
        .tls(&flags.data_dir, &flags.common.listen_addr)?;
    let (listener, address) = flags.common.listen().await?;
    tracing::info!(%address, "started gRPC proxy");
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    for turn in 0.. {
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else {
            break;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let member = members[turn % members.len()].clone();
                let tls = tls.clone();
                let streams = flags.max_concurrent_streams;
                tokio::spawn(async move {
                    let served = serve(Socket::Tcp(client), tls.as_deref(), member, streams);
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "a client connection ended with an error");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_RETRY_TIME).await;
            }
        }
    }
    Ok(())
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve(client: Socket, tls: Option<&ServerTls>, member: Channel, streams: u32) -> Ended {
    client.set_nodelay()?;
    match tls {
        None => serve_calls(client, member, streams).await,
        Some(tls) => {
            let remote = client.remote();
            let accepted = tls.accept(client, remote).await?;
            serve_calls(accepted.stream, member, streams).await
        }
    }
}

async fn serve_calls<S>(stream: S, member: Channel, streams: u32) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |call: Request<Incoming>| {
        let member = member.clone();
        async move { Ok::<_, Infallible>(pass_on(member, call).await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_pending_accept_reset_streams(MAX_CANCELLED_STREAMS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await?;
    Ok(())
}

/// The member's answer, whatever it is. No answer is one that clients try again after.
async fn pass_on(member: Channel, call: Request<Incoming>) -> Response<Body> {
    match member.oneshot(call.map(Body::new)).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%error, "a call was not passed on");
            tonic::Status::unavailable(format!("no endpoint answers: {error}")).into_http()
        }
    }
}

impl ToMembers {
    /// One connection for each endpoint to begin with; where it does not answer, the next one does.
    fn members(&self, endpoints: &[String]) -> Result<Vec<Channel>, String> {
        if let Some(cert) = &self.cert {
            // The members would take its name for the user of every client.
            let name = tls::common_name(cert).map_err(|error| error.to_string())?;
            if !name.is_empty() {
                return Err(format!(
                    "cert has non empty Common Name ({name}): {} cannot be used by a proxy",
                    cert.display()
                ));
            }
        }
        let is_secure =
            self.cert.is_some() || self.cacert.is_some() || self.insecure_skip_tls_verify;
        let scheme = if is_secure { "https" } else { "http" };
        let urls = endpoints.iter().map(|endpoint| {
            let url = match endpoint.contains("://") {
                true => endpoint.clone(),
                false => format!("{scheme}://{}", without_scheme(endpoint)),
            };
            let uri: Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
            Ok::<_, String>(uri)
        });
        let urls = urls.collect::<Result<Vec<_>, _>>()?;
        let settings = TlsSettings {
            client_cert_file: self.cert.clone(),
            client_key_file: self.key.clone(),
            trusted_ca_file: self.cacert.clone(),
            auto: self.insecure_skip_tls_verify || self.cacert.is_none(),
            ..TlsSettings::default()
        };
        let needs_authority = urls.iter().any(|url| url.scheme_str() == Some("https"));
        if needs_authority && self.cacert.is_none() && !self.insecure_skip_tls_verify {
            return Err("https endpoints need --cacert".to_owned());
        }
        let dialer = tls::dialer(&settings).map_err(|error| error.to_string())?;
        let beginning_with = |first: usize| {
            let mut urls = urls.clone();
            urls.rotate_left(first);
            let dialer = Arc::clone(&dialer);
            // The name is never resolved: the connector knows where to go.
            Endpoint::from_static("http://member")
                .http2_keep_alive_interval(PING_INTERVAL)
                .connect_with_connector_lazy(Connector { dialer, urls })
        };
        Ok((0..urls.len()).map(beginning_with).collect())
    }
}

impl ToClients {
    fn tls(&self, data_dir: &Path, listen_addr: &str) -> Result<Option<Arc<ServerTls>>, String> {
        let suites = self.listen_cipher_suites.iter();
        let settings = TlsSettings {
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            trusted_ca_file: self.trusted_ca_file.clone(),
            crl_file: self.client_crl_file.clone(),
            client_cert_auth: self.trusted_ca_file.is_some(),
            auto: self.auto_tls,
            self_signed_validity_years: 1,
            cipher_suites: suites.filter(|suite| !suite.is_empty()).cloned().collect(),
            ..TlsSettings::default()
        };
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err("--cert-file and --key-file go together".to_owned());
        }
        if !settings.is_configured() {
            return Ok(None);
        }
        let host = listen_addr
            .rsplit_once(':')
            .map_or(listen_addr, |(host, _)| host);
        let folder = data_dir.join("fixtures/proxy");
        ServerTls::for_clients(&settings, &folder, &[host.to_owned()])
            .map(|tls| Some(Arc::new(tls)))
            .map_err(|error| error.to_string())
    }
}

/// Connects to the first of the urls that answers.
#[derive(Debug, Clone)]
struct Connector {
    dialer: Arc<dyn PeerDialer>,
    urls: Vec<Uri>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<BoxLink>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<BoxLink>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { dialer, urls } = self.clone();
        Box::pin(async move {
            let mut last = io::Error::other("there is no endpoint");
            for url in &urls {
                match dialer.dial(url).await {
                    Ok(link) => return Ok(TokioIo::new(link)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}
