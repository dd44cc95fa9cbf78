//! The listener of the API, and one client of the store per user.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use schemas_client::{Client, ConnectOptions};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{problem::Problem, router};
use crate::fleet::keys::Namespace;

const MAX_CONNECTIONS: usize = 1_024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Users whose connections are kept; beyond it all of them are made anew.
const MAX_CLIENTS: usize = 64;

type Credentials = Option<(String, String)>;

/// What every request shares.
#[derive(Clone)]
pub struct Api {
    /// Where the store is; the user in it is the service's own and is never lent to a request.
    options: Arc<ConnectOptions>,
    ns: Namespace,
    clients: Arc<Mutex<HashMap<Credentials, Client>>>,
}

impl Api {
    pub fn new(options: ConnectOptions, ns: Namespace) -> Self {
        let options = ConnectOptions {
            username: None,
            password: None,
            ..options
        };
        Self {
            options: Arc::new(options),
            ns,
            clients: Arc::default(),
        }
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// A client with the requester's own credentials.
    pub(super) fn client_for(&self, credentials: Credentials) -> Result<Client, Problem> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&credentials) {
            return Ok(client.clone());
        }
        let (username, password) = credentials.clone().unzip();
        let client = Client::new(ConnectOptions {
            username,
            password,
            ..(*self.options).clone()
        })?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(credentials, client.clone());
        Ok(client)
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, api: Api) {
    let router = router(api);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Mostly too many open files: that passes when connections end.
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            // How a client leaves is its own affair.
            drop(
                builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
            drop(place);
        });
    }
}
