//! The data folder of an etcd that has stopped, seen by the member that starts on it next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::StorageError;
use super::etcd_file::{self, WalError, WalFacts};
use super::folder::DataFolder;
use super::log_record::Identity;
use super::{etcd_file::EtcdFileError, saved_snapshot::unusable};

/// Held while it exists: no etcd can start on the folder.
#[derive(Debug)]
pub struct EtcdFolder {
    pub database: PathBuf,
    /// etcd's own ids, so that the member stays who it is.
    pub identity: Identity,
    _lock: File,
}

impl EtcdFolder {
    /// `None` when no etcd has left anything there. A folder that cannot be taken over is an error:
    /// a fresh store in its place would look like lost data.
    pub fn find(folder: &DataFolder) -> Result<Option<Self>, StorageError> {
        let member = folder.path().join("member");
        let database = member.join("snap").join("db");
        let lock = match File::open(&database) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StorageError::File {
                    path: database,
                    action: "opening",
                    source,
                });
            }
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StorageError::Locked { path: member });
            }
            Err(errno) => {
                return Err(StorageError::Unwritable {
                    path: member,
                    source: errno.into(),
                });
            }
        }
        let identity =
            judged(&member.join("wal"), &database).map_err(|what| unusable(&database, what))?;
        Ok(Some(Self {
            database,
            identity,
            _lock: lock,
        }))
    }
}

const ADVICE: &str = "save a snapshot of that etcd, and restore it with `configctl cluster snapshot \
                      restore` into a new folder for each member";

/// Who the member is, if its database alone is everything that there is to know.
fn judged(wal: &Path, database: &Path) -> Result<Identity, String> {
    let facts: WalFacts = etcd_file::wal_facts(wal).map_err(|error: WalError| error.to_string())?;
    let stored =
        etcd_file::stored_facts(database).map_err(|error: EtcdFileError| error.to_string())?;
    // In a folder that the etcdctl of 3.4 has restored, the database still lists the members before.
    let members = if facts.is_whole {
        facts.members.len()
    } else {
        facts.members.union(&stored.members).count()
    };
    if members > 1 {
        return Err(format!(
            "its cluster had several members, and each has applied something else; {ADVICE}"
        ));
    }
    if facts.last_change > stored.applied_index {
        return Err(format!(
            "its write-ahead log goes on to entry {}, and it has seen {}: start that etcd once more \
             and stop it in peace; or {ADVICE}",
            facts.last_change, stored.applied_index
        ));
    }
    Ok(Identity {
        member_id: facts.member_id,
        cluster_id: facts.cluster_id,
    })
}
