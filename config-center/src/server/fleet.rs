//! The fleet on a member: its HTTP API, and the rollouts that the leader carries out.
//!
//! The fleet is a client of the store, here as in `config-center fleet`; this gives it its way to the
//! store, and stops it on members that do not lead. That saves work and is not needed for safety: a
//! step of a rollout is one transaction, whoever takes it (docs/adr/0010).

use std::sync::Arc;
use std::time::Duration;

use schemas::etcdserverpb::RangeRequest;
use schemas_client::{Client, ClientError, ConnectOptions};
use tokio_util::sync::CancellationToken;

use super::loopback::Loopback;
use crate::flags::FleetSettings;
use crate::fleet::api::{Api, Requester};
use crate::fleet::keys::{Namespace, under};
use crate::fleet::service;
use crate::raft::Node;

/// How soon the first release of all is noticed. From then on a watch brings the news; without one, a
/// store that has no fleet has no watcher and no request of ours in its figures.
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Starts what runs by itself, and gives back what answers requests.
pub(super) fn start(
    settings: &FleetSettings,
    node: &Arc<Node>,
    loopback: Loopback,
    stopping: &CancellationToken,
) -> Api {
    let ns = settings.namespace.clone();
    let user: Arc<str> = settings.user.as_str().into();
    let driving = drive(
        Arc::clone(node),
        loopback.clone(),
        user,
        ns.clone(),
        stopping.clone(),
    );
    tokio::spawn(driving);
    Api::new(ns, move |requester| open(&loopback, requester))
}

/// A request has the rights of whoever sent it, and never those of the server.
fn open(loopback: &Loopback, requester: &Requester) -> Result<Client, ClientError> {
    let options = requester.connect_options(&ConnectOptions::default());
    Client::piped(loopback.pipe(requester.certificate.clone()), options)
}

/// Carries rollouts out while this member leads, until the server stops.
async fn drive(
    node: Arc<Node>,
    loopback: Loopback,
    user: Arc<str>,
    ns: Namespace,
    stopping: CancellationToken,
) {
    loop {
        tokio::select! {
            () = until_needed(&node, &ns) => {}
            () = stopping.cancelled() => return,
        }
        let own = loopback.pipe(Some(Arc::clone(&user)));
        let client = match Client::piped(own, ConnectOptions::default()) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!("no rollout is carried out here: {error}");
                return;
            }
        };
        // Stopping between two steps or within one is the same: a step is a transaction.
        tokio::select! {
            () = service::serve(client, ns.clone()) => {}
            () = node.until_leading(false) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Waits until this member leads and there is anything that was ever rolled out.
async fn until_needed(node: &Node, ns: &Namespace) {
    let rollouts = under(&ns.rollouts());
    let one = RangeRequest {
        key: rollouts.start,
        range_end: rollouts.end,
        limit: 1,
        keys_only: true,
        ..RangeRequest::default()
    };
    loop {
        node.until_leading(true).await;
        let found = node.engine().read(|state| state.range(&one));
        if found.is_ok_and(|found| !found.kvs.is_empty()) {
            return;
        }
        tokio::time::sleep(FIRST_LOOK_PAUSE).await;
    }
}
