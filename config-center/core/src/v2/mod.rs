//! The v2 keys API over the same keyspace: what a path is, what a v2 write does, what a v2 watcher
//! is shown. `/v2/keys/a/b` is the key `/a/b`, and the index of v2 is the revision.
//!
//! Files are keys, with nothing added to them. Only what v3 cannot say lies beside the keyspace:
//! directories that exist by themselves, the end of a TTL, a `createdIndex` that an update has kept,
//! and what kind of write the last thousand v2 writes were. A note about a file names the revision
//! it was made for and counts only while that revision is the key's newest; so v3 writes know
//! nothing of v2 and pay nothing for it.
//!
//! docs/v2.md has the mapping with its edge cases; `tests` walks through them.

mod history;
mod path;
mod tree;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use schemas::command::{V2Event, V2Node};

use crate::mvcc::Keyspace;

use history::History;
pub use history::{V2Cursor, V2Notice};
pub use path::{clean_path, watched_range};
use tree::Tree;
pub use tree::V2View;
pub(crate) use write::V2Writer;

/// Events of the whole store that a watcher can still be shown, as in etcd.
pub const HISTORY_EVENTS: i64 = 1000;

/// Why a v2 request was refused; etcd's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V2Code {
    KeyNotFound = 100,
    CompareFailed = 101,
    NotAFile = 102,
    NotADirectory = 104,
    KeyExists = 105,
    RootIsReadOnly = 107,
    DirectoryNotEmpty = 108,
    EventCleared = 401,
}

/// A refusal with what it is about and the index at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V2Refusal {
    pub code: V2Code,
    pub cause: String,
    pub index: i64,
}

/// What lies beside the keyspace.
#[derive(Debug, Default)]
pub(crate) struct V2Table {
    /// By path: directories, and notes about files.
    nodes: BTreeMap<Bytes, V2Node>,
    /// `(expires_at_ms, path)` of the nodes that end.
    ends: BTreeSet<(i64, Bytes)>,
    /// The kind of each of the last v2 writes, by index.
    events: VecDeque<V2Event>,
}

/// One change of what lies beside the keyspace, to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum V2Change {
    NodePut(V2Node),
    NodeDelete {
        path: Bytes,
    },
    /// Events up to `index - HISTORY_EVENTS` may be forgotten.
    Event(V2Event),
}

impl V2Table {
    /// Forgets notes about files that v3 has written since: nothing else would. Called by
    /// compactions, which look at what is no longer current.
    pub(crate) fn sweep(&mut self, keys: &Keyspace) -> Vec<V2Change> {
        let is_stale = |node: &&V2Node| {
            let row = keys.get(&node.path);
            !node.dir && row.is_none_or(|row| row.main != node.modified_index)
        };
        let stale: Vec<Bytes> = self
            .nodes
            .values()
            .filter(is_stale)
            .map(|node| node.path.clone())
            .collect();
        stale
            .into_iter()
            .inspect(|path| {
                self.delete_node(path);
            })
            .map(|path| V2Change::NodeDelete { path })
            .collect()
    }

    /// `false` when there was nothing to change.
    pub(crate) fn apply(&mut self, change: V2Change) -> bool {
        match change {
            V2Change::NodePut(node) => self.put_node(node),
            V2Change::NodeDelete { path } => return self.delete_node(&path),
            V2Change::Event(event) => self.push_event(event),
        }
        true
    }

    fn put_node(&mut self, node: V2Node) {
        self.delete_node(&node.path.clone());
        if node.expires_at_ms != 0 {
            self.ends.insert((node.expires_at_ms, node.path.clone()));
        }
        self.nodes.insert(node.path.clone(), node);
    }

    fn delete_node(&mut self, path: &Bytes) -> bool {
        let Some(old) = self.nodes.remove(path) else {
            return false;
        };
        if old.expires_at_ms != 0 {
            self.ends.remove(&(old.expires_at_ms, old.path));
        }
        true
    }

    fn push_event(&mut self, event: V2Event) {
        while let Some(first) = self.events.front()
            && first.index <= event.index - HISTORY_EVENTS
        {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn tree<'a>(&'a self, keys: &'a Keyspace) -> Tree<'a> {
        Tree { keys, table: self }
    }

    pub(crate) fn history<'a>(&'a self, keys: &'a Keyspace) -> History<'a> {
        History { keys, table: self }
    }

    /// When the next node ends, in milliseconds of the wall clock.
    pub(crate) fn next_end_ms(&self) -> Option<i64> {
        self.ends.first().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests;
