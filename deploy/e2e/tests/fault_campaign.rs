//! A short campaign of faults: `cargo run -p e2e --bin faults` runs longer ones.

use std::process::Command;
use std::time::Duration;

use e2e::{Process, binaries};

/// Every kind of fault comes at least once in this time.
const MINUTES: &str = "2";
/// Differs from run to run only by hand: a failure must be repeatable.
const SEED: &str = "20261124";
/// The faults, and what comes before and after them.
const DEADLINE: Duration = Duration::from_secs(420);

#[test]
fn three_members_under_every_fault_lose_and_invent_nothing() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let report = work.path().join("report.md");
    binaries::program("config-center")?;
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_faults"));
    campaign
        .args(["--seed", SEED, "--minutes", MINUTES, "--members", "3"])
        .arg("--report")
        .arg(&report);
    let mut process = Process::spawn("faults", campaign, &work.path().join("faults.log"))?;
    let status = process.wait_exit(DEADLINE)?;
    assert!(status.success(), "{status}:\n{}", process.log_text());
    let report = std::fs::read_to_string(report)?;
    assert!(report.contains(": no violation"), "{report}");
    // A campaign in which nothing is answered proves nothing.
    let answered = |kind: &str| {
        let row = format!("| {kind} | ");
        let rest = report.split_once(&row).map(|(_, rest)| rest)?;
        rest.split(' ').next()?.parse::<u64>().ok()
    };
    for kind in [
        "put",
        "get",
        "get, serializable",
        "compare and swap",
        "delete",
    ] {
        assert!(answered(kind).is_some_and(|count| count > 100), "{report}");
    }
    Ok(())
}
