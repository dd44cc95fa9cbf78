//! The leases that exist, with the keys attached to each. Replicated; knows no time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

#[derive(Debug, Clone)]
struct Lease {
    ttl_s: i64,
    /// At the last checkpoint; 0 when there was none since the last renewal.
    remaining_s: i64,
    /// In key order, which is the order in which a revocation deletes them.
    keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
}

impl LeaseTable {
    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn grant(&mut self, id: i64, ttl_s: i64) {
        let keys = BTreeSet::new();
        let remaining_s = 0;
        self.leases.insert(
            id,
            Lease {
                ttl_s,
                remaining_s,
                keys,
            },
        );
    }

    /// `false` when there is no such lease, or nothing changes.
    pub(crate) fn set_remaining(&mut self, id: i64, remaining_s: i64) -> bool {
        match self.leases.get_mut(&id) {
            Some(lease) if lease.remaining_s != remaining_s => {
                lease.remaining_s = remaining_s;
                true
            }
            _ => false,
        }
    }

    /// Removes a lease and returns its keys in order.
    pub(crate) fn revoke(&mut self, id: i64) -> Option<BTreeSet<Bytes>> {
        self.leases.remove(&id).map(|lease| lease.keys)
    }

    /// `false` when there is no such lease. Lease 0 is no lease: nothing to attach to.
    pub(crate) fn attach(&mut self, id: i64, key: &Bytes) -> bool {
        if id == 0 {
            return true;
        }
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.keys.insert(key.clone());
                true
            }
            None => false,
        }
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if id != 0
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.keys.remove(key);
        }
    }

    pub(crate) fn get(&self, id: i64) -> Option<(i64, Vec<Bytes>)> {
        let lease = self.leases.get(&id)?;
        Some((lease.ttl_s, lease.keys.iter().cloned().collect()))
    }

    /// Id, granted TTL, and what was left at the last checkpoint.
    pub(crate) fn all_remaining(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        self.leases
            .iter()
            .map(|(id, lease)| (*id, lease.ttl_s, lease.remaining_s))
    }

    /// In order; none for an unknown lease.
    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.leases
            .get(&id)
            .into_iter()
            .flat_map(|lease| &lease.keys)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_s))
    }
}
