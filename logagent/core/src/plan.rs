//! What changes between the entries that run and the plan that is asked for.
//!
//! Compares identities and options; starts and stops nothing itself.
//!
//! ```text
//! running                 plan                    changes
//! /a → old, /b → b        /a → new, /b → b        hand over /a: old → new; keep /b
//! /a → one                /a → one, /a → two      keep /a → one; start /a → two
//! /a → one, /a → two      /a → three              hand over /a: one → three; stop /a → two
//! ```

use std::collections::{HashMap, HashSet, VecDeque};

use crate::config::{Entry, EntryId, Plan};

/// One change. Carry them out in the given order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Leave this tail alone.
    Keep(EntryId),
    /// Stop the tail: begin_stop, pump until settled, keep its rows in the checkpoint (inactive).
    Stop(EntryId),
    /// Stop `from` like Stop, then start `to` with the rows of `from`; `from` keeps no rows. So
    /// each line is in exactly one of the two topics. Also used with `from == to.id` when only
    /// the options changed.
    HandOver { from: EntryId, to: Entry },
    /// Start with the rows that the checkpoint has for this identity, or none.
    Start(Entry),
}

/// Compares. `running` are the entries whose tails run; at start, the active ones of the
/// checkpoint (so a topic changed while the agent was down is handed over too).
///
/// The order is: stops, hand-overs, starts, keeps; within each, the order of the input. A tail
/// that stops frees its descriptors before another one opens some.
#[must_use]
pub fn diff(running: &[Entry], plan: &Plan) -> Vec<Change> {
    let wanted: HashSet<&EntryId> = plan.entries.iter().map(|entry| &entry.id).collect();
    let runs: HashMap<&EntryId, &Entry> = running.iter().map(|entry| (&entry.id, entry)).collect();
    let mut leaving: HashMap<&str, VecDeque<&EntryId>> = HashMap::new();
    for entry in running.iter().filter(|entry| !wanted.contains(&entry.id)) {
        leaving
            .entry(&entry.id.path)
            .or_default()
            .push_back(&entry.id);
    }
    let (mut hand_overs, mut starts, mut keeps) = (Vec::new(), Vec::new(), Vec::new());
    let mut handed_over = HashSet::new();
    for entry in &plan.entries {
        if let Some(old) = runs.get(&entry.id) {
            if old.options.tail_alike(&entry.options) {
                keeps.push(Change::Keep(entry.id.clone()));
            } else {
                let from = entry.id.clone();
                hand_overs.push(Change::HandOver {
                    from,
                    to: entry.clone(),
                });
            }
        } else if let Some(old) = leaving
            .get_mut(entry.id.path.as_str())
            .and_then(VecDeque::pop_front)
        {
            handed_over.insert(old);
            hand_overs.push(Change::HandOver {
                from: old.clone(),
                to: entry.clone(),
            });
        } else {
            starts.push(Change::Start(entry.clone()));
        }
    }
    let stopped = running
        .iter()
        .map(|entry| &entry.id)
        .filter(|id| !wanted.contains(id) && !handed_over.contains(id));
    let mut changes: Vec<Change> = stopped.cloned().map(Change::Stop).collect();
    changes.append(&mut hand_overs);
    changes.append(&mut starts);
    changes.append(&mut keeps);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;
    use proptest::prelude::*;

    /// `"/a>t /b>u"`: an entry per word; `/a>t:99` with a line limit.
    fn entries(text: &str) -> Vec<Entry> {
        text.split_whitespace()
            .enumerate()
            .map(|(index, word)| {
                let (path, rest) = word.split_once('>').unwrap();
                let (topic, max) = rest.split_once(':').unwrap_or((rest, ""));
                Entry {
                    id: EntryId {
                        path: path.into(),
                        topic: topic.into(),
                    },
                    index,
                    options: Options {
                        max_line_bytes: max.parse().ok(),
                        ..Options::default()
                    },
                    pattern: None,
                }
            })
            .collect()
    }

    fn short(changes: &[Change]) -> String {
        let id = |id: &EntryId| format!("{}>{}", id.path, id.topic);
        let words: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Keep(kept) => format!("={}", id(kept)),
                Change::Stop(stopped) => format!("-{}", id(stopped)),
                Change::HandOver { from, to } => format!("{}=>{}", id(from), id(&to.id)),
                Change::Start(entry) => format!("+{}", id(&entry.id)),
            })
            .collect();
        words.join(" ")
    }

    #[track_caller]
    fn check(running: &str, wanted: &str, want: &str) {
        let plan = Plan {
            entries: entries(wanted),
            ..Plan::default()
        };
        assert_eq!(
            short(&diff(&entries(running), &plan)),
            want,
            "{running} to {wanted}"
        );
    }

    #[test]
    fn only_what_changed_is_touched() {
        check("", "", "");
        check("", "/a>t", "+/a>t");
        check("/a>t", "", "-/a>t");
        check("/a>t /b>t", "/b>t /a>t", "=/b>t =/a>t");
        check("/a>t", "/a>t /b>t", "+/b>t =/a>t");
        check("/a>t /b>t", "/b>t", "-/a>t =/b>t");
    }

    #[test]
    fn a_changed_topic_hands_over() {
        check("/a>t /b>b", "/a>u /b>b", "/a>t=>/a>u =/b>b");
        check("/a>one", "/a>one /a>two", "+/a>two =/a>one");
        check("/a>one /a>two", "/a>three", "-/a>two /a>one=>/a>three");
        check(
            "/a>one /a>two",
            "/a>two /a>three",
            "/a>one=>/a>three =/a>two",
        );
        check("/a>t", "/b>t", "-/a>t +/b>t");
    }

    #[test]
    fn changed_options_restart_from_the_own_offset() {
        check("/a>t", "/a>t:99", "/a>t=>/a>t");
        check("/a>t:99", "/a>t:99", "=/a>t");
    }

    proptest! {
        /// Carrying the changes out ends with the plan, and touches nothing that was in both.
        #[test]
        fn carrying_out_reaches_the_plan(
            running in proptest::collection::btree_set("/[ab]>[xyz]", 0..5),
            wanted in proptest::collection::btree_set("/[ab]>[xyz]", 0..5),
        ) {
            let text = |set: &std::collections::BTreeSet<String>| {
                set.iter().cloned().collect::<Vec<_>>().join(" ")
            };
            let plan = Plan { entries: entries(&text(&wanted)), ..Plan::default() };
            let before = entries(&text(&running));
            let mut tails: HashSet<EntryId> = before.iter().map(|e| e.id.clone()).collect();
            let both: HashSet<EntryId> = plan
                .entries
                .iter()
                .map(|e| e.id.clone())
                .filter(|id| tails.contains(id))
                .collect();
            for change in diff(&before, &plan) {
                match change {
                    Change::Keep(id) => prop_assert!(both.contains(&id)),
                    Change::Stop(id) => prop_assert!(tails.remove(&id) && !both.contains(&id)),
                    Change::HandOver { from, to } => {
                        prop_assert_eq!(&from.path, &to.id.path);
                        prop_assert!(tails.remove(&from) && !both.contains(&from));
                        prop_assert!(tails.insert(to.id));
                    }
                    Change::Start(entry) => prop_assert!(tails.insert(entry.id)),
                }
            }
            let want: HashSet<EntryId> = plan.entries.into_iter().map(|e| e.id).collect();
            prop_assert_eq!(tails, want);
        }
    }
}
