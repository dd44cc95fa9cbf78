//! The engine's rules one by one, and a simulation of fleets, drivers and operators against the
//! promises that a rollout makes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::objects::{Offline, OnFailure, PolicySpec, Span, Wave, Window};

use super::*;
use crate::planted::{self, Bug};

const MOST: usize = 60;

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("h{index}")).collect()
}

fn policy(waves: &[Wave]) -> PolicySpec {
    PolicySpec {
        waves: waves.to_vec(),
        ..Default::default()
    }
}

const SAFE: [Wave; 4] = [
    Wave::Hosts(1),
    Wave::Percent(10),
    Wave::Percent(50),
    Wave::Percent(100),
];

/// A driver with a table of conditions; hosts that are not in it are pending.
struct Driver {
    plan: Plan,
    progress: Progress,
    conditions: BTreeMap<String, Condition>,
    now_ms: u64,
    published: Vec<String>,
}

impl Driver {
    fn new(policy: PolicySpec, count: usize) -> Self {
        Self {
            plan: Plan::new(policy, hosts(count)),
            progress: Progress::new(1_000),
            conditions: BTreeMap::new(),
            now_ms: 1_000,
            published: Vec::new(),
        }
    }

    fn step(&mut self) -> Step {
        let conditions = &self.conditions;
        let observe = |host: &str| conditions.get(host).cloned().unwrap_or(Condition::Pending);
        let step = step(&self.plan, &self.progress, observe, self.now_ms, MOST);
        self.progress = step.progress.clone();
        let names = step
            .publish
            .iter()
            .map(|index| self.plan.hosts[*index].clone());
        self.published.extend(names);
        step
    }

    /// Steps until nothing happens by itself any more.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let before = self.progress.clone();
            if self.step().publish.is_empty() && self.progress == before {
                return;
            }
        }
        panic!("the rollout does not come to rest: {:?}", self.progress);
    }

    fn set(&mut self, hosts: impl IntoIterator<Item = usize>, condition: &Condition) {
        for index in hosts {
            self.conditions
                .insert(self.plan.hosts[index].clone(), condition.clone());
        }
    }

    fn all_published_apply(&mut self) {
        self.set(0..self.progress.published, &Condition::Applied);
    }
}

#[test]
fn waves_hold_the_ones_before() {
    let plan = Plan::new(policy(&SAFE), hosts(25));
    assert_eq!(plan.ends, [1, 3, 13, 25]);
    assert_eq!(
        (
            plan.start(1),
            plan.wave_of(0),
            plan.wave_of(3),
            plan.wave_of(24)
        ),
        (1, 0, 2, 3)
    );
    // With two hosts, one wave adds nobody and is left out.
    assert_eq!(Plan::new(policy(&SAFE), hosts(2)).ends, [1, 2]);
    assert_eq!(Plan::new(policy(&SAFE), hosts(0)).ends, Vec::<usize>::new());
    // The same hosts in another order are the same plan, on every leader and every day.
    let mut backwards = hosts(25);
    backwards.reverse();
    assert_eq!(Plan::new(policy(&SAFE), backwards), plan);
    assert_eq!(
        plan.hosts[..3],
        ["h17", "h3", "h21"].map(str::to_owned)[..],
        "the order is part of the format"
    );
}

#[test]
fn a_rollout_goes_wave_by_wave() {
    let mut driver = Driver::new(
        PolicySpec {
            bake: Span::from_s(30),
            ..policy(&SAFE)
        },
        20,
    );
    for end in [1, 2, 10, 20] {
        driver.settle();
        assert_eq!(driver.published.len(), end);
        driver.all_published_apply();
        driver.settle();
        assert_eq!(driver.published.len(), end, "it bakes first");
        driver.now_ms += 29_999;
        driver.settle();
        assert_eq!(driver.published.len(), end);
        driver.now_ms += 1;
    }
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Completed);
    assert_eq!(driver.published, driver.plan.hosts);
    // What hosts run afterwards does not change how it ended.
    let later = tally(&driver.plan, &driver.progress, |_| Condition::Pending);
    assert_eq!((later.applied, later.pending, later.total), (20, 0, 20));
}

#[test]
fn a_large_wave_is_published_piece_by_piece() {
    let mut driver = Driver::new(PolicySpec::default(), 130);
    let sizes: Vec<usize> = (0..3).map(|_| driver.step().publish.len()).collect();
    assert_eq!(sizes, [60, 60, 10]);
    assert_eq!(driver.step().publish, Vec::<usize>::new());
}

#[test]
fn a_failure_pauses_with_host_and_reason() {
    let mut driver = Driver::new(policy(&SAFE), 20);
    driver.settle();
    driver.all_published_apply();
    driver.settle();
    let second = driver.plan.hosts[1].clone();
    driver.set(
        [1],
        &Condition::Failed("/var/log/x: permission denied".into()),
    );
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Paused);
    let halt = driver.progress.halt.clone().unwrap();
    assert_eq!(
        halt.reason,
        format!("a host of wave 2 failed: {second}: /var/log/x: permission denied")
    );
    // The operator mends the host and retries: the old report does not stop it again at once.
    driver.progress = driver.progress.retry(driver.now_ms).unwrap();
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Running);
    driver.all_published_apply();
    driver.settle();
    assert_eq!(driver.published.len(), 10);
}

#[test]
fn a_retry_that_does_not_help_pauses_again() {
    let mut driver = Driver::new(policy(&SAFE), 20);
    driver.settle();
    driver.set([0], &Condition::Failed("still".into()));
    driver.settle();
    driver.progress = driver.progress.retry(driver.now_ms).unwrap();
    let step = driver.step();
    assert_eq!(step.wake_at_ms, Some(driver.now_ms + 30_000));
    driver.now_ms += 30_000;
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Paused);
    // Resuming instead goes on without the host.
    driver.progress = driver.progress.resume(driver.now_ms).unwrap();
    driver.settle();
    assert_eq!(driver.published.len(), 2);
}

#[test]
fn failures_of_all_waves_count_together() {
    let mut driver = Driver::new(
        PolicySpec {
            max_failures: 1,
            ..policy(&SAFE)
        },
        20,
    );
    driver.settle();
    driver.all_published_apply();
    driver.settle();
    driver.all_published_apply();
    driver.set([0], &Condition::Failed("one".into()));
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Running);
    assert_eq!(driver.published.len(), 10);
    driver.set([5], &Condition::Failed("two".into()));
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Paused);
    let reason = driver.progress.halt.unwrap().reason;
    assert!(
        reason.starts_with("2 hosts of wave 3 failed, 1 allowed: "),
        "{reason}"
    );
}

#[test]
fn silence_fails_at_the_deadline() {
    let mut driver = Driver::new(policy(&SAFE), 20);
    driver.settle();
    let step = driver.step();
    assert_eq!(step.wake_at_ms, Some(601_000));
    driver.now_ms = 601_000;
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::Paused);
    assert!(
        driver
            .progress
            .halt
            .unwrap()
            .reason
            .contains("has not applied it within 10m")
    );
}

#[test]
fn offline_hosts_follow_the_policy() {
    let published = |offline, online: bool| {
        let mut driver = Driver::new(
            PolicySpec {
                offline,
                ..policy(&SAFE)
            },
            20,
        );
        driver.settle();
        driver.all_published_apply();
        driver.settle();
        driver.set(
            [1],
            if online {
                &Condition::Applied
            } else {
                &Condition::Offline
            },
        );
        driver.settle();
        (driver.published.len(), driver.progress.phase)
    };
    assert_eq!(published(Offline::Wait, false), (2, Phase::Running));
    assert_eq!(published(Offline::Wait, true), (10, Phase::Running));
    assert_eq!(published(Offline::Fail, false), (2, Phase::Paused));
    // Wave 2 is this one host: where nobody applied anything, nothing is proven.
    assert_eq!(published(Offline::Defer, false), (2, Phase::Running));
    let mut driver = Driver::new(policy(&[Wave::Percent(50), Wave::Percent(100)]), 20);
    driver.settle();
    driver.all_published_apply();
    driver.set(0..9, &Condition::Offline);
    driver.settle();
    assert_eq!(driver.published.len(), 20);
    driver.set(0..20, &Condition::Offline);
    driver.settle();
    assert_eq!(
        driver.progress.phase,
        Phase::Completed,
        "hosts that never return stop nothing"
    );
}

#[test]
fn an_unproven_wave_pauses_and_can_be_let_pass() {
    let mut driver = Driver::new(policy(&SAFE), 20);
    driver.settle();
    driver.set([0], &Condition::Offline);
    driver.now_ms += 600_000;
    driver.settle();
    assert_eq!(
        driver.progress.halt.clone().unwrap().reason,
        "no host of wave 1 has applied it"
    );
    driver.progress = driver.progress.resume(driver.now_ms).unwrap();
    driver.settle();
    assert_eq!(driver.published.len(), 2);
}

#[test]
fn a_host_edited_by_hand_is_skipped_and_tried_again() {
    let mut driver = Driver::new(policy(&SAFE), 20);
    driver.set([0], &Condition::Blocked("/a edited by hand".into()));
    driver.settle();
    assert_eq!(
        (driver.published.len(), driver.progress.phase.clone()),
        (0, Phase::Paused)
    );
    driver.set([0], &Condition::Pending);
    driver.progress = driver.progress.retry(driver.now_ms).unwrap();
    driver.settle();
    assert_eq!(driver.published, [driver.plan.hosts[0].clone()]);
    driver.all_published_apply();
    driver.settle();
    assert_eq!(driver.published.len(), 2);
}

#[test]
fn a_wave_waits_for_its_window() {
    let window = Window {
        from: "09:00".into(),
        to: "10:00".into(),
        days: vec![],
        utc_offset: None,
    };
    let mut driver = Driver::new(
        PolicySpec {
            window: Some(window),
            ..policy(&SAFE)
        },
        20,
    );
    let step = driver.step();
    assert!(step.publish.is_empty());
    assert_eq!(step.wake_at_ms, Some(60_000));
    driver.now_ms = 9 * 3_600_000;
    driver.settle();
    assert_eq!(driver.published.len(), 1);
}

#[test]
fn a_failing_policy_may_ask_to_put_it_back() {
    let mut driver = Driver::new(
        PolicySpec {
            on_failure: OnFailure::Rollback,
            ..policy(&SAFE)
        },
        20,
    );
    driver.settle();
    driver.set([0], &Condition::Failed("no".into()));
    driver.settle();
    assert_eq!(driver.progress.phase, Phase::RollingBack);
    let back = driver.progress.rolled_back(9, 5_000).unwrap();
    assert_eq!(
        (back.phase.is_final(), back.halt),
        (true, driver.progress.halt.clone())
    );
}

#[test]
fn commands_fit_the_phase() {
    let running = Progress::new(0);
    let paused = running.pause("anna", "lunch", 1).unwrap();
    let aborted = paused.abort("anna", "no", 2).unwrap();
    assert_eq!(aborted.ended_ms, Some(2));
    assert!(
        running.resume(1).is_err()
            && running.retry(1).is_err()
            && paused.pause("x", "", 1).is_err()
    );
    assert!(aborted.abort("x", "", 3).is_err() && aborted.supersede(2, 3).is_err());
    assert_eq!(
        aborted.resume(3).unwrap_err().to_string(),
        "a rollout that is aborted cannot be resumed"
    );
    assert_eq!(paused.resume(1).unwrap().halt, None);
}

#[test]
fn progress_survives_being_stored() {
    let paused = Progress::new(0).pause("anna", "lunch", 1).unwrap();
    let text = serde_json::to_string(&paused).unwrap();
    assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), paused);
    let plan = Plan::new(policy(&SAFE), hosts(3));
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

/// What may happen between two steps.
#[derive(Debug, Clone)]
enum Happening {
    Report {
        host: usize,
        condition: u8,
    },
    Time {
        ms: u64,
    },
    /// The driver dies after computing a step and before storing it.
    Crash,
    Pause,
    Resume,
    Retry,
    Abort,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let report =
        (0..30usize, 0..10u8).prop_map(|(host, condition)| Happening::Report { host, condition });
    prop::collection::vec(
        prop_oneof![
            20 => report,
            4 => (0..400_000u64).prop_map(|ms| Happening::Time { ms }),
            2 => Just(Happening::Crash),
            1 => Just(Happening::Pause),
            1 => Just(Happening::Resume),
            1 => Just(Happening::Retry),
            1 => Just(Happening::Abort),
        ],
        1..120,
    )
}

fn policies() -> impl Strategy<Value = PolicySpec> {
    (
        prop::sample::select(vec![
            SAFE.to_vec(),
            vec![Wave::Percent(100)],
            vec![Wave::Hosts(2), Wave::Percent(30), Wave::Percent(100)],
        ]),
        prop::sample::select(vec![0u64, 30]),
        0..3u32,
        prop::sample::select(vec![Offline::Defer, Offline::Wait, Offline::Fail]),
        prop::sample::select(vec![OnFailure::Pause, OnFailure::Rollback]),
    )
        .prop_map(
            |(waves, bake_s, max_failures, offline, on_failure)| PolicySpec {
                waves,
                bake: Span::from_s(bake_s),
                max_failures,
                offline,
                on_failure,
                ..Default::default()
            },
        )
}

/// Plays a history and checks each promise at every step; the error names the broken one.
fn play(policy: &PolicySpec, count: usize, history: &[Happening]) -> Result<(), String> {
    let mut driver = Driver::new(policy.clone(), count);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut let_pass: BTreeSet<String> = BTreeSet::new();
    let mut passed: BTreeSet<usize> = BTreeSet::new();
    for happening in history {
        let now_ms = driver.now_ms;
        let commanded = match happening {
            Happening::Report { host, condition } => {
                let index = host % count;
                let condition = match condition {
                    0 => Condition::Failed("trouble".into()),
                    1 => Condition::Offline,
                    2 => Condition::Pending,
                    _ => Condition::Applied,
                };
                // Agents report on what was published; before, they run what they ran.
                if index < driver.progress.published {
                    driver.set([index], &condition);
                }
                None
            }
            Happening::Time { ms } => {
                driver.now_ms += ms;
                None
            }
            Happening::Crash => {
                let before = driver.progress.clone();
                let first = driver.step();
                driver.progress = before;
                driver
                    .published
                    .truncate(driver.published.len() - first.publish.len());
                if driver.step() != first {
                    return Err("the same step came out differently".into());
                }
                record(&driver, &first, &mut seen)?;
                None
            }
            Happening::Pause => driver.progress.pause("anna", "", now_ms).ok(),
            Happening::Resume => {
                let resumed = driver.progress.resume(now_ms).ok();
                if resumed.is_some() {
                    let_pass.extend(driver.progress.failures.keys().cloned());
                    passed.insert(driver.progress.wave);
                }
                resumed
            }
            Happening::Retry => driver.progress.retry(now_ms).ok(),
            Happening::Abort => driver.progress.abort("anna", "", now_ms).ok(),
        };
        if let Some(progress) = commanded {
            driver.progress = progress;
        }
        let before = driver.progress.clone();
        let step = driver.step();
        record(&driver, &step, &mut seen)?;
        if before.phase != Phase::Running && (!step.publish.is_empty() || driver.progress != before)
        {
            return Err(format!(
                "a rollout that is {} went on",
                before.phase.as_str()
            ));
        }
        let began_a_wave = step
            .publish
            .iter()
            .any(|index| *index >= driver.plan.end(before.wave));
        if began_a_wave {
            return Err("a step published beyond its wave".into());
        }
        let completed = driver.progress.phase == Phase::Completed && before.phase == Phase::Running;
        if driver.progress.wave > before.wave || completed {
            gate_was_right(&driver, &before, &let_pass, &passed)?;
        }
        if driver.progress.published > driver.plan.end(driver.progress.wave) {
            return Err("more hosts are in flight than the wave allows".into());
        }
    }
    Ok(())
}

/// Every host is published once, in the order of the plan.
fn record(driver: &Driver, step: &Step, seen: &mut BTreeMap<String, usize>) -> Result<(), String> {
    for index in &step.publish {
        let host = &driver.plan.hosts[*index];
        let times = seen.entry(host.clone()).or_default();
        *times += 1;
        if *times > 1 {
            return Err(format!("{host} was published {times} times"));
        }
    }
    let is_prefix = driver.published[..] == driver.plan.hosts[..driver.published.len()];
    if is_prefix {
        Ok(())
    } else {
        Err("hosts were published out of order".into())
    }
}

/// What must be true of a wave that was left.
fn gate_was_right(
    driver: &Driver,
    before: &Progress,
    let_pass: &BTreeSet<String>,
    passed: &BTreeSet<usize>,
) -> Result<(), String> {
    let (start, end) = (driver.plan.start(before.wave), driver.plan.end(before.wave));
    let policy = &driver.plan.policy;
    let condition = |host: &String| {
        driver
            .conditions
            .get(host)
            .cloned()
            .unwrap_or(Condition::Pending)
    };
    let mut failed = 0;
    let mut applied = false;
    for (index, host) in driver.plan.hosts[..end].iter().enumerate() {
        let overdue = before
            .wave_began_ms
            .is_some_and(|began_ms| driver.now_ms >= began_ms + policy.progress_deadline.ms);
        match condition(host) {
            _ if let_pass.contains(host) => {}
            Condition::Applied => applied |= index >= start,
            Condition::Failed(_) => failed += 1,
            Condition::Offline if policy.offline == Offline::Fail => failed += 1,
            Condition::Offline if policy.offline == Offline::Defer => {}
            _ if index < start => {}
            _ if overdue => failed += 1,
            _ => {
                return Err(format!(
                    "wave {} was left before {host} applied it",
                    before.wave + 1
                ));
            }
        }
    }
    if failed > policy.max_failures {
        return Err(format!(
            "wave {} was left with {failed} failed hosts",
            before.wave + 1
        ));
    }
    let is_last = before.wave + 1 == driver.plan.waves();
    let any_let_pass = passed.contains(&before.wave);
    if !is_last && !applied && !any_let_pass {
        return Err(format!(
            "wave {} was left although nobody applied it",
            before.wave + 1
        ));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn promises_hold(policy in policies(), count in 1..30usize, history in happenings()) {
        prop_assert_eq!(play(&policy, count, &history), Ok(()));
    }

    #[test]
    fn waves_are_monotone(count in 0..200usize, policy in policies()) {
        let plan = Plan::new(policy, hosts(count));
        prop_assert!(plan.ends.is_sorted() && plan.ends.last().copied().unwrap_or(0) == count);
        let mut dedup = plan.ends.clone();
        dedup.dedup();
        prop_assert_eq!(dedup, plan.ends);
    }

    /// A fleet that applies everything is completed, whatever the policy.
    #[test]
    fn a_healthy_fleet_completes(policy in policies(), count in 1..200usize) {
        let mut driver = Driver::new(policy, count);
        for _ in 0..100 {
            driver.settle();
            driver.all_published_apply();
            driver.now_ms += 30_000;
        }
        prop_assert_eq!(&driver.progress.phase, &Phase::Completed);
        prop_assert_eq!(&driver.published, &driver.plan.hosts);
    }
}

#[test]
fn the_simulation_can_fail() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    for bug in [
        Bug::WaveWithoutGate,
        Bug::PauseStillPublishes,
        Bug::FailuresForgotten,
    ] {
        let mut runner = TestRunner::deterministic();
        let caught = (0..3_000).any(|_| {
            let case = (policies(), 1..30usize, happenings())
                .new_tree(&mut runner)
                .unwrap()
                .current();
            planted::with(bug, || play(&case.0, case.1, &case.2)).is_err()
        });
        assert!(caught, "{bug:?} went unseen");
    }
}
