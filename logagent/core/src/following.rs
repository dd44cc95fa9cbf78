//! Following one key of the center: read it at revision R, watch it from R+1, and begin anew after
//! any break. So nothing that happens between reading and watching is missed.
//!
//! Knows revisions; must not know what a value means or how the center is asked.

use crate::planted::{self, Bug};

/// The newest point of a store's history that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    pub cluster_id: u64,
    pub revision: i64,
}

/// What to ask the center for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The key's present value; answer with `admit`, then `read`.
    Get,
    /// What happens to the key from this revision on; each answer goes through `admit`. When it
    /// ends, for whatever reason: `broken`.
    Watch { start_revision: i64 },
}

/// What the answer of a store says of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    Known,
    /// Another cluster than before: its count begins anew.
    Other {
        before: u64,
    },
}

/// The store is behind what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the center is at revision {revision}, but revision {seen} was seen already: it was restored \
     from a backup or a member is behind; its configuration is not used before it has caught up"
)]
pub struct Behind {
    pub revision: i64,
    pub seen: i64,
}

/// See the module's words.
#[derive(Debug, Clone)]
pub struct Following {
    horizon: Option<Horizon>,
    read_at: Option<i64>,
}

impl Following {
    /// `horizon` is that of the cached configuration: nothing older will be taken.
    #[must_use]
    pub fn new(horizon: Option<Horizon>) -> Self {
        Self {
            horizon,
            read_at: None,
        }
    }

    #[must_use]
    pub fn next(&self) -> Ask {
        match self.read_at {
            None => Ask::Get,
            // 0 is whatever comes from now on.
            Some(_) if planted::is(Bug::WatchWithoutRevision) => Ask::Watch { start_revision: 0 },
            Some(revision) => Ask::Watch {
                start_revision: revision + 1,
            },
        }
    }

    /// Judges the store by the header of an answer, before anything of it is used.
    pub fn admit(&mut self, cluster_id: u64, revision: i64) -> Result<Admitted, Behind> {
        let (seen, admitted) = match self.horizon {
            Some(horizon) if horizon.cluster_id == cluster_id => {
                (horizon.revision, Admitted::Known)
            }
            Some(horizon) => (
                0,
                Admitted::Other {
                    before: horizon.cluster_id,
                },
            ),
            None => (0, Admitted::Known),
        };
        if revision < seen {
            return Err(Behind { revision, seen });
        }
        self.horizon = Some(Horizon {
            cluster_id,
            revision,
        });
        Ok(admitted)
    }

    /// The key was read at this revision of the store.
    pub fn read(&mut self, revision: i64) {
        self.read_at = Some(revision);
    }

    /// The watch ended: what happened meanwhile is found by reading.
    pub fn broken(&mut self) {
        self.read_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_store_is_refused_and_another_one_is_not() {
        let mut following = Following::new(Some(Horizon {
            cluster_id: 1,
            revision: 40,
        }));
        assert!(following.admit(1, 39).is_err());
        assert_eq!(following.admit(1, 40), Ok(Admitted::Known));
        assert_eq!(following.admit(1, 50), Ok(Admitted::Known));
        assert!(following.admit(1, 49).is_err());
        assert_eq!(following.admit(2, 3), Ok(Admitted::Other { before: 1 }));
        assert!(following.admit(2, 2).is_err());
    }

    #[test]
    fn what_was_read_is_watched_on_from() {
        let mut following = Following::new(None);
        assert_eq!(following.next(), Ask::Get);
        following.read(7);
        assert_eq!(following.next(), Ask::Watch { start_revision: 8 });
        following.broken();
        assert_eq!(following.next(), Ask::Get);
    }
}
