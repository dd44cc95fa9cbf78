//! What the integration tests stand on: a center in memory, a broker in memory, a real agent.

#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub(crate) mod agent;
pub(crate) mod broker;
pub(crate) mod center;

use std::time::{Duration, Instant};

/// Generous: a busy machine must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until the closure gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
