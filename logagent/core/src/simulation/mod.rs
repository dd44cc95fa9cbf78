//! The tailer among rotations, truncations, kills and failures, against a model of what may happen.
//!
//! A history is a list of actions on a directory in memory, an agent that is driven step by step,
//! and a broker that answers late, out of order or not at all. At the end everything is healed, and
//! each line that was written is counted in what the broker kept. The model (`verdict`) says which
//! lines may be missing (their bytes are on no disk any more), and which may be there twice (a kill
//! or a failure came before a checkpoint knew them).

mod actions;
mod center;
mod disk;
mod verdict;
mod world;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::planted::{self, Bug};
use actions::{Action, Variant};
use world::World;

const ACTIONS_MAX: usize = 40;
/// Different faults show at once.
const RUNS: u32 = 12;

fn run(variant: Variant, actions: &[Action]) -> Result<(), TestCaseError> {
    let mut world = World::new(variant);
    for action in actions {
        world.act(action);
    }
    world.finish().map_err(TestCaseError::fail)
}

/// The same seed gives the same histories, so that a run of all tests does not depend on luck.
fn runner(cases: u32, shrink: bool, seed: u64) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if shrink { 20_000 } else { 0 },
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SIMULATION_HISTORIES` sets the number, `SIMULATION_SEED` chooses others; the default fits a run
/// of all tests.
#[test]
fn histories_end_as_promised() {
    let histories = number("SIMULATION_HISTORIES").unwrap_or(1_200) as u32;
    let seed = number("SIMULATION_SEED").unwrap_or(0);
    // Each run stops at its first failure.
    let faults: Vec<_> = (0..RUNS)
        .filter_map(|nth| {
            let histories_of = actions::history(ACTIONS_MAX);
            let seed = seed.wrapping_mul(u64::from(RUNS)) + u64::from(nth);
            let mut runner = runner(histories / RUNS, true, seed);
            match runner.run(&histories_of, |(variant, actions)| run(variant, &actions)) {
                Err(TestError::Fail(why, history)) => Some(format!("{why}\nafter {history:?}")),
                _ => None,
            }
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn the_center_is_followed() {
    let histories = number("SIMULATION_HISTORIES").unwrap_or(1_200) as u32;
    let seed = number("SIMULATION_SEED").unwrap_or(0);
    let outcome = runner(histories, true, seed).run(&center::events(), |events| {
        center::run(&events).map_err(TestCaseError::fail)
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The simulation must see each of these within 500 histories, or it proves nothing.
#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::CheckpointBeforeAck,
        Bug::DrainSkipped,
        Bug::MarkerUnchecked,
        Bug::FailureJumped,
        Bug::MissedRotationsIgnored,
        Bug::StartUnsaved,
        Bug::CopyIgnored,
    ] {
        let found = planted::with(bug, || {
            runner(500, false, 1).run(&actions::history(ACTIONS_MAX), |(variant, actions)| {
                run(variant, &actions)
            })
        });
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "{bug:?} went unnoticed"
        );
    }
    let found = planted::with(Bug::WatchWithoutRevision, || {
        runner(500, false, 1).run(&center::events(), |events| {
            center::run(&events).map_err(TestCaseError::fail)
        })
    });
    assert!(
        matches!(found, Err(TestError::Fail(..))),
        "a watch without a revision went unnoticed"
    );
}
