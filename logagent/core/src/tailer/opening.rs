//! Opening files: the proof that an opened file is the remembered one, and the resume after a
//! start.
//!
//! A job names the places where a file may be. Each place is opened, its identity compared with
//! what was expected there (a rotation may happen between looking and opening), and its content
//! proved with one or two small reads. The first place that proves right is taken.

use std::collections::VecDeque;

use super::step::{Handle, Target};
use crate::checkpoint::FileRow;
use crate::framing::Framing;
use crate::identity::marker_at_end;
use crate::identity::{FileId, FileStat, HEAD_BYTES, Known, MARKER_BYTES, Print, Verdict};
use crate::rotation::{self, Sibling};

/// How many places are tried for one remembered file.
const MAX_PLACES: usize = 8;
/// How far back from the end the beginning of the last line is looked for.
const ALIGN_BYTES: u64 = 64 * 1_024;

/// Where a file may be, and the identity it had when the place was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) target: Target,
    pub(super) id: FileId,
}

/// Where reading starts in a file that is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Aim {
    /// Where the row says, if the content proves to be the row's. If no place proves right, the
    /// file is gone.
    Row(FileRow),
    /// The copy of a truncated file, for the content of this key.
    Copy(Handle, FileRow),
    /// Where the row says, if the content is the row's; at 0 if not.
    RowOrBeginning(FileRow),
    /// A compressed file: where the content says that it is one of these, at 0 if it is none.
    Unpack(Vec<Candidate>),
    Beginning,
    /// After the last whole line.
    End,
}

/// A content that a compressed file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) row: FileRow,
    /// It is read through a descriptor of its own.
    pub(super) is_open: bool,
}

/// One file to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) aim: Aim,
    pub(super) places: VecDeque<Place>,
    /// The file itself, when it is the file and not a content that is looked for.
    pub(super) wanted: Option<FileId>,
    /// The open file that was rotated after this one. None: all open ones were before it.
    pub(super) before: Option<FileId>,
}

impl Job {
    pub(super) fn new(aim: Aim, target: Target, id: FileId) -> Self {
        Self {
            aim,
            places: VecDeque::from([Place { target, id }]),
            wanted: Some(id),
            before: None,
        }
    }

    /// The remembered file that is looked for.
    pub(super) fn row(&self) -> Option<&FileRow> {
        if let Aim::Row(row) = &self.aim {
            Some(row)
        } else {
            None
        }
    }
}

/// What is still to be read before the opened file can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Head,
    Marker,
    AlignHead,
    Align { head: Print },
}

/// A place being opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) handle: Handle,
    pub(super) place: Place,
    pub(super) aim: Aim,
    stage: Stage,
    stat: Option<FileStat>,
    /// Of a compressed file: the contents that begin like it and are not ruled out yet.
    alike: VecDeque<Candidate>,
}

/// What came out of a step of an opening.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Ask for the next read.
    More,
    /// This is the file; its content is known up to the offset in `Known`.
    Take(FileStat, Known),
    /// A compressed file that holds what was read, or is read, elsewhere.
    Held(FileRow),
    /// The content is not the remembered one.
    NotThis,
}

impl Opening {
    pub(super) fn new(handle: Handle, place: Place, aim: Aim) -> Self {
        Self {
            handle,
            place,
            aim,
            stage: Stage::Opening,
            stat: None,
            alike: VecDeque::new(),
        }
    }

    /// The file as it was when it was opened.
    pub(super) fn stat_or(&self, id: FileId) -> FileStat {
        self.stat.unwrap_or(FileStat {
            id,
            size: 0,
            changed_ns: 0,
        })
    }

    /// The next read, once the file is open.
    pub(super) fn next_read(&self) -> Option<(u64, usize)> {
        let stat = self.stat.as_ref()?;
        match (self.stage, &self.aim) {
            (Stage::Opening, _) => None,
            (Stage::Head | Stage::AlignHead, _) => Some((0, HEAD_BYTES)),
            (Stage::Marker, Aim::Row(row) | Aim::Copy(_, row) | Aim::RowOrBeginning(row)) => {
                Some((known(row).read_start(), MARKER_BYTES))
            }
            (Stage::Marker, Aim::Unpack(_)) => {
                let first = self.alike.front()?;
                Some((known(&first.row).read_start(), MARKER_BYTES))
            }
            (Stage::Align { .. }, _) => {
                Some((stat.size.saturating_sub(ALIGN_BYTES), ALIGN_BYTES as usize))
            }
            (Stage::Marker, _) => None,
        }
    }

    /// The file is open and has the expected identity.
    pub(super) fn opened(&mut self, stat: FileStat) -> Outcome {
        self.stat = Some(stat);
        match &self.aim {
            Aim::Beginning => Outcome::Take(stat, Known::default()),
            Aim::End if stat.size == 0 => Outcome::Take(stat, Known::default()),
            Aim::End => self.go_on(Stage::AlignHead),
            Aim::Row(_) | Aim::Copy(..) | Aim::RowOrBeginning(_) | Aim::Unpack(_) => {
                self.go_on(Stage::Head)
            }
        }
    }

    /// The answer to a read at `start`.
    pub(super) fn read(&mut self, start: u64, bytes: &[u8], framing: &Framing) -> Outcome {
        let Some(stat) = self.stat else {
            return Outcome::NotThis;
        };
        match (self.stage, &self.aim) {
            (Stage::AlignHead, _) => self.go_on(Stage::Align {
                head: Print::of(bytes),
            }),
            (Stage::Align { head }, _) => {
                let whole = framing.whole_lines_len(start, bytes).unwrap_or(bytes.len());
                let marker = marker_at_end(&bytes[..whole]);
                Outcome::Take(
                    stat,
                    Known {
                        head,
                        marker,
                        offset: start + whole as u64,
                    },
                )
            }
            (stage, Aim::Row(row) | Aim::Copy(_, row) | Aim::RowOrBeginning(row)) => {
                let known = known(row);
                match known.judge(start, bytes) {
                    Verdict::Same if stage == Stage::Head && known.read_start() > 0 => {
                        self.go_on(Stage::Marker)
                    }
                    Verdict::Same => Outcome::Take(stat, known),
                    Verdict::Shorter | Verdict::Rewritten => self.not_this(stat),
                }
            }
            (Stage::Head, Aim::Unpack(candidates)) => {
                let alike = candidates
                    .iter()
                    .filter(|candidate| known(&candidate.row).judge(start, bytes) == Verdict::Same);
                self.alike = alike.cloned().collect();
                self.next_alike(stat)
            }
            (Stage::Marker, Aim::Unpack(_)) => match self.alike.pop_front() {
                Some(first) if known(&first.row).judge(start, bytes) == Verdict::Same => {
                    Self::recognised(first, stat)
                }
                _ => self.next_alike(stat),
            },
            _ => Outcome::NotThis,
        }
    }

    /// The next content that a compressed file may hold, judged by its size or by another read.
    fn next_alike(&mut self, stat: FileStat) -> Outcome {
        let Some(first) = self.alike.front() else {
            return Outcome::Take(stat, Known::default());
        };
        let whole_bytes = if first.is_open {
            first.row.seen_bytes
        } else {
            first.row.acked_offset
        };
        // A compressed file tells its size modulo 2³².
        if whole_bytes as u32 == stat.size as u32 {
            return Outcome::Held(first.row.clone());
        }
        if known(&first.row).read_start() > 0 {
            return self.go_on(Stage::Marker);
        }
        match self.alike.pop_front() {
            Some(first) => Self::recognised(first, stat),
            None => Outcome::NotThis,
        }
    }

    fn recognised(candidate: Candidate, stat: FileStat) -> Outcome {
        if candidate.is_open {
            Outcome::Held(candidate.row)
        } else {
            Outcome::Take(stat, known(&candidate.row))
        }
    }

    fn go_on(&mut self, stage: Stage) -> Outcome {
        self.stage = stage;
        Outcome::More
    }

    fn not_this(&self, stat: FileStat) -> Outcome {
        match self.aim {
            Aim::RowOrBeginning(_) => Outcome::Take(stat, Known::default()),
            _ => Outcome::NotThis,
        }
    }
}

fn known(row: &FileRow) -> Known {
    Known {
        head: row.head,
        marker: row.marker,
        offset: row.acked_offset,
    }
}

/// The places where the file of `row` may be after a restart: first where its identity is seen.
///
/// Other identities are tried in two cases only, because two different files may begin alike: the
/// device number is another one (disks are renumbered at boot), or the file was truncated, so that
/// its old content may live on in a copy that nobody knows yet. A file that is nowhere may have been
/// compressed: its content decides.
pub(super) fn places_of(
    row: &FileRow,
    is_known: impl Fn(&FileStat) -> bool,
    base: &str,
    path: Option<&FileStat>,
    siblings: &[Sibling],
) -> VecDeque<Place> {
    let at_path = path.map(|stat| (Target::Path, stat));
    let is_plain = |sibling: &&Sibling| !rotation::is_compressed(&sibling.name);
    let is_packed = |sibling: &&Sibling| rotation::is_unpackable(&sibling.name, siblings);
    let newest_first = rotation::newest_first(base, siblings);
    // What is compressed had the identity of another file before.
    let packed = newest_first
        .iter()
        .copied()
        .filter(is_packed)
        .map(|sibling| (Target::Sibling(sibling.name.clone()), sibling.stat.id));
    let rotated = newest_first
        .iter()
        .copied()
        .filter(is_plain)
        .map(|sibling| (Target::Sibling(sibling.name.clone()), &sibling.stat));
    let anywhere = siblings
        .iter()
        .filter(|sibling| sibling.stat.id == row.id && (is_plain(sibling) || is_packed(sibling)))
        .map(|sibling| (Target::Sibling(sibling.name.clone()), &sibling.stat));
    let seen: Vec<_> = at_path.into_iter().chain(rotated).chain(anywhere).collect();
    let by_identity = seen.iter().filter(|(_, stat)| stat.id == row.id);
    let is_there = seen.iter().any(|(_, stat)| stat.id == row.id);
    // Oldest first: of two copies that begin alike the first one is the one of what was read.
    let by_content = seen.iter().rev().filter(|(target, stat)| {
        let renumbered = stat.id.dev != row.id.dev;
        let copied = is_there && *target != Target::Path;
        (renumbered || copied) && may_hold(row, stat) && stat.id != row.id && !is_known(stat)
    });
    let mut places = VecDeque::new();
    for (target, stat) in by_identity.chain(by_content) {
        add_place(&mut places, target.clone(), stat.id);
    }
    if row.head.len > 0 {
        for (target, id) in packed {
            add_place(&mut places, target, id);
        }
    }
    places
}

/// The places where the content of a file that was truncated just now may be copied to. Only files
/// that nobody knows, oldest first.
pub(super) fn copies_of(
    row: &FileRow,
    strangers: &[Sibling],
    siblings: &[Sibling],
) -> VecDeque<Place> {
    let mut places = VecDeque::new();
    for sibling in strangers {
        let is_packed = rotation::is_unpackable(&sibling.name, siblings);
        let is_plain = !rotation::is_compressed(&sibling.name);
        if is_packed && row.head.len > 0 || is_plain && may_hold(row, &sibling.stat) {
            let target = Target::Sibling(sibling.name.clone());
            add_place(&mut places, target, sibling.stat.id);
        }
    }
    places
}

/// Whether a file is large enough to hold the content, of which something is known.
fn may_hold(row: &FileRow, stat: &FileStat) -> bool {
    row.head.len > 0 && stat.size >= row.acked_offset.max(u64::from(row.head.len))
}

fn add_place(places: &mut VecDeque<Place>, target: Target, id: FileId) {
    let is_new = places.iter().all(|known: &Place| known.id != id);
    if is_new && places.len() < MAX_PLACES {
        places.push_back(Place { target, id });
    }
}
