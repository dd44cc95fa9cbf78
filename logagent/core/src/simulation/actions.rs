//! What can happen in a history.

use proptest::prelude::*;
use proptest::sample::Index;

/// One thing that somebody does.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// The program appends whole lines of this length.
    Write {
        lines: usize,
        length: usize,
    },
    /// The program appends the beginning of a line; the next write completes it.
    WriteHalf,
    /// Renames, as logrotate does: `.1` becomes `.2`. The program goes on with its descriptor.
    RenameLogrotate,
    /// The program opens the path, as after `USR1`.
    Reopen,
    /// A whole rotation at once.
    Rotate,
    /// Copies to `.1` and cuts to nothing; `between` lines come after the copy.
    CopyTruncate {
        between: usize,
    },
    /// Cuts to nothing and writes at least as much as there was.
    TruncateAndRegrow,
    /// Cuts to nothing; the program goes on at its old offset and leaves a hole.
    TruncateUnderWriter,
    /// Removes the file; the program opens a new one, which may get the same inode.
    DeleteAndRecreate,
    /// Compresses the newest rotated file; or goes on with one that was begun.
    Gzip,
    /// Begins to, and does not come to the end yet.
    GzipBegin,
    /// Copies the beginning of the file to `.1`; the rest and the truncation come later.
    CopyBegin {
        part: u16,
    },
    /// The path becomes a symlink, leads elsewhere, or becomes a file again.
    SwitchLink,
    /// The program appends a line that belongs to the one before it.
    Continue,
    /// The next line is one that the broker never takes.
    Poison,
    /// The agent works for this long; what it sent is acknowledged, and checkpointed.
    Run {
        ms: u64,
        ack: bool,
        save: bool,
    },
    /// The agent takes this many steps and nothing else happens.
    Steps(usize),
    /// Some block is acknowledged, in whatever order.
    Ack(Index),
    /// Some block is refused.
    Fail(Index),
    /// A checkpoint becomes durable.
    Save,
    /// kill -9, of which the broker got this part in thousandths of what was in flight.
    Kill {
        delivered: u16,
    },
    Start,
    /// A config put changes an option or the topic: the tail makes way for its successor.
    HandOver,
    /// The path cannot be read, and later it can.
    Forbid(bool),
}

/// How the entry's lines become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Plain,
    /// Several lines are one record.
    Joined,
    /// A newline has two bytes.
    Utf16,
    /// Of a long line only the beginning is published.
    Cut,
}

/// A history: what the entry is like, and what happens.
pub(super) fn history(actions_max: usize) -> impl Strategy<Value = (Variant, Vec<Action>)> {
    let variant = prop_oneof![
        3 => Just(Variant::Plain),
        1 => Just(Variant::Joined),
        1 => Just(Variant::Utf16),
        1 => Just(Variant::Cut),
    ];
    (variant, proptest::collection::vec(action(), 1..actions_max))
}

fn action() -> impl Strategy<Value = Action> {
    let length = prop_oneof![6 => 8..60_usize, 1 => 200..700_usize];
    prop_oneof![
        10 => (1..12_usize, length)
            .prop_map(|(lines, length)| Action::Write { lines, length }),
        2 => Just(Action::WriteHalf),
        2 => Just(Action::RenameLogrotate),
        3 => Just(Action::Reopen),
        4 => Just(Action::Rotate),
        3 => prop_oneof![3 => Just(0), 1 => 1..4_usize]
            .prop_map(|between| Action::CopyTruncate { between }),
        2 => Just(Action::TruncateAndRegrow),
        1 => Just(Action::TruncateUnderWriter),
        1 => Just(Action::DeleteAndRecreate),
        2 => Just(Action::Gzip),
        1 => Just(Action::GzipBegin),
        1 => (0..=1_000_u16).prop_map(|part| Action::CopyBegin { part }),
        1 => Just(Action::SwitchLink),
        2 => Just(Action::Continue),
        1 => Just(Action::Poison),
        8 => (prop_oneof![3 => 1..300_u64, 1 => 300..8_000_u64], any::<bool>(), any::<bool>())
            .prop_map(|(ms, ack, save)| Action::Run { ms, ack, save }),
        4 => (1..8_usize).prop_map(Action::Steps),
        3 => any::<Index>().prop_map(Action::Ack),
        2 => any::<Index>().prop_map(Action::Fail),
        3 => Just(Action::Save),
        4 => (0..=1_000_u16).prop_map(|delivered| Action::Kill { delivered }),
        6 => Just(Action::Start),
        1 => Just(Action::HandOver),
        1 => any::<bool>().prop_map(Action::Forbid),
    ]
}
