//! One endpoint and its connection: dialled on first use, shared by all calls, dropped when broken.
//!
//! Dialling is a step of its own, so that a caller knows whether a request could have been sent.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex as ShortMutex;
use tokio::{io::DuplexStream, sync::Mutex, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{ClientError, ConnectOptions, tls::TlsSettings};

/// Large ranges arrive in one message; a bigger flow-control window saves round trips.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Opens pipes to a store in the same process: no address, no port, no TLS.
#[derive(Clone)]
pub struct Pipe(Arc<dyn Fn() -> DuplexStream + Send + Sync>);

impl Pipe {
    /// `open` gives the near end of a new pipe; whoever holds the far end serves gRPC on it.
    pub fn new(open: impl Fn() -> DuplexStream + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

/// A live connection and the number of the dial that made it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    dial: u64,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    dials: u64,
}

#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) url: String,
    endpoint: Endpoint,
    /// `None`: the endpoint's address is dialled.
    pipe: Option<Pipe>,
    dial_timeout: Duration,
    /// Held while dialling, so that concurrent calls share one connection.
    slot: Mutex<Slot>,
    answered_at: ShortMutex<Option<Instant>>,
}

impl Remote {
    pub(crate) fn new(
        url: String,
        options: &ConnectOptions,
        tls: Option<&TlsSettings>,
    ) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| ClientError::InvalidEndpoint {
                endpoint: url.clone(),
                reason: innermost(&error),
            })?
            .connect_timeout(options.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(options.keepalive_time)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let endpoint = match tls {
            Some(tls) if url.starts_with("https://") => {
                tls.apply(endpoint).map_err(|error| ClientError::Tls {
                    reason: innermost(&error),
                })?
            }
            _ => endpoint,
        };
        Ok(Self {
            url,
            endpoint,
            pipe: None,
            dial_timeout: options.dial_timeout,
            slot: Mutex::default(),
            answered_at: ShortMutex::default(),
        })
    }

    /// A store at the other end of a pipe.
    pub(crate) fn piped(
        url: String,
        options: &ConnectOptions,
        pipe: Pipe,
    ) -> Result<Self, ClientError> {
        let remote = Self::new(url, options, None)?;
        Ok(Self {
            pipe: Some(pipe),
            ..remote
        })
    }

    async fn dial(&self) -> Result<Channel, tonic::transport::Error> {
        let Some(Pipe(open)) = &self.pipe else {
            return self.endpoint.connect().await;
        };
        let open = Arc::clone(open);
        let connect = service_fn(move |_| {
            let near = open();
            async move { Ok::<_, Infallible>(TokioIo::new(near)) }
        });
        self.endpoint.connect_with_connector(connect).await
    }

    /// The connection, dialled now when there is none. An error means that nothing was sent.
    pub(crate) async fn connection(&self) -> Result<Connection, String> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok(connection.clone());
        }
        let channel = match timeout(self.dial_timeout, self.dial()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(innermost(&error)),
            Err(_) => {
                let dial_ms = self.dial_timeout.as_millis();
                return Err(format!("no connection within {dial_ms} ms"));
            }
        };
        slot.dials += 1;
        let connection = Connection {
            channel,
            dial: slot.dials,
        };
        slot.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Forgets a connection that broke; a newer one made meanwhile by another call stays.
    pub(crate) async fn discard(&self, broken: &Connection) {
        *self.answered_at.lock() = None;
        let mut slot = self.slot.lock().await;
        if slot
            .connection
            .as_ref()
            .is_some_and(|held| held.dial == broken.dial)
        {
            slot.connection = None;
        }
    }

    pub(crate) fn mark_answered(&self) {
        *self.answered_at.lock() = Some(Instant::now());
    }

    pub(crate) fn answered_within(&self, span: Duration) -> bool {
        self.answered_at
            .lock()
            .is_some_and(|at| at.elapsed() <= span)
    }
}

/// The last error of a chain: transport errors wrap the words that help.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
