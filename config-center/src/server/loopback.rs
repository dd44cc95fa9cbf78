//! The member's own way to its services: gRPC over a pipe in memory.
//!
//! A part of the server that is a client of the store like any other reaches it here. Its requests
//! pass the same door and the same limits as everybody's; they only need no address and no
//! certificate of their own.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use schemas_client::Pipe;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use crate::api::grpc::Services;
use crate::auth::CertificateName;

/// Bytes that lie in a pipe, in each direction, before its writer waits.
const PIPE_BYTES: usize = 256 * 1024;
/// As on the network: browsers close streams of changes in bursts.
const MAX_CANCELLED_STREAMS: usize = 1024;

/// Opens pipes to the services of this member.
#[derive(Clone)]
pub(super) struct Loopback {
    services: Arc<Services>,
    stopping: CancellationToken,
}

impl Loopback {
    pub(super) fn new(services: Arc<Services>, stopping: CancellationToken) -> Self {
        Self { services, stopping }
    }

    /// Connections that come, as far as authentication is concerned, from the holder of a
    /// certificate with this name; `None`: from nobody in particular.
    pub(super) fn pipe(&self, certificate: Option<Arc<str>>) -> Pipe {
        let loopback = self.clone();
        Pipe::new(move || {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(loopback.clone().serve(far, certificate.clone()));
            near
        })
    }

    /// Serves one connection until its client is gone or the server stops.
    async fn serve(self, stream: DuplexStream, certificate: Option<Arc<str>>) {
        let Self { services, stopping } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let services = Arc::clone(&services);
            if let Some(name) = &certificate {
                let name = CertificateName(Arc::clone(name));
                request.extensions_mut().insert(name);
            }
            async move {
                let request = request.map(tonic::body::Body::new);
                Ok::<_, Infallible>(services.call(request).await)
            }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // All requests of one user share a connection, streams of changes among them; how many
            // there may be is limited where they come in.
            .max_concurrent_streams(u32::MAX)
            .max_pending_accept_reset_streams(MAX_CANCELLED_STREAMS)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection within the server ended with an error");
        }
    }
}
