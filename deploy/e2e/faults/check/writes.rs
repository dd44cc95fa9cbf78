//! Acknowledged writes are in the history at their revision; a value is there once; nothing is there
//! that nobody asked for.

use std::collections::{HashMap, HashSet};

use crate::history::{Ask, Change, History, Request, Told};

/// One sentence per write that was lost, doubled or never asked for.
pub(crate) fn check(requests: &[Request], history: &History, foreign_prefix: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let mut asked: HashSet<(&str, &str)> = HashSet::new();
    let mut deletes: HashMap<(&str, i64), usize> = HashMap::new();
    for request in requests {
        let (key, value) = match &request.ask {
            Ask::Put { value } | Ask::Swap { value, .. } => (request.key.as_str(), value.as_str()),
            Ask::Delete { marker } => (marker.as_str(), marker.as_str()),
            Ask::Get | Ask::Peek => continue,
        };
        asked.insert((key, value));
        let event = history.put_of(key, value);
        if let (Ask::Delete { .. }, Some(event)) = (&request.ask, event) {
            *deletes.entry((&request.key, event.revision)).or_default() += 1;
        }
        let Some(answer) = &request.answer else {
            continue;
        };
        match (&answer.told, event) {
            (Told::Refused(_), Some(event)) => {
                violations.push(format!(
                    "refused, and yet done at {}: {request:?}",
                    event.revision
                ));
            }
            (Told::Refused(_), None) => {}
            (_, None) => violations.push(format!("acknowledged and lost: {request:?}")),
            (_, Some(event)) if event.revision != answer.revision => violations.push(format!(
                "acknowledged, but it is at revision {}: {request:?}",
                event.revision
            )),
            _ => {}
        }
    }
    let mut put: HashSet<(&str, &str)> = HashSet::new();
    for event in &history.events {
        if event.key.starts_with(foreign_prefix) {
            continue;
        }
        match &event.change {
            Change::Put { value, .. } => {
                let one = (event.key.as_str(), value.as_str());
                if !asked.contains(&one) {
                    violations.push(format!("nobody asked for {event:?}"));
                }
                if !put.insert(one) {
                    violations.push(format!("done twice: {event:?}"));
                }
            }
            Change::Delete if !deletes.contains_key(&(event.key.as_str(), event.revision)) => {
                violations.push(format!("nobody asked for {event:?}"));
            }
            Change::Delete => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::check::sample::{answered, ask_put, delete, put, seen, unknown};
    use crate::history::{Ask, History, Request, Told};

    fn found(requests: &[Request], events: Vec<crate::history::Event>) -> Vec<String> {
        check(requests, &History::new(events), "lease/")
    }

    #[test]
    fn each_way_to_go_wrong_is_found() {
        let wrote = || answered(ask_put("a"), 0, 5, 2, Told::Written);
        let event = || put(2, "k", "a", 2, 1);
        assert_eq!(found(&[wrote()], vec![event()]), [""; 0]);
        let lost = found(&[wrote()], Vec::new());
        assert!(lost[0].starts_with("acknowledged and lost"), "{lost:?}");
        let moved = found(&[wrote()], vec![put(3, "k", "a", 3, 1)]);
        assert!(moved[0].contains("it is at revision 3"), "{moved:?}");
        let twice = found(&[wrote()], vec![event(), put(3, "k", "a", 2, 2)]);
        assert!(twice[0].starts_with("done twice"), "{twice:?}");
        let phantom = found(&[wrote()], vec![event(), put(3, "k", "b", 2, 2)]);
        assert!(phantom[0].starts_with("nobody asked"), "{phantom:?}");
        let deleted = found(&[wrote()], vec![event(), delete(3, "k")]);
        assert!(deleted[0].starts_with("nobody asked"), "{deleted:?}");
        assert_eq!(
            found(&[wrote()], vec![event(), delete(3, "lease/1")]),
            [""; 0]
        );
    }

    #[test]
    fn an_unknown_outcome_is_either() {
        assert_eq!(found(&[unknown(ask_put("a"), 0)], Vec::new()), [""; 0]);
        let done = vec![put(2, "k", "a", 2, 1)];
        assert_eq!(found(&[unknown(ask_put("a"), 0)], done.clone()), [""; 0]);
        let value = "a".to_owned();
        let swap = Ask::Swap { expected: 7, value };
        let refused = answered(swap, 0, 5, 2, Told::Refused(seen("x", 1, 1, 1)));
        assert_eq!(found(std::slice::from_ref(&refused), Vec::new()), [""; 0]);
        let done = found(&[refused], done);
        assert!(done[0].starts_with("refused, and yet done"), "{done:?}");
        let marker = "m".to_owned();
        let events = vec![delete(4, "k"), put(4, "m", "m", 4, 1)];
        assert_eq!(
            found(&[unknown(Ask::Delete { marker }, 0)], events),
            [""; 0]
        );
    }
}
