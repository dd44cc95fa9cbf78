//! A center whose key is put and deleted, compacted, restored and replaced while an agent follows
//! it: in the end the agent runs what the center has, and it never ran an older value after a newer
//! one of the same store.

use proptest::prelude::*;

use crate::following::{Ask, Following};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Put,
    Delete,
    /// Somebody writes another key.
    OtherPut,
    Compact,
    /// The agent takes a step: reads, or begins to watch, or takes what the watch has for it.
    Step,
    /// The connection breaks.
    Break,
    /// The store is another one, and counts anew.
    Replace,
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Put),
        1 => Just(Event::Delete),
        1 => Just(Event::OtherPut),
        1 => Just(Event::Compact),
        6 => Just(Event::Step),
        2 => Just(Event::Break),
        1 => Just(Event::Replace),
    ];
    proptest::collection::vec(event, 1..30)
}

/// A value of the key, or its absence.
type Value = Option<u64>;

#[derive(Debug)]
struct Center {
    cluster_id: u64,
    revision: i64,
    compacted: i64,
    /// Of the key: when, and what.
    history: Vec<(i64, Value)>,
    puts: u64,
}

impl Center {
    fn new(cluster_id: u64) -> Self {
        Self {
            cluster_id,
            revision: 1,
            compacted: 0,
            history: Vec::new(),
            puts: 0,
        }
    }

    fn change(&mut self, value: Value) {
        self.revision += 1;
        self.history.push((self.revision, value));
    }

    fn now(&self) -> Value {
        self.history.last().and_then(|(_, value)| *value)
    }
}

struct Agent {
    following: Following,
    /// Where the running watch goes on.
    watching_from: Option<i64>,
    running: Value,
    ran: Vec<(u64, i64)>,
}

impl Agent {
    fn step(&mut self, center: &Center) {
        if let Some(from) = self.watching_from {
            self.take_events(center, from);
            return;
        }
        match self.following.next() {
            Ask::Get => {
                if self
                    .following
                    .admit(center.cluster_id, center.revision)
                    .is_ok()
                {
                    let modified = center.history.last().map_or(center.revision, |(at, _)| *at);
                    self.run(center, modified, center.now());
                    self.following.read(center.revision);
                }
            }
            Ask::Watch { start_revision: 0 } => {
                self.watching_from = Some(center.revision + 1);
            }
            Ask::Watch { start_revision } if start_revision <= center.compacted => {
                self.following.broken();
            }
            Ask::Watch { start_revision } => self.watching_from = Some(start_revision),
        }
    }

    fn take_events(&mut self, center: &Center, from: i64) {
        if self
            .following
            .admit(center.cluster_id, center.revision)
            .is_err()
        {
            self.watching_from = None;
            self.following.broken();
            return;
        }
        let news = center.history.iter().rev().find(|(at, _)| *at >= from);
        if let Some((at, value)) = news.copied() {
            self.run(center, at, value);
        }
        self.watching_from = Some(center.revision + 1);
    }

    fn run(&mut self, center: &Center, revision: i64, value: Value) {
        self.ran.push((center.cluster_id, revision));
        self.running = value;
    }
}

pub(super) fn run(events: &[Event]) -> Result<(), String> {
    let mut center = Center::new(1);
    let mut agent = Agent {
        following: Following::new(None),
        watching_from: None,
        running: None,
        ran: Vec::new(),
    };
    for event in events {
        match event {
            Event::Put => {
                center.puts += 1;
                center.change(Some(center.puts));
            }
            Event::Delete => center.change(None),
            Event::OtherPut => center.revision += 1,
            Event::Compact => center.compacted = center.revision,
            Event::Step => agent.step(&center),
            Event::Break => {
                if agent.watching_from.take().is_some() {
                    agent.following.broken();
                }
            }
            Event::Replace => {
                center = Center {
                    puts: center.puts,
                    ..Center::new(center.cluster_id + 1)
                };
                agent.watching_from = None;
                agent.following.broken();
            }
        }
    }
    // Nothing breaks any more: reading, watching, and what the watch has.
    for _ in 0..4 {
        agent.step(&center);
    }
    if agent.running != center.now() {
        return Err(format!(
            "runs {:?} and not {:?}",
            agent.running,
            center.now()
        ));
    }
    let older = agent.ran.windows(2).find(|pair| pair[0] > pair[1]);
    older.map_or(Ok(()), |pair| {
        Err(format!("ran {:?} after {:?}", pair[1], pair[0]))
    })
}
