//! Waiting for a condition with a deadline; knows no product.
//!
//! A deadline is how long a broken program may keep a test busy, not a promise about speed: it is
//! generous, since tests run on small shared machines.

use std::time::{Duration, Instant};

use crate::process;

/// How long anything that ought to happen may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(40);

const POLL: Duration = Duration::from_millis(5);

/// Polls until the probe gives a value. The error names what was awaited and shows the last lines
/// of every process that this thread started.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if started.elapsed() >= deadline {
            anyhow::bail!(
                "waited {} s for: {what}\n{}",
                deadline.as_secs(),
                process::tails_of_this_thread()
            );
        }
        std::thread::sleep(POLL);
    }
}
