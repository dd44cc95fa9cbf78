//! Leases: which ones exist and which keys hang on them (replicated), and when they run out (the
//! leader's clock, which is never replicated).

mod clock;
mod table;

pub use clock::{CHECKPOINT_MS, LeaseClock, RETRY_MS};
pub(crate) use table::LeaseTable;

/// etcd refuses longer ones.
pub const MAX_TTL_S: i64 = 9_000_000_000;

/// The shortest TTL for an election timeout: 2 s at the default of 1000 ms. A lease must outlive
/// one and a half elections, or a change of leader would expire it.
#[must_use]
pub const fn min_ttl_s(election_ms: u64) -> i64 {
    (3 * election_ms).div_ceil(2000) as i64
}

/// What the proposer puts into the command, so that members with different election timeouts
/// apply the same TTL.
#[must_use]
pub const fn granted_ttl_s(requested_s: i64, min_ttl_s: i64) -> i64 {
    if requested_s < min_ttl_s {
        min_ttl_s
    } else {
        requested_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_ttl_is_one_and_a_half_elections_rounded_up() {
        for (election_ms, expected_s) in [(1000, 2), (1334, 3), (1333, 2), (100, 1), (5000, 8)] {
            assert_eq!(min_ttl_s(election_ms), expected_s, "{election_ms} ms");
        }
        for (requested_s, expected_s) in [(0, 2), (-7, 2), (1, 2), (2, 2), (3, 3)] {
            assert_eq!(granted_ttl_s(requested_s, 2), expected_s);
        }
    }
}
