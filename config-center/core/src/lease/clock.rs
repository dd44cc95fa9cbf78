//! When leases run out, as a function of the `now_ms` that the caller passes in (monotonic).

/// Deadlines of the leases this member knows. Only the leader acts on them.
#[derive(Debug, Default)]
pub struct LeaseClock {}

impl LeaseClock {
    /// A lease was granted, or is known from the restored state.
    pub fn granted(&mut self, _id: i64, _ttl_s: i64, _now_ms: u64) {
        todo!()
    }

    /// Gives the lease its full TTL again and returns it; `None` when it is unknown or has run out.
    pub fn renew(&mut self, _id: i64, _now_ms: u64) -> Option<i64> {
        todo!()
    }

    /// The revocation was applied: forget the lease.
    pub fn revoked(&mut self, _id: i64) {
        todo!()
    }

    /// Up to `limit` leases that have run out, the oldest first. They stay known until they are
    /// revoked, and are offered again only after a retry interval.
    pub fn expired(&mut self, _now_ms: u64, _limit: usize) -> Vec<i64> {
        todo!()
    }

    /// Whole seconds left (0 when run out, but not revoked yet); `None` when unknown.
    #[must_use]
    pub fn remaining_s(&self, _id: i64, _now_ms: u64) -> Option<i64> {
        todo!()
    }

    /// This member became the leader: every lease gets its full TTL from now.
    pub fn promote(&mut self, _now_ms: u64) {
        todo!()
    }

    /// When `expired` can next have something to say; `None` without leases.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        todo!()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
