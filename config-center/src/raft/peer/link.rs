//! How a byte stream to another member is made: the one place that TLS goes under.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::metrics::PeerTraffic;
use crate::socket::Socket;

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
    fn accept(&self, stream: Socket) -> BoxFuture<'_, io::Result<BoxLink>>;
}

/// No encryption, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

/// A host that does not answer at all.
const CONNECT_TIME: Duration = Duration::from_secs(1);

impl Plain {
    /// A connection to where this url points, for whatever goes on top of it.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(url: &Uri) -> io::Result<Socket> {
        connect(url).await
    }
}

impl PeerDialer for Plain {
    fn dial<'a>(&'a self, url: &'a Uri) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(async move { Ok(Box::new(connect(url).await?) as BoxLink) })
    }
}

impl PeerAcceptor for Plain {
    fn accept(&self, stream: Socket) -> BoxFuture<'_, io::Result<BoxLink>> {
        Box::pin(async move {
            stream.set_nodelay()?;
            Ok(Box::new(stream) as BoxLink)
        })
    }
}

/// A connection to the host and port of this url, or to the file that a `unix` url names.
pub(super) async fn connect(url: &Uri) -> io::Result<Socket> {
    if is_unix(url)
        && let Some(file) = url.authority()
    {
        return UnixStream::connect(file.as_str()).await.map(Socket::Unix);
    }
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(0);
    let stream = tokio::time::timeout(CONNECT_TIME, TcpStream::connect((host, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

fn is_unix(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("unix" | "unixs"))
}

/// Whether a process listens there: `Some(false)` when the system itself refuses the connection,
/// `None` when nobody answers.
pub(super) async fn is_listening(url: &Uri) -> Option<bool> {
    match connect(url).await {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(false),
        // The file of a Unix socket goes with its process.
        Err(error) if is_unix(url) && error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Bytes on all connections to one member, those that have ended included.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Traffic {
    pub(super) fn of(&self, member_id: u64) -> PeerTraffic {
        PeerTraffic {
            member_id,
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }
}

/// A link whose bytes are counted.
pub(super) struct Counted {
    pub(super) link: BoxLink,
    pub(super) traffic: Arc<Traffic>,
}

impl Counted {
    fn wrote(&self, written: usize) -> Poll<io::Result<usize>> {
        let bytes = written as u64;
        self.traffic.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.link).poll_read(cx, buffer))?;
        let bytes = (buffer.filled().len() - before) as u64;
        self.traffic
            .received_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.link).poll_write(cx, bytes))?;
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.link).poll_write_vectored(cx, slices))?;
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
