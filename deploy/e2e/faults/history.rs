//! What clients asked, what they were told, and what the store says has happened: plain data that
//! the checks judge. Knows no network and no clock; times are nanoseconds of one monotonic clock.

use std::collections::HashMap;

/// A pair as a read returned it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) value: String,
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
}

/// What a client asked for. Every value is written by one request only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Put {
        value: String,
    },
    Get,
    /// A serializable read: it may be old, but never wrong.
    Peek,
    /// A put if the key was last modified at this revision; 0 means that there is no key.
    Swap {
        expected: i64,
        value: String,
    },
    /// A transaction that deletes the key and puts this marker, so that each delete is known again
    /// among the events.
    Delete {
        marker: String,
    },
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Written,
    Found(Option<Seen>),
    Swapped,
    Refused(Option<Seen>),
    Deleted { existed: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) at_ns: u64,
    /// The store's revision in the header.
    pub(crate) revision: i64,
    pub(crate) told: Told,
}

/// One request on one key.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Through which member, and in which life of its process; `None` when it ended meanwhile.
    pub(crate) member: usize,
    pub(crate) life: Option<u64>,
    pub(crate) key: String,
    pub(crate) ask: Ask,
    pub(crate) called_ns: u64,
    /// `None`: the outcome is unknown to the client.
    pub(crate) answer: Option<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put {
        value: String,
        create: i64,
        version: i64,
    },
    Delete,
}

/// One event as a watch told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) revision: i64,
    pub(crate) key: String,
    pub(crate) change: Change,
}

impl Event {
    /// The pair that this event left behind.
    pub(crate) fn seen(&self) -> Option<Seen> {
        match &self.change {
            Change::Put {
                value,
                create,
                version,
            } => Some(Seen {
                value: value.clone(),
                create: *create,
                modified: self.revision,
                version: *version,
            }),
            Change::Delete => None,
        }
    }
}

/// Everything that happened, in the order of revisions: read from a member after the faults.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    by_key: HashMap<String, Vec<usize>>,
}

impl History {
    pub(crate) fn new(events: Vec<Event>) -> Self {
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            by_key.entry(event.key.clone()).or_default().push(at);
        }
        Self { events, by_key }
    }

    pub(crate) fn of_key(&self, key: &str) -> impl DoubleEndedIterator<Item = &Event> {
        let places = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        places.iter().map(|at| &self.events[*at])
    }

    /// The pair of this key as of this revision.
    pub(crate) fn at(&self, key: &str, revision: i64) -> Option<Seen> {
        let mut events = self.of_key(key).rev();
        events
            .find(|event| event.revision <= revision)
            .and_then(Event::seen)
    }

    /// The only event of this key that put this value.
    pub(crate) fn put_of(&self, key: &str, value: &str) -> Option<&Event> {
        let is_it = |event: &&Event| matches!(&event.change, Change::Put { value: put, .. } if put == value);
        self.of_key(key).find(is_it)
    }
}
