//! Two agents under one host: seen by reports that come from one instance, then from another, and
//! then from the first one again. An agent that was started anew never speaks as its old self.

use std::collections::BTreeMap;

/// Reports in a row from one instance after which the other one is believed to be gone.
const REPORTS_ALONE: u32 = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    now: String,
    before: String,
    is_double: bool,
    in_a_row: u32,
}

/// Who reported for which host.
#[derive(Debug, Clone, Default)]
pub struct Twins {
    hosts: BTreeMap<String, Seen>,
}

impl Twins {
    pub fn reported(&mut self, host: &str, instance: &str) {
        let seen = self.hosts.entry(host.to_owned()).or_default();
        if seen.now == instance {
            seen.in_a_row += 1;
            seen.is_double &= seen.in_a_row < REPORTS_ALONE;
            return;
        }
        seen.is_double = !seen.before.is_empty() && seen.before == instance;
        seen.before = std::mem::replace(&mut seen.now, instance.to_owned());
        seen.in_a_row = 1;
    }

    pub fn gone(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    /// Why the reports of a host cannot be believed.
    pub fn complaint(&self, host: &str) -> Option<String> {
        let seen = self.hosts.get(host).filter(|seen| seen.is_double)?;
        Some(format!(
            "two agents report under this name ({} and {}): give one of them another `host`",
            seen.before, seen.now
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_no_twin() {
        let mut twins = Twins::default();
        for instance in ["a", "a", "b", "b", "c"] {
            twins.reported("h", instance);
            assert_eq!(twins.complaint("h"), None, "{instance}");
        }
        twins.reported("h", "b");
        assert!(
            twins
                .complaint("h")
                .is_some_and(|why| why.contains("c and b"))
        );
        twins.reported("h", "c");
        assert!(twins.complaint("h").is_some());
        // One of them is stopped.
        for _ in 0..REPORTS_ALONE {
            twins.reported("h", "c");
        }
        assert_eq!(twins.complaint("h"), None);
        twins.reported("h", "b");
        twins.gone("h");
        assert_eq!(twins.complaint("h"), None);
    }
}
