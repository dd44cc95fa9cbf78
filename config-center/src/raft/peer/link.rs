//! How a byte stream to another member is made: the one place that TLS goes under.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connected stream, plain or encrypted.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

pub type BoxLink = Box<dyn Link>;

/// Connects to a member at one of its peer urls.
pub trait PeerDialer: fmt::Debug + Send + Sync {
    fn dial<'a>(&'a self, url: &'a Uri) -> BoxFuture<'a, io::Result<BoxLink>>;
}

/// Turns an accepted connection into a link, or refuses it.
pub trait PeerAcceptor: fmt::Debug + Send + Sync {
    fn accept(&self, stream: TcpStream) -> BoxFuture<'_, io::Result<BoxLink>>;
}

/// TCP without encryption, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

/// A host that does not answer at all.
const CONNECT_TIME: Duration = Duration::from_secs(1);

impl Plain {
    /// A TCP connection to the host and port of this url, for whatever goes on top of it.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(url: &Uri) -> io::Result<TcpStream> {
        connect(url).await
    }
}

impl PeerDialer for Plain {
    fn dial<'a>(&'a self, url: &'a Uri) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(async move { Ok(Box::new(connect(url).await?) as BoxLink) })
    }
}

impl PeerAcceptor for Plain {
    fn accept(&self, stream: TcpStream) -> BoxFuture<'_, io::Result<BoxLink>> {
        Box::pin(async move {
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxLink)
        })
    }
}

/// A TCP connection to the host and port of this url.
pub(super) async fn connect(url: &Uri) -> io::Result<TcpStream> {
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(0);
    let stream = tokio::time::timeout(CONNECT_TIME, TcpStream::connect((host, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a process listens there: `Some(false)` when the system itself refuses the connection,
/// `None` when nobody answers.
pub(super) async fn is_listening(url: &Uri) -> Option<bool> {
    match connect(url).await {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(false),
        Err(_) => None,
    }
}
