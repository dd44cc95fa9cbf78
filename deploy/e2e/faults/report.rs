//! What a campaign did and found, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::campaign::Plan;
use crate::check::leases::Leased;
use crate::check::watches::Watched;
use crate::faults::{ALL, Fault};
use crate::history::{Ask, Request};

/// Violations that are written out; one cause can show in many places.
const MAX_WRITTEN: usize = 20;

/// One fault that was played.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) fault: Fault,
    pub(crate) outcome: String,
    pub(crate) lasted: Duration,
    /// Until all members agreed and clients were served again.
    pub(crate) recovered: Duration,
}

#[derive(Debug)]
pub(crate) struct Report {
    plan: Plan,
    pub(crate) played: Vec<Played>,
    pub(crate) violations: Vec<String>,
    pub(crate) revision: i64,
    pub(crate) digests: Vec<Option<u32>>,
    /// Per kind: `(answered, unknown)`.
    requests: BTreeMap<&'static str, (usize, usize)>,
    leases: usize,
    events: Vec<usize>,
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            played: Vec::new(),
            violations: Vec::new(),
            revision: 0,
            digests: Vec::new(),
            requests: BTreeMap::new(),
            leases: 0,
            events: Vec::new(),
        }
    }

    pub(crate) fn count(&mut self, requests: &[Request], leased: &[Leased], watched: &[Watched]) {
        for request in requests {
            let kind = match request.ask {
                Ask::Put { .. } => "put",
                Ask::Get => "get",
                Ask::Peek => "get, serializable",
                Ask::Swap { .. } => "compare and swap",
                Ask::Delete { .. } => "delete",
            };
            let counts = self.requests.entry(kind).or_default();
            if request.answer.is_some() {
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
        self.leases = leased.len();
        let events = |watched: &Watched| watched.batches.iter().map(|b| b.events.len()).sum();
        self.events = watched.iter().map(events).collect();
    }

    /// The kinds of fault that were not played.
    pub(crate) fn missing(&self) -> Vec<Fault> {
        let played = |fault: &Fault| self.played.iter().any(|one| one.fault == *fault);
        ALL.into_iter().filter(|fault| !played(fault)).collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).unwrap_or_default();
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let plan = &self.plan;
        let verdict = match self.violations.len() {
            0 => "no violation".to_owned(),
            1 => "1 violation".to_owned(),
            count => format!("{count} violations"),
        };
        writeln!(text, "# Campaign with seed {}: {verdict}\n", plan.seed)?;
        writeln!(
            text,
            "{} members, {} s of faults, {} faults, final revision {}, HashKV {:08x?}.\n",
            plan.members,
            plan.time.as_secs(),
            self.played.len(),
            self.revision,
            self.digests.iter().flatten().collect::<Vec<_>>(),
        )?;
        for violation in self.violations.iter().take(MAX_WRITTEN) {
            writeln!(text, "- {violation}")?;
        }
        if self.violations.len() > MAX_WRITTEN {
            writeln!(text, "- and {} more", self.violations.len() - MAX_WRITTEN)?;
        }
        writeln!(text, "\n| request | answered | unknown |\n|---|---|---|")?;
        for (kind, (answered, unknown)) in &self.requests {
            writeln!(text, "| {kind} | {answered} | {unknown} |")?;
        }
        writeln!(
            text,
            "\n{} leases. Events per watcher: {:?}.\n",
            self.leases, self.events
        )?;
        writeln!(text, "| fault | times | longest recovery |\n|---|---|---|")?;
        for fault in ALL {
            let played: Vec<&Played> = self
                .played
                .iter()
                .filter(|one| one.fault == fault)
                .collect();
            let longest = played
                .iter()
                .map(|one| one.recovered)
                .max()
                .unwrap_or_default();
            writeln!(
                text,
                "| {fault:?} | {} | {:.1} s |",
                played.len(),
                longest.as_secs_f64()
            )?;
        }
        writeln!(
            text,
            "\n| fault | on | lasted | recovered after |\n|---|---|---|---|"
        )?;
        for one in &self.played {
            writeln!(
                text,
                "| {:?} | {} | {:.1} s | {:.1} s |",
                one.fault,
                one.outcome,
                one.lasted.as_secs_f64(),
                one.recovered.as_secs_f64()
            )?;
        }
        Ok(())
    }
}
