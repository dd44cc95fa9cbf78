//! A fleet of agents in one process, for tests, the demo and the benchmark.
//!
//! Each agent speaks the real protocol over a connection of its own: it reads and watches its own
//! key, and puts its status under a lease that it keeps alive. What it does not do is read files and
//! send lines: those parts of its status are made up, and can be made to fail.

mod agent;
mod behaviour;
mod document;
mod fleet;

pub use behaviour::Behaviour;
pub use fleet::{Fleet, Member, Setup, Timing};
