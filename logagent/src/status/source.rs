//! The status document: the config side's facts and the tailer thread's view in one.

use std::sync::Arc;

use schemas::fleet::{AgentStatus, Problem, STATUS_SCHEMA};

use super::{Board, unix_ms};
use crate::pipeline::Viewer;
use crate::settings::Settings;
use crate::supervisor::ViewLimits;

/// The value of the status key has to fit into one request of the store with room to spare.
pub(super) const IN_CENTER: ViewLimits = ViewLimits {
    entries_max: 2_000,
    files_max: 200,
};

/// Where the document comes from. Clones tell of the same agent.
#[derive(Clone)]
pub struct StatusSource {
    pub board: Arc<Board>,
    pub viewer: Viewer,
    base: Arc<AgentStatus>,
}

impl StatusSource {
    pub fn new(settings: &Settings, board: Arc<Board>, viewer: Viewer) -> Self {
        let base = AgentStatus {
            schema: STATUS_SCHEMA,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: instance_id(),
            hostname: settings.hostname.clone(),
            host: settings.host.clone(),
            labels: settings.labels.clone(),
            config_key: settings.config_key.clone(),
            started_at_ms: unix_ms(),
            ..AgentStatus::default()
        };
        Self {
            board,
            viewer,
            base: Arc::new(base),
        }
    }

    pub fn instance(&self) -> &str {
        &self.base.instance
    }

    /// `None` when the tailer thread has ended.
    pub async fn document(&self, limits: ViewLimits) -> Option<AgentStatus> {
        let view = self.viewer.view(limits).await?;
        let facts = self.board.facts();
        let mut warnings = facts.warnings;
        if let Some(other) = &facts.conflict {
            warnings.push(format!(
                "another agent (instance {}, hostname {}) reports under the same key: give one of \
                 them another `host` or `id`",
                other.instance, other.hostname
            ));
        }
        if let Some(trouble) = &facts.report_trouble {
            warnings.push(format!(
                "the status cannot be told to the center: {trouble}"
            ));
        }
        warnings.extend(view.warnings);
        warnings.extend(facts.plan_warnings.iter().map(warning));
        let mut entries = view.entries;
        entries.extend(facts.rejected);
        Some(AgentStatus {
            config_source: facts.source,
            desired_seen: facts.desired_seen,
            running: facts.running,
            last_attempt: facts.last_attempt,
            entries,
            files: view.files,
            totals: view.totals,
            in_flight: view.in_flight,
            losses: view.losses,
            watching: view.watching,
            conflict: facts.conflict,
            warnings,
            reported_at_ms: unix_ms(),
            ..AgentStatus::clone(&self.base)
        })
    }
}

fn warning(problem: &Problem) -> String {
    let entry = problem
        .index
        .map_or_else(String::new, |index| format!("entry {index}: "));
    format!("{entry}{}", problem.message)
}

/// Different at every start.
fn instance_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one(std::process::id());
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| format!("{:016x}{:016x}", random(), random()),
        |id| id.trim().to_owned(),
    )
}
