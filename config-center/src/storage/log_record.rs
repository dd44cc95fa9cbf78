//! What is in the log's files, as bytes: records of items, each record with its checksum.
//!
//! Pure: knows no file. Everything that is written together is one record; a record is there as a
//! whole or not at all.
//!
//! ```text
//! segment   magic "cc-log\0" version(1) │ number(8) │ record │ record │ … │ zeroes
//! record    length(4) checksum(4) sequence(8) │ item │ item │ …        checksum: of all after it
//! item      kind(1) │ numbers(8 each) │ for an entry its kind(1), length(4) and payload
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use crc::{CRC_32_ISCSI, Crc, Table};

static CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Where an entry stands: the term of the leader that wrote it, and its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    pub term: u64,
    pub index: u64,
}

/// What the payload of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Written by a new leader; the payload is empty.
    Blank,
    /// An encoded `schemas::command::Command`, the bytes that were proposed.
    Command,
    /// An encoded `schemas::command::StoredMembership`.
    Membership,
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            Self::Blank => 0,
            Self::Command => 1,
            Self::Membership => 2,
        }
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Blank),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    pub id: EntryId,
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// Whom this member voted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRow {
    pub term: u64,
    pub node_id: u64,
    pub committed: bool,
}

/// Whose folder this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub member_id: u64,
    pub cluster_id: u64,
}

/// One thing that the log remembers; a later item of the same kind replaces an earlier one, and
/// entries follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Entry(EntryRow),
    /// Everything after this index is gone; all entries for `None`.
    Truncate(Option<u64>),
    /// Everything up to this entry is gone.
    Purged(EntryId),
    Committed(EntryId),
    Vote(VoteRow),
    Identity(Identity),
}

const ENTRY: u8 = 1;
const TRUNCATE_AFTER: u8 = 2;
const TRUNCATE_ALL: u8 = 3;
const PURGED: u8 = 4;
const COMMITTED: u8 = 5;
const VOTE: u8 = 6;
const COMMITTED_VOTE: u8 = 7;
const IDENTITY: u8 = 8;

/// What every segment begins with.
pub(super) const SEGMENT_HEAD_BYTES: usize = 16;
const MAGIC: &[u8; 7] = b"cc-log\0";
/// Version 1 of the log was a database, `log.db`.
pub(super) const VERSION: u8 = 2;

const RECORD_HEAD_BYTES: usize = 16;
/// An entry before its payload.
const ENTRY_HEAD_BYTES: usize = 1 + 8 + 8 + 1 + 4;
/// Nothing that is written together comes near; a length above it was never written.
const MAX_RECORD_BYTES: usize = 1 << 30;

pub(super) fn segment_head(number: u64) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..7].copy_from_slice(MAGIC);
    head[7] = VERSION;
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SegmentHead {
    Numbered(u64),
    UnknownVersion(u8),
    Foreign,
}

pub(super) fn read_segment_head(bytes: &[u8]) -> SegmentHead {
    match bytes.first_chunk::<SEGMENT_HEAD_BYTES>() {
        Some(head) if head[..7] == MAGIC[..] && head[7] == VERSION => {
            let number = head[8..].iter().rev();
            SegmentHead::Numbered(number.fold(0, |all, byte| all << 8 | u64::from(*byte)))
        }
        Some(head) if head[..7] == MAGIC[..] => SegmentHead::UnknownVersion(head[7]),
        _ => SegmentHead::Foreign,
    }
}

/// A record in the making.
#[derive(Debug)]
pub(super) struct RecordWriter {
    bytes: BytesMut,
}

impl RecordWriter {
    pub(super) fn new() -> Self {
        let mut writer = Self {
            bytes: BytesMut::with_capacity(16 * 1024),
        };
        writer.clear();
        writer
    }

    /// Begins again; the room stays, within reason.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > 8 << 20 {
            self.bytes = BytesMut::new();
        }
        self.bytes.put_bytes(0, RECORD_HEAD_BYTES);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == RECORD_HEAD_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an entry; where it lies in the record, and how long it is.
    pub(super) fn entry(&mut self, row: &EntryRow) -> (usize, usize) {
        let at = self.bytes.len();
        let length = ENTRY_HEAD_BYTES + row.payload.len();
        self.bytes.reserve(length);
        self.bytes.put_u8(ENTRY);
        self.bytes.put_u64_le(row.id.term);
        self.bytes.put_u64_le(row.id.index);
        self.bytes.put_u8(row.kind.code());
        // A command is limited to far less than this can say.
        self.bytes.put_u32_le(row.payload.len() as u32);
        self.bytes.put_slice(&row.payload);
        (at, length)
    }

    pub(super) fn item(&mut self, item: &Item) {
        let mut put = |kind: u8, numbers: &[u64]| {
            self.bytes.put_u8(kind);
            numbers.iter().for_each(|n| self.bytes.put_u64_le(*n));
        };
        match item {
            Item::Entry(row) => {
                self.entry(row);
            }
            Item::Truncate(Some(after)) => put(TRUNCATE_AFTER, &[*after]),
            Item::Truncate(None) => put(TRUNCATE_ALL, &[]),
            Item::Purged(id) => put(PURGED, &[id.term, id.index]),
            Item::Committed(id) => put(COMMITTED, &[id.term, id.index]),
            Item::Vote(vote) => {
                let kind = if vote.committed { COMMITTED_VOTE } else { VOTE };
                put(kind, &[vote.term, vote.node_id]);
            }
            Item::Identity(identity) => {
                put(IDENTITY, &[identity.member_id, identity.cluster_id]);
            }
        }
    }

    /// The finished record, the `sequence`-th of its log.
    pub(super) fn finish(&mut self, sequence: u64) -> &[u8] {
        let length = (self.bytes.len() - RECORD_HEAD_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        let checksum = CHECKSUM.checksum(&self.bytes[8..]) ^ length;
        self.bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
    }
}

/// What lies at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its items, each with its place and length, and where the next record begins.
    Record {
        sequence: u64,
        items: Vec<(usize, usize, Item)>,
        end: usize,
    },
    /// No whole record.
    Nothing,
    /// The checksum is right, and an item in it is of no known kind.
    UnknownItem(u8),
}

/// Reads the record at `at` of a segment's bytes.
pub(super) fn read_record(segment: &Bytes, at: usize) -> Found {
    let Some(head) = segment.get(at..at + RECORD_HEAD_BYTES) else {
        return Found::Nothing;
    };
    let (mut lengths, mut rest) = (&head[..8], &head[8..]);
    let (length, checksum) = (lengths.get_u32_le(), lengths.get_u32_le());
    let sequence = rest.get_u64_le();
    let end = at + RECORD_HEAD_BYTES + length as usize;
    if length == 0 || length as usize > MAX_RECORD_BYTES || end > segment.len() {
        return Found::Nothing;
    }
    if CHECKSUM.checksum(&segment[at + 8..end]) ^ length != checksum {
        return Found::Nothing;
    }
    let mut items = Vec::new();
    let mut from = at + RECORD_HEAD_BYTES;
    while from < end {
        let mut bytes = segment.slice(from..end);
        let Some(item) = read_item(&mut bytes) else {
            return Found::UnknownItem(segment[from]);
        };
        let until = end - bytes.len();
        items.push((from, until - from, item));
        from = until;
    }
    Found::Record {
        sequence,
        items,
        end,
    }
}

/// Takes one item off the front; `None` when it is of no known kind or cut off.
pub(super) fn read_item(bytes: &mut Bytes) -> Option<Item> {
    let kind = bytes.try_get_u8().ok()?;
    let mut number = || bytes.try_get_u64_le().ok();
    Some(match kind {
        ENTRY => {
            let id = EntryId {
                term: number()?,
                index: number()?,
            };
            let kind = EntryKind::from_code(bytes.try_get_u8().ok()?.into())?;
            let length = bytes.try_get_u32_le().ok()? as usize;
            if length > bytes.len() {
                return None;
            }
            let payload = bytes.split_to(length);
            Item::Entry(EntryRow { id, kind, payload })
        }
        TRUNCATE_AFTER => Item::Truncate(Some(number()?)),
        TRUNCATE_ALL => Item::Truncate(None),
        PURGED | COMMITTED => {
            let id = EntryId {
                term: number()?,
                index: number()?,
            };
            if kind == PURGED {
                Item::Purged(id)
            } else {
                Item::Committed(id)
            }
        }
        VOTE | COMMITTED_VOTE => Item::Vote(VoteRow {
            term: number()?,
            node_id: number()?,
            committed: kind == COMMITTED_VOTE,
        }),
        IDENTITY => Item::Identity(Identity {
            member_id: number()?,
            cluster_id: number()?,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let id = EntryId { term: 3, index: 9 };
        let row = |kind, payload: &'static [u8]| EntryRow {
            id,
            kind,
            payload: Bytes::from_static(payload),
        };
        vec![
            Item::Entry(row(EntryKind::Command, b"command")),
            Item::Entry(row(EntryKind::Blank, b"")),
            Item::Entry(row(EntryKind::Membership, b"m")),
            Item::Truncate(Some(4)),
            Item::Truncate(None),
            Item::Purged(id),
            Item::Committed(id),
            Item::Vote(VoteRow {
                term: 3,
                node_id: u64::MAX,
                committed: true,
            }),
            Item::Vote(VoteRow {
                term: 4,
                node_id: 1,
                committed: false,
            }),
            Item::Identity(Identity {
                member_id: u64::MAX - 1,
                cluster_id: 7,
            }),
        ]
    }

    fn record() -> Vec<u8> {
        let mut writer = RecordWriter::new();
        items().iter().for_each(|item| writer.item(item));
        writer.finish(42).to_vec()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut bytes = vec![9; 5];
        bytes.extend(record());
        bytes.extend([0; 40]);
        let bytes = Bytes::from(bytes);
        let Found::Record {
            sequence,
            items: read,
            end,
        } = read_record(&bytes, 5)
        else {
            panic!("not found");
        };
        assert_eq!((sequence, end), (42, bytes.len() - 40));
        for (at, length, item) in &read {
            let mut alone = bytes.slice(*at..at + length);
            assert_eq!(read_item(&mut alone).as_ref(), Some(item));
        }
        let read: Vec<_> = read.into_iter().map(|(_, _, item)| item).collect();
        assert_eq!(read, items());
        assert_eq!(read_record(&bytes, end), Found::Nothing);
    }

    #[test]
    fn any_changed_or_missing_byte_makes_it_no_record() {
        let whole = record();
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= bit;
                let found = read_record(&Bytes::from(changed), 0);
                assert_eq!(found, Found::Nothing, "byte {at}");
            }
            let cut = Bytes::copy_from_slice(&whole[..at]);
            assert_eq!(read_record(&cut, 0), Found::Nothing, "cut at {at}");
        }
    }

    /// The bytes of today; whoever changes them needs another version and a way to read this one.
    #[test]
    fn the_format_is_this() {
        let mut writer = RecordWriter::new();
        writer.item(&Item::Purged(EntryId { term: 1, index: 2 }));
        let mut bytes = segment_head(5).to_vec();
        bytes.extend(writer.finish(1));
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            "63632d6c6f670002\
             0500000000000000\
             1100000031848e290100000000000000\
             0401000000000000000200000000000000"
        );
        assert_eq!(read_segment_head(&bytes), SegmentHead::Numbered(5));
        bytes[7] = 3;
        assert_eq!(read_segment_head(&bytes), SegmentHead::UnknownVersion(3));
        assert_eq!(
            read_segment_head(b"SQLite format 3\0"),
            SegmentHead::Foreign
        );
    }
}
