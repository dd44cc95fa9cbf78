//! The tree as v2 clients see it: keys are files; a directory is one that was made, or a path with
//! something inside.
//!
//! A path that is both a key and a directory is a directory: its children could not be reached
//! otherwise. The key's own value is then out of v2's reach.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::command::V2Node;

use super::path::{self, ROOT, beyond, inside, is_hidden, is_visible};
use super::{V2Code, V2Refusal, V2Table};
use crate::mvcc::Keyspace;
use crate::state::RevisionRow;

/// A node as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct V2View {
    pub path: Bytes,
    /// `None` for a directory, and for a file that is gone.
    pub value: Option<Bytes>,
    pub dir: bool,
    /// 0: never.
    pub expires_at_ms: i64,
    pub modified_index: i64,
    pub created_index: i64,
    /// `None` where children are not shown.
    pub nodes: Option<Vec<V2View>>,
}

/// Reads both halves.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'a> {
    pub(super) keys: &'a Keyspace,
    pub(super) table: &'a V2Table,
}

impl<'a> Tree<'a> {
    pub(super) fn refusal(&self, code: V2Code, cause: impl Into<String>) -> V2Refusal {
        V2Refusal {
            code,
            cause: cause.into(),
            index: self.keys.revision(),
        }
    }

    fn made_directory(&self, path: &[u8]) -> Option<&'a V2Node> {
        self.table.nodes.get(path).filter(|node| node.dir)
    }

    /// The first key that v2 can name in a span, from this one on.
    fn first_key(&self, from: Vec<u8>, end: &[u8]) -> Option<&'a RevisionRow> {
        self.keys
            .current_rows_between(&from, end)
            .find(|row| is_visible(&row.key))
    }

    fn first_made_inside(&self, from: Vec<u8>, end: &[u8]) -> Option<&'a V2Node> {
        let start = Bytes::from(from);
        let end = Bytes::copy_from_slice(end);
        if start >= end {
            return None;
        }
        self.table
            .nodes
            .range(start..end)
            .map(|(_, node)| node)
            .find(|node| node.dir)
    }

    pub(super) fn is_directory(&self, path: &[u8]) -> bool {
        path == ROOT || self.made_directory(path).is_some() || !self.is_childless(path)
    }

    pub(super) fn is_childless(&self, path: &[u8]) -> bool {
        let (from, end) = (inside(path), beyond(path));
        self.first_key(from.clone(), &end).is_none() && self.first_made_inside(from, &end).is_none()
    }

    /// The note about a file, while it is about this revision of it.
    fn note(&self, row: &RevisionRow) -> Option<&'a V2Node> {
        let node = self.table.nodes.get(&row.key)?;
        (!node.dir && node.modified_index == row.main).then_some(node)
    }

    /// A node without its children; `None` when there is nothing.
    pub(super) fn find(&self, path: &[u8]) -> Option<V2View> {
        let path = Bytes::copy_from_slice(path);
        if self.is_directory(&path) {
            let (created, modified, expires_at_ms) = match self.made_directory(&path) {
                Some(made) => (made.created_index, made.modified_index, made.expires_at_ms),
                None if path == ROOT => (0, 0, 0),
                None => {
                    let first = self.first_key(inside(&path), &beyond(&path));
                    let index = first.map_or(0, |row| row.create_revision);
                    (index, index, 0)
                }
            };
            return Some(V2View {
                path,
                dir: true,
                expires_at_ms,
                modified_index: modified,
                created_index: created,
                ..V2View::default()
            });
        }
        let row = self.keys.get(&path)?;
        let note = self.note(row);
        Some(V2View {
            path,
            value: Some(row.value.clone()),
            expires_at_ms: note.map_or(0, |note| note.expires_at_ms),
            modified_index: row.main,
            created_index: note.map_or(row.main, |note| note.created_index),
            ..V2View::default()
        })
    }

    /// A node, or why there is none: the first missing step, or a file on the way.
    pub(super) fn get(&self, path: &[u8]) -> Result<V2View, V2Refusal> {
        let above = path::ancestry(path);
        for step in &above[..above.len().saturating_sub(1)] {
            if !self.is_directory(step) {
                let code = match self.keys.get(step) {
                    Some(_) => V2Code::NotADirectory,
                    None => V2Code::KeyNotFound,
                };
                return Err(self.refusal(code, path::text(step)));
            }
        }
        self.find(path)
            .ok_or_else(|| self.refusal(V2Code::KeyNotFound, path::text(path)))
    }

    /// A node with its children, or with everything below it.
    pub(crate) fn listing(&self, path: &[u8], recursive: bool) -> Result<V2View, V2Refusal> {
        let mut view = self.get(path)?;
        self.fill(&mut view, recursive);
        Ok(view)
    }

    fn fill(&self, view: &mut V2View, recursive: bool) {
        if !view.dir {
            return;
        }
        let mut nodes = Vec::new();
        for child in self.children(&view.path) {
            if is_hidden(&child) {
                continue;
            }
            let Some(mut node) = self.find(&child) else {
                continue;
            };
            if recursive {
                self.fill(&mut node, true);
            }
            nodes.push(node);
        }
        view.nodes = Some(nodes);
    }

    /// Paths one step below, in order. Looks at one key per child, however much lies below it.
    pub(super) fn children(&self, directory: &[u8]) -> Vec<Bytes> {
        let (prefix, end) = (inside(directory), beyond(directory));
        let mut found: BTreeMap<Bytes, ()> = BTreeMap::new();
        let mut from = prefix.clone();
        while let Some(row) = self.first_key(from, &end) {
            from = note_child(&mut found, &row.key, prefix.len());
        }
        let mut from = prefix.clone();
        while let Some(made) = self.first_made_inside(from, &end) {
            from = note_child(&mut found, &made.path, prefix.len());
        }
        found.into_keys().collect()
    }

    /// Everything v2 can name inside a directory: the keys, and what lies beside the keyspace.
    pub(super) fn everything_inside(&self, directory: &[u8]) -> (Vec<Bytes>, Vec<Bytes>) {
        let (from, end) = (inside(directory), beyond(directory));
        let rows = self.keys.current_rows_between(&from, &end);
        let keys = rows.filter(|row| is_visible(&row.key));
        let beside = self.table.nodes.range(Bytes::from(from)..Bytes::from(end));
        (
            keys.map(|row| row.key.clone()).collect(),
            beside.map(|(path, _)| path.clone()).collect(),
        )
    }
}

/// Notes the step below the prefix that leads to `key`, and says where to look on.
fn note_child(found: &mut BTreeMap<Bytes, ()>, key: &Bytes, prefix: usize) -> Vec<u8> {
    match key[prefix..].iter().position(|byte| *byte == b'/') {
        Some(end) => {
            let child = key.slice(..prefix + end);
            let on = beyond(&child);
            found.insert(child, ());
            on
        }
        None => {
            found.insert(key.clone(), ());
            let mut on = key.to_vec();
            on.push(0);
            on
        }
    }
}
