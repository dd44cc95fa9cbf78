//! How a rollout stands, for people and for programs: the same answer from configctl and the API.

use config_center_core::fleet::rollout::{Phase, Tally, tally};
use serde::Serialize;

use super::{
    driver::observer,
    records::{StoredPlan, StoredRollout},
    view::View,
};

#[derive(Debug, Clone, Serialize)]
pub struct RolloutStatus {
    pub id: String,
    pub release: u64,
    pub phase: &'static str,
    pub policy: Option<String>,
    /// From 1.
    pub wave: usize,
    pub waves: usize,
    #[serde(flatten)]
    pub tally: Tally,
    /// Why it stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub failures: Vec<FailedHost>,
    pub began_ms: u64,
    /// True when nothing more happens by itself.
    pub is_at_rest: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct FailedHost {
    pub host: String,
    pub reason: String,
}

impl RolloutStatus {
    pub fn new(rollout: &StoredRollout, plan: &StoredPlan, view: &View) -> Self {
        let progress = &rollout.progress;
        let failures = progress.failures.iter().map(|(host, reason)| FailedHost {
            host: host.clone(),
            reason: reason.clone(),
        });
        let reason = progress.halt.as_ref().map(|halt| halt.reason.clone());
        Self {
            id: rollout.id.clone(),
            release: rollout.release,
            phase: progress.phase.as_str(),
            policy: rollout.policy_name.as_ref().map(ToString::to_string),
            wave: (progress.wave + 1).min(rollout.waves),
            waves: rollout.waves,
            tally: tally(&plan.plan, progress, observer(view, plan, progress)),
            reason: reason.filter(|text| !text.is_empty()),
            failures: failures.collect(),
            began_ms: progress.began_ms,
            is_at_rest: progress.phase.is_final() || progress.phase == Phase::Paused,
        }
    }

    pub fn sentence(&self) -> String {
        let Tally {
            total,
            published,
            applied,
            failed,
            offline,
            ..
        } = self.tally;
        let mut words = format!(
            "rollout {}: {}, wave {} of {}, applied on {applied}/{total} hosts",
            self.id, self.phase, self.wave, self.waves
        );
        let on_the_way = published.saturating_sub(applied + failed + offline);
        for (count, what) in [
            (on_the_way, "on the way"),
            (failed, "failed"),
            (offline, "offline"),
        ] {
            if count > 0 {
                words.push_str(&format!(", {count} {what}"));
            }
        }
        words
    }

    /// A rollout that stands still against its will, or was taken back, has failed.
    pub fn has_failed(&self) -> bool {
        !matches!(self.phase, "running" | "completed")
    }
}
