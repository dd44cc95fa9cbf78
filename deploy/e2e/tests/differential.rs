//! config-center and real etcds answer generated operations alike, and a planted bug is noticed.
//!
//! The program `differential` runs longer; its results are in `deploy/e2e/differential.md`.

use std::process::Command;
use std::time::Duration;

use e2e::differential::{Bounds, Kind, judged};
use e2e::{Center, Peer, binaries};

/// Differs from run to run only by hand: a failure must be repeatable.
const SEED: u64 = 20_261_124;

/// How soon a bug in the evaluation of transactions has to be found.
const OPERATIONS_TO_FIND: u64 = 1_000;

/// The servers of a kind answer alike.
fn alike(kind: Kind) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let center = Center::start_program(work.path(), judged::center()?)?;
    let etcd = judged::etcd(kind, work.path())?;
    let bounds = Bounds {
        operations: 5_000,
        time: Duration::from_secs(15),
    };
    match kind.compare(&center.url(), &etcd.url, SEED, bounds)? {
        Ok(compared) => assert!(compared.operations > 0, "nothing was compared"),
        Err(difference) => panic!("{kind:?}, seed {SEED}: {difference}"),
    }
    Ok(())
}

#[test]
fn v3_operations_get_the_same_answers() -> anyhow::Result<()> {
    alike(Kind::V3)
}

#[test]
fn operations_of_users_get_the_same_answers() -> anyhow::Result<()> {
    alike(Kind::Auth)
}

#[test]
fn operations_in_json_get_the_same_answers() -> anyhow::Result<()> {
    alike(Kind::Gateway)
}

#[test]
fn v2_operations_get_the_same_answers() -> anyhow::Result<()> {
    alike(Kind::V2)
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
    let Err(difference) = Kind::V3.compare(&center.url(), &etcd.url, SEED, bounds)? else {
        panic!("the bug was not found within {OPERATIONS_TO_FIND} operations");
    };
    // Shrinking ends at the operation that shows the bug.
    assert!(
        matches!(difference.sequence.last(), Some(last) if last.starts_with("Txn(")),
        "found something else: {difference}"
    );
    Ok(())
}
