//! One step of a rollout.

use std::collections::BTreeMap;

use schemas::objects::{Offline, OnFailure};

use super::{
    plan::Plan,
    progress::{Phase, Progress},
};
use crate::planted::{self, Bug};

/// After a retry, a host that still reports its old failure has this long to report better.
const RETRY_GRACE_MS: u64 = 30_000;
/// Failed hosts that a reason names; the progress has all of them.
const HOSTS_NAMED: usize = 3;

/// What is known of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It runs what its key holds, and nothing is wrong.
    Applied,
    /// Its agent reports, and has not come to it yet.
    Pending,
    /// Its agent refused it, or runs it with trouble.
    Failed(String),
    /// No agent reports.
    Offline,
    /// Not published yet, and its key cannot be written: why.
    Blocked(String),
}

/// What to do, and how the progress looks when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub progress: Progress,
    /// Indices into the plan's hosts.
    pub publish: Vec<usize>,
    /// When time alone makes another step worthwhile.
    pub wake_at_ms: Option<u64>,
}

/// How many hosts stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    pub total: usize,
    pub published: usize,
    pub applied: usize,
    pub pending: usize,
    pub failed: usize,
    pub offline: usize,
}

/// Decides the next step; at most `most` hosts are published by it.
pub fn step(
    plan: &Plan,
    progress: &Progress,
    observe: impl Fn(&str) -> Condition,
    now_ms: u64,
    most: usize,
) -> Step {
    let mut engine = Engine {
        plan,
        observe,
        now_ms,
        next: progress.clone(),
        publish: Vec::new(),
        wake_at_ms: None,
    };
    if progress.phase == Phase::Running || pause_is_ignored(progress) {
        engine.run(most);
    }
    Step {
        progress: engine.next,
        publish: engine.publish,
        wake_at_ms: engine.wake_at_ms,
    }
}

fn pause_is_ignored(progress: &Progress) -> bool {
    planted::is(Bug::PauseStillPublishes) && progress.phase == Phase::Paused
}

/// Counts hosts for a display.
pub fn tally(plan: &Plan, progress: &Progress, observe: impl Fn(&str) -> Condition) -> Tally {
    let mut tally = Tally {
        total: plan.hosts.len(),
        published: progress.published,
        ..Default::default()
    };
    if let Some(applied) = progress.applied_at_end {
        tally.applied = applied;
        tally.failed = progress.failures.len();
        tally.offline = progress.published.saturating_sub(applied + tally.failed);
        return tally;
    }
    for host in &plan.hosts[..progress.published.min(plan.hosts.len())] {
        match observe(host) {
            _ if progress.failures.contains_key(host) => tally.failed += 1,
            Condition::Applied => tally.applied += 1,
            Condition::Pending | Condition::Blocked(_) => tally.pending += 1,
            Condition::Failed(_) => tally.failed += 1,
            Condition::Offline => tally.offline += 1,
        }
    }
    tally
}

/// How a published host counts at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Applied,
    /// Offline, and the policy does not wait for it.
    Deferred,
    Waiting,
    Failed(String),
}

struct Engine<'a, F> {
    plan: &'a Plan,
    observe: F,
    now_ms: u64,
    next: Progress,
    publish: Vec<usize>,
    wake_at_ms: Option<u64>,
}

impl<F: Fn(&str) -> Condition> Engine<'_, F> {
    fn run(&mut self, most: usize) {
        let standings: Vec<Standing> = (0..self.next.published.min(self.plan.hosts.len()))
            .map(|index| self.standing(index))
            .collect();
        self.note_failures(&standings);
        if self.is_stopped_by_failures() {
            return;
        }
        if self.publish_again(most) {
            return;
        }
        let end = self.plan.end(self.next.wave);
        if self.next.published < end {
            self.publish_wave(end, most);
        } else {
            self.gate(&standings);
        }
    }

    fn standing(&mut self, index: usize) -> Standing {
        let host = self.plan.hosts[index].as_str();
        if let Some(reason) = self.next.skipped.get(host) {
            return Standing::Failed(reason.clone());
        }
        if self.next.again.contains(host) {
            return Standing::Waiting;
        }
        let in_wave = self.plan.wave_of(index) == self.next.wave;
        let policy = &self.plan.policy;
        match (self.observe)(host) {
            Condition::Applied => Standing::Applied,
            Condition::Failed(reason) | Condition::Blocked(reason) => {
                match self.grace_ends_ms(host) {
                    Some(until_ms) if self.now_ms < until_ms => {
                        self.wake(until_ms);
                        Standing::Waiting
                    }
                    _ => Standing::Failed(reason),
                }
            }
            Condition::Offline if policy.offline == Offline::Defer => Standing::Deferred,
            Condition::Offline if policy.offline == Offline::Fail => {
                Standing::Failed("no agent reports".into())
            }
            // A host of an earlier wave has passed its gate; it may come and go.
            Condition::Pending | Condition::Offline if !in_wave => Standing::Deferred,
            Condition::Pending | Condition::Offline if self.next.accepted.contains(host) => {
                Standing::Deferred
            }
            Condition::Pending | Condition::Offline => self.waiting(),
        }
    }

    /// Waiting, until the deadline has passed.
    fn waiting(&mut self) -> Standing {
        let deadline = self.plan.policy.progress_deadline;
        let began_ms = self.next.wave_began_ms.unwrap_or(self.now_ms);
        let until_ms = began_ms.saturating_add(deadline.ms);
        if self.now_ms < until_ms {
            self.wake(until_ms);
            return Standing::Waiting;
        }
        Standing::Failed(format!("has not applied it within {deadline}"))
    }

    fn grace_ends_ms(&self, host: &str) -> Option<u64> {
        let retried_at_ms = self.next.retried_at_ms?;
        self.next
            .retrying
            .contains(host)
            .then_some(retried_at_ms + RETRY_GRACE_MS)
    }

    fn wake(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }

    fn note_failures(&mut self, standings: &[Standing]) {
        let first = if planted::is(Bug::FailuresForgotten) {
            self.plan.start(self.next.wave)
        } else {
            0
        };
        let mut failures = BTreeMap::new();
        for (index, standing) in standings.iter().enumerate().skip(first) {
            if let Standing::Failed(reason) = standing {
                failures.insert(self.plan.hosts[index].clone(), reason.clone());
            }
        }
        self.next.failures = failures;
    }

    fn is_stopped_by_failures(&mut self) -> bool {
        let policy = &self.plan.policy;
        let counted = |host: &&String| !self.next.accepted.contains(host.as_str());
        let failed: Vec<&String> = self.next.failures.keys().filter(counted).collect();
        if failed.len() <= usize::try_from(policy.max_failures).unwrap_or(usize::MAX) {
            return false;
        }
        let named: Vec<String> = failed
            .iter()
            .take(HOSTS_NAMED)
            .map(|host| format!("{host}: {}", self.next.failures[host.as_str()]))
            .collect();
        let more = match failed.len().saturating_sub(HOSTS_NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let bears = match policy.max_failures {
            0 => String::new(),
            most => format!(", {most} allowed"),
        };
        let reason = format!(
            "{} of wave {} failed{bears}: {}{more}",
            if failed.len() == 1 {
                "a host".into()
            } else {
                format!("{} hosts", failed.len())
            },
            self.next.wave + 1,
            named.join("; "),
        );
        let phase = match policy.on_failure {
            OnFailure::Pause => Phase::Paused,
            OnFailure::Rollback => Phase::RollingBack,
        };
        self.next.halt(phase, "policy", &reason, self.now_ms);
        self.wake_at_ms = None;
        true
    }

    /// Hosts that could not be written before and are to be tried once more.
    fn publish_again(&mut self, most: usize) -> bool {
        if self.next.again.is_empty() {
            return false;
        }
        let all = &self.plan.hosts[..self.next.published.min(self.plan.hosts.len())];
        let chosen: Vec<usize> = (0..all.len())
            .filter(|index| self.next.again.contains(&all[*index]))
            .take(most)
            .collect();
        for index in &chosen {
            self.next.again.remove(&self.plan.hosts[*index]);
            self.publish_or_skip(*index);
        }
        if chosen.is_empty() {
            self.next.again.clear();
        }
        true
    }

    fn publish_wave(&mut self, end: usize, most: usize) {
        if self.next.wave_began_ms.is_none() {
            if let Some(window) = &self.plan.policy.window
                && !window.is_open(self.now_ms)
            {
                // Windows are told in minutes, so looking once a minute is enough.
                self.wake((self.now_ms / 60_000 + 1) * 60_000);
                return;
            }
            self.next.wave_began_ms = Some(self.now_ms);
        }
        let until = end.min(self.next.published + most);
        for index in self.next.published..until {
            self.publish_or_skip(index);
        }
        self.next.published = until;
    }

    fn publish_or_skip(&mut self, index: usize) {
        let host = &self.plan.hosts[index];
        match (self.observe)(host) {
            Condition::Blocked(reason) => {
                self.next.skipped.insert(host.clone(), reason);
            }
            _ => self.publish.push(index),
        }
    }

    /// The wave is written: may the next one begin?
    fn gate(&mut self, standings: &[Standing]) {
        let is_last = self.next.wave + 1 >= self.plan.waves();
        let waits = standings.contains(&Standing::Waiting) && !planted::is(Bug::WaveWithoutGate);
        let own = &standings[self.plan.start(self.next.wave).min(standings.len())..];
        // Hosts that are all offline prove nothing for those that come after them.
        let is_unproven = !is_last
            && !own.contains(&Standing::Applied)
            && self.next.accepted_wave != Some(self.next.wave);
        if waits {
            self.next.bake_began_ms = None;
            return;
        }
        if is_unproven && !planted::is(Bug::WaveWithoutGate) {
            self.next.bake_began_ms = None;
            if let Standing::Failed(_) = self.waiting() {
                let reason = format!("no host of wave {} has applied it", self.next.wave + 1);
                self.next
                    .halt(Phase::Paused, "policy", &reason, self.now_ms);
                self.wake_at_ms = None;
            }
            return;
        }
        let bake = self.plan.policy.bake;
        let began_ms = *self.next.bake_began_ms.get_or_insert(self.now_ms);
        let until_ms = began_ms.saturating_add(bake.ms);
        if self.now_ms < until_ms {
            self.wake(until_ms);
            return;
        }
        self.next.bake_began_ms = None;
        if is_last {
            let applied = standings
                .iter()
                .filter(|standing| **standing == Standing::Applied);
            self.next.applied_at_end = Some(applied.count());
            self.next.phase = Phase::Completed;
            self.next.ended_ms = Some(self.now_ms);
            self.wake_at_ms = None;
        } else {
            self.next.wave += 1;
            self.next.wave_began_ms = None;
        }
    }
}
