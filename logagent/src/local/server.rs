//! Accepts connections and answers them one request after another. Knows sockets and limits, not what
//! is answered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{SOCKET_NAME, routes};
use crate::status::StatusSource;

/// More connections than this at once wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// A connection that has not sent a whole request head by then is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// No connection lives longer; a scraper makes a new one.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// After a failed accept, such as one without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SOCKET_MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
#[error("listen {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The listening tasks; they end when this is dropped.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
    socket: Option<PathBuf>,
    /// Where TCP is listened on; differs from what was asked for when that had port 0.
    pub address: Option<SocketAddr>,
}

impl Server {
    /// A TCP address that was asked for must be free. Without the socket only `logagent status` is
    /// deaf, so its failure is told and nothing more. Must be called in a runtime, by the agent that
    /// holds the data folder's lock.
    pub fn start(
        data_dir: &Path,
        listen: Option<SocketAddr>,
        source: &StatusSource,
    ) -> Result<Self, ListenError> {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut server = Self {
            tasks: Vec::new(),
            socket: None,
            address: None,
        };
        if let Some(asked) = listen {
            let wrap = |source| ListenError {
                address: asked,
                source,
            };
            let listener = std::net::TcpListener::bind(asked).map_err(wrap)?;
            listener.set_nonblocking(true).map_err(wrap)?;
            let listener = TcpListener::from_std(listener).map_err(wrap)?;
            let address = listener.local_addr().map_err(wrap)?;
            tracing::info!(%address, "serving /metrics, /livez, /readyz and /status");
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "others can read paths, topics and offsets there");
            }
            server.address = Some(address);
            let (slots, source) = (Arc::clone(&slots), source.clone());
            server.tasks.push(tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    take(accepted, &slots, &source).await;
                }
            }));
        }
        let path = data_dir.join(SOCKET_NAME);
        match bind_socket(&path) {
            Ok(listener) => {
                server.socket = Some(path);
                let source = source.clone();
                server.tasks.push(tokio::spawn(async move {
                    loop {
                        let accepted = listener.accept().await.map(|(stream, _)| stream);
                        take(accepted, &slots, &source).await;
                    }
                }));
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "no socket: `logagent status` will not find this agent");
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(socket) = &self.socket
            && let Err(error) = std::fs::remove_file(socket)
        {
            tracing::debug!(%error, "the socket was not removed");
        }
    }
}

/// The lock of the data folder is ours, so a socket that lies there is that of a killed agent.
fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

async fn take<I>(accepted: std::io::Result<I>, slots: &Arc<Semaphore>, source: &StatusSource)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return;
        }
    };
    // The semaphore is never closed.
    let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
        return;
    };
    let source = source.clone();
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let source = source.clone();
            async move { routes::answer(&request, &source).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_MAX, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a local connection broke"),
            Err(_) => tracing::debug!("a local connection was open for too long"),
        }
        drop(slot);
    });
}
