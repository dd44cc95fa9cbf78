//! The conversation of one watch stream: requests in, responses out, in the order that clients
//! rely on. A response is made only when the client asks for the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use config_center_core::{Access, KeyRange, Refusal};
use futures::FutureExt as _;
use rustc_hash::FxHashMap;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Status, Streaming};

use super::reading::{self, Portion};
use super::watcher::Watcher;
use crate::api::grpc::status;
use crate::api::{Context, Fault};
use crate::auth::Credentials;
use crate::engine::WatchStream;
use crate::metrics::Rpc;
use crate::raft::ProposeError;

/// The id of answers that speak for no watcher, or for all of them.
const NO_WATCHER: i64 = -1;
/// A stream that demands a leader ends after this many election timeouts without one.
const LEADERLESS_ELECTIONS: u32 = 3;

/// One stream.
pub(super) struct Session {
    context: Arc<Context>,
    /// Looked at again for every watcher: the token may have run out since the last one.
    credentials: Credentials,
    stream: WatchStream,
    /// `None` after the client closed its side; it may go on reading.
    requests: Option<Streaming<WatchRequest>>,
    watchers: FxHashMap<i64, Watcher>,
    /// The next id to give, unless it is taken by a client's own choice.
    next_id: i64,
    /// Watchers with something to read, each once, in turn: a long history of one does not starve
    /// the others.
    behind: VecDeque<i64>,
    /// Responses of the last request or portion that wait for their turn.
    ready: VecDeque<WatchResponse>,
    /// A client asked how far the stream is, while some watcher still had something to read.
    progress_asked: bool,
    /// Runs once a watcher wants periodic notifications.
    progress_ticks: Option<Interval>,
    /// Runs when the client demands a leader.
    leader_ticks: Option<Interval>,
    leaderless_ticks: u32,
    ended: bool,
    /// The gRPC code to count at the end; Canceled unless something else happened.
    code: Code,
}

/// What a waiting stream can be woken by.
enum Happening {
    Request(Result<Option<WatchRequest>, Status>),
    Announced,
    ProgressDue,
    CheckLeader,
    Stopping,
}

impl Session {
    pub(super) fn open(
        context: Arc<Context>,
        credentials: Credentials,
        requests: Streaming<WatchRequest>,
        demands_leader: bool,
    ) -> Self {
        let stream = context.engine().open_stream();
        let election = Duration::from_millis(context.limits.election_ms);
        Self {
            credentials,
            stream,
            requests: Some(requests),
            watchers: FxHashMap::default(),
            next_id: 0,
            behind: VecDeque::new(),
            ready: VecDeque::new(),
            progress_asked: false,
            progress_ticks: None,
            leader_ticks: demands_leader.then(|| ticks(election)),
            leaderless_ticks: 0,
            ended: false,
            code: Code::Cancelled,
            context,
        }
    }

    /// The next response; `None` when the stream is over.
    pub(super) async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(Ok(response));
            }
            if self.ended {
                return None;
            }
            let happening = if self.behind.is_empty() && !self.progress_asked {
                Some(self.wait().await)
            } else {
                // A cancel is heard while a long history is being read.
                self.heard_already()
            };
            match happening {
                Some(Happening::Request(Ok(Some(request)))) => self.hear(request).await,
                Some(Happening::Request(Ok(None))) => self.requests = None,
                Some(Happening::Request(Err(error))) => {
                    return Some(Err(
                        self.end(status::received_too_large(&error).unwrap_or(error))
                    ));
                }
                Some(Happening::Stopping) => return Some(Err(self.end(status::stopped()))),
                Some(Happening::Announced) => self.note_pending(),
                Some(Happening::ProgressDue) => self.notify_progress(),
                Some(Happening::CheckLeader) if self.leader_is_lost() => {
                    let lost = Status::unavailable(ProposeError::NoLeader.to_string());
                    return Some(Err(self.end(lost)));
                }
                Some(Happening::CheckLeader) => {}
                None => {
                    self.note_pending();
                    self.read_on();
                    self.answer_progress();
                    if self.ready.is_empty() {
                        // A history without hits must not keep this thread from other streams.
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    fn end(&mut self, status: Status) -> Status {
        self.ended = true;
        self.code = status.code();
        status
    }

    async fn wait(&mut self) -> Happening {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = request => Happening::Request(request),
            () = self.stream.wake.notified() => Happening::Announced,
            () = tick(&mut self.progress_ticks) => Happening::ProgressDue,
            () = tick(&mut self.leader_ticks) => Happening::CheckLeader,
            () = self.context.stopping.cancelled() => Happening::Stopping,
        }
    }

    fn heard_already(&mut self) -> Option<Happening> {
        if self.context.stopping.is_cancelled() {
            return Some(Happening::Stopping);
        }
        self.requests
            .as_mut()?
            .message()
            .now_or_never()
            .map(Happening::Request)
    }

    async fn hear(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                self.note_pending();
                if self.behind.is_empty() {
                    self.answer_progress();
                }
            }
            // From a newer client; there is nothing to say about it.
            None => {}
        }
    }

    async fn create(&mut self, request: &WatchCreateRequest) {
        let range = Watcher::range_of(request);
        if request.start_revision < 0 {
            return self.refuse(Refusal::Compacted.to_string());
        }
        let permitted = self
            .context
            .permit(&self.credentials, Access::Watch(&range))
            .await;
        if let Err(fault) = permitted {
            return self.refuse(reason(fault));
        }
        if range.is_empty() {
            return self.refuse("mvcc: watcher range is empty".to_owned());
        }
        let Some(id) = self.free_id(request.watch_id) else {
            return self.refuse_duplicate();
        };
        self.register(request, range, id);
    }

    /// The id for a new watcher: the client's own, or the lowest unused one; `None` when the
    /// client's own is taken.
    fn free_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watchers.contains_key(&asked)).then_some(asked);
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(id)
    }

    fn register(&mut self, request: &WatchCreateRequest, range: KeyRange, id: i64) {
        // Announced from here on, before any history is read: what happens in between is found by
        // the cursor and not delivered twice.
        let Some(revision) = self
            .context
            .engine()
            .watch(self.stream.id, id, range.clone())
        else {
            return self.refuse_duplicate();
        };
        let next_rev = match request.start_revision {
            0 => revision + 1,
            start => start,
        };
        let mut watcher = Watcher::new(request, range, next_rev);
        if next_rev <= revision {
            watcher.behind = true;
            self.behind.push_back(id);
        }
        if watcher.progress.is_some() && self.progress_ticks.is_none() {
            self.progress_ticks = Some(ticks(self.progress_period()));
        }
        self.watchers.insert(id, watcher);
        self.ready.push_back(WatchResponse {
            header: Some(self.context.header(revision)),
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        });
    }

    /// Up to a tenth more than configured, so that streams which began together do not all speak
    /// at the same moment for ever.
    fn progress_period(&self) -> Duration {
        let period = self.context.limits.watch_progress_interval;
        let share = u32::try_from(self.stream.id % 64).unwrap_or(0);
        period + period * share / 640
    }

    fn refuse_duplicate(&mut self) {
        self.refuse("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
    }

    fn refuse(&mut self, cancel_reason: String) {
        self.ready.push_back(WatchResponse {
            header: Some(self.current_header()),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason,
            ..WatchResponse::default()
        });
    }

    /// An unknown id is not answered, as in etcd.
    fn cancel(&mut self, watch_id: i64) {
        if self.forget(watch_id) {
            self.ready.push_back(WatchResponse {
                header: Some(self.current_header()),
                watch_id,
                canceled: true,
                ..WatchResponse::default()
            });
        }
    }

    fn forget(&mut self, watch_id: i64) -> bool {
        if self.watchers.remove(&watch_id).is_none() {
            return false;
        }
        self.behind.retain(|id| *id != watch_id);
        self.context.engine().unwatch(self.stream.id, watch_id);
        true
    }

    fn current_header(&self) -> ResponseHeader {
        self.context.header(self.context.engine().revision())
    }

    /// Queues the watchers that were announced since the last look.
    fn note_pending(&mut self) {
        for (id, first_rev) in self.context.engine().take_pending(self.stream.id) {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && watcher.announced(first_rev)
            {
                self.behind.push_back(id);
            }
        }
    }

    /// Reads one portion for the watcher whose turn it is.
    fn read_on(&mut self) {
        let Some(id) = self.behind.pop_front() else {
            return;
        };
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        match reading::read(self.context.engine(), watcher) {
            Portion::Events {
                events,
                revision,
                synced,
            } => {
                watcher.behind = !synced;
                if !synced {
                    self.behind.push_back(id);
                }
                if events.is_empty() {
                    return;
                }
                if let Some(due) = &mut watcher.progress {
                    *due = false;
                }
                let fragment_bytes = watcher
                    .fragment
                    .then_some(self.context.limits.max_message_bytes());
                let header = self.context.header(revision);
                self.ready
                    .extend(reading::responses(header, id, events, fragment_bytes));
            }
            Portion::Compacted { compact_revision } => {
                self.forget(id);
                self.ready.push_back(WatchResponse {
                    // No revision and no reason: clients look at compact_revision.
                    header: Some(self.context.header(0)),
                    watch_id: id,
                    canceled: true,
                    compact_revision,
                    ..WatchResponse::default()
                });
            }
        }
    }

    /// Answers a progress request once nothing is left to deliver before the answer.
    fn answer_progress(&mut self) {
        if !self.progress_asked {
            return;
        }
        // The revision first: whatever was announced up to it is noted after it.
        let revision = self.context.engine().revision();
        self.note_pending();
        if !self.behind.is_empty() {
            return;
        }
        self.progress_asked = false;
        let nobody = self.watchers.is_empty();
        // A watcher that waits for a later revision would be told one below its start.
        let waits = self
            .watchers
            .values()
            .any(|watcher| !watcher.has_begun(revision));
        if !nobody && !waits {
            self.ready.push_back(self.progress(NO_WATCHER, revision));
        }
    }

    /// The periodic notification of every watcher that wants it, has heard nothing lately, and has
    /// nothing left to read.
    fn notify_progress(&mut self) {
        let revision = self.context.engine().revision();
        self.note_pending();
        let mut idle = Vec::new();
        for (id, watcher) in &mut self.watchers {
            if let Some(due) = &mut watcher.progress {
                if *due && !watcher.behind {
                    idle.push(*id);
                }
                *due = true;
            }
        }
        for id in idle {
            if self
                .watchers
                .get(&id)
                .is_some_and(|one| one.has_begun(revision))
            {
                self.ready.push_back(self.progress(id, revision));
            }
        }
    }

    fn progress(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some(self.context.header(revision)),
            watch_id,
            ..WatchResponse::default()
        }
    }

    fn leader_is_lost(&mut self) -> bool {
        if self.context.has_leader() {
            self.leaderless_ticks = 0;
        } else {
            self.leaderless_ticks += 1;
        }
        self.leaderless_ticks >= LEADERLESS_ELECTIONS
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.engine().close_stream(self.stream.id);
        self.context.metrics.handled(Rpc::Watch, self.code as i32);
    }
}

/// Why a watcher is not permitted, as etcd words it: with the code, and with no more than these.
fn reason(fault: Fault) -> String {
    let (code, text) = match fault {
        Fault::Refused(refusal @ Refusal::InvalidAuthToken) => ("Unauthenticated", refusal),
        Fault::Refused(refusal @ (Refusal::AuthRevisionOld | Refusal::UserEmpty)) => {
            ("InvalidArgument", refusal)
        }
        _ => ("PermissionDenied", Refusal::PermissionDenied),
    };
    format!("rpc error: code = {code} desc = {text}")
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
