//! How a release travels: in waves over hosts in a fixed order, each gated on proof.
//!
//! `step(plan, progress, observations, now)` says what to publish next and how the progress looks
//! then. Both belong in one transaction that compares the stored progress with the one given here:
//! then it does not matter how many drivers run, who of them dies, and when. A driver that lost its
//! place computes the same step again or loses the comparison.
//!
//! ```text
//! order    h7 h2 | h9 h1 h5 | h3 h8 h4 h6          by a hash of the name: the same on every leader
//! waves    ──1──   ────2───   ─────3─────          each holds the one before
//! a wave   begins (window) → publishes → all applied (gate) → stays so (bake) → the next
//! ```
//!
//! A halted rollout publishes nothing: paused, aborted, superseded, and while it is put back.

mod commands;
mod engine;
mod plan;
mod progress;

pub use commands::CommandError;
pub use engine::{Condition, Step, Tally, step, tally};
pub use plan::Plan;
pub use progress::{Halt, Phase, Progress, ROLLOUT_FORMAT};

#[cfg(test)]
mod tests;
