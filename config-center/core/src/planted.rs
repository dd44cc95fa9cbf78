//! Known bugs, to show that the model check can fail. Outside of tests none of them exists.

/// Each is a mistake that some store of this kind has shipped or is likely to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A tombstone at the compacted revision goes at once: a watch from there misses the delete.
    TombstoneCompactedEarly,
    /// `count` is what was returned instead of what exists.
    CountLimited,
    /// A nested compare sees what the outer transaction has already written.
    LateCompare,
    /// A put without a lease leaves the key attached to its old one.
    LeaseNotDetached,
    /// A page of history ends in the middle of a revision, and the rest of it is lost.
    PageSplitsRevision,
    /// Two groups of one priority disagree, and whichever comes first wins.
    EqualPriorityFirstWins,
    /// The plan adds and changes, and never takes away.
    DiffForgetsRemovals,
    /// A wave begins although hosts of the one before have not applied it.
    WaveWithoutGate,
    /// A paused rollout goes on publishing the wave it was in.
    PauseStillPublishes,
    /// A failed host is forgotten when the next wave begins.
    FailuresForgotten,
    /// A record's hash does not cover the hash of the record before.
    AuditWithoutChain,
}

#[cfg(not(test))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use chosen::{is, with};

#[cfg(test)]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `check` with the bug, on this thread only.
    pub(crate) fn with<T>(bug: Bug, check: impl FnOnce() -> T) -> T {
        PLANTED.set(Some(bug));
        let outcome = check();
        PLANTED.set(None);
        outcome
    }
}
