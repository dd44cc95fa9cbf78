//! What a v2 watcher is shown: of a v2 write what kind it was, of a v3 write a `set` or a `delete`
//! per key.

use schemas::command::{V2Event, V2Node};

use super::path::{ROOT, inside, is_hidden_below, is_visible};
use super::tree::V2View;
use super::{HISTORY_EVENTS, V2Code, V2Refusal, V2Table};
use crate::mvcc::Keyspace;
use crate::state::RevisionRow;

/// One event, complete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct V2Notice {
    pub action: String,
    pub node: V2View,
    pub prev: Option<V2View>,
    /// Kept from watchers.
    pub refresh: bool,
    pub index: i64,
}

/// Where a watcher goes on: an index, and how many events of that index it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V2Cursor {
    pub index: i64,
    pub seen: usize,
    /// The newest index when the watcher began: what is not behind it is history.
    pub began: i64,
}

impl V2Notice {
    pub(super) fn nothing(index: i64) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    fn concerns(&self, watched: &[u8], recursive: bool) -> bool {
        let path = &self.node.path[..];
        if self.refresh {
            return false;
        }
        if path == watched {
            return true;
        }
        let is_inside = watched == ROOT || path.starts_with(&inside(watched));
        recursive && is_inside && !is_hidden_below(watched, path)
    }
}

pub(crate) struct History<'a> {
    pub(crate) keys: &'a Keyspace,
    pub(crate) table: &'a V2Table,
}

impl History<'_> {
    /// The oldest index that can be asked for.
    fn oldest(&self) -> i64 {
        let kept = self.keys.revision() - HISTORY_EVENTS + 1;
        kept.max(self.keys.compacted() + 1).max(1)
    }

    /// The next event for a watcher of a path, if there is one yet, and where to go on.
    pub(crate) fn next(
        &self,
        from: V2Cursor,
        watched: &[u8],
        recursive: bool,
    ) -> Result<(Option<V2Notice>, V2Cursor), V2Refusal> {
        let oldest = self.oldest();
        let current = self.keys.revision();
        if from.index < oldest {
            return Err(V2Refusal {
                code: V2Code::EventCleared,
                cause: format!(
                    "the requested history has been cleared [{oldest}/{}]",
                    from.index
                ),
                index: current,
            });
        }
        for index in from.index..=current {
            let skip = if index == from.index { from.seen } else { 0 };
            let events = self.at(index);
            for (nth, event) in events.into_iter().enumerate().skip(skip) {
                let is_history = index <= from.began;
                if event.concerns(watched, recursive)
                    || self.took_along(&event, watched, is_history)
                {
                    let on = V2Cursor {
                        index,
                        seen: nth + 1,
                        began: from.began,
                    };
                    return Ok((Some(event), on));
                }
            }
        }
        let on = V2Cursor {
            index: from.index.max(current + 1),
            seen: if from.index > current { from.seen } else { 0 },
            began: from.began,
        };
        Ok((None, on))
    }

    /// Whoever watches something in a directory that goes is told as well: while it happens, if it
    /// was there; in history, as in etcd, even if not.
    fn took_along(&self, event: &V2Notice, watched: &[u8], is_history: bool) -> bool {
        let goes = matches!(&event.action[..], "delete" | "expire");
        if !goes || !event.node.dir || !watched.starts_with(&inside(&event.node.path)) {
            return false;
        }
        if is_history {
            return true;
        }
        let below = inside(watched);
        let mut rows = self.keys.rows_at(event.index);
        rows.any(|row| row.key == watched || row.key.starts_with(&below))
            || self.event_at(event.index).is_some_and(|event| {
                let mut gone = event.gone.iter();
                gone.any(|path| path == watched)
            })
    }

    fn event_at(&self, index: i64) -> Option<&V2Event> {
        let events = &self.table.events;
        let at = events.partition_point(|event| event.index < index);
        events.get(at).filter(|event| event.index == index)
    }

    /// The events of one index, in order.
    fn at(&self, index: i64) -> Vec<V2Notice> {
        if let Some(event) = self.event_at(index) {
            let (Some(node), prev) = (&event.node, &event.prev_node) else {
                return Vec::new();
            };
            let goes = matches!(&event.action[..], "delete" | "expire" | "compareAndDelete");
            return vec![V2Notice {
                action: event.action.clone(),
                node: self.view(node, (!goes).then_some(index)),
                prev: prev
                    .as_ref()
                    .map(|prev| self.view(prev, Some(prev.modified_index))),
                refresh: event.refresh,
                index,
            }];
        }
        self.keys
            .rows_at(index)
            .filter(|row| is_visible(&row.key))
            .map(|row| self.derived(row))
            .collect()
    }

    fn view(&self, node: &V2Node, value_at: Option<i64>) -> V2View {
        let row = value_at
            .filter(|_| !node.dir)
            .and_then(|at| self.keys.row_at(&node.path, at));
        V2View {
            path: node.path.clone(),
            value: row.map(|row| row.value.clone()),
            dir: node.dir,
            expires_at_ms: node.expires_at_ms,
            modified_index: node.modified_index,
            created_index: node.created_index,
            nodes: None,
        }
    }

    /// A v3 write as v2 would have made it.
    fn derived(&self, row: &RevisionRow) -> V2Notice {
        let file = |row: &RevisionRow| V2View {
            path: row.key.clone(),
            value: Some(row.value.clone()),
            modified_index: row.main,
            created_index: row.main,
            ..V2View::default()
        };
        let prev = self.keys.before(row).map(file);
        let (action, node) = if row.tombstone {
            let gone = V2View {
                path: row.key.clone(),
                modified_index: row.main,
                created_index: prev.as_ref().map_or(0, |prev| prev.created_index),
                ..V2View::default()
            };
            ("delete", gone)
        } else {
            ("set", file(row))
        };
        V2Notice {
            action: action.to_owned(),
            node,
            prev,
            refresh: false,
            index: row.main,
        }
    }
}
