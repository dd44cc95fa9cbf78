//! One client of the store per requester, and a listener of its own for `config-center fleet`.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use schemas_client::{Client, ClientError, ConnectOptions};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{problem::Problem, router};
use crate::fleet::keys::Namespace;

const MAX_CONNECTIONS: usize = 1_024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requesters whose connections are kept; beyond it all of them are made anew.
const MAX_CLIENTS: usize = 64;

/// Who a request says that it comes from. The store decides what that is worth.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Requester {
    /// Name and password.
    pub login: Option<(String, String)>,
    /// The common name of the connection's verified certificate.
    pub certificate: Option<Arc<str>>,
}

impl Requester {
    /// The name under which history and audit keep what the request does.
    pub(super) fn name(&self) -> &str {
        let login = self.login.as_ref().map(|(name, _)| name.as_str());
        login.or(self.certificate.as_deref()).unwrap_or("anonymous")
    }

    /// The same way to the store, as this requester.
    pub fn connect_options(&self, options: &ConnectOptions) -> ConnectOptions {
        let (username, password) = self.login.clone().unzip();
        ConnectOptions {
            username,
            password,
            ..options.clone()
        }
    }
}

/// Passwords are for the store alone.
impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Open = dyn Fn(&Requester) -> Result<Client, ClientError> + Send + Sync;

/// What every request shares.
#[derive(Clone)]
pub struct Api {
    open: Arc<Open>,
    ns: Namespace,
    clients: Arc<Mutex<HashMap<Requester, Client>>>,
}

impl Api {
    /// `open` makes a client of the store that acts as the requester and as nobody else.
    pub fn new(
        ns: Namespace,
        open: impl Fn(&Requester) -> Result<Client, ClientError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            open: Arc::new(open),
            ns,
            clients: Arc::default(),
        }
    }

    /// For a store behind addresses; the user in the options is the service's own and is never lent
    /// to a request.
    pub fn remote(options: ConnectOptions, ns: Namespace) -> Self {
        Self::new(ns, move |requester| {
            Client::new(requester.connect_options(&options))
        })
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// A client that acts as the requester.
    pub(super) fn client_for(&self, requester: Requester) -> Result<Client, Problem> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&requester) {
            return Ok(client.clone());
        }
        let client = (self.open)(&requester)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(requester, client.clone());
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
