//! What a digest of the keys is made of. Members at the same revision, compacted at the same one,
//! have the same rows in the same order, however and whenever each of them got there.

use std::sync::Arc;

use super::keyspace::Keyspace;
use crate::refusal::Refusal;
use crate::state::RevisionRow;

/// The rows that a digest at a revision covers; cheap to take, so that the hashing itself happens
/// while the state is written on.
#[derive(Debug)]
pub struct DigestRows {
    /// By key, and of one key from the oldest to the newest.
    pub rows: Vec<Arc<RevisionRow>>,
    /// The revision that the digest is of.
    pub revision: i64,
    /// -1 until the first compaction.
    pub compacted: i64,
    /// The store's revision.
    pub current: i64,
}

impl Keyspace {
    /// See `State::digest_rows`.
    pub(crate) fn digest_rows(&self, revision: i64) -> Result<DigestRows, Refusal> {
        let revision = self.read_revision(revision, self.revision())?;
        let rows = self
            .index
            .values()
            .flat_map(|history| history.between(i64::MIN, revision))
            .cloned()
            .collect();
        Ok(DigestRows {
            rows,
            revision,
            compacted: self.compacted(),
            current: self.revision(),
        })
    }
}
