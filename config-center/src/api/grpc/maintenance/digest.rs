//! Hash and HashKV: digests that are equal on members that agree. The algorithm is our own; what
//! tools compare are members of one cluster.

use std::sync::Arc;

use config_center_core::mvcc::DigestRows;
use config_center_core::{Alarm, RevisionRow};
use sha2::{Digest as _, Sha256};

/// Of the keys at one revision.
pub(super) fn of_keys(input: &DigestRows) -> u32 {
    let mut hasher = Sha256::new();
    hasher.update(input.compacted.to_le_bytes());
    add_rows(&mut hasher, &input.rows);
    short(hasher)
}

/// Of everything that members agree on and that a restart keeps: keys, leases and alarms.
pub(super) fn of_state(input: &DigestRows, leases: &[(i64, i64)], alarms: &[Alarm]) -> u32 {
    let mut hasher = Sha256::new();
    hasher.update(input.compacted.to_le_bytes());
    hasher.update(input.revision.to_le_bytes());
    add_rows(&mut hasher, &input.rows);
    for (id, ttl_s) in leases {
        hasher.update(id.to_le_bytes());
        hasher.update(ttl_s.to_le_bytes());
    }
    for alarm in alarms {
        hasher.update(alarm.kind.to_le_bytes());
        hasher.update(alarm.member_id.to_le_bytes());
    }
    short(hasher)
}

/// Lengths go in too, so that no two lists of rows give the same bytes.
fn add_rows(hasher: &mut Sha256, rows: &[Arc<RevisionRow>]) {
    for row in rows {
        for number in [
            row.main,
            row.create_revision,
            row.version,
            row.lease,
            i64::from(row.tombstone),
            row.key.len() as i64,
            row.value.len() as i64,
        ] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(&row.key);
        hasher.update(&row.value);
    }
}

fn short(hasher: Sha256) -> u32 {
    let digest = hasher.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}
