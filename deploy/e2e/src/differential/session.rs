//! One server under the generated operations: sends each, and tells its answer as text.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::normal::Base;
use super::operations::{
    Comparison, Delete, End, Operand, Operation, Put, Range, Revision, Txn, TxnOperation, Watch,
};

/// Leases that live shorter than this are given back at once, so that no clock takes part.
const SHORT_TTL_S: i64 = 60;
const FIRST_LEASE: i64 = 7_000;
/// A watcher that says nothing for so long has lost something.
const WATCH: Duration = Duration::from_secs(5);
/// How long a watcher that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(100);
/// A progress request is dropped while a watcher is behind: it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);
const REQUESTS: usize = 64;

pub(super) struct Session {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    base: Base,
    /// The newest revision, as the last header told.
    newest: i64,
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

impl Session {
    pub(super) async fn connect(url: &str) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?
            .timeout(Duration::from_secs(20))
            .connect()
            .await
            .with_context(|| format!("connect to {url}"))?;
        // A watch lives as long as its sequence.
        let streams = Channel::from_shared(url.to_owned())?.connect().await?;
        Ok(Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel),
            watch: WatchClient::new(streams),
            base: Base(0),
            newest: 0,
            watchers: Vec::new(),
        })
    }

    /// Leaves nothing of what was before: no key, no lease, no history.
    pub(super) async fn reset(&mut self) -> anyhow::Result<()> {
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
        self.base = Base(revision);
        self.newest = revision;
        Ok(())
    }

    pub(super) async fn perform(&mut self, operation: &Operation) -> anyhow::Result<String> {
        let base = self.base;
        Ok(match operation {
            Operation::Put(put) => {
                let answer = self.kv.put(self.put(put)).await;
                self.text(answer, |answer| {
                    base.put(answer);
                    answer.header
                })?
            }
            Operation::Range(range) => {
                let answer = self.kv.range(self.range(range)).await;
                self.text(answer, |answer| {
                    base.range(answer);
                    answer.header
                })?
            }
            Operation::RangeStream(range) => self.range_stream(range).await?,
            Operation::Delete(delete) => {
                let answer = self.kv.delete_range(self.delete(delete)).await;
                self.text(answer, |answer| {
                    base.delete(answer);
                    answer.header
                })?
            }
            Operation::Txn(txn) => {
                let answer = self.kv.txn(self.txn(txn)).await;
                self.text(answer, |answer| {
                    base.txn(answer);
                    answer.header
                })?
            }
            Operation::Compact { revision, physical } => {
                let request = CompactionRequest {
                    revision: self.revision(*revision),
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
                let mut answers = self
                    .lease
                    .lease_keep_alive(tokio_stream::once(request))
                    .await?
                    .into_inner();
                let answer = answers
                    .message()
                    .await
                    .and_then(|answer| answer.ok_or_else(|| Status::internal("no answer")))
                    .map(tonic::Response::new);
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
    pub(super) async fn finish(&mut self) -> anyhow::Result<String> {
        let mut text = Vec::new();
        let mut watchers = std::mem::take(&mut self.watchers);
        for (number, watcher) in watchers.iter_mut().enumerate() {
            text.push(format!("watcher {number}"));
            if watcher.open {
                watcher.drain(self.base, self.newest, &mut text).await?;
            }
        }
        Ok(text.join("\n"))
    }

    async fn grant(&mut self, slot: u8, ttl_s: i64) -> anyhow::Result<String> {
        let base = self.base;
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
            let mut chunks = self.kv.range_stream(self.range(range)).await?.into_inner();
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
        let base = self.base;
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
            start_revision: self.revision(watch.start),
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
        let answers = self.watch.watch(receiver).await?.into_inner();
        let mut watcher = Watcher {
            requests,
            answers,
            id: 0,
            start: self.revision(watch.start),
            created: false,
            open: true,
        };
        let mut text = Vec::new();
        // History comes at its own time: it is awaited here, before a compaction can take it away.
        watcher.drain(self.base, self.newest, &mut text).await?;
        self.watchers.push(watcher);
        Ok(text.join("\n"))
    }

    async fn cancel_watcher(&mut self, number: usize) -> anyhow::Result<String> {
        let (base, newest) = (self.base, self.newest);
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
    fn text<T: std::fmt::Debug>(
        &mut self,
        answer: Result<tonic::Response<T>, Status>,
        normalise: impl FnOnce(&mut T) -> Option<schemas::etcdserverpb::ResponseHeader>,
    ) -> anyhow::Result<String> {
        match answer {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                if let Some(header) = normalise(&mut answer) {
                    self.newest = self.newest.max(header.revision + self.base.0);
                }
                Ok(format!("{answer:#?}"))
            }
            Err(status) => {
                // A server that is gone or stuck is no answer to compare.
                anyhow::ensure!(
                    !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
                    "no answer: {status:?}"
                );
                Ok(format!("{:?}: {}", status.code(), status.message()))
            }
        }
    }

    fn revision(&self, revision: Revision) -> i64 {
        match revision {
            Revision::Latest => 0,
            Revision::SinceStart(count) => self.base.0 + count,
            Revision::Ago(count) => self.newest - count,
            Revision::Raw(raw) => raw,
        }
    }

    fn since_start(&self, count: Option<i64>) -> i64 {
        count.map_or(0, |count| self.base.0 + count)
    }

    fn put(&self, put: &Put) -> PutRequest {
        PutRequest {
            key: put.key.clone().into(),
            value: put.value.clone().into(),
            lease: put.lease.map_or(0, lease),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }

    fn range(&self, range: &Range) -> RangeRequest {
        RangeRequest {
            key: range.key.clone().into(),
            range_end: range_end(&range.key, &range.end),
            limit: range.limit,
            revision: self.revision(range.revision),
            sort_order: range.order,
            sort_target: range.target,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: self.since_start(range.min_mod),
            max_mod_revision: self.since_start(range.max_mod),
            min_create_revision: self.since_start(range.min_create),
            max_create_revision: self.since_start(range.max_create),
        }
    }

    fn delete(&self, delete: &Delete) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: delete.key.clone().into(),
            range_end: range_end(&delete.key, &delete.end),
            prev_kv: delete.prev_kv,
        }
    }

    fn txn(&self, txn: &Txn) -> TxnRequest {
        let list = |operations: &[TxnOperation]| {
            operations
                .iter()
                .map(|operation| RequestOp {
                    request: match operation {
                        TxnOperation::Put(put) => Some(Request::RequestPut(self.put(put))),
                        TxnOperation::Range(range) => {
                            Some(Request::RequestRange(self.range(range)))
                        }
                        TxnOperation::Delete(delete) => {
                            Some(Request::RequestDeleteRange(self.delete(delete)))
                        }
                        TxnOperation::Txn(txn) => Some(Request::RequestTxn(self.txn(txn))),
                        TxnOperation::Empty => None,
                    },
                })
                .collect()
        };
        TxnRequest {
            compare: txn.compares.iter().map(|one| self.compare(one)).collect(),
            success: list(&txn.success),
            failure: list(&txn.failure),
        }
    }

    fn compare(&self, comparison: &Comparison) -> Compare {
        let (target, target_union) = match &comparison.operand {
            Operand::Version(version) => (0, Some(TargetUnion::Version(*version))),
            Operand::Create(count) => {
                let revision = self.base.0 + count;
                (1, Some(TargetUnion::CreateRevision(revision)))
            }
            Operand::Mod(count) => (2, Some(TargetUnion::ModRevision(self.base.0 + count))),
            Operand::Value(value) => (3, Some(TargetUnion::Value(value.clone().into()))),
            Operand::Lease(slot) => (4, Some(TargetUnion::Lease(lease(*slot)))),
            Operand::Missing(target) => (*target, None),
        };
        Compare {
            result: comparison.result,
            target,
            key: comparison.key.clone().into(),
            range_end: range_end(&comparison.key, &comparison.end),
            target_union,
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

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

/// The id that both servers are asked to use; slot 0 is never granted.
fn lease(slot: u8) -> i64 {
    FIRST_LEASE + i64::from(slot)
}

fn range_end(key: &[u8], end: &End) -> Bytes {
    match end {
        End::Single => Bytes::new(),
        End::Open => vec![0].into(),
        End::Key(key) => key.clone().into(),
        End::Prefix => {
            let mut end = key.to_vec();
            while let Some(last) = end.pop() {
                if last < u8::MAX {
                    end.push(last + 1);
                    return end.into();
                }
            }
            vec![0].into()
        }
    }
}
