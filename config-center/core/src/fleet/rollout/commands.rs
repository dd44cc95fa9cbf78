//! What an operator may do to a rollout, and when.

use super::progress::{Halt, Phase, Progress};

/// The rollout is not in a state in which this can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {} cannot be {command}", phase.as_str())]
pub struct CommandError {
    pub phase: Phase,
    pub command: &'static str,
}

impl Progress {
    fn allow(&self, allowed: bool, command: &'static str) -> Result<Self, CommandError> {
        if allowed {
            Ok(self.clone())
        } else {
            Err(CommandError {
                phase: self.phase.clone(),
                command,
            })
        }
    }

    pub fn pause(&self, by: &str, reason: &str, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(self.phase == Phase::Running, "paused")?;
        next.halt(Phase::Paused, by, reason, now_ms);
        Ok(next)
    }

    /// Goes on, without the hosts that have failed so far.
    pub fn resume(&self, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(self.phase == Phase::Paused, "resumed")?;
        next.accepted.extend(self.failures.keys().cloned());
        next.accepted_wave = Some(self.wave);
        next.go_on(now_ms);
        Ok(next)
    }

    /// Goes on, and gives the failed hosts another chance.
    pub fn retry(&self, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(self.phase == Phase::Paused, "retried")?;
        next.again
            .extend(std::mem::take(&mut next.skipped).into_keys());
        next.retrying = std::mem::take(&mut next.failures).into_keys().collect();
        next.retried_at_ms = Some(now_ms);
        next.go_on(now_ms);
        Ok(next)
    }

    pub fn abort(&self, by: &str, reason: &str, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(!self.phase.is_final(), "aborted")?;
        next.halt(Phase::Aborted, by, reason, now_ms);
        Ok(next)
    }

    /// A later release takes over.
    pub fn supersede(&self, by_release: u64, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(!self.phase.is_final(), "superseded")?;
        let reason = format!("release {by_release} took over");
        next.halt(Phase::Superseded { by_release }, "publish", &reason, now_ms);
        Ok(next)
    }

    /// The release that puts this one back is published.
    pub fn rolled_back(&self, by_release: u64, now_ms: u64) -> Result<Self, CommandError> {
        let mut next = self.allow(!self.phase.is_final(), "rolled back")?;
        let halt = next.halt.clone();
        next.halt(Phase::RolledBack { by_release }, "", "", now_ms);
        // What made it fail says more than that it was put back.
        next.halt = halt;
        Ok(next)
    }

    pub(super) fn halt(&mut self, phase: Phase, by: &str, reason: &str, now_ms: u64) {
        self.ended_ms = phase.is_final().then_some(now_ms);
        self.phase = phase;
        self.bake_began_ms = None;
        self.halt = Some(Halt {
            by: by.into(),
            reason: reason.into(),
            at_ms: now_ms,
        });
    }

    fn go_on(&mut self, now_ms: u64) {
        self.phase = Phase::Running;
        self.halt = None;
        self.bake_began_ms = None;
        // The time that it stood still is not held against the hosts.
        self.wave_began_ms = self.wave_began_ms.map(|_| now_ms);
    }
}
