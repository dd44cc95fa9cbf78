//! One server under the generated operations: sends each, and tells its answer as text.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use proptest::strategy::Strategy;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeResponse,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::Subject;
use super::normal::Base;
use super::operations::{Operation, Range, Watch, sequence};
use super::requests::{Known, lease, range_end};

/// Leases that live shorter than this are given back at once, so that no clock takes part.
const SHORT_TTL_S: i64 = 60;
/// A watcher that says nothing for so long has lost something.
const WATCH: Duration = Duration::from_secs(5);
/// How long a watcher that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(100);
/// A progress request is dropped while a watcher is behind: it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);
const REQUESTS: usize = 64;

/// Calls carry the token that lies here at the moment, if any.
#[derive(Debug, Clone, Default)]
pub(super) struct Bearer(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Bearer {
    pub(super) fn become_holder_of(&self, token: Option<&str>) -> anyhow::Result<()> {
        let token = token.map(str::parse).transpose()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

pub(super) type Calls = InterceptedService<Channel, Bearer>;

pub(super) struct Session {
    /// For the calls of other services on behalf of the same holder.
    pub(super) calls: Calls,
    pub(super) bearer: Bearer,
    kv: KvClient<Calls>,
    lease: LeaseClient<Calls>,
    watch: WatchClient<Calls>,
    pub(super) known: Known,
    watchers: Vec<Watcher>,
}

struct Watcher {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    id: i64,
    /// The revision that it asked to start with.
    start: i64,
    created: bool,
    open: bool,
}

impl Subject for Session {
    type Operation = Operation;

    fn sequences() -> impl Strategy<Value = Vec<Operation>> {
        sequence()
    }

    async fn connect(url: &str) -> anyhow::Result<Self> {
        let bearer = Bearer::default();
        let channel = Channel::from_shared(url.to_owned())?
            .timeout(Duration::from_secs(20))
            .connect()
            .await
            .with_context(|| format!("connect to {url}"))?;
        // A watch lives as long as its sequence.
        let streams = Channel::from_shared(url.to_owned())?.connect().await?;
        let calls = InterceptedService::new(channel, bearer.clone());
        let streams = InterceptedService::new(streams, bearer.clone());
        Ok(Self {
            kv: KvClient::new(calls.clone()),
            lease: LeaseClient::new(calls.clone()),
            watch: WatchClient::new(streams),
            calls,
            bearer,
            known: Known::at(0),
            watchers: Vec::new(),
        })
    }

    /// Nothing remains: no key, no lease, no history.
    async fn reset(&mut self) -> anyhow::Result<()> {
        self.watchers.clear();
        let leases = self.lease.lease_leases(LeaseLeasesRequest {}).await?;
        for lease in leases.into_inner().leases {
            self.lease
                .lease_revoke(LeaseRevokeRequest { id: lease.id })
                .await?;
        }
        let everything = DeleteRangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..DeleteRangeRequest::default()
        };
        self.kv.delete_range(everything).await?;
        // A put of its own: the revision moves, so that the compaction is never a repeated one.
        let put = PutRequest {
            key: "start".into(),
            ..PutRequest::default()
        };
        self.kv.put(put).await?;
        let delete = DeleteRangeRequest {
            key: "start".into(),
            ..DeleteRangeRequest::default()
        };
        let answer = self.kv.delete_range(delete).await?.into_inner();
        let revision = answer.header.context("an answer has a header")?.revision;
        self.kv
            .compact(CompactionRequest {
                revision,
                physical: true,
            })
            .await?;
        self.known = Known::at(revision);
        Ok(())
    }

    async fn perform(&mut self, operation: &Operation) -> anyhow::Result<String> {
        let base = self.known.base;
        Ok(match operation {
            Operation::Put(put) => {
                let answer = self.kv.put(self.known.put(put)).await;
                self.text(answer, |answer| {
                    base.put(answer);
                    answer.header
                })?
            }
            Operation::Range(range) => {
                let answer = self.kv.range(self.known.range(range)).await;
                self.text(answer, |answer| {
                    base.range(answer);
                    answer.header
                })?
            }
            Operation::RangeStream(range) => self.range_stream(range).await?,
            Operation::Delete(delete) => {
                let answer = self.kv.delete_range(self.known.delete(delete)).await;
                self.text(answer, |answer| {
                    base.delete(answer);
                    answer.header
                })?
            }
            Operation::Txn(txn) => {
                let answer = self.kv.txn(self.known.txn(txn)).await;
                self.text(answer, |answer| {
                    base.txn(answer);
                    answer.header
                })?
            }
            Operation::Compact { revision, physical } => {
                let request = CompactionRequest {
                    revision: self.known.revision(*revision),
                    physical: *physical,
                };
                let answer = self.kv.compact(request).await;
                self.text(answer, |answer| {
                    base.header(&mut answer.header);
                    answer.header
                })?
            }
            Operation::Grant { slot, ttl_s } => self.grant(*slot, *ttl_s).await?,
            Operation::Revoke { slot } => {
                let request = LeaseRevokeRequest { id: lease(*slot) };
                let answer = self.lease.lease_revoke(request).await;
                self.text(answer, |answer| {
                    base.header(&mut answer.header);
                    answer.header
                })?
            }
            Operation::TimeToLive { slot, keys } => {
                let request = LeaseTimeToLiveRequest {
                    id: lease(*slot),
                    keys: *keys,
                };
                let answer = self.lease.lease_time_to_live(request).await;
                self.text(answer, |answer| {
                    base.header(&mut answer.header);
                    // The rest of the time depends on the clock, its presence does not.
                    if answer.ttl > 0 {
                        answer.ttl = answer.granted_ttl;
                    }
                    answer.keys.sort();
                    answer.header
                })?
            }
            Operation::KeepAlive { slot } => {
                let request = LeaseKeepAliveRequest { id: lease(*slot) };
                let renewed = async {
                    let request = tokio_stream::once(request);
                    let mut answers = self.lease.lease_keep_alive(request).await?.into_inner();
                    let answer = answers.message().await?;
                    answer.ok_or_else(|| Status::internal("no answer"))
                };
                let answer = renewed.await.map(tonic::Response::new);
                self.text(answer, |answer| {
                    base.header(&mut answer.header);
                    answer.header
                })?
            }
            Operation::Leases => {
                let answer = self.lease.lease_leases(LeaseLeasesRequest {}).await;
                self.text(answer, |answer| {
                    base.header(&mut answer.header);
                    answer.leases.sort_by_key(|lease| lease.id);
                    answer.header
                })?
            }
            Operation::Watch(watch) => self.open_watcher(watch).await?,
            Operation::CancelWatch { number } => self.cancel_watcher(usize::from(*number)).await?,
        })
    }

    /// What the open watchers have seen until now.
    async fn finish(&mut self) -> anyhow::Result<String> {
        let mut text = Vec::new();
        let mut watchers = std::mem::take(&mut self.watchers);
        for (number, watcher) in watchers.iter_mut().enumerate() {
            text.push(format!("watcher {number}"));
            if watcher.open {
                watcher
                    .drain(self.known.base, self.known.newest, &mut text)
                    .await?;
            }
        }
        Ok(text.join("\n"))
    }
}

impl Session {
    /// Writes until this revision is behind.
    pub(super) async fn grow_beyond(&mut self, revision: i64) -> anyhow::Result<()> {
        loop {
            let put = PutRequest {
                key: "start".into(),
                ..PutRequest::default()
            };
            let answer = self.kv.put(put).await?.into_inner();
            let reached = answer.header.context("an answer has a header")?.revision;
            if reached > revision {
                return Ok(());
            }
        }
    }

    async fn grant(&mut self, slot: u8, ttl_s: i64) -> anyhow::Result<String> {
        let base = self.known.base;
        let request = LeaseGrantRequest {
            id: lease(slot.max(1)),
            ttl: ttl_s,
        };
        let answer = self.lease.lease_grant(request).await;
        let is_short = answer
            .as_ref()
            .is_ok_and(|answer| answer.get_ref().ttl < SHORT_TTL_S);
        let text = self.text(answer, |answer| {
            base.header(&mut answer.header);
            answer.header
        })?;
        if is_short {
            let request = LeaseRevokeRequest { id: request.id };
            self.lease.lease_revoke(request).await?;
        }
        Ok(text)
    }

    async fn range_stream(&mut self, range: &Range) -> anyhow::Result<String> {
        let mut whole = RangeResponse::default();
        let outcome = async {
            let mut chunks = self
                .kv
                .range_stream(self.known.range(range))
                .await?
                .into_inner();
            while let Some(chunk) = chunks.message().await? {
                let Some(chunk) = chunk.range_response else {
                    continue;
                };
                whole.kvs.extend(chunk.kvs);
                whole.header = chunk.header.or(whole.header);
                whole.more |= chunk.more;
                whole.count = whole.count.max(chunk.count);
            }
            Ok(tonic::Response::new(whole))
        };
        let answer: Result<_, Status> = outcome.await;
        let base = self.known.base;
        self.text(answer, |answer| {
            base.range(answer);
            answer.header
        })
    }

    async fn open_watcher(&mut self, watch: &Watch) -> anyhow::Result<String> {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let create = WatchCreateRequest {
            key: watch.key.clone().into(),
            range_end: range_end(&watch.key, &watch.end),
            start_revision: self.known.revision(watch.start),
            prev_kv: watch.prev_kv,
            filters: watch.filters.clone(),
            watch_id: watch.watch_id,
            fragment: watch.fragment,
            ..WatchCreateRequest::default()
        };
        requests
            .send(request(RequestUnion::CreateRequest(create)))
            .await?;
        let receiver = ReceiverStream::new(receiver);
        let answers = match self.watch.watch(receiver).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return refusal(&status),
        };
        let mut watcher = Watcher {
            requests,
            answers,
            id: 0,
            start: self.known.revision(watch.start),
            created: false,
            open: true,
        };
        let mut text = Vec::new();
        // History comes at its own time: it is awaited here, before a compaction can take it away.
        watcher
            .drain(self.known.base, self.known.newest, &mut text)
            .await?;
        self.watchers.push(watcher);
        Ok(text.join("\n"))
    }

    async fn cancel_watcher(&mut self, number: usize) -> anyhow::Result<String> {
        let (base, newest) = (self.known.base, self.known.newest);
        let Some(watcher) = self.watchers.get_mut(number).filter(|one| one.open) else {
            return Ok("no such watcher".to_owned());
        };
        let mut text = Vec::new();
        watcher.drain(base, newest, &mut text).await?;
        if watcher.open {
            let cancel = WatchCancelRequest {
                watch_id: watcher.id,
            };
            watcher
                .requests
                .send(request(RequestUnion::CancelRequest(cancel)))
                .await?;
            while watcher.open {
                watcher.next(base, &mut text).await?;
            }
        }
        Ok(text.join("\n"))
    }

    /// The answer as text; notes the newest revision.
    pub(super) fn text<T: std::fmt::Debug>(
        &mut self,
        answer: Result<tonic::Response<T>, Status>,
        normalise: impl FnOnce(&mut T) -> Option<schemas::etcdserverpb::ResponseHeader>,
    ) -> anyhow::Result<String> {
        match answer {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                if let Some(header) = normalise(&mut answer) {
                    self.known.newest = self.known.newest.max(header.revision + self.known.base.0);
                }
                Ok(format!("{answer:#?}"))
            }
            Err(status) => refusal(&status),
        }
    }
}

impl Watcher {
    /// Collects until the server says that everything up to `newest` has been delivered, or until it
    /// cancels the watcher.
    async fn drain(
        &mut self,
        base: Base,
        newest: i64,
        text: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        // A watcher whose start lies ahead is told nothing, not even progress.
        let (limit, late) = match self.start > newest {
            true => (SILENCE, "it is silent"),
            false => (WATCH, "it never caught up"),
        };
        while self.open && began.elapsed() < WATCH {
            // Nothing may be asked before the watcher exists.
            if self.created {
                if began.elapsed() > limit {
                    break;
                }
                let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                self.requests.send(request(progress)).await?;
            }
            let waiting = if self.created { ASK_AGAIN } else { WATCH };
            while let Ok(answer) = tokio::time::timeout(waiting, self.next(base, text)).await {
                let answer = answer?;
                let revision = answer.header.map_or(0, |header| header.revision);
                if answer.watch_id == -1 && !answer.canceled && revision >= newest {
                    text.push("it has caught up".to_owned());
                    return Ok(());
                }
                if answer.created || !self.open {
                    break;
                }
            }
        }
        if self.open {
            text.push(late.to_owned());
        }
        Ok(())
    }

    async fn next(&mut self, base: Base, text: &mut Vec<String>) -> anyhow::Result<WatchResponse> {
        match self.answers.message().await {
            Ok(Some(answer)) => {
                base.watch(&answer, text);
                if answer.created {
                    self.id = answer.watch_id;
                    self.created = true;
                }
                self.open &= !answer.canceled;
                Ok(answer)
            }
            Ok(None) => {
                text.push("the stream ended".to_owned());
                self.open = false;
                Ok(WatchResponse::default())
            }
            Err(status) => {
                text.push(format!("{:?}: {}", status.code(), status.message()));
                self.open = false;
                Ok(WatchResponse::default())
            }
        }
    }
}

/// A refusal as text; a server that is gone or stuck gave no answer to compare.
fn refusal(status: &Status) -> anyhow::Result<String> {
    // A status with a source was made here, of a connection that broke.
    let was_answered = std::error::Error::source(status).is_none()
        && !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    anyhow::ensure!(was_answered, "no answer: {status:?}");
    Ok(format!("{:?}: {}", status.code(), status.message()))
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}
