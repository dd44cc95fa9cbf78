//! Per-key linearizability: is there an order of the requests in which each takes effect at one
//! moment between its call and its answer, and every answer is true?
//!
//! The search is Wing and Gong's with Lowe's memory: try the requests that are under way, undo when
//! an answer cannot be explained, and never visit the same set of done requests in the same state
//! twice. A write whose outcome was unknown to its client takes part when the history has its
//! event, with no end; otherwise it had no effect and is left out.
//!
//! ```text
//! put a  |-----|             the order  put a, get a, put b  explains these answers;
//! get a     |------|         had the get begun after the answer of put b, nothing would
//! put b          |----|
//! ```

use std::collections::{BTreeMap, HashSet};

use crate::history::{Ask, Change, History, Request, Seen, Told};

const NEVER: u64 = u64::MAX;

/// What a request does to its key, or says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    Put {
        value: String,
        revision: i64,
    },
    Swap {
        expected: i64,
        value: String,
        revision: i64,
    },
    Delete {
        revision: i64,
        existed: Option<bool>,
    },
    Is(Option<Seen>),
    IsNot {
        expected: i64,
        found: Option<Seen>,
    },
}

#[derive(Debug, Clone)]
struct Step {
    called_ns: u64,
    at_ns: u64,
    effect: Effect,
    /// Of a write: the revision of the key's write before it, which must have happened.
    follows: i64,
}

impl Effect {
    /// The revision of a write.
    fn revision(&self) -> Option<i64> {
        match self {
            Self::Put { revision, .. }
            | Self::Swap { revision, .. }
            | Self::Delete { revision, .. } => Some(*revision),
            Self::Is(_) | Self::IsNot { .. } => None,
        }
    }
}

/// The key's pair; a delete is remembered by its revision, below which nothing may follow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    pair: Option<Seen>,
    revision: i64,
}

impl State {
    /// The state after this step; `None` when it cannot happen now. Writes happen in the order of
    /// their revisions, which leaves little to search.
    fn after(&self, step: &Step) -> Option<Self> {
        if step.effect.revision().is_some() && step.follows != self.revision {
            return None;
        }
        let modified = self.pair.as_ref().map_or(0, |pair| pair.modified);
        match &step.effect {
            Effect::Put { value, revision } => Some(self.put(value, *revision)),
            Effect::Swap {
                expected,
                value,
                revision,
            } => (modified == *expected).then(|| self.put(value, *revision)),
            Effect::Delete { revision, existed } => {
                let fits = existed.is_none_or(|existed| existed == self.pair.is_some());
                fits.then_some(Self {
                    pair: None,
                    revision: *revision,
                })
            }
            Effect::Is(found) => (self.pair == *found).then(|| self.clone()),
            Effect::IsNot { expected, found } => {
                (modified != *expected && self.pair == *found).then(|| self.clone())
            }
        }
    }

    fn put(&self, value: &str, revision: i64) -> Self {
        Self {
            pair: Some(Seen {
                value: value.to_owned(),
                create: self.pair.as_ref().map_or(revision, |pair| pair.create),
                modified: revision,
                version: self.pair.as_ref().map_or(1, |pair| pair.version + 1),
            }),
            revision,
        }
    }
}

/// One sentence per key whose requests no order explains.
pub(crate) fn check(requests: &[Request], history: &History) -> Vec<String> {
    let mut keys: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
    for request in requests {
        if let Some(step) = step(request, history) {
            keys.entry(&request.key).or_default().push(step);
        }
    }
    keys.into_iter()
        .filter_map(|(key, mut steps)| {
            set_order(&mut steps);
            let stuck = search(steps).err()?;
            Some(format!("{key} is not linearizable: {stuck}"))
        })
        .collect()
}

fn set_order(steps: &mut [Step]) {
    let mut revisions: Vec<i64> = steps
        .iter()
        .filter_map(|step| step.effect.revision())
        .collect();
    revisions.sort_unstable();
    for step in steps {
        if let Some(revision) = step.effect.revision() {
            let before = revisions.partition_point(|other| *other < revision);
            step.follows = before.checked_sub(1).map_or(0, |before| revisions[before]);
        }
    }
}

fn step(request: &Request, history: &History) -> Option<Step> {
    let answer = request.answer.as_ref();
    let resolved = |value: &str| history.put_of(&request.key, value).map(|e| e.revision);
    let effect = match (
        &request.ask,
        answer.map(|answer| (answer.revision, &answer.told)),
    ) {
        (Ask::Peek, _) | (Ask::Get, None) => return None,
        (Ask::Get, Some((_, Told::Found(found)))) => Effect::Is(found.clone()),
        (Ask::Put { value }, told) => Effect::Put {
            revision: told.map_or_else(|| resolved(value), |(revision, _)| Some(revision))?,
            value: value.clone(),
        },
        (Ask::Swap { expected, .. }, Some((_, Told::Refused(found)))) => Effect::IsNot {
            expected: *expected,
            found: found.clone(),
        },
        (Ask::Swap { expected, value }, told) => Effect::Swap {
            expected: *expected,
            revision: told.map_or_else(|| resolved(value), |(revision, _)| Some(revision))?,
            value: value.clone(),
        },
        (Ask::Delete { .. }, Some((revision, Told::Deleted { existed }))) => Effect::Delete {
            revision,
            existed: Some(*existed),
        },
        (Ask::Delete { marker }, _) => Effect::Delete {
            // The marker's event tells the revision of an unknown delete.
            revision: marker_revision(history, marker)?,
            existed: None,
        },
        (Ask::Get, Some(_)) => return None,
    };
    Some(Step {
        called_ns: request.called_ns,
        at_ns: answer.map_or(NEVER, |answer| answer.at_ns),
        effect,
        follows: 0,
    })
}

fn marker_revision(history: &History, marker: &str) -> Option<i64> {
    let mut events = history.of_key(marker);
    let put = events.find(|event| matches!(event.change, Change::Put { .. }))?;
    Some(put.revision)
}

/// Calls and ends in their order, as a list from which requests are taken out and put back.
struct Timeline {
    /// `(step, is_call)`.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each step's call and end are.
    places: Vec<(usize, usize)>,
}

/// The list's head; entries begin at 1.
const HEAD: usize = 0;

impl Timeline {
    fn new(steps: &[Step]) -> Self {
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            // Of equal moments the call comes first: then the two overlap, the milder reading.
            order.push((step.called_ns, false, at));
            order.push((step.at_ns, true, at));
        }
        order.sort_unstable();
        let mut entries = vec![(usize::MAX, false)];
        let mut places = vec![(0, 0); steps.len()];
        for (_, is_end, step) in order {
            let place = entries.len();
            if is_end {
                places[step].1 = place;
            } else {
                places[step].0 = place;
            }
            entries.push((step, !is_end));
        }
        let len = entries.len();
        Self {
            next: (1..=len).map(|n| n % len).collect(),
            previous: (0..len).map(|n| (n + len - 1) % len).collect(),
            entries,
            places,
        }
    }

    fn take_out(&mut self, step: usize) {
        let (call, end) = self.places[step];
        for place in [call, end] {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    /// Undoes the last `take_out` that was not undone yet.
    fn put_back(&mut self, step: usize) {
        let (call, end) = self.places[step];
        for place in [end, call] {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = place;
            self.previous[after] = place;
        }
    }
}

fn search(steps: Vec<Step>) -> Result<(), String> {
    let mut timeline = Timeline::new(&steps);
    let mut done = vec![0_u64; steps.len().div_ceil(64)];
    let mut state = State::default();
    let mut undo: Vec<(usize, State)> = Vec::new();
    let mut known: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut farthest: (usize, Option<(usize, State)>) = (0, None);
    let mut place = timeline.next[HEAD];
    while place != HEAD {
        let (step, is_call) = timeline.entries[place];
        if is_call {
            let after = state.after(&steps[step]);
            done[step / 64] |= 1 << (step % 64);
            if let Some(after) = after
                && known.insert((done.clone(), after.clone()))
            {
                undo.push((step, std::mem::replace(&mut state, after)));
                timeline.take_out(step);
                place = timeline.next[HEAD];
            } else {
                done[step / 64] &= !(1 << (step % 64));
                place = timeline.next[place];
            }
            continue;
        }
        // This answer came before anything explained it: go back.
        if undo.len() >= farthest.0 {
            farthest = (undo.len(), Some((step, state.clone())));
        }
        let Some((last, before)) = undo.pop() else {
            let stuck = farthest.1.map(|(step, state)| {
                format!(
                    "after {} of {} requests nothing explains {:?}; the key was {state:?}",
                    farthest.0,
                    steps.len(),
                    steps[step]
                )
            });
            return Err(stuck.unwrap_or_default());
        };
        timeline.put_back(last);
        done[last / 64] &= !(1 << (last % 64));
        state = before;
        place = timeline.next[timeline.places[last].0];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sample::{answered, ask_put, delete, put, seen, unknown};

    fn found(requests: Vec<Request>, events: Vec<crate::history::Event>) -> Vec<String> {
        check(&requests, &History::new(events))
    }

    fn wrote(value: &str, called_ns: u64, at_ns: u64, revision: i64) -> Request {
        answered(ask_put(value), called_ns, at_ns, revision, Told::Written)
    }

    fn got(pair: Option<Seen>, called_ns: u64, at_ns: u64) -> Request {
        answered(Ask::Get, called_ns, at_ns, 9, Told::Found(pair))
    }

    #[test]
    fn overlapping_requests_may_take_effect_in_any_order() {
        let first = seen("a", 2, 2, 1);
        let second = seen("b", 2, 3, 2);
        let both = |order: [Option<Seen>; 2]| {
            found(
                vec![
                    wrote("a", 0, 10, 2),
                    wrote("b", 5, 30, 3),
                    got(order[0].clone(), 12, 20),
                    got(order[1].clone(), 21, 28),
                ],
                Vec::new(),
            )
        };
        assert_eq!(both([first.clone(), first.clone()]), [""; 0]);
        assert_eq!(both([first.clone(), second.clone()]), [""; 0]);
        assert_eq!(both([second.clone(), second.clone()]), [""; 0]);
        // Once seen, never unseen.
        assert_eq!(both([second, first]).len(), 1);
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = found(
            vec![
                wrote("a", 0, 10, 2),
                wrote("b", 11, 20, 3),
                got(seen("a", 2, 2, 1), 21, 30),
            ],
            Vec::new(),
        );
        assert!(stale[0].contains("after 2 of 3 requests"), "{stale:?}");
    }

    #[test]
    fn a_lost_write_is_found() {
        let lost = found(vec![wrote("a", 0, 10, 2), got(None, 11, 20)], Vec::new());
        assert_eq!(lost.len(), 1);
    }

    #[test]
    fn a_write_that_took_effect_twice_is_found() {
        // Visible by its version, and by coming back after another write.
        for pair in [seen("a", 2, 3, 2), seen("a", 2, 4, 3)] {
            let twice = found(
                vec![
                    wrote("a", 0, 10, 2),
                    wrote("b", 11, 20, 3),
                    got(pair, 21, 30),
                ],
                Vec::new(),
            );
            assert_eq!(twice.len(), 1);
        }
    }

    #[test]
    fn an_unknown_write_counts_when_the_history_has_it() {
        let read = || got(seen("a", 2, 2, 1), 50, 60);
        let events = vec![put(2, "k", "a", 2, 1)];
        assert_eq!(
            found(vec![unknown(ask_put("a"), 0), read()], events.clone()),
            [""; 0]
        );
        // It cannot take effect before it was sent.
        assert_eq!(
            found(vec![unknown(ask_put("a"), 70), read()], events).len(),
            1
        );
        assert_eq!(
            found(vec![unknown(ask_put("a"), 0), read()], Vec::new()).len(),
            1
        );
        assert_eq!(
            found(vec![unknown(ask_put("a"), 0), got(None, 5, 9)], Vec::new()),
            [""; 0]
        );
    }

    #[test]
    fn swaps_and_deletes_are_judged_by_what_they_found() {
        let swap = |expected, told, called_ns, revision| {
            let value = "s".to_owned();
            let ask = Ask::Swap { expected, value };
            answered(ask, called_ns, called_ns + 5, revision, told)
        };
        let delete_at = |called_ns, revision, existed| {
            let ask = Ask::Delete {
                marker: "m".to_owned(),
            };
            answered(
                ask,
                called_ns,
                called_ns + 5,
                revision,
                Told::Deleted { existed },
            )
        };
        let good = vec![
            wrote("a", 0, 5, 2),
            swap(1, Told::Refused(seen("a", 2, 2, 1)), 10, 2),
            swap(2, Told::Swapped, 20, 3),
            delete_at(30, 4, true),
            got(None, 40, 45),
            swap(0, Told::Swapped, 50, 5),
            got(seen("s", 5, 5, 1), 60, 65),
        ];
        assert_eq!(found(good.clone(), Vec::new()), [""; 0]);
        let mut lost_update = good.clone();
        lost_update[2] = swap(1, Told::Swapped, 20, 3);
        assert_eq!(found(lost_update, Vec::new()).len(), 1);
        let mut wrong_refusal = good.clone();
        wrong_refusal[2] = swap(2, Told::Refused(seen("a", 2, 2, 1)), 20, 3);
        assert_eq!(found(wrong_refusal, Vec::new()).len(), 1);
        let mut blind = good.clone();
        blind[3] = delete_at(30, 4, false);
        assert_eq!(found(blind, Vec::new()).len(), 1);
        let mut survived = good;
        survived[4] = got(seen("s", 2, 3, 2), 40, 45);
        assert_eq!(found(survived, Vec::new()).len(), 1);
        let marker = vec![delete(4, "k"), put(4, "m", "m", 4, 1)];
        let ask = Ask::Delete {
            marker: "m".to_owned(),
        };
        let resolved = vec![wrote("a", 0, 5, 2), unknown(ask, 6), got(None, 10, 15)];
        assert_eq!(found(resolved, marker), [""; 0]);
    }

    #[test]
    fn many_concurrent_requests_are_judged_in_reasonable_time() {
        let mut requests = Vec::new();
        for n in 0..2_000_i64 {
            let at = u64::try_from(n).unwrap_or_default() * 10;
            requests.push(wrote(&n.to_string(), at, at + 95, n + 2));
            let pair = seen(&n.to_string(), 2, n + 2, n + 1);
            requests.push(got(pair, at + 5, at + 100));
        }
        assert_eq!(found(requests.clone(), Vec::new()), [""; 0]);
        requests[1_001].answer = got(None, 5_005, 5_100).answer;
        assert_eq!(found(requests, Vec::new()).len(), 1);
    }
}
