//! Learning that an HTTP/1 client has gone while its answer still streams.
//!
//! hyper does not look: it lets a client close its sending side and read on. For an endless answer,
//! such as a watch without events, that would keep the watcher of a dead client for ever. So these
//! answers wait for the end of the client's side as well, and end with it, as etcd's do.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;

use crate::socket::Socket;

/// Pause between two looks while the client has sent more than its request (a pipelined one).
const PENDING_RETRY_TIME: Duration = Duration::from_secs(1);

/// In the extensions of every HTTP/1 request.
#[derive(Debug, Clone)]
pub(crate) struct ClientSide(pub(crate) Arc<Socket>);

impl ClientSide {
    /// Resolves when the client has closed its side or the connection broke.
    pub(crate) async fn closed(&self) {
        let mut first = [0; 1];
        // While nothing is there, this waits without turning: it forgets a stale readiness.
        while self.0.peek(&mut first).await.is_ok_and(|seen| seen > 0) {
            match self.0.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {
                    tokio::time::sleep(PENDING_RETRY_TIME).await;
                }
                _ => return,
            }
        }
    }
}

/// [`ClientSide::closed`] of a connection that may be of another kind: HTTP/2 tells by itself.
pub(crate) async fn closed(client: Option<&ClientSide>) {
    match client {
        Some(client) => client.closed().await,
        None => std::future::pending().await,
    }
}
