//! Known bugs, to show that an oracle can fail.
//!
//! In tests of this crate one can be planted on one thread. With the cargo feature `planted`, which
//! no product is built with, one can be planted in a whole process. Otherwise none of them exists.

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

#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(all(not(test), feature = "planted"))]
pub(crate) use everywhere::is;
#[cfg(all(not(test), feature = "planted"))]
pub use everywhere::plant;

#[cfg(all(not(test), feature = "planted"))]
mod everywhere {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// The number of the planted bug, counted from 1; 0 is none.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    const ALL: [Bug; 5] = [
        Bug::TombstoneCompactedEarly,
        Bug::CountLimited,
        Bug::LateCompare,
        Bug::LeaseNotDetached,
        Bug::PageSplitsRevision,
    ];

    pub(crate) fn is(bug: Bug) -> bool {
        let number = usize::from(PLANTED.load(Ordering::Relaxed));
        number > 0 && ALL.get(number - 1) == Some(&bug)
    }

    /// Plants the bug of this name, such as `LateCompare`, for the rest of the process's life.
    ///
    /// # Errors
    /// The known names, when it is none of them.
    pub fn plant(name: &str) -> Result<(), String> {
        for (number, bug) in (1..).zip(ALL) {
            if format!("{bug:?}") == name {
                PLANTED.store(number, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(format!("{name} is none of {ALL:?}"))
    }
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
