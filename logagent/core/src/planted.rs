//! Known bugs, to show that the simulation can fail. Outside of tests none of them exists.

/// Each is a mistake that some tailer has shipped or is likely to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The checkpoint says what was read instead of what was acknowledged.
    CheckpointBeforeAck,
    /// A file that lost its path is closed at once instead of read to its end.
    DrainSkipped,
    /// The bytes before the offset are not compared: a rewritten file is read on in its middle.
    MarkerUnchecked,
    /// A block that failed counts as acknowledged.
    FailureJumped,
    /// Files rotated away before anybody looked are not searched.
    MissedRotationsIgnored,
    /// The copy of a truncated file is not looked for.
    CopyIgnored,
    /// Lines are sent before a restart would know that the entry was started.
    StartUnsaved,
    /// The key is watched from now on, not from the revision at which it was read.
    WatchWithoutRevision,
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
