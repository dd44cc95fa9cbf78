//! The replicated state in memory, with the watchers and the lease clock around it.
//!
//! Everything that answers a client lives here: reads take a shared lock, a group of committed
//! commands takes the exclusive one once. Knows neither Raft nor SQL.
//!
//! Lock order: state, then watchers, then leases, then tokens, then streams. A later one may be taken while an
//! earlier one is held, never the other way round. Nothing awaits while holding one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use config_center_core::{Applied, AuthChange, Change, KeyRange, LeaseClock, State, WatcherGroups};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use schemas::command::{Command, command::Op};
use tokio::sync::Notify;

use crate::auth::SimpleTokens;
use crate::metrics::Operations;

/// The shared state of one member.
pub struct Engine {
    state: RwLock<State>,
    watchers: Mutex<WatcherGroups>,
    leases: Mutex<LeaseClock>,
    tokens: Mutex<SimpleTokens>,
    /// What the state says, for requests that need not ask when it is off.
    auth_enabled: AtomicBool,
    streams: Mutex<FxHashMap<u64, Arc<Notify>>>,
    next_stream_id: AtomicU64,
    operations: Operations,
    started: Instant,
}

/// One watch stream: its number among the watchers, and the bell that rings when one of its
/// watchers has something pending.
#[derive(Debug, Clone)]
pub struct WatchStream {
    pub id: u64,
    pub wake: Arc<Notify>,
}

impl Engine {
    #[must_use]
    pub fn new(state: State) -> Self {
        let engine = Self {
            state: RwLock::default(),
            watchers: Mutex::default(),
            leases: Mutex::default(),
            tokens: Mutex::default(),
            auth_enabled: AtomicBool::new(false),
            streams: Mutex::default(),
            next_stream_id: AtomicU64::new(1),
            operations: Operations::default(),
            started: Instant::now(),
        };
        engine.replace(state);
        engine
    }

    /// Milliseconds of a monotonic clock; the only clock that leases are measured with.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads under the shared lock. Keep it short: a writer waits.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read())
    }

    pub fn revision(&self) -> i64 {
        self.state.read().revision()
    }

    /// Applies committed commands in their order, each with its index in the log, under one
    /// exclusive lock, and announces what they changed. A reader sees all of them or none.
    pub fn apply<'a>(
        &self,
        commands: impl IntoIterator<Item = (u64, &'a Command)>,
    ) -> Vec<Applied> {
        let mut woken = Vec::new();
        let applied = {
            let mut state = self.state.write();
            let applied: Vec<Applied> = commands
                .into_iter()
                .map(|(index, command)| {
                    let one = state.apply(command);
                    self.follow_auth(index, command, &one);
                    self.operations.applied(&one);
                    one
                })
                .collect();
            // Announced under the same lock: a watcher that registers sees either the old revision
            // and the announcement, or the new revision and no announcement.
            self.announce(&applied, &mut woken);
            applied
        };
        if !woken.is_empty() {
            let streams = self.streams.lock();
            for id in woken {
                if let Some(wake) = streams.get(&id) {
                    wake.notify_one();
                }
            }
        }
        applied
    }

    /// What was done with keys, for the metrics.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Keeps the tokens in step with the users.
    fn follow_auth(&self, index: u64, command: &Command, applied: &Applied) {
        if applied.reply.is_err() {
            return;
        }
        match &command.op {
            Some(Op::Authenticate(request)) if !request.simple_token.is_empty() => {
                let now_ms = self.now_ms();
                self.tokens
                    .lock()
                    .assign(&request.simple_token, index, &request.name, now_ms);
            }
            Some(Op::AuthUserDelete(request)) => self.tokens.lock().forget_user(&request.name),
            Some(Op::AuthUserChangePassword(request)) => {
                self.tokens.lock().forget_user(&request.name);
            }
            // A new user has no tokens, and one whose password changed must lose them.
            Some(Op::V2UserWrite(write)) if !write.password_hash.is_empty() => {
                self.tokens.lock().forget_user(&write.name);
            }
            Some(Op::AuthEnable(_) | Op::AuthDisable(_) | Op::V2AuthEnable(_)) => {
                for change in &applied.changes {
                    if let Change::Auth(AuthChange::Status { enabled, .. }) = change {
                        self.auth_enabled.store(*enabled, Ordering::Release);
                        self.tokens.lock().forget_all();
                    }
                }
            }
            _ => {}
        }
    }

    /// As of the last applied command; cheaper than asking the state.
    pub fn auth_enabled(&self) -> bool {
        self.auth_enabled.load(Ordering::Acquire)
    }

    /// Whose simple token this is; prolongs its life.
    pub fn token_user(&self, token: &str) -> Option<String> {
        let now_ms = self.now_ms();
        self.tokens.lock().user(token, now_ms)
    }

    /// How long a simple token lives without being used.
    pub fn set_token_ttl(&self, ttl: Duration) {
        self.tokens.lock().set_ttl(ttl);
    }

    fn announce(&self, applied: &[Applied], woken: &mut Vec<u64>) {
        let mut watchers = self.watchers.lock();
        if !watchers.is_empty() {
            for one in applied.iter().filter(|a| !a.changes.is_empty()) {
                watchers.publish(one.revision, one.changed_keys(), |id| woken.push(id));
            }
        }
        drop(watchers);
        let mut clock = None;
        for change in applied.iter().flat_map(|a| &a.changes) {
            match change {
                Change::LeasePut { id, ttl_s } => clock
                    .get_or_insert_with(|| self.leases.lock())
                    .granted(*id, *ttl_s, self.now_ms()),
                Change::LeaseDelete { id } => {
                    clock.get_or_insert_with(|| self.leases.lock()).revoked(*id)
                }
                Change::LeaseRemaining { id, remaining_s } => clock
                    .get_or_insert_with(|| self.leases.lock())
                    .checkpointed(*id, *remaining_s),
                Change::Revision(_)
                | Change::CompactTo { .. }
                | Change::MemberPut(_)
                | Change::AlarmRaised(_)
                | Change::AlarmTakenBack(_)
                | Change::V2(_)
                | Change::Auth(_) => {}
            }
        }
    }

    /// The member has left the cluster; what must be persisted of it.
    pub fn remove_member(&self, id: u64) -> Change {
        self.state.write().remove_member(id)
    }

    /// Puts another state in place of this one: the member starts, or a snapshot was installed.
    /// Every stream is woken; its watchers find by their own cursors what they have missed.
    pub fn replace(&self, state: State) {
        let now_ms = self.now_ms();
        let mut clock = LeaseClock::default();
        for (id, ttl_s, remaining_s) in state.leases_remaining() {
            clock.granted(id, ttl_s, now_ms);
            clock.checkpointed(id, remaining_s);
        }
        {
            let mut current = self.state.write();
            self.operations.replaced(state.live_keys());
            self.auth_enabled
                .store(state.auth_is_enabled(), Ordering::Release);
            // A snapshot may have skipped the commands that end tokens.
            self.tokens.lock().forget_where(|user| {
                let password = |state: &State| state.user(user).map(|user| user.password.clone());
                let after = password(&state);
                !state.auth_is_enabled() || after.is_none() || password(&current) != after
            });
            *current = state;
            *self.leases.lock() = clock;
        }
        for wake in self.streams.lock().values() {
            wake.notify_one();
        }
    }

    /// Registers a watch stream. Close it with [`Engine::close_stream`].
    pub fn open_stream(&self) -> WatchStream {
        let id = self.next_stream_id.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        self.streams.lock().insert(id, Arc::clone(&wake));
        WatchStream { id, wake }
    }

    /// Forgets a stream and all its watchers.
    pub fn close_stream(&self, stream_id: u64) {
        self.watchers.lock().remove_stream(stream_id);
        self.streams.lock().remove(&stream_id);
    }

    /// Starts to announce the revisions that concern this range. Returns the store's revision at
    /// that moment: everything above it will be announced, nothing up to it will. `None` when the
    /// stream has a watcher of that id already.
    pub fn watch(&self, stream_id: u64, watch_id: i64, range: KeyRange) -> Option<i64> {
        let state = self.state.read();
        self.watchers
            .lock()
            .add(stream_id, watch_id, range)
            .then(|| state.revision())
    }

    /// `false` when there is no such watcher.
    pub fn unwatch(&self, stream_id: u64, watch_id: i64) -> bool {
        self.watchers.lock().remove(stream_id, watch_id)
    }

    /// The stream's pending watchers as `(watch_id, first pending revision)`; see
    /// `WatcherGroups::take_pending` for the cursor each watcher must keep.
    pub fn take_pending(&self, stream_id: u64) -> Vec<(i64, i64)> {
        self.watchers.lock().take_pending(stream_id)
    }

    /// `(streams, watchers)`, for the metrics.
    pub fn watch_counts(&self) -> (usize, usize) {
        let watchers = self.watchers.lock();
        (watchers.streams(), watchers.len())
    }

    /// Gives the lease its full TTL again; `None` when it is unknown or has run out. Only the
    /// confirmed leader may answer a client with this: see `Node::renew_lease`.
    pub fn lease_renew(&self, id: i64) -> Option<i64> {
        self.leases.lock().renew(id, self.now_ms())
    }

    /// Whole seconds left; `None` when unknown.
    pub fn lease_remaining_s(&self, id: i64) -> Option<i64> {
        self.leases.lock().remaining_s(id, self.now_ms())
    }

    /// Up to `limit` leases that have run out and should be revoked by the leader.
    pub fn leases_expired(&self, limit: usize) -> Vec<i64> {
        self.leases.lock().expired(self.now_ms(), limit)
    }

    /// When [`Engine::leases_expired`] can next have something to say, on [`Engine::now_ms`].
    pub fn leases_due_ms(&self) -> Option<u64> {
        self.leases.lock().next_due_ms()
    }

    /// Up to `limit` leases whose remaining seconds should be written down by the leader now.
    pub fn take_lease_checkpoints(&self, limit: usize) -> Vec<(i64, i64)> {
        self.leases.lock().take_checkpoints(self.now_ms(), limit)
    }

    /// Whether a renewal must first take back what was written down.
    pub fn lease_is_checkpointed(&self, id: i64) -> bool {
        self.leases.lock().is_checkpointed(id)
    }

    /// This member became the leader: every lease gets its full TTL from now.
    pub fn promote_leases(&self) {
        self.leases.lock().promote(self.now_ms());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use schemas::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest};

    use super::*;

    fn command(op: Op) -> Command {
        Command {
            version: config_center_core::state::COMMAND_VERSION,
            op: Some(op),
            ..Command::default()
        }
    }

    fn put(key: &'static str) -> Command {
        command(Op::Put(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..PutRequest::default()
        }))
    }

    fn apply(engine: &Engine, commands: &[Command]) -> Vec<Applied> {
        engine.apply(commands.iter().map(|command| (1, command)))
    }

    fn single(key: &'static str) -> KeyRange {
        KeyRange::Single(Bytes::from_static(key.as_bytes()))
    }

    #[test]
    fn a_stream_is_woken_once_for_what_concerns_it() {
        let engine = Engine::new(State::default());
        let (a, b) = (engine.open_stream(), engine.open_stream());
        assert_eq!(engine.watch(a.id, 0, single("a")), Some(1));
        assert_eq!(engine.watch(b.id, 0, single("b")), Some(1));
        assert_eq!(engine.watch(b.id, 0, single("c")), None);
        apply(&engine, &[put("a"), put("x"), put("a")]);
        assert!(a.wake.notified().now_or_never().is_some());
        assert!(a.wake.notified().now_or_never().is_none());
        assert!(b.wake.notified().now_or_never().is_none());
        assert_eq!(engine.take_pending(a.id), [(0, 2)]);
        assert!(engine.take_pending(a.id).is_empty());
        // What came before a registration is not announced to it.
        assert_eq!(engine.watch(a.id, 1, single("x")), Some(4));
        assert!(engine.take_pending(a.id).is_empty());
        apply(&engine, &[put("x")]);
        assert_eq!(engine.take_pending(a.id), [(1, 5)]);
        engine.close_stream(a.id);
        apply(&engine, &[put("a")]);
        assert!(engine.take_pending(a.id).is_empty());
        assert_eq!(engine.watch_counts(), (1, 1));
    }

    #[test]
    fn the_clock_follows_what_is_applied_and_what_is_restored() {
        let engine = Engine::new(State::default());
        let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 });
        apply(&engine, &[command(grant)]);
        assert_eq!(engine.lease_renew(7), Some(60));
        assert!(engine.lease_remaining_s(7).unwrap() >= 55);
        assert!(engine.leases_expired(10).is_empty());
        apply(
            &engine,
            &[command(Op::LeaseRevoke(LeaseRevokeRequest { id: 7 }))],
        );
        assert_eq!(engine.lease_renew(7), None);

        let mut restorer = State::restore();
        restorer.lease(9, 30);
        engine.replace(restorer.finish().unwrap());
        assert!(engine.lease_remaining_s(9).unwrap() >= 25);
        assert!(engine.leases_due_ms().is_some());
    }
}
