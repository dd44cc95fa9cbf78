//! The files of the log: a folder of numbered segments, written at the end of the last one, removed
//! at the front. What calls these, and when, is `log_writer`'s matter.
//!
//! One record is one write and one sync, into room that was set aside beforehand, so that a sync has
//! nothing but data to wait for. A segment begins with what the log remembers beside its entries;
//! therefore those before it are needed for their entries only, and go with them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};

use super::error::{StorageError, failed};
use super::folder::sync_dir;
use super::log_record::{
    self, EntryId, EntryRow, Found, Identity, Item, RecordWriter, SEGMENT_HEAD_BYTES, SegmentHead,
    VERSION, VoteRow,
};
use super::sync_times::SyncTimes;

/// Room that is set aside for a segment. A record that does not fit begins the next one.
const SEGMENT_BYTES: u64 = 8 << 20;

const SUFFIX: &str = "log";
/// A segment in the making.
const UNFINISHED: &str = "new";

type FileResult<T> = Result<T, StorageError>;

/// What was found in the log when it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRecovery {
    pub identity: Option<Identity>,
    pub vote: Option<VoteRow>,
    pub committed: Option<EntryId>,
    pub purged: Option<EntryId>,
    /// The first entry that is there.
    pub first: Option<u64>,
    /// The last entry, or what was purged when there is none.
    pub last: Option<EntryId>,
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    term: u64,
    segment: u64,
    at: u64,
    length: u32,
}

/// Where all entries lie that are on disk; what readers and the writer share.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    first: u64,
    places: VecDeque<Place>,
    segments: BTreeMap<u64, Arc<File>>,
}

impl LogIndex {
    fn next(&self) -> Option<u64> {
        (!self.places.is_empty()).then(|| self.first + self.places.len() as u64)
    }

    fn push(&mut self, index: u64, place: Place) {
        if self.places.is_empty() {
            self.first = index;
        }
        self.places.push_back(place);
    }

    fn truncate_after(&mut self, after: Option<u64>) {
        let until = after.map_or(0, |after| after + 1);
        let kept = until.saturating_sub(self.first);
        self.places
            .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    fn purge(&mut self, upto: u64) {
        while !self.places.is_empty() && self.first <= upto {
            self.places.pop_front();
            self.first += 1;
        }
    }

    /// The places of the entries of `[from, until)` that are there, with their files.
    fn locate(&self, from: u64, until: u64) -> Vec<(u64, Place, Arc<File>)> {
        let end = self.first + self.places.len() as u64;
        (from.max(self.first)..until.min(end))
            .filter_map(|index| {
                let place = self.places[usize::try_from(index - self.first).ok()?];
                let file = self.segments.get(&place.segment)?;
                Some((index, place, Arc::clone(file)))
            })
            .collect()
    }
}

/// Reads the entries of `[from, until)` that are there, in order.
pub(super) fn read_entries(
    index: &Mutex<LogIndex>,
    folder: &Path,
    from: u64,
    until: u64,
) -> FileResult<Vec<EntryRow>> {
    let located = index.lock().locate(from, until);
    let mut rows = Vec::with_capacity(located.len());
    for run in located.chunk_by(|(_, a, _), (_, b, _)| a.segment == b.segment) {
        let ([(_, head, file), ..], [.., (_, tail, _)]) = (run, run) else {
            continue;
        };
        // Neighbours lie next to each other but for the heads of records.
        let mut bytes = vec![0; (tail.at - head.at) as usize + tail.length as usize];
        file.read_exact_at(&mut bytes, head.at)
            .map_err(failed("reading the log in", folder))?;
        let bytes = Bytes::from(bytes);
        for (index, place, _) in run {
            let at = (place.at - head.at) as usize;
            let mut item = bytes.slice(at..at + place.length as usize);
            match log_record::read_item(&mut item) {
                Some(Item::Entry(row)) if row.id.index == *index => rows.push(row),
                _ => {
                    return Err(StorageError::Damaged {
                        path: segment_path(folder, place.segment),
                        what: format!("entry {index} is not where it was written"),
                    });
                }
            }
        }
    }
    Ok(rows)
}

/// What the log remembers beside its entries.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    identity: Option<Identity>,
    vote: Option<VoteRow>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
}

impl Marks {
    fn remember(&mut self, item: &Item) {
        match item {
            Item::Identity(identity) => self.identity = Some(*identity),
            Item::Vote(vote) => self.vote = Some(*vote),
            Item::Committed(id) => self.committed = Some(*id),
            Item::Purged(id) => self.purged = Some(*id),
            Item::Entry(_) | Item::Truncate(_) => {}
        }
    }

    fn items(&self) -> impl Iterator<Item = Item> + use<> {
        let items = [
            self.identity.map(Item::Identity),
            self.vote.map(Item::Vote),
            self.committed.map(Item::Committed),
            self.purged.map(Item::Purged),
        ];
        items.into_iter().flatten()
    }
}

/// A change of the index that waits for its record to be on disk.
#[derive(Debug, Clone, Copy)]
enum Staged {
    Entry {
        id: EntryId,
        at: usize,
        length: usize,
    },
    Truncate(Option<u64>),
    Purge(u64),
}

/// The owner's side of the files.
#[derive(Debug)]
pub(super) struct LogFiles {
    folder: PathBuf,
    number: u64,
    file: Arc<File>,
    /// Where the next record goes.
    end: u64,
    sequence: u64,
    marks: Marks,
    index: Arc<Mutex<LogIndex>>,
    record: RecordWriter,
    staged: Vec<Staged>,
    /// The index that the next entry must have, with all that is staged; `None`: any.
    next_index: Option<u64>,
    syncs: Arc<SyncTimes>,
}

impl LogFiles {
    /// Makes a log in a folder that does not exist yet: complete under its name, or not there.
    pub(super) fn create(folder: &Path, items: impl IntoIterator<Item = Item>) -> FileResult<()> {
        let unfinished = folder.with_extension(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("emptying", &unfinished)(error));
            }
            _ => {}
        }
        fs::create_dir(&unfinished).map_err(failed("creating", &unfinished))?;
        create_segment(&unfinished, 1, &[])?;
        let (mut files, _) = Self::open(&unfinished)?;
        for item in items {
            files.stage(&item)?;
            if files.record.len() > 1 << 20 {
                files.write()?;
            }
        }
        files.write()?;
        drop(files);
        fs::rename(&unfinished, folder).map_err(failed("naming", folder))?;
        sync_dir(folder.parent().unwrap_or(Path::new(".")))
    }

    /// Opens the log and finds out what is in it.
    pub(super) fn open(folder: &Path) -> FileResult<(Self, LogRecovery)> {
        let numbers = segments_of(folder)?;
        let mut replay = Replay::default();
        let mut end = 0;
        for (nth, number) in numbers.iter().enumerate() {
            let is_last = nth + 1 == numbers.len();
            end = replay.segment(folder, *number, is_last)?;
        }
        let Some(number) = numbers.last().copied() else {
            return Err(StorageError::Damaged {
                path: folder.to_owned(),
                what: "it holds no segment of the log".to_owned(),
            });
        };
        replay.check_begin(folder, numbers[0])?;
        let Replay {
            sequence,
            marks,
            index,
            ..
        } = replay;
        let last = index.places.back().zip(index.next());
        let recovery = LogRecovery {
            identity: marks.identity,
            vote: marks.vote,
            committed: marks.committed,
            purged: marks.purged,
            first: last.map(|_| index.first),
            last: last.map_or(marks.purged, |(place, next)| {
                Some(EntryId {
                    term: place.term,
                    index: next - 1,
                })
            }),
        };
        let file = index.segments.get(&number).map(Arc::clone);
        let file = file.ok_or_else(|| StorageError::Stopped {
            path: folder.to_owned(),
        })?;
        let files = Self {
            folder: folder.to_owned(),
            number,
            file,
            end,
            sequence,
            marks,
            next_index: recovery.last.map(|last| last.index + 1),
            index: Arc::new(Mutex::new(index)),
            record: RecordWriter::new(),
            staged: Vec::new(),
            syncs: Arc::default(),
        };
        Ok((files, recovery))
    }

    pub(super) fn syncs(&self) -> Arc<SyncTimes> {
        Arc::clone(&self.syncs)
    }

    /// Whether this entry is in the log, with all that is staged.
    pub(super) fn holds(&self, index: u64) -> bool {
        self.next_index.is_some_and(|next| index < next)
    }

    pub(super) fn index(&self) -> Arc<Mutex<LogIndex>> {
        Arc::clone(&self.index)
    }

    /// Adds an entry to the next record.
    pub(super) fn stage_entry(&mut self, row: &EntryRow) -> FileResult<()> {
        let index = row.id.index;
        if self.next_index.is_some_and(|next| next != index) {
            return Err(StorageError::OutOfOrder {
                path: self.folder.clone(),
                index,
                expected: self.next_index.unwrap_or_default(),
            });
        }
        self.next_index = Some(index + 1);
        let (at, length) = self.record.entry(row);
        let id = row.id;
        self.staged.push(Staged::Entry { id, at, length });
        Ok(())
    }

    /// Adds anything to the next record.
    pub(super) fn stage(&mut self, item: &Item) -> FileResult<()> {
        match item {
            Item::Entry(row) => return self.stage_entry(row),
            Item::Truncate(after) => {
                let until = after.map_or(0, |after| after + 1);
                self.next_index = self.next_index.map(|next| next.min(until));
                if until == 0 {
                    self.next_index = None;
                }
                self.staged.push(Staged::Truncate(*after));
            }
            Item::Purged(id) => {
                self.next_index = Some(self.next_index.unwrap_or(0).max(id.index + 1));
                self.staged.push(Staged::Purge(id.index));
            }
            Item::Committed(_) | Item::Vote(_) | Item::Identity(_) => {}
        }
        self.record.item(item);
        self.marks.remember(item);
        Ok(())
    }

    /// Writes what is staged as one record, and returns when it is on disk.
    pub(super) fn write(&mut self) -> FileResult<()> {
        if self.record.is_empty() {
            return Ok(());
        }
        if self.end + self.record.len() as u64 > SEGMENT_BYTES
            && self.end > SEGMENT_HEAD_BYTES as u64
        {
            self.begin_segment()?;
        }
        let at = self.end;
        let record = self.record.finish(self.sequence + 1);
        let append = || -> io::Result<()> {
            self.file.write_all_at(record, at)?;
            let since = Instant::now();
            self.file.sync_data()?;
            self.syncs.record(since.elapsed());
            Ok(())
        };
        append().map_err(failed("appending to the log in", &self.folder))?;
        self.sequence += 1;
        self.end += record.len() as u64;
        self.record.clear();
        self.enter(at);
        Ok(())
    }

    /// Lets readers see what was staged; forgets segments that are no longer needed.
    fn enter(&mut self, at: u64) {
        let mut index = self.index.lock();
        for staged in self.staged.drain(..) {
            match staged {
                Staged::Entry {
                    id,
                    at: from,
                    length,
                } => {
                    let place = Place {
                        term: id.term,
                        segment: self.number,
                        at: at + from as u64,
                        // Lengths in a record have four bytes.
                        length: length as u32,
                    };
                    index.push(id.index, place);
                }
                Staged::Truncate(after) => index.truncate_after(after),
                Staged::Purge(upto) => index.purge(upto),
            }
        }
        let needed = index.places.front().map_or(self.number, |one| one.segment);
        let mut unneeded = Vec::new();
        while let Some((number, _)) = index.segments.first_key_value()
            && *number < needed
        {
            unneeded.push(*number);
            index.segments.pop_first();
        }
        drop(index);
        for number in unneeded {
            let path = segment_path(&self.folder, number);
            if let Err(error) = fs::remove_file(&path) {
                // Found again at the next start, and not needed then either.
                tracing::warn!(%error, path = %path.display(), "a part of the log could not be removed");
            }
        }
    }

    fn begin_segment(&mut self) -> FileResult<()> {
        let number = self.number + 1;
        // What is staged is not on disk; it follows in the new segment, and says so again.
        let marks: Vec<Item> = self.marks.items().collect();
        let mut head = RecordWriter::new();
        marks.iter().for_each(|item| head.item(item));
        let head: &[u8] = if head.is_empty() {
            &[]
        } else {
            self.sequence += 1;
            head.finish(self.sequence)
        };
        let file = Arc::new(create_segment(&self.folder, number, head)?);
        self.number = number;
        self.end = (SEGMENT_HEAD_BYTES + head.len()) as u64;
        self.file = Arc::clone(&file);
        self.index.lock().segments.insert(number, file);
        Ok(())
    }
}

/// What the segments say, one after the other.
#[derive(Debug, Default)]
struct Replay {
    sequence: u64,
    has_begun: bool,
    marks: Marks,
    index: LogIndex,
}

impl Replay {
    /// Reads one segment; where its records end.
    fn segment(&mut self, folder: &Path, number: u64, is_last: bool) -> FileResult<u64> {
        let path = segment_path(folder, number);
        let damaged = |what: String| StorageError::Damaged {
            path: path.clone(),
            what,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("opening", &path))?;
        let bytes = Bytes::from(fs::read(&path).map_err(failed("reading", &path))?);
        match log_record::read_segment_head(&bytes) {
            SegmentHead::Numbered(found) if found == number => {}
            SegmentHead::Numbered(found) => {
                return Err(damaged(format!("it says that its number is {found}")));
            }
            SegmentHead::UnknownVersion(found) => {
                return Err(StorageError::UnknownFormat {
                    path,
                    found: found.into(),
                    known: VERSION.into(),
                });
            }
            SegmentHead::Foreign => return Err(StorageError::Foreign { path }),
        }
        let mut at = SEGMENT_HEAD_BYTES;
        loop {
            match log_record::read_record(&bytes, at) {
                Found::Record {
                    sequence,
                    items,
                    end,
                } => {
                    if self.has_begun && sequence != self.sequence + 1 {
                        return Err(damaged(format!(
                            "record {sequence} follows record {}",
                            self.sequence
                        )));
                    }
                    self.has_begun = true;
                    self.sequence = sequence;
                    for (from, length, item) in items {
                        let place = (number, from as u64, length as u32);
                        self.item(item, place).map_err(damaged)?;
                    }
                    at = end;
                }
                Found::UnknownItem(kind) => {
                    return Err(damaged(format!("an item of the unknown kind {kind}")));
                }
                Found::Nothing => break,
            }
        }
        if is_last {
            self.clean_end(&file, &bytes, at)
                .map_err(|error| match error {
                    CleanError::Io(error) => failed("preparing", &path)(error),
                    CleanError::LaterRecord(sequence) => damaged(format!(
                        "record {sequence} is whole, and the one before it is not"
                    )),
                })?;
        }
        self.index.segments.insert(number, Arc::new(file));
        Ok(at as u64)
    }

    /// Removes the rest of a record that never became whole. A later record was begun only after
    /// the one before it was on disk: if there is one, what is missing was acknowledged.
    fn clean_end(&self, file: &File, bytes: &Bytes, at: usize) -> Result<(), CleanError> {
        let rest = &bytes[at..];
        let Some(used) = rest.iter().rposition(|byte| *byte != 0) else {
            return Ok(());
        };
        if let Some(length) = rest.first_chunk::<4>() {
            let after = at + 16 + u32::from_le_bytes(*length) as usize;
            if let Found::Record { sequence, .. } = log_record::read_record(bytes, after)
                && sequence == self.sequence + 2
            {
                return Err(CleanError::LaterRecord(sequence));
            }
        }
        file.write_all_at(&vec![0; used + 1], at as u64)?;
        file.sync_data()?;
        Ok(())
    }

    fn item(&mut self, item: Item, (segment, at, length): (u64, u64, u32)) -> Result<(), String> {
        self.marks.remember(&item);
        match item {
            Item::Entry(row) => {
                let index = row.id.index;
                let purged = self.marks.purged.map(|purged| purged.index);
                if purged.is_some_and(|purged| index <= purged) {
                    return Ok(());
                }
                // What lies before the first one may have gone with its segment: see `check_begin`.
                let expected = self.index.next();
                if expected.is_some_and(|expected| expected != index) {
                    return Err(format!(
                        "entry {index} is where entry {} should be",
                        expected.unwrap_or_default()
                    ));
                }
                let place = Place {
                    term: row.id.term,
                    segment,
                    at,
                    length,
                };
                self.index.push(index, place);
            }
            Item::Truncate(after) => self.index.truncate_after(after),
            Item::Purged(id) => self.index.purge(id.index),
            Item::Committed(_) | Item::Vote(_) | Item::Identity(_) => {}
        }
        Ok(())
    }

    /// The entries begin behind what was purged; only a log whose first segment is there may begin
    /// without having been purged.
    fn check_begin(&self, folder: &Path, first_segment: u64) -> FileResult<()> {
        let damaged = |what: String| {
            Err(StorageError::Damaged {
                path: folder.to_owned(),
                what,
            })
        };
        match self.marks.purged {
            None if first_segment > 1 => damaged(format!(
                "it begins with segment {first_segment}, and nothing was purged"
            )),
            Some(purged) if self.index.next().is_some() && self.index.first != purged.index + 1 => {
                damaged(format!(
                    "entry {} is the first one, and it was purged up to {}",
                    self.index.first, purged.index
                ))
            }
            _ => Ok(()),
        }
    }
}

enum CleanError {
    Io(io::Error),
    LaterRecord(u64),
}

impl From<io::Error> for CleanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The segments that make up the log, in order. What is not connected with the last one was purged,
/// and its removal had not reached the disk; it goes now.
fn segments_of(folder: &Path) -> FileResult<Vec<u64>> {
    let listing = failed("listing", folder);
    let mut numbers = Vec::new();
    let mut unfinished = Vec::new();
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(listing)? {
        let path = entry.path();
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        let number = path.file_stem().and_then(|stem| stem.to_str());
        match (suffix, number.and_then(|number| number.parse().ok())) {
            (Some(SUFFIX), Some(number)) => numbers.push(number),
            (Some(UNFINISHED), Some(_)) => unfinished.push(path),
            _ => {}
        }
    }
    numbers.sort_unstable();
    let connected = numbers
        .windows(2)
        .rposition(|pair| pair[0] + 1 != pair[1])
        .map_or(0, |gap| gap + 1);
    let kept = numbers.split_off(connected);
    unfinished.extend(numbers.iter().map(|number| segment_path(folder, *number)));
    for path in unfinished {
        fs::remove_file(&path).map_err(failed("removing", &path))?;
    }
    Ok(kept)
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.{SUFFIX}"))
}

/// A segment appears under its name when its head is on disk.
fn create_segment(folder: &Path, number: u64, record: &[u8]) -> FileResult<File> {
    let path = segment_path(folder, number);
    let unfinished = path.with_extension(UNFINISHED);
    let create = || -> io::Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)?;
        match fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES) {
            // Then the file grows with each record, which only takes longer. A full disk is
            // reported when something does not fit.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSPC) => {}
            Err(errno) => return Err(errno.into()),
        }
        file.write_all_at(&log_record::segment_head(number), 0)?;
        file.write_all_at(record, SEGMENT_HEAD_BYTES as u64)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        Ok(file)
    };
    let file = create().map_err(failed("creating", &path))?;
    sync_dir(folder)?;
    Ok(file)
}
