//! What all clients share: the clock, the members' lives, the stop, and what they recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::transport::Channel;

use crate::calls;
use crate::check::leases::Leased;
use crate::check::watches::Watched;
use crate::dice::Dice;
use crate::history::Request;
use crate::members::{Life, Members, client_url};

/// How long a client waits for an answer before it calls the outcome unknown.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Keys of the workers; markers of their deletes; leased keys.
pub(crate) const WORK: &str = "work/";
pub(crate) const MARKERS: &str = "mark/";
pub(crate) const LEASED: &str = "lease/";

/// Shared by all clients of a campaign.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) seed: u64,
    began: Instant,
    stop: AtomicBool,
    lives: Vec<Life>,
    requests: Mutex<Vec<Request>>,
    leased: Mutex<Vec<Leased>>,
    watched: Mutex<Vec<Watched>>,
}

impl Shared {
    pub(crate) fn new(seed: u64, members: &Members) -> Arc<Self> {
        Arc::new(Self {
            seed,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            lives: members.seats.iter().map(|seat| seat.life.clone()).collect(),
            requests: Mutex::default(),
            leased: Mutex::default(),
            watched: Mutex::default(),
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn members(&self) -> usize {
        self.lives.len()
    }

    pub(crate) fn life(&self, member: usize) -> u64 {
        self.lives[member].now()
    }

    pub(crate) fn record(&self, request: Request) {
        held(&self.requests).push(request);
    }

    pub(crate) fn record_lease(&self, leased: Leased) {
        held(&self.leased).push(leased);
    }

    pub(crate) fn record_watched(&self, watched: Watched) {
        held(&self.watched).push(watched);
    }

    /// Answered requests so far.
    pub(crate) fn answered(&self) -> usize {
        held(&self.requests)
            .iter()
            .filter(|r| r.answer.is_some())
            .count()
    }

    pub(crate) fn take(&self) -> (Vec<Request>, Vec<Leased>, Vec<Watched>) {
        (
            std::mem::take(&mut *held(&self.requests)),
            std::mem::take(&mut *held(&self.leased)),
            std::mem::take(&mut *held(&self.watched)),
        )
    }
}

/// A client that panicked has recorded whole things only.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client's connections to all members.
#[derive(Debug)]
pub(crate) struct Connections(Vec<Channel>);

impl Connections {
    pub(crate) fn new(members: usize) -> Self {
        Self(
            (0..members)
                .map(|at| calls::channel(&client_url(at)))
                .collect(),
        )
    }

    pub(crate) fn to(&self, member: usize) -> Channel {
        self.0[member].clone()
    }

    /// After a failure: the old connection may hang for as long as TCP is patient.
    pub(crate) fn renew(&mut self, member: usize) {
        self.0[member] = calls::channel(&client_url(member));
    }

    pub(crate) fn any(&self, dice: &mut Dice) -> usize {
        dice.index(self.0.len())
    }
}
