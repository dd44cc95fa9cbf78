//! No key ends before its lease was over, and none outlives it by more than an election.
//!
//! A renewal takes effect somewhere between its call and its answer, so the earliest honest end is
//! the call plus the TTL. The latest counts from the last moment at which the cluster was disturbed:
//! a new leader gives every lease its full time again.

use std::collections::HashMap;

use crate::check::watches::Watched;
use crate::history::{Change, History};

/// One leased key as its holder knows it.
#[derive(Debug, Clone)]
pub(crate) struct Leased {
    pub(crate) key: String,
    pub(crate) ttl_ns: u64,
    /// The call of the last grant or renewal that was answered.
    pub(crate) renewed_call_ns: u64,
    /// The end of the last attempt to renew, whatever came of it.
    pub(crate) last_attempt_ns: u64,
}

/// When the cluster was not left alone: from here to there.
pub(crate) type Disturbance = (u64, u64);

/// One sentence per key that ended too early or too late.
pub(crate) fn check(
    leased: &[Leased],
    watchers: &[Watched],
    history: &History,
    disturbances: &[Disturbance],
    grace_ns: u64,
) -> Vec<String> {
    let mut violations = Vec::new();
    let first_seen = first_seen(watchers);
    for lease in leased {
        let mut events = history.of_key(&lease.key);
        if events.next().is_none() {
            // The put did not happen; there is no key to end.
            continue;
        }
        let is_end = |change: &Change| *change == Change::Delete;
        let Some(end) = events.find(|event| is_end(&event.change)) else {
            violations.push(format!("never ended: {lease:?}"));
            continue;
        };
        let Some(&seen_ns) = first_seen.get(&end.revision) else {
            // Nobody watched just then: nothing can be said about its time.
            continue;
        };
        if seen_ns < lease.renewed_call_ns + lease.ttl_ns {
            let early_ms = (lease.renewed_call_ns + lease.ttl_ns - seen_ns) / 1_000_000;
            violations.push(format!("ended {early_ms} ms early: {lease:?}"));
        }
        let calm_ns = disturbances
            .iter()
            .filter(|(began_ns, _)| *began_ns < seen_ns)
            .map(|(_, ended_ns)| *ended_ns)
            .fold(lease.last_attempt_ns, u64::max);
        let latest_ns = calm_ns + lease.ttl_ns + grace_ns;
        if seen_ns > latest_ns {
            let late_ms = (seen_ns - latest_ns) / 1_000_000;
            violations.push(format!("ended {late_ms} ms late: {lease:?}"));
        }
    }
    violations
}

/// When the first of the watchers heard of each revision.
fn first_seen(watchers: &[Watched]) -> HashMap<i64, u64> {
    let mut seen = HashMap::new();
    for batch in watchers.iter().flat_map(|watched| &watched.batches) {
        for event in &batch.events {
            let at_ns = seen.entry(event.revision).or_insert(batch.at_ns);
            *at_ns = batch.at_ns.min(*at_ns);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sample::{delete, put};
    use crate::check::watches::Batch;

    /// A key of TTL 100 that was renewed by a call at 50 and ended, as far as was seen, then.
    fn verdict(seen_ns: u64, disturbances: &[Disturbance]) -> Vec<String> {
        let events = vec![put(2, "l", "l", 2, 1), delete(3, "l")];
        let watched = Watched {
            first_revision: 1,
            batches: vec![Batch {
                at_ns: seen_ns,
                revision: 3,
                events: events.clone(),
            }],
            ..Watched::default()
        };
        let leased = Leased {
            key: "l".to_owned(),
            ttl_ns: 100,
            renewed_call_ns: 50,
            last_attempt_ns: 60,
        };
        check(
            &[leased],
            &[watched],
            &History::new(events),
            disturbances,
            10,
        )
    }

    #[test]
    fn too_early_and_too_late_are_found() {
        assert_eq!(verdict(150, &[]), [""; 0]);
        assert_eq!(verdict(170, &[]), [""; 0]);
        assert!(verdict(149, &[])[0].starts_with("ended 0 ms early"));
        assert!(verdict(171, &[])[0].starts_with("ended 0 ms late"));
        // An election in between begins the time again.
        assert_eq!(verdict(210, &[(20, 100)]), [""; 0]);
        assert_eq!(verdict(211, &[(20, 100)]).len(), 1);
        // One that came later explains nothing.
        assert_eq!(verdict(171, &[(180, 190)]).len(), 1);
    }

    #[test]
    fn a_key_that_stays_is_found() {
        let leased = Leased {
            key: "l".to_owned(),
            ttl_ns: 100,
            renewed_call_ns: 50,
            last_attempt_ns: 60,
        };
        let history = History::new(vec![put(2, "l", "l", 2, 1)]);
        let found = check(std::slice::from_ref(&leased), &[], &history, &[], 10);
        assert!(found[0].starts_with("never ended"), "{found:?}");
        assert_eq!(check(&[leased], &[], &History::default(), &[], 10), [""; 0]);
    }
}
