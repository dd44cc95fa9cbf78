//! config-center and etcd 3.7.1 answer generated operations alike, and a planted bug is noticed.
//!
//! `cargo run -p e2e --bin differential` runs longer.

use std::process::Command;
use std::time::Duration;

use e2e::differential::{Bounds, Difference, Operation, Pair};
use e2e::{Center, Peer, binaries};

/// Differs from run to run only by hand: a failure must be repeatable.
const SEED: u64 = 20_261_124;

/// How soon a bug in the evaluation of transactions has to be found.
const OPERATIONS_TO_FIND: u64 = 1_000;

fn compare(
    center: &Center,
    etcd: &Peer,
    bounds: Bounds,
) -> anyhow::Result<Result<u64, Box<Difference>>> {
    let outcome = Pair::connect(&center.url(), &etcd.url)?.compare(SEED, bounds)?;
    Ok(outcome.map(|compared| compared.operations))
}

#[test]
fn generated_operations_get_the_same_answers() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let center = Center::start(work.path())?;
    let etcd = Peer::start(work.path(), &[])?;
    let bounds = Bounds {
        operations: 10_000,
        time: Duration::from_secs(25),
    };
    match compare(&center, &etcd, bounds)? {
        Ok(operations) => assert!(operations > 0, "nothing was compared"),
        Err(difference) => panic!("seed {SEED}: {difference}"),
    }
    Ok(())
}

#[test]
fn a_bug_in_nested_transactions_is_found() -> anyhow::Result<()> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(binaries::repository()).args([
        "build",
        "--quiet",
        "--features",
        "config-center/planted",
        "--bin",
        "config-center-planted",
    ]);
    anyhow::ensure!(build.status()?.success(), "{build:?} failed");
    let work = tempfile::tempdir()?;
    let mut planted = Command::new(binaries::existing("config-center-planted")?);
    planted.env("CONFIG_CENTER_PLANTED", "LateCompare");
    let center = Center::start_program(work.path(), planted)?;
    let etcd = Peer::start(work.path(), &[])?;
    let bounds = Bounds {
        operations: OPERATIONS_TO_FIND,
        time: Duration::from_secs(300),
    };
    let Err(difference) = compare(&center, &etcd, bounds)? else {
        panic!("the bug was not found within {OPERATIONS_TO_FIND} operations");
    };
    // Shrinking ends at the operation that shows the bug.
    assert!(
        matches!(difference.sequence.last(), Some(Operation::Txn(_))),
        "found something else: {difference}"
    );
    Ok(())
}
