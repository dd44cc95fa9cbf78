//! A center in memory: the KV, Watch and Lease calls that an agent makes, served over gRPC.
//!
//! Not the product's own server, so that the agent is tested against the protocol alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use schemas::etcdserverpb::kv_server::{Kv, KvServer};
use schemas::etcdserverpb::lease_server::{Lease, LeaseServer};
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::watch_server::{Watch, WatchServer};
use schemas::etcdserverpb::*;
use schemas::fleet::AgentStatus;
use schemas::mvccpb::event::EventType;
use schemas::mvccpb::{Event, KeyValue};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;

struct Store {
    cluster_id: u64,
    revision: i64,
    compacted: i64,
    kvs: BTreeMap<Vec<u8>, KeyValue>,
    history: Vec<Event>,
    leases: BTreeSet<i64>,
    next_lease: i64,
}

impl Store {
    fn header(&self) -> Option<ResponseHeader> {
        let (cluster_id, revision) = (self.cluster_id, self.revision);
        Some(ResponseHeader {
            cluster_id,
            revision,
            ..ResponseHeader::default()
        })
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.revision += 1;
        let kv = KeyValue {
            key: key.to_vec().into(),
            value: value.to_vec().into(),
            create_revision: self
                .kvs
                .get(key)
                .map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: 1,
            lease,
        };
        self.kvs.insert(key.to_vec(), kv.clone());
        let r#type = EventType::Put.into();
        self.history.push(Event {
            r#type,
            kv: Some(kv),
            prev_kv: None,
        });
    }

    fn delete(&mut self, key: &[u8]) {
        if self.kvs.remove(key).is_none() {
            return;
        }
        self.revision += 1;
        let kv = KeyValue {
            key: key.to_vec().into(),
            mod_revision: self.revision,
            ..KeyValue::default()
        };
        let r#type = EventType::Delete.into();
        self.history.push(Event {
            r#type,
            kv: Some(kv),
            prev_kv: None,
        });
    }
}

#[derive(Clone)]
struct Server {
    store: Arc<Mutex<Store>>,
    revision: watch::Sender<i64>,
}

/// See the module's words. Stops when dropped.
pub(crate) struct Center {
    server: Server,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Center {
    /// Keeps its data over `stop` and `start_again`.
    pub(crate) fn start() -> Self {
        let mut center = Self::stopped();
        center.start_again();
        center
    }

    /// An address where nobody listens yet.
    pub(crate) fn stopped() -> Self {
        let store = Store {
            cluster_id: 7,
            revision: 1,
            compacted: 0,
            kvs: BTreeMap::new(),
            history: Vec::new(),
            leases: BTreeSet::new(),
            next_lease: 1,
        };
        let server = Server {
            store: Arc::new(Mutex::new(store)),
            revision: watch::channel(1).0,
        };
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        Self {
            server,
            address,
            running: None,
        }
    }

    pub(crate) fn start_again(&mut self) {
        let server = self.server.clone();
        let address = self.address;
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let incoming = tonic::transport::server::TcpIncoming::bind(address).unwrap();
                bound.send(()).unwrap();
                let serve = tonic::transport::Server::builder()
                    .add_service(KvServer::new(server.clone()))
                    .add_service(WatchServer::new(server.clone()))
                    .add_service(LeaseServer::new(server))
                    .serve_with_incoming(incoming);
                // Not a graceful end: open streams are cut.
                tokio::select! {
                    served = serve => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv().unwrap();
        self.running = Some((stop, thread));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn change(&self, change: impl FnOnce(&mut Store)) -> i64 {
        self.server.change(change)
    }

    pub(crate) fn put(&self, key: &str, value: impl AsRef<[u8]>) -> i64 {
        self.change(|store| store.put(key.as_bytes(), value.as_ref(), 0))
    }

    pub(crate) fn delete(&self, key: &str) -> i64 {
        self.change(|store| store.delete(key.as_bytes()))
    }

    /// Forgets the history up to now.
    pub(crate) fn compact(&self) {
        self.change(|store| {
            store.compacted = store.revision;
            store.history.clear();
        });
    }

    /// Becomes an empty store, with another or the same cluster id.
    pub(crate) fn wipe(&self, cluster_id: u64) {
        self.change(|store| {
            store.cluster_id = cluster_id;
            store.revision = 1;
            store.compacted = 0;
            store.kvs.clear();
            store.history.clear();
            store.leases.clear();
        });
    }

    pub(crate) fn expire_leases(&self) {
        self.change(|store| {
            let leases = std::mem::take(&mut store.leases);
            drop_leased(store, &leases);
        });
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        self.server
            .store
            .lock()
            .unwrap()
            .kvs
            .get(key.as_bytes())
            .cloned()
    }

    pub(crate) fn status(&self, host: &str) -> Option<AgentStatus> {
        let kv = self.get(&format!("/ningxin/backend/logagent/status/{host}"))?;
        assert_ne!(kv.lease, 0, "the status must be leased");
        Some(serde_json::from_slice(&kv.value).unwrap())
    }
}

impl Drop for Center {
    fn drop(&mut self) {
        self.stop();
    }
}

fn drop_leased(store: &mut Store, leases: &BTreeSet<i64>) {
    let keys: Vec<Vec<u8>> = store
        .kvs
        .iter()
        .filter(|(_, kv)| leases.contains(&kv.lease))
        .map(|(key, _)| key.clone())
        .collect();
    keys.iter().for_each(|key| store.delete(key));
}

impl Server {
    fn change(&self, change: impl FnOnce(&mut Store)) -> i64 {
        let mut store = self.store.lock().unwrap();
        change(&mut store);
        self.revision.send_replace(store.revision);
        store.revision
    }
}

fn missing<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of this test center"))
}

#[tonic::async_trait]
impl Kv for Server {
    type RangeStreamStream = ReceiverStream<Result<RangeStreamResponse, Status>>;

    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        let store = self.store.lock().unwrap();
        let kvs: Vec<KeyValue> = store
            .kvs
            .get(request.get_ref().key.as_ref())
            .cloned()
            .into_iter()
            .collect();
        let count = kvs.len() as i64;
        Ok(Response::new(RangeResponse {
            header: store.header(),
            kvs,
            count,
            ..RangeResponse::default()
        }))
    }

    async fn range_stream(&self, _: Request<RangeRequest>) -> Answer<Self::RangeStreamStream> {
        missing()
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let put = request.into_inner();
        if put.lease != 0 && !self.store.lock().unwrap().leases.contains(&put.lease) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        let before = self.store.lock().unwrap().kvs.get(&put.key[..]).cloned();
        self.change(|store| store.put(&put.key, &put.value, put.lease));
        let header = self.store.lock().unwrap().header();
        Ok(Response::new(PutResponse {
            header,
            prev_kv: before.filter(|_| put.prev_kv),
        }))
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        missing()
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Answer<TxnResponse> {
        missing()
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        missing()
    }
}

#[tonic::async_trait]
impl Watch for Server {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Answer<Self::WatchStream> {
        let mut requests = request.into_inner();
        let (responses, stream) = mpsc::channel(16);
        let server = self.clone();
        tokio::spawn(async move {
            let Ok(Some(WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(create)),
            })) = requests.message().await
            else {
                return;
            };
            let mut revisions = server.revision.subscribe();
            let mut next = create.start_revision;
            let (created, compacted) = {
                let store = server.store.lock().unwrap();
                let header = store.header();
                (
                    WatchResponse {
                        header,
                        created: true,
                        ..WatchResponse::default()
                    },
                    store.compacted,
                )
            };
            if responses.send(Ok(created.clone())).await.is_err() {
                return;
            }
            if next <= compacted {
                let cancelled = WatchResponse {
                    created: false,
                    canceled: true,
                    compact_revision: compacted,
                    ..created
                };
                responses.send(Ok(cancelled)).await.ok();
                return;
            }
            loop {
                let response = {
                    let store = server.store.lock().unwrap();
                    let wanted = |event: &&Event| {
                        let kv = event.kv.as_ref().unwrap();
                        kv.key == create.key && kv.mod_revision >= next
                    };
                    let events: Vec<Event> = store.history.iter().filter(wanted).cloned().collect();
                    next = store.revision + 1;
                    WatchResponse {
                        header: store.header(),
                        events,
                        ..WatchResponse::default()
                    }
                };
                if !response.events.is_empty() && responses.send(Ok(response)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = responses.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Lease for Server {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        let mut store = self.store.lock().unwrap();
        let id = store.next_lease;
        store.next_lease += 1;
        store.leases.insert(id);
        Ok(Response::new(LeaseGrantResponse {
            header: store.header(),
            id,
            ttl: request.get_ref().ttl,
            ..LeaseGrantResponse::default()
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Answer<LeaseRevokeResponse> {
        let id = request.get_ref().id;
        self.change(|store| {
            store.leases.remove(&id);
            drop_leased(store, &BTreeSet::from([id]));
        });
        let header = self.store.lock().unwrap().header();
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let mut requests = request.into_inner();
        let (responses, stream) = mpsc::channel(4);
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(LeaseKeepAliveRequest { id })) = requests.message().await {
                let response = {
                    let store = server.store.lock().unwrap();
                    let ttl = if store.leases.contains(&id) { 15 } else { 0 };
                    LeaseKeepAliveResponse {
                        header: store.header(),
                        id,
                        ttl,
                    }
                };
                if responses.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        missing()
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        missing()
    }
}
