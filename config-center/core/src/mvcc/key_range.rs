//! What the pair (key, range_end) of an etcd request means.

use std::ops::Bound;

use bytes::Bytes;

/// The keys that a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// `range_end` is empty.
    Single(Bytes),
    /// `[start, end)`; empty when `start >= end`.
    Span { start: Bytes, end: Bytes },
    /// `range_end` is one zero byte: every key from here on.
    From(Bytes),
}

impl KeyRange {
    #[must_use]
    pub fn new(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            Self::Single(key)
        } else if range_end[..] == [0] {
            Self::From(key)
        } else {
            Self::Span {
                start: key,
                end: range_end,
            }
        }
    }

    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(only) => only[..] == *key,
            Self::Span { start, end } => start[..] <= *key && *key < end[..],
            Self::From(start) => start[..] <= *key,
        }
    }

    /// No key can be inside. Reads answer nothing; a watch on it is an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span { start, end } if start >= end)
    }

    /// The smallest key that can be inside.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Single(key) | Self::From(key) => key,
            Self::Span { start, .. } => start,
        }
    }

    /// The bounds for an ordered map. Only for ranges that are not empty: an ordered map panics on
    /// a start above its end.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::Single(key) => (Bound::Included(key), Bound::Included(key)),
            Self::Span { start, end } => (Bound::Included(start), Bound::Excluded(end)),
            Self::From(start) => (Bound::Included(start), Bound::Unbounded),
        }
    }
}
