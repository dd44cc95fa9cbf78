//! Short ways to write requests and events down in the tests of the checks.

use crate::history::{Answer, Ask, Change, Event, Request, Seen, Told};

pub(crate) fn put(revision: i64, key: &str, value: &str, create: i64, version: i64) -> Event {
    let change = Change::Put {
        value: value.to_owned(),
        create,
        version,
    };
    Event {
        revision,
        key: key.to_owned(),
        change,
    }
}

pub(crate) fn delete(revision: i64, key: &str) -> Event {
    Event {
        revision,
        key: key.to_owned(),
        change: Change::Delete,
    }
}

pub(crate) fn seen(value: &str, create: i64, modified: i64, version: i64) -> Option<Seen> {
    Some(Seen {
        value: value.to_owned(),
        create,
        modified,
        version,
    })
}

/// A request on key `k` between these moments, answered with this revision.
pub(crate) fn answered(ask: Ask, called_ns: u64, at_ns: u64, revision: i64, told: Told) -> Request {
    Request {
        member: 0,
        life: Some(1),
        key: "k".to_owned(),
        ask,
        called_ns,
        answer: Some(Answer {
            at_ns,
            revision,
            told,
        }),
    }
}

pub(crate) fn unknown(ask: Ask, called_ns: u64) -> Request {
    Request {
        answer: None,
        ..answered(ask, called_ns, 0, 0, Told::Written)
    }
}

pub(crate) fn ask_put(value: &str) -> Ask {
    Ask::Put {
        value: value.to_owned(),
    }
}
