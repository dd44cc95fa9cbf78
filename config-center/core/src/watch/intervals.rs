//! An ordered index of key intervals that answers "which of you contain this key".
//!
//! A treap by `(start, end)`, where each node knows the greatest end below it: a search skips every
//! subtree that ends before the key, and everything right of the first start above it.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where an interval ends; `None` is above every key.
type End = Option<Bytes>;

/// Index of a node. Stays the same for as long as the node lives.
pub(super) type NodeId = u32;

const NIL: NodeId = NodeId::MAX;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: End,
    /// The greatest end in this subtree.
    max_end: End,
    priority: u64,
    left: NodeId,
    right: NodeId,
    /// What hangs on the interval: watchers with the same range share a node.
    members: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    root: NodeId,
    seed: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NIL,
            seed: 0x9E37_79B9_7F4A_7C15,
        }
    }
}

impl Intervals {
    /// The node of `[start, end)`, made if it is new. The interval must not be empty.
    pub(super) fn node_of(&mut self, start: &Bytes, end: &End) -> NodeId {
        if let Some(known) = self.find(start, end) {
            return known;
        }
        let node = Node {
            start: start.clone(),
            end: end.clone(),
            max_end: end.clone(),
            priority: self.next_priority(),
            left: NIL,
            right: NIL,
            members: Vec::new(),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as NodeId
            }
        };
        self.root = self.insert(self.root, id);
        id
    }

    pub(super) fn members_mut(&mut self, id: NodeId) -> &mut Vec<u32> {
        &mut self.nodes[id as usize].members
    }

    /// Takes a node out, after its last member has left.
    pub(super) fn remove(&mut self, id: NodeId) {
        debug_assert!(self.node(id).members.is_empty());
        self.root = self.erase(self.root, id);
        let node = &mut self.nodes[id as usize];
        (node.start, node.end, node.max_end) = (Bytes::new(), None, None);
        self.free.push(id);
    }

    /// Calls `found` with the members of every interval that contains the key.
    pub(super) fn containing(&self, key: &[u8], found: &mut impl FnMut(&[u32])) {
        self.search(self.root, key, found);
    }

    /// Different intervals.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// The longest way from the root.
    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        fn below(tree: &Intervals, at: NodeId) -> usize {
            if at == NIL {
                return 0;
            }
            let node = tree.node(at);
            1 + below(tree, node.left).max(below(tree, node.right))
        }
        below(self, self.root)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn search(&self, at: NodeId, key: &[u8], found: &mut impl FnMut(&[u32])) {
        if at == NIL || !is_above(&self.node(at).max_end, key) {
            return;
        }
        let node = self.node(at);
        self.search(node.left, key, found);
        if node.start[..] <= *key {
            if is_above(&node.end, key) {
                found(&node.members);
            }
            self.search(node.right, key, found);
        }
    }

    fn find(&self, start: &Bytes, end: &End) -> Option<NodeId> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match order((start, end), (&node.start, &node.end)) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(at),
            };
        }
        None
    }

    fn order_of(&self, a: NodeId, b: NodeId) -> Ordering {
        let (a, b) = (self.node(a), self.node(b));
        order((&a.start, &a.end), (&b.start, &b.end))
    }

    /// Puts the node into the subtree and returns the subtree's new root.
    fn insert(&mut self, at: NodeId, id: NodeId) -> NodeId {
        if at == NIL {
            return id;
        }
        if self.node(id).priority > self.node(at).priority {
            let (left, right) = self.split(at, id);
            (self.nodes[id as usize].left, self.nodes[id as usize].right) = (left, right);
            self.update(id);
            return id;
        }
        if self.order_of(id, at) == Ordering::Less {
            self.nodes[at as usize].left = self.insert(self.node(at).left, id);
        } else {
            self.nodes[at as usize].right = self.insert(self.node(at).right, id);
        }
        self.update(at);
        at
    }

    /// Takes the node out of the subtree and returns the subtree's new root.
    fn erase(&mut self, at: NodeId, id: NodeId) -> NodeId {
        if at == NIL {
            return NIL;
        }
        if at == id {
            let (left, right) = (self.node(at).left, self.node(at).right);
            return self.merge(left, right);
        }
        if self.order_of(id, at) == Ordering::Less {
            self.nodes[at as usize].left = self.erase(self.node(at).left, id);
        } else {
            self.nodes[at as usize].right = self.erase(self.node(at).right, id);
        }
        self.update(at);
        at
    }

    /// Divides the subtree into what is before and what is after the node `pivot`.
    fn split(&mut self, at: NodeId, pivot: NodeId) -> (NodeId, NodeId) {
        if at == NIL {
            return (NIL, NIL);
        }
        if self.order_of(at, pivot) == Ordering::Less {
            let (before, after) = self.split(self.node(at).right, pivot);
            self.nodes[at as usize].right = before;
            self.update(at);
            (at, after)
        } else {
            let (before, after) = self.split(self.node(at).left, pivot);
            self.nodes[at as usize].left = after;
            self.update(at);
            (before, at)
        }
    }

    /// Joins two subtrees, all of `left` being before all of `right`.
    fn merge(&mut self, left: NodeId, right: NodeId) -> NodeId {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        if self.node(left).priority > self.node(right).priority {
            self.nodes[left as usize].right = self.merge(self.node(left).right, right);
            self.update(left);
            left
        } else {
            self.nodes[right as usize].left = self.merge(left, self.node(right).left);
            self.update(right);
            right
        }
    }

    fn update(&mut self, id: NodeId) {
        let node = self.node(id);
        let mut greatest = &node.end;
        for child in [node.left, node.right] {
            if child != NIL && end_order(&self.node(child).max_end, greatest) == Ordering::Greater {
                greatest = &self.node(child).max_end;
            }
        }
        let greatest = greatest.clone();
        self.nodes[id as usize].max_end = greatest;
    }

    /// A fixed sequence is enough: priorities only have to be unrelated to the keys.
    fn next_priority(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

fn is_above(end: &End, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| *key < end[..])
}

fn end_order(a: &End, b: &End) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn order(a: (&Bytes, &End), b: (&Bytes, &End)) -> Ordering {
    a.0.cmp(b.0).then_with(|| end_order(a.1, b.1))
}
