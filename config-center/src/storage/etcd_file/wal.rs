//! What the write-ahead log of a stopped etcd says: who the member is, whom it knew, and how far the
//! changes go that its database must have.
//!
//! A record is framed by its length, whose upper byte tells how many zeros follow, and summed up
//! together with everything before it. The rest of a file is zeros: it was made in its full size.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::import::CASTAGNOLI;

/// One record; a request is limited long before this.
const MAX_RECORD_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub(in crate::storage) enum WalError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no write-ahead log in {}", .0.display())]
    Missing(PathBuf),
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
}

type Result<T> = std::result::Result<T, WalError>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::storage) struct WalFacts {
    pub(in crate::storage) member_id: u64,
    pub(in crate::storage) cluster_id: u64,
    /// Members that were added and not removed, as far as the log goes back.
    pub(in crate::storage) members: BTreeSet<u64>,
    /// It goes back to the first entry, so these are all members.
    pub(in crate::storage) is_whole: bool,
    /// The index of the last change of data; 0 when there is none.
    pub(in crate::storage) last_change: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    sum: u32,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
/// At the beginning of each file: the sum of the files before it.
const SUM: i64 = 4;

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(uint64, tag = "1")]
    member_id: u64,
    #[prost(uint64, tag = "2")]
    cluster_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

const CHANGE_OF_MEMBERS: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct MemberChange {
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(uint64, tag = "3")]
    member_id: u64,
}

const REMOVAL: i32 = 1;

/// Reads all files of the folder, oldest first.
pub(in crate::storage) fn read(folder: &Path) -> Result<WalFacts> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WalError::Io { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            files.push(path);
        }
    }
    // Their names begin with a number of fixed width.
    files.sort_unstable();
    if files.is_empty() {
        return Err(WalError::Missing(folder.to_owned()));
    }
    let mut facts = WalFacts::default();
    for path in files {
        let file = File::open(&path).map_err(failed(&path))?;
        let left = file.metadata().map_err(failed(&path))?.len();
        let mut records = Records {
            file: BufReader::new(file),
            left,
            sum: 0,
        };
        let told = |fault| match fault {
            Fault::Io(source) => failed(&path)(source),
            Fault::Damaged(what) => WalError::Damaged {
                path: path.clone(),
                what,
            },
        };
        while let Some(record) = records.next().map_err(told)? {
            facts.add(record).map_err(told)?;
        }
    }
    Ok(facts)
}

enum Fault {
    Io(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<prost::DecodeError> for Fault {
    fn from(_: prost::DecodeError) -> Self {
        Self::Damaged("a record cannot be decoded")
    }
}

struct Records {
    file: BufReader<File>,
    left: u64,
    /// Of everything before.
    sum: u32,
}

impl Records {
    fn next(&mut self) -> std::result::Result<Option<Record>, Fault> {
        let mut head = [0; 8];
        if self.left < 8 {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        self.left -= 8;
        let head = u64::from_le_bytes(head);
        if head == 0 {
            return Ok(None);
        }
        // The highest bit says that there are zeros behind, the three lowest of that byte how many.
        let zeros = if head >> 63 == 1 { head >> 56 & 0x7 } else { 0 };
        let bytes = head & 0x00FF_FFFF_FFFF_FFFF;
        if bytes > MAX_RECORD_BYTES || bytes + zeros > self.left {
            return Err(Fault::Damaged("a record is cut off"));
        }
        self.left -= bytes + zeros;
        let mut data = vec![0; (bytes + zeros) as usize];
        self.file.read_exact(&mut data)?;
        data.truncate(bytes as usize);
        let record = Record::decode(Bytes::from(data))?;
        if record.kind == SUM {
            self.sum = record.sum;
            return Ok(Some(record));
        }
        let mut sum = CASTAGNOLI.digest_with_initial((self.sum ^ u32::MAX).reverse_bits());
        sum.update(&record.data);
        self.sum = sum.finalize();
        if self.sum != record.sum {
            return Err(Fault::Damaged("a record does not have its sum"));
        }
        Ok(Some(record))
    }
}

impl WalFacts {
    fn add(&mut self, record: Record) -> std::result::Result<(), Fault> {
        match record.kind {
            METADATA => {
                let metadata = Metadata::decode(record.data)?;
                self.member_id = metadata.member_id;
                self.cluster_id = metadata.cluster_id;
            }
            ENTRY => {
                let entry = Entry::decode(record.data)?;
                self.is_whole |= entry.index == 1;
                // An entry takes the place of those from its index on: they were never agreed on.
                self.last_change = self.last_change.min(entry.index.saturating_sub(1));
                if entry.kind == CHANGE_OF_MEMBERS {
                    let change = MemberChange::decode(entry.data)?;
                    if change.kind == REMOVAL {
                        self.members.remove(&change.member_id);
                    } else {
                        self.members.insert(change.member_id);
                    }
                } else if changes_data(&entry.data) {
                    self.last_change = entry.index;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the request of an entry changes the data of v3. A new leader writes an empty one, what
/// members tell about themselves are requests of the v2 store, and questions about users and alarms
/// go through the log as well.
fn changes_data(request: &[u8]) -> bool {
    /// The header, the id and a v2 request; a range; a login, and who users and roles are.
    const ASIDE: [u32; 9] = [100, 1, 2, 3, 1012, 1102, 1106, 1107, 1202];
    /// Of alarms; its first field is what to do, and without it, it asks.
    const ALARM: u32 = 10;
    /// The methods of a v2 request that was written by itself.
    const METHODS: [&[u8]; 5] = [b"PUT", b"POST", b"DELETE", b"SYNC", b"QGET"];
    let mut rest = request;
    while !rest.is_empty() {
        let Ok((tag, wire)) = prost::encoding::decode_key(&mut rest) else {
            return true;
        };
        if tag == 2
            && let Some((length, text)) = rest.split_first()
            && METHODS.contains(&text.get(..usize::from(*length)).unwrap_or_default())
        {
            return false;
        }
        let asks_for_alarms = tag == ALARM
            && rest
                .split_first()
                .is_some_and(|(length, alarm)| *length == 0 || alarm.first() != Some(&0x08));
        let context = prost::encoding::DecodeContext::default();
        if !(asks_for_alarms || ASIDE.contains(&tag))
            || prost::encoding::skip_field(wire, tag, &mut rest, context).is_err()
        {
            return true;
        }
    }
    false
}

/// A file of the log as etcd would write it, for tests here and of the folder around it.
#[cfg(test)]
pub(in crate::storage) mod example {
    use super::*;

    pub(in crate::storage) const PUT: &[u8] = b"\x22\x03\x0a\x01k";

    /// Of the member 7 in the cluster 9: it joins with the first entry, `added` join behind it, and
    /// then come entries with these requests.
    pub(in crate::storage) fn log(added: &[u64], requests: &[&[u8]]) -> Vec<u8> {
        let metadata = Metadata {
            member_id: 7,
            cluster_id: 9,
        };
        let mut records = vec![
            (SUM, Bytes::new()),
            (METADATA, metadata.encode_to_vec().into()),
        ];
        let joins = [7].iter().chain(added).map(|member_id| {
            let change = MemberChange {
                kind: 0,
                member_id: *member_id,
            };
            (CHANGE_OF_MEMBERS, change.encode_to_vec())
        });
        let changes = requests.iter().map(|request| (0, request.to_vec()));
        for (index, (kind, data)) in (1..).zip(joins.chain(changes)) {
            let data = data.into();
            let entry = Entry { kind, index, data };
            records.push((ENTRY, entry.encode_to_vec().into()));
        }
        let mut sum = 0;
        let mut bytes = Vec::new();
        for (kind, data) in records {
            if kind != SUM {
                let mut digest = CASTAGNOLI.digest_with_initial((sum ^ u32::MAX).reverse_bits());
                digest.update(&data);
                sum = digest.finalize();
            }
            let record = Record { kind, sum, data }.encode_to_vec();
            let zeros = record.len().next_multiple_of(8) - record.len();
            let mark = if zeros > 0 { 0x80 | zeros as u64 } else { 0 };
            bytes.extend_from_slice(&(record.len() as u64 | mark << 56).to_le_bytes());
            bytes.extend_from_slice(&record);
            bytes.resize(bytes.len() + zeros, 0);
        }
        bytes.resize(bytes.len() + 64, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_requests_of_the_v2_store_change_no_data() {
        // An id and a v2 request; a v2 request by itself; nothing at all; which users and which
        // alarms there are.
        for aside in [
            &b"\x08\x05\x12\x02\x08\x01"[..],
            b"\x08\x05\x12\x03PUT\x1a\x01/",
            b"",
            b"\x92\x45\x00",
            b"\x52\x00\xa2\x06\x02\x08\x01",
        ] {
            assert!(!changes_data(aside), "{aside:?}");
        }
        // A put of v3, an alarm that is raised, and bytes that are no request.
        for change in [
            &b"\xa2\x06\x02\x08\x01\x22\x03\x0a\x01k"[..],
            b"\x52\x02\x08\x01",
            b"\xff",
        ] {
            assert!(changes_data(change), "{change:?}");
        }
    }

    fn read_one(log: &[u8]) -> Result<WalFacts> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("0000000000000000-0000000000000000.wal"),
            log,
        )
        .unwrap();
        read(dir.path())
    }

    #[test]
    fn a_log_tells_who_the_member_is_and_how_far_it_got() {
        let facts = read_one(&example::log(&[8], &[example::PUT, b"", b"\x92\x45\x00"])).unwrap();
        let expected = WalFacts {
            member_id: 7,
            cluster_id: 9,
            members: BTreeSet::from([7, 8]),
            is_whole: true,
            last_change: 3,
        };
        assert_eq!(facts, expected);
    }

    /// Whatever byte is wrong or missing, the answer is no panic, and never another change.
    #[test]
    fn a_damaged_log_is_refused_or_ends_early() {
        let log = example::log(&[], &[example::PUT, example::PUT]);
        let whole = read_one(&log).unwrap();
        for at in 0..log.len() {
            for damage in [0x01, 0x80, 0xFF] {
                let mut damaged = log.clone();
                damaged[at] ^= damage;
                if let Ok(facts) = read_one(&damaged) {
                    assert!(facts.last_change <= whole.last_change, "byte {at}");
                }
            }
            if let Ok(facts) = read_one(&log[..at]) {
                assert!(facts.last_change <= whole.last_change, "cut at {at}");
            }
        }
    }
}
