//! One port for everything: tells HTTP/2 from HTTP/1.1 by the first bytes, gRPC from HTTP by the
//! content type, and limits what a connection may cost before it has said anything useful.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::authority::LenientAuthority;
use super::calls::{CallQueue, WithCalls};
use super::gather::gathering;
use super::ping_policy::PingPolicy;
use super::shared_stream::SharedStream;
use crate::api::grpc::{self, Services};
use crate::api::hangup::ClientSide;
use crate::api::http::OverTls;
use crate::auth::CertificateName;
use crate::metrics::Metrics;
use crate::raft::Node;
use crate::socket::{Listener, Socket};
use crate::tls::ServerTls;

/// What every HTTP/2 client sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake; no HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// A client that connects and stays silent is let go.
const FIRST_BYTES_TIME: Duration = Duration::from_secs(30);
/// A client that sends its request line drop by drop is let go.
const HEADER_READ_TIME: Duration = Duration::from_secs(30);
/// Request line and headers together.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Streams that a client cancelled before they were served, of one connection. Clients with many
/// watches cancel in bursts; hyper's default of 20 would cut them off.
const MAX_CANCELLED_STREAMS: usize = 1024;
/// Response bytes that wait in one stream for a slow reader.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Pause after the system refused a connection (too many open files), so as not to spin.
const ACCEPT_RETRY_TIME: Duration = Duration::from_millis(50);
/// Pause while a client has sent less than one preface.
const PREFACE_RETRY_TIME: Duration = Duration::from_millis(5);

type Body = Either<tonic::body::Body, axum::body::Body>;

/// What a listener serves.
pub(super) struct App {
    /// `None` on addresses for metrics only.
    pub(super) grpc: Option<Arc<Services>>,
    pub(super) http: Router,
    pub(super) node: Arc<Node>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) options: HttpOptions,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct HttpOptions {
    pub(super) max_concurrent_streams: u32,
    /// Zero: the server does not ping.
    pub(super) keepalive_interval: Duration,
    pub(super) keepalive_timeout: Duration,
    /// Clients that ping more often are sent away.
    pub(super) keepalive_min_time: Duration,
}

/// What is spoken on an address.
#[derive(Clone)]
pub(super) enum Speaks {
    Plain,
    Tls(Arc<ServerTls>),
    /// http and https were both asked for: the first byte tells.
    Either(Arc<ServerTls>),
}

/// Accepts until the server stops.
pub(super) async fn accept(
    listener: Listener,
    app: Arc<App>,
    speaks: Speaks,
    stopping: CancellationToken,
    running: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                let (app, stopping, running) =
                    (Arc::clone(&app), stopping.clone(), running.clone());
                let speaks = speaks.clone();
                tokio::spawn(async move {
                    app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = serve(stream, &app, &speaks, &stopping).await {
                        // Clients vanish all the time; whoever looks for one turns this level on.
                        tracing::debug!(%error, "a client connection ended with an error");
                    }
                    app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
                    drop(running);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_RETRY_TIME).await;
            }
        }
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What every request of a connection carries with it.
#[derive(Clone, Default)]
struct Origin {
    /// HTTP/1 only.
    client: Option<ClientSide>,
    certificate: Option<CertificateName>,
    is_encrypted: bool,
}

async fn serve(
    stream: Socket,
    app: &Arc<App>,
    speaks: &Speaks,
    stopping: &CancellationToken,
) -> Ended {
    stream.set_nodelay()?;
    let tls = match speaks {
        Speaks::Plain => None,
        Speaks::Tls(tls) => Some(tls),
        Speaks::Either(tls) => match sniff(begins_tls(&stream), stopping).await? {
            None => return Ok(()),
            Some(begins_tls) => begins_tls.then_some(tls),
        },
    };
    if let Some(tls) = tls {
        return serve_encrypted(stream, app, tls, stopping).await;
    }
    let Some(speaks_http2) = sniff(begins_http2(&stream), stopping).await? else {
        return Ok(());
    };
    if speaks_http2 {
        return serve_http2(stream, Origin::default(), app, stopping).await;
    }
    let stream = Arc::new(stream);
    let origin = Origin {
        client: Some(ClientSide(Arc::clone(&stream))),
        ..Origin::default()
    };
    serve_http1(SharedStream(stream), origin, app, stopping).await
}

/// What the first bytes say; `None` when they do not come in time or the server stops.
async fn sniff(
    first_bytes: impl Future<Output = io::Result<bool>>,
    stopping: &CancellationToken,
) -> io::Result<Option<bool>> {
    tokio::select! {
        sniffed = tokio::time::timeout(FIRST_BYTES_TIME, first_bytes) => match sniffed {
            Ok(sniffed) => sniffed.map(Some),
            Err(_) => Ok(None),
        },
        () = stopping.cancelled() => Ok(None),
    }
}

/// Which protocol is spoken was agreed in the handshake.
async fn serve_encrypted(
    stream: Socket,
    app: &Arc<App>,
    tls: &ServerTls,
    stopping: &CancellationToken,
) -> Ended {
    let remote = stream.remote();
    let stream = Arc::new(stream);
    let accepted = tokio::select! {
        accepted = tls.accept(SharedStream(Arc::clone(&stream)), remote) => accepted?,
        () = stopping.cancelled() => return Ok(()),
    };
    let mut origin = Origin {
        client: None,
        certificate: accepted.certificate_name.map(CertificateName),
        is_encrypted: true,
    };
    if accepted.speaks_http2 {
        serve_http2(accepted.stream, origin, app, stopping).await
    } else {
        origin.client = Some(ClientSide(stream));
        serve_http1(accepted.stream, origin, app, stopping).await
    }
}

async fn serve_http2<S>(
    stream: S,
    origin: Origin,
    app: &Arc<App>,
    stopping: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let calls = CallQueue::default();
    let service = answering(app, origin, Some(calls.clone()));
    let (stream, outlet) = gathering(stream);
    let stream = LenientAuthority::new(stream);
    let stream = PingPolicy::new(stream, app.options.keepalive_min_time);
    let connection =
        http2(app.options, calls.clone()).serve_connection(TokioIo::new(stream), service);
    drive(
        WithCalls::new(connection, calls, outlet),
        |mut served| served.connection().graceful_shutdown(),
        stopping,
    )
    .await?;
    Ok(())
}

async fn serve_http1<S>(
    stream: S,
    origin: Origin,
    app: &Arc<App>,
    stopping: &CancellationToken,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1()
        .serve_connection(TokioIo::new(stream), answering(app, origin, None))
        // For websockets.
        .with_upgrades();
    drive(
        connection,
        |connection| connection.graceful_shutdown(),
        stopping,
    )
    .await?;
    Ok(())
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn answering(
    app: &Arc<App>,
    origin: Origin,
    calls: Option<CallQueue>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Answer,
> + use<> {
    let app = Arc::clone(app);
    service_fn(move |mut request: Request<Incoming>| -> Answer {
        let app = Arc::clone(&app);
        if let Some(calls) = &calls {
            calls.next_is_apart(!grpc::is_short(request.uri().path()));
        }
        if let Some(client) = &origin.client {
            request.extensions_mut().insert(client.clone());
        }
        if let Some(certificate) = &origin.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        if origin.is_encrypted {
            request.extensions_mut().insert(OverTls);
        }
        Box::pin(async move { Ok(app.answer(request).await) })
    })
}

/// Serves a connection; when the server stops, lets it finish what it has begun.
async fn drive<C: Future>(
    connection: C,
    stop: impl FnOnce(Pin<&mut C>),
    stopping: &CancellationToken,
) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = stopping.cancelled() => stop(connection.as_mut()),
    }
    connection.await
}

fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIME)
        .max_buf_size(MAX_HEADER_BYTES as usize)
        // A client may close its sending side and still read the answer.
        .half_close(true);
    builder
}

fn http2(options: HttpOptions, calls: CallQueue) -> hyper::server::conn::http2::Builder<CallQueue> {
    let mut builder = hyper::server::conn::http2::Builder::new(calls);
    let pings = (!options.keepalive_interval.is_zero()).then_some(options.keepalive_interval);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_CANCELLED_STREAMS)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(pings)
        .keep_alive_timeout(options.keepalive_timeout)
        // gRPC clients have no use for it.
        .auto_date_header(false);
    builder
}

/// Looks at the first byte without taking it.
async fn begins_tls(stream: &Socket) -> io::Result<bool> {
    let mut first = [0; 1];
    let seen = stream.peek(&mut first).await?;
    Ok(seen == 1 && first[0] == TLS_HANDSHAKE)
}

/// Looks at the first bytes without taking them. A client that closes at once counts as HTTP/1.
async fn begins_http2(stream: &Socket) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || first[..seen] != HTTP2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // peek returns at once while the same bytes lie there.
        tokio::time::sleep(PREFACE_RETRY_TIME).await;
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.version() == Version::HTTP_2
            && let Some(grpc) = &self.grpc
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(is_grpc)
        {
            return grpc
                .call(request.map(tonic::body::Body::new))
                .await
                .map(Either::Left);
        }
        // The gateway speaks for whoever has a token, and for no certificate: its holder would be
        // surprised, so it is said, as in etcd.
        let is_named = request
            .extensions()
            .get::<CertificateName>()
            .is_some_and(|CertificateName(name)| !name.is_empty());
        if is_named && request.uri().path().starts_with("/v3/") && self.node.engine().auth_enabled()
        {
            let refusal = (
                StatusCode::BAD_REQUEST,
                "CommonName of client sending a request against gateway will be ignored and not \
                 used as expected\n",
            );
            return refusal.into_response().map(Either::Right);
        }
        match self.http.clone().call(request).await {
            Ok(response) => response.map(Either::Right),
            Err(impossible) => match impossible {},
        }
    }
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}
