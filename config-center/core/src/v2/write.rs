//! What a v2 write does, with etcd's order of checks.

use bytes::Bytes;
use schemas::command::v2_write::Verb;
use schemas::command::{V2Event, V2Node, V2Write};
use schemas::etcdserverpb::PutRequest;

use super::history::V2Notice;
use super::path::{self, ROOT};
use super::tree::{Tree, V2View};
use super::{V2Change, V2Code, V2Refusal, V2Table};
use crate::lease::LeaseTable;
use crate::mvcc::{KeyRange, Keyspace};
use crate::state::Change;
use crate::write::Writer;

/// The parts of the state that a v2 write touches.
pub(crate) struct V2Writer<'a> {
    pub(crate) keys: &'a mut Keyspace,
    pub(crate) leases: &'a mut LeaseTable,
    pub(crate) table: &'a mut V2Table,
}

/// What happened and what is to be stored.
pub(crate) type V2Outcome = Result<(V2Notice, Vec<Change>), V2Refusal>;

/// The effect of a write, before it is carried out.
struct Plan {
    action: &'static str,
    node: V2View,
    prev: Option<V2View>,
    /// Keys to delete.
    delete: Vec<Bytes>,
    /// What lies beside the keyspace and goes.
    forget: Vec<Bytes>,
    refresh: bool,
}

impl V2Writer<'_> {
    fn tree(&self) -> Tree<'_> {
        Tree {
            keys: self.keys,
            table: self.table,
        }
    }

    pub(crate) fn write(self, request: &V2Write) -> V2Outcome {
        let plan = self.plan(request)?;
        Ok(self.carry_out(plan))
    }

    /// Ends the node that ran out first, if that is due. One node per command: each has an index
    /// of its own.
    pub(crate) fn expire(self, now_ms: i64) -> Option<(V2Notice, Vec<Change>)> {
        let (_, path) = self
            .table
            .ends
            .first()
            .filter(|(at, _)| *at <= now_ms)?
            .clone();
        let tree = self.tree();
        let current = tree
            .find(&path)
            .filter(|view| view.expires_at_ms != 0 && view.expires_at_ms <= now_ms);
        if let Some(view) = current {
            let plan = self.removal("expire", view);
            return Some(self.carry_out(plan));
        }
        // A v3 write has replaced the file since: the note has lost its object.
        self.table.delete_node(&path);
        let gone = Change::V2(V2Change::NodeDelete { path });
        let index = self.keys.revision();
        Some((V2Notice::nothing(index), vec![gone]))
    }

    fn plan(&self, request: &V2Write) -> Result<Plan, V2Refusal> {
        let tree = self.tree();
        let verb = Verb::try_from(request.verb).unwrap_or(Verb::Unspecified);
        let path = &request.path;
        if path == ROOT && !matches!(verb, Verb::CreateUnique | Verb::CompareAndDelete) {
            return Err(tree.refusal(V2Code::RootIsReadOnly, "/"));
        }
        match verb {
            Verb::CreateUnique => {
                let mut unique = path::inside(path);
                unique.extend_from_slice(format!("{:020}", self.keys.revision() + 1).as_bytes());
                self.create(request, unique.into(), "create", false)
            }
            Verb::Create => self.create(request, path.clone(), "create", false),
            Verb::Set | Verb::Unspecified => {
                let previous = tree.get(path);
                match &previous {
                    Err(refusal) if request.refresh || refusal.code != V2Code::KeyNotFound => {
                        return Err(refusal.clone());
                    }
                    _ => {}
                }
                self.create(request, path.clone(), "set", true)
            }
            Verb::Update => {
                let previous = tree.get(path)?;
                if previous.dir && !request.value.is_empty() {
                    return Err(tree.refusal(V2Code::NotAFile, path::text(path)));
                }
                Ok(self.change(request, "update", previous))
            }
            Verb::CompareAndSwap => {
                let previous = self.compared(request)?;
                Ok(self.change(request, "compareAndSwap", previous))
            }
            Verb::Delete => {
                let previous = tree.get(path)?;
                if previous.dir && !(request.dir || request.recursive) {
                    return Err(tree.refusal(V2Code::NotAFile, path::text(path)));
                }
                if previous.dir && !request.recursive && !tree.is_childless(path) {
                    return Err(tree.refusal(V2Code::DirectoryNotEmpty, path::text(path)));
                }
                Ok(self.removal("delete", previous))
            }
            Verb::CompareAndDelete => {
                let previous = self.compared(request)?;
                Ok(self.removal("compareAndDelete", previous))
            }
        }
    }

    /// A new node in the place of nothing, or of a file.
    fn create(
        &self,
        request: &V2Write,
        path: Bytes,
        action: &'static str,
        replace: bool,
    ) -> Result<Plan, V2Refusal> {
        let tree = self.tree();
        let above = path::ancestry(&path);
        for step in &above[..above.len() - 1] {
            if !tree.is_directory(step) && tree.keys.get(step).is_some() {
                return Err(tree.refusal(V2Code::NotADirectory, path::text(step)));
            }
        }
        let previous = tree.find(&path);
        match &previous {
            Some(_) if !replace => {
                return Err(tree.refusal(V2Code::KeyExists, path::text(&path)));
            }
            Some(view) if view.dir => {
                return Err(tree.refusal(V2Code::NotAFile, path::text(&path)));
            }
            _ => {}
        }
        let index = self.keys.revision() + 1;
        let kept = previous.as_ref().filter(|_| request.refresh);
        let value = match kept.and_then(|view| view.value.clone()) {
            Some(kept) => kept,
            None => request.value.clone(),
        };
        // A file that becomes a directory leaves the keyspace.
        let delete = match &previous {
            Some(_) if request.dir => vec![path.clone()],
            _ => Vec::new(),
        };
        Ok(Plan {
            action,
            node: V2View {
                path,
                value: (!request.dir).then_some(value),
                dir: request.dir,
                expires_at_ms: request.expires_at_ms,
                modified_index: index,
                created_index: index,
                nodes: None,
            },
            prev: previous,
            delete,
            forget: Vec::new(),
            refresh: request.refresh,
        })
    }

    /// Another value or another end for a node that keeps its `createdIndex`.
    fn change(&self, request: &V2Write, action: &'static str, previous: V2View) -> Plan {
        let value = if request.refresh {
            previous.value.clone()
        } else {
            Some(request.value.clone())
        };
        Plan {
            action,
            node: V2View {
                path: previous.path.clone(),
                value: value.filter(|_| !previous.dir),
                dir: previous.dir,
                expires_at_ms: request.expires_at_ms,
                modified_index: self.keys.revision() + 1,
                created_index: previous.created_index,
                nodes: None,
            },
            prev: Some(previous),
            delete: Vec::new(),
            forget: Vec::new(),
            refresh: request.refresh,
        }
    }

    /// The file that a comparison is about, if the comparison holds.
    fn compared(&self, request: &V2Write) -> Result<V2View, V2Refusal> {
        let tree = self.tree();
        let view = tree.get(&request.path)?;
        let Some(value) = view.value.as_ref().filter(|_| !view.dir) else {
            return Err(tree.refusal(V2Code::NotAFile, path::text(&request.path)));
        };
        let mut failed = Vec::new();
        if !request.prev_value.is_empty() && request.prev_value != value {
            failed.push(format!(
                "[{} != {}]",
                String::from_utf8_lossy(&request.prev_value),
                String::from_utf8_lossy(value)
            ));
        }
        let given = i64::try_from(request.prev_index).unwrap_or(i64::MAX);
        if given != 0 && given != view.modified_index {
            failed.push(format!(
                "[{} != {}]",
                request.prev_index, view.modified_index
            ));
        }
        if failed.is_empty() {
            Ok(view)
        } else {
            Err(tree.refusal(V2Code::CompareFailed, failed.join(" ")))
        }
    }

    /// A node goes with everything in it.
    fn removal(&self, action: &'static str, previous: V2View) -> Plan {
        let path = previous.path.clone();
        let (mut delete, mut forget) = if previous.dir {
            self.tree().everything_inside(&path)
        } else {
            (Vec::new(), Vec::new())
        };
        // A key of the same name as a directory goes too, or the path would still be there.
        if self.keys.get(&path).is_some() {
            delete.push(path.clone());
        }
        forget.push(path.clone());
        Plan {
            action,
            node: V2View {
                path,
                dir: previous.dir,
                modified_index: self.keys.revision() + 1,
                created_index: previous.created_index,
                ..V2View::default()
            },
            prev: Some(previous),
            delete,
            forget,
            refresh: false,
        }
    }

    fn carry_out(self, plan: Plan) -> (V2Notice, Vec<Change>) {
        let index = self.keys.revision() + 1;
        let removes = matches!(plan.action, "delete" | "compareAndDelete" | "expire");
        let parents = if removes {
            Vec::new()
        } else {
            self.missing_parents(&plan.node.path, index)
        };
        let mut writer = Writer::new(self.keys, self.leases);
        for key in plan.delete {
            writer.delete(&KeyRange::Single(key), |_| ());
        }
        if let Some(value) = &plan.node.value {
            writer.put(&PutRequest {
                key: plan.node.path.clone(),
                value: value.clone(),
                ..PutRequest::default()
            });
        }
        let mut changes = writer.commit();
        // A change of directories only has no row, and takes its revision all the same.
        self.keys.advance_to(index);

        let mut beside: Vec<V2Change> = parents.into_iter().map(V2Change::NodePut).collect();
        beside.extend(
            plan.forget
                .into_iter()
                .map(|path| V2Change::NodeDelete { path }),
        );
        if !removes {
            beside.push(self.node_after(&plan.node, plan.prev.as_ref(), plan.action));
        }
        let gone = match removes && plan.node.dir {
            true => self.directories_below(&plan.node.path, &beside),
            false => Vec::new(),
        };
        let event = V2Event {
            index,
            action: plan.action.to_owned(),
            node: Some(stored(&plan.node)),
            prev_node: plan.prev.as_ref().map(stored),
            refresh: plan.refresh,
            gone,
        };
        beside.push(V2Change::Event(event));
        for change in beside {
            if self.table.apply(change.clone()) {
                changes.push(Change::V2(change));
            }
        }
        let notice = V2Notice {
            action: plan.action.to_owned(),
            node: plan.node,
            prev: plan.prev,
            refresh: plan.refresh,
            index,
        };
        (notice, changes)
    }

    /// Of what is forgotten, the directories below a path.
    fn directories_below(&self, path: &[u8], forgotten: &[V2Change]) -> Vec<Bytes> {
        let forgotten = forgotten.iter().filter_map(|change| match change {
            V2Change::NodeDelete { path } => Some(path),
            _ => None,
        });
        forgotten
            .filter(|below| {
                *below != path && self.table.nodes.get(*below).is_some_and(|node| node.dir)
            })
            .cloned()
            .collect()
    }

    /// Directories on the way that nobody has made. One that exists by its content only becomes
    /// one of its own, as v2's directories outlive their content.
    fn missing_parents(&self, path: &[u8], index: i64) -> Vec<V2Node> {
        let tree = self.tree();
        let above = path::ancestry(path);
        above[..above.len() - 1]
            .iter()
            .filter(|step| !self.table.nodes.get(**step).is_some_and(|node| node.dir))
            .map(|step| match tree.find(step) {
                Some(view) if view.dir => stored(&view),
                _ => V2Node {
                    path: Bytes::copy_from_slice(step),
                    dir: true,
                    created_index: index,
                    modified_index: index,
                    expires_at_ms: 0,
                },
            })
            .collect()
    }

    /// What lies beside the keyspace for a node that was written.
    fn node_after(&self, node: &V2View, prev: Option<&V2View>, action: &str) -> V2Change {
        let mut kept = stored(node);
        if node.dir {
            // As in etcd, an update of a directory changes its end, not its index.
            if let Some(prev) = prev.filter(|_| action == "update") {
                kept.modified_index = prev.modified_index;
            }
            return V2Change::NodePut(kept);
        }
        if node.expires_at_ms == 0 && node.created_index == node.modified_index {
            // Exactly what the key says by itself.
            return V2Change::NodeDelete {
                path: node.path.clone(),
            };
        }
        V2Change::NodePut(kept)
    }
}

fn stored(view: &V2View) -> V2Node {
    V2Node {
        path: view.path.clone(),
        dir: view.dir,
        created_index: view.created_index,
        modified_index: view.modified_index,
        expires_at_ms: view.expires_at_ms,
    }
}
