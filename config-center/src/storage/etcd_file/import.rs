//! Reads a file of etcd's format as the changes that make its state: etcd's own snapshot of any v3
//! release, the database of a stopped member, or one of ours.
//!
//! Nothing in it is trusted; what does not fit is refused with the place and the reason.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use config_center_core::v2::V2Change;
use config_center_core::{Alarm, AuthChange, Change, RevisionRow};
use crc::{CRC_32_ISCSI, Crc, Digest, Table};
use prost::Message;
use schemas::authpb::{Role, User};
use schemas::command::{V2Event, V2Node};
use schemas::etcdserverpb::AlarmMember;
use schemas::mvccpb::KeyValue;

use super::schema::{self, StoredLease};
use crate::bolt::{BoltError, Cursor, FileReader};

pub(super) static CASTAGNOLI: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Buckets without which a database is none of etcd's.
const NEEDED: [&str; 2] = [schema::KEY, schema::META];

#[derive(Debug, thiserror::Error)]
pub(in crate::storage) enum EtcdFileError {
    #[error(transparent)]
    Bolt(#[from] BoltError),
    #[error("it is no database of etcd v3: it has no bucket {0:?}")]
    NoBucket(&'static str),
    #[error("in its bucket {bucket:?} the pair of {key:?} {what}")]
    Pair {
        bucket: String,
        key: Bytes,
        what: String,
    },
}

/// What is known when everything has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::storage) struct Summary {
    /// As `etcdutl snapshot status` computes it: over the names of the buckets and all pairs.
    pub(in crate::storage) hash: u32,
    pub(in crate::storage) revision: i64,
    /// 0: never.
    pub(in crate::storage) compacted: i64,
    pub(in crate::storage) auth_is_enabled: bool,
    pub(in crate::storage) auth_revision: u64,
    /// Of the etcd that wrote it, from 3.6 on.
    pub(in crate::storage) storage_version: Option<String>,
    /// Bytes of the pages in use.
    pub(in crate::storage) used_bytes: u64,
}

/// What a database says about itself and its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::storage) struct StoredFacts {
    /// Up to where the log has been applied to it.
    pub(in crate::storage) applied_index: u64,
    pub(in crate::storage) members: BTreeSet<u64>,
}

/// Looks into the two small buckets that tell.
pub(in crate::storage) fn stored_facts(path: &Path) -> Result<StoredFacts> {
    let mut file = FileReader::open(File::open(path).map_err(BoltError::Io)?)?;
    let mut facts = StoredFacts::default();
    let mut meta = file
        .cursor(schema::META.as_bytes())
        .ok_or(EtcdFileError::NoBucket(schema::META))?;
    while let Some((key, value)) = meta.next(&mut file)? {
        if key == schema::CONSISTENT_INDEX
            && let Ok(index) = value[..].try_into()
        {
            facts.applied_index = u64::from_be_bytes(index);
        }
    }
    if let Some(mut members) = file.cursor(schema::MEMBERS.as_bytes()) {
        while let Some((key, _)) = members.next(&mut file)? {
            let id = String::from_utf8_lossy(&key).into_owned();
            facts.members.extend(u64::from_str_radix(&id, 16));
        }
    }
    Ok(facts)
}

/// An open file, read from its first bucket to its last.
pub(in crate::storage) struct EtcdFile {
    file: FileReader<File>,
    /// The buckets to come, the next one last.
    names: Vec<Bytes>,
    bucket: Option<(String, Cursor)>,
    hash: Digest<'static, u32, Table<16>>,
    summary: Summary,
    /// The last row's.
    last: (i64, i64),
    /// What one pair brought and was not handed out yet.
    waiting: Option<Change>,
}

type Result<T> = std::result::Result<T, EtcdFileError>;
/// Why a pair is not taken.
type Reason = String;

impl EtcdFile {
    pub(in crate::storage) fn open(path: &Path) -> Result<Self> {
        let file = FileReader::open(File::open(path).map_err(BoltError::Io)?)?;
        let mut names = file.names();
        for needed in NEEDED {
            if !names.iter().any(|name| name == needed.as_bytes()) {
                return Err(EtcdFileError::NoBucket(needed));
            }
        }
        names.reverse();
        let summary = Summary {
            revision: 1,
            auth_revision: 1,
            used_bytes: file.used_bytes(),
            ..Summary::default()
        };
        Ok(Self {
            file,
            names,
            bucket: None,
            hash: CASTAGNOLI.digest(),
            summary,
            last: (0, 0),
            waiting: None,
        })
    }

    /// The next change. Rows come in the order of their revisions, leases after them.
    pub(in crate::storage) fn next(&mut self) -> Result<Option<Change>> {
        loop {
            if let Some(change) = self.waiting.take() {
                return Ok(Some(change));
            }
            let Some((name, cursor)) = &mut self.bucket else {
                let Some(name) = self.names.pop() else {
                    return Ok(None);
                };
                self.hash.update(&name);
                let text = String::from_utf8_lossy(&name).into_owned();
                self.bucket = self.file.cursor(&name).map(|cursor| (text, cursor));
                continue;
            };
            let Some((key, value)) = cursor.next(&mut self.file)? else {
                self.bucket = None;
                continue;
            };
            self.hash.update(&key);
            self.hash.update(&value);
            let name = name.clone();
            let change = self.take(&name, &key, value);
            match change {
                Ok(None) => {}
                Ok(Some(change)) => return Ok(Some(change)),
                Err(what) => {
                    return Err(EtcdFileError::Pair {
                        bucket: name,
                        key,
                        what,
                    });
                }
            }
        }
    }

    /// After the last change.
    pub(in crate::storage) fn summary(self) -> Summary {
        Summary {
            hash: self.hash.finalize(),
            revision: self.summary.revision.max(self.summary.compacted),
            ..self.summary
        }
    }

    fn take(
        &mut self,
        bucket: &str,
        key: &Bytes,
        value: Bytes,
    ) -> std::result::Result<Option<Change>, Reason> {
        let change = match bucket {
            schema::KEY => return self.row(key, value),
            schema::LEASE => self.lease(key, value)?,
            schema::ALARM => {
                let alarm = decoded::<AlarmMember>(key.clone())?;
                Change::AlarmRaised(Alarm {
                    kind: alarm.alarm,
                    member_id: alarm.member_id,
                })
            }
            schema::AUTH_USERS => {
                let user = decoded::<User>(value)?;
                same_name(key, &user.name)?;
                Change::Auth(AuthChange::UserPut(user))
            }
            schema::AUTH_ROLES => {
                let role = decoded::<Role>(value)?;
                same_name(key, &role.name)?;
                Change::Auth(AuthChange::RolePut(role))
            }
            schema::V2 => match key.first() {
                Some(b'n') => Change::V2(V2Change::NodePut(decoded::<V2Node>(value)?)),
                Some(b'e') => Change::V2(V2Change::Event(decoded::<V2Event>(value)?)),
                _ => return Err("is neither a node nor an event".to_owned()),
            },
            schema::AUTH => {
                self.auth(key, &value)?;
                return Ok(None);
            }
            schema::META => {
                self.meta(key, &value)?;
                return Ok(None);
            }
            // The members of the cluster that was are not those of the one to be.
            _ => return Ok(None),
        };
        Ok(Some(change))
    }

    fn row(&mut self, key: &[u8], value: Bytes) -> std::result::Result<Option<Change>, Reason> {
        let (main, sub, tombstone) =
            schema::parse_revision(key).ok_or("has no revision as its key")?;
        if (main, sub) <= self.last {
            return Err(format!("repeats the revision {main}.{sub}"));
        }
        self.last = (main, sub);
        self.summary.revision = main;
        let pair = decoded::<KeyValue>(value)?;
        // `restore --bump-revision` of etcdutl writes a revision without a key.
        if pair.key.is_empty() || (tombstone && pair.key == schema::REVISION_ONLY) {
            return Ok(None);
        }
        if tombstone {
            return Ok(Some(Change::Revision(Arc::new(RevisionRow {
                main,
                sub,
                key: pair.key,
                value: Bytes::new(),
                create_revision: 0,
                version: 0,
                lease: 0,
                tombstone,
            }))));
        }
        if pair.mod_revision != main {
            return Err(format!(
                "stands at revision {main} and says {}",
                pair.mod_revision
            ));
        }
        if !(1..=main).contains(&pair.create_revision) || pair.version < 1 {
            return Err(format!(
                "has version {} since revision {}",
                pair.version, pair.create_revision
            ));
        }
        Ok(Some(Change::Revision(Arc::new(RevisionRow {
            main,
            sub,
            key: pair.key,
            value: pair.value,
            create_revision: pair.create_revision,
            version: pair.version,
            lease: pair.lease,
            tombstone,
        }))))
    }

    fn lease(&mut self, key: &[u8], value: Bytes) -> std::result::Result<Change, Reason> {
        let lease = decoded::<StoredLease>(value)?;
        if key != lease.id.to_be_bytes() || lease.id == 0 {
            return Err(format!("is of the lease {:x}", lease.id));
        }
        let id = lease.id;
        if lease.remaining_s > 0 {
            self.waiting = Some(Change::LeaseRemaining {
                id,
                remaining_s: lease.remaining_s,
            });
        }
        Ok(Change::LeasePut {
            id,
            ttl_s: lease.ttl_s,
        })
    }

    fn auth(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), Reason> {
        match key {
            schema::AUTH_ENABLED => self.summary.auth_is_enabled = value == [1],
            schema::AUTH_REVISION => {
                let number = value.try_into().map_err(|_| "is no number".to_owned())?;
                // 0 is what an etcd without users has written; its first user makes 2 of it.
                self.summary.auth_revision = u64::from_be_bytes(number).max(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), Reason> {
        match key {
            schema::SCHEDULED_COMPACTION | schema::FINISHED_COMPACTION => {
                let (main, _, _) = schema::parse_revision(value).ok_or("is no revision")?;
                self.summary.compacted = self.summary.compacted.max(main);
            }
            schema::STORAGE_VERSION => {
                let text = String::from_utf8_lossy(value).into_owned();
                self.summary.storage_version = Some(text);
            }
            _ => {}
        }
        Ok(())
    }
}

fn decoded<M: Message + Default>(value: Bytes) -> std::result::Result<M, Reason> {
    M::decode(value).map_err(|error| format!("cannot be decoded: {error}"))
}

fn same_name(key: &[u8], name: &[u8]) -> std::result::Result<(), Reason> {
    if key == name {
        Ok(())
    } else {
        Err(format!("is of {:?}", String::from_utf8_lossy(name)))
    }
}
