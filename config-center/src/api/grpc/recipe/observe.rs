//! One Observe stream: every value of every leader, in order, for as long as the client listens.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use config_center_core::KeyRange;
use schemas::mvccpb::KeyValue;
use schemas::mvccpb::event::EventType;
use schemas::v3electionpb::LeaderResponse;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Status};

use super::place::Bell;
use super::{Caller, first_created, prefix_end};
use crate::api::grpc::status;
use crate::metrics::Rpc;
use crate::raft::ProposeError;

/// Revisions read at once; a new leader's long history must not hold the state for long.
const PAGE_REVISIONS: usize = 100;
/// A stream that demands a leader ends after this many election timeouts without one.
const LEADERLESS_ELECTIONS: u32 = 3;

/// What the stream is waiting for.
enum Phase {
    /// Look who leads.
    Look,
    /// Nobody did at the revision before this one: wait for the first candidate.
    AwaitCandidate(Reading),
    /// Somebody leads: wait for the next value, or for the end of the key.
    Follow(Reading),
}

/// A range of keys and the next revision to read of it.
struct Reading {
    range: KeyRange,
    bell: Bell,
    next_rev: i64,
}

pub(super) struct Observer {
    caller: Caller,
    prefix: Bytes,
    phase: Phase,
    ready: VecDeque<LeaderResponse>,
    /// Runs when the client demands a leader of the cluster.
    leader_ticks: Option<Interval>,
    leaderless_ticks: u32,
    ended: bool,
    /// The gRPC code to count at the end; Canceled unless something else happened.
    code: Code,
}

impl Observer {
    pub(super) fn new(caller: Caller, prefix: Bytes, demands_leader: bool) -> Self {
        let election = Duration::from_millis(caller.context.limits.election_ms);
        let leader_ticks = demands_leader.then(|| {
            let mut ticks = interval_at(Instant::now() + election, election);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            caller,
            prefix,
            phase: Phase::Look,
            ready: VecDeque::new(),
            leader_ticks,
            leaderless_ticks: 0,
            ended: false,
            code: Code::Cancelled,
        }
    }

    /// The next response; `None` when the stream is over.
    pub(super) async fn next(&mut self) -> Option<Result<LeaderResponse, Status>> {
        while !self.ended {
            if let Some(response) = self.ready.pop_front() {
                return Some(Ok(response));
            }
            if let Err(status) = self.step().await {
                self.ended = true;
                self.code = status.code();
                return Some(Err(status));
            }
        }
        None
    }

    async fn step(&mut self) -> Result<(), Status> {
        let context = std::sync::Arc::clone(&self.caller.context);
        let (reading, is_single) = match &mut self.phase {
            Phase::Look => return self.look().await,
            Phase::AwaitCandidate(reading) => (reading, false),
            Phase::Follow(reading) => (reading, true),
        };
        let page = context.engine().read(|state| {
            state.events(
                &reading.range,
                reading.next_rev,
                i64::MAX,
                PAGE_REVISIONS,
                false,
            )
        });
        let Ok(page) = page else {
            // Compacted under a stream that was never read.
            return Err(Status::unknown("election: observe closed early"));
        };
        let is_idle = page.next_rev <= reading.next_rev;
        reading.next_rev = page.next_rev;
        for event in page.events {
            let is_put = event.r#type == EventType::Put as i32;
            match event.kv {
                Some(kv) if is_put => {
                    if !is_single {
                        let next_rev = kv.mod_revision + 1;
                        let key = kv.key.clone();
                        self.tell(kv);
                        self.follow(key, next_rev);
                        return Ok(());
                    }
                    self.tell(kv);
                }
                // A deletion before the first candidate is of an older one.
                _ if is_single => {
                    self.phase = Phase::Look;
                    return Ok(());
                }
                _ => {}
            }
        }
        if is_idle {
            return self.wait().await;
        }
        // A long history without hits must not keep this thread from other streams.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Status> {
        let found = self.caller.range(first_created(&self.prefix)).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let next_rev = revision + 1;
        match found.kvs.into_iter().next() {
            Some(kv) => {
                let key = kv.key.clone();
                self.ready.push_back(LeaderResponse {
                    header: found.header,
                    kv: Some(kv),
                });
                self.follow(key, next_rev);
            }
            None => {
                let range = KeyRange::new(self.prefix.clone(), prefix_end(&self.prefix));
                self.phase = Phase::AwaitCandidate(self.reading(range, next_rev));
            }
        }
        Ok(())
    }

    fn follow(&mut self, key: Bytes, next_rev: i64) {
        self.phase = Phase::Follow(self.reading(KeyRange::Single(key), next_rev));
    }

    /// The bell is hung up before anything is read, so nothing falls between.
    fn reading(&self, range: KeyRange, next_rev: i64) -> Reading {
        Reading {
            bell: Bell::of(self.caller.context.node.engine(), range.clone()),
            range,
            next_rev,
        }
    }

    fn tell(&mut self, kv: KeyValue) {
        let header = self.caller.context.header(kv.mod_revision);
        self.ready.push_back(LeaderResponse {
            header: Some(header),
            kv: Some(kv),
        });
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let bell = match &self.phase {
            Phase::Look => return Ok(()),
            Phase::AwaitCandidate(reading) | Phase::Follow(reading) => &reading.bell,
        };
        let tick = async {
            match &mut self.leader_ticks {
                Some(ticks) => ticks.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = bell.rings() => return Ok(()),
            () = self.caller.context.stopping.cancelled() => return Err(status::stopped()),
            _ = tick => {}
        }
        if self.caller.context.has_leader() {
            self.leaderless_ticks = 0;
        } else {
            self.leaderless_ticks += 1;
        }
        if self.leaderless_ticks >= LEADERLESS_ELECTIONS {
            return Err(Status::unavailable(ProposeError::NoLeader.to_string()));
        }
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let metrics = &self.caller.context.metrics;
        metrics.handled(Rpc::Observe, self.code as i32);
    }
}
