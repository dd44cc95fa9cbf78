//! The buckets of etcd 3.7 and the encoding of their pairs. Older releases have the same, with fewer
//! pairs in `meta`.

use prost::Message;
use serde::Serialize;

/// Revisions: `main, '_', sub`, and `t` behind it for a tombstone → `mvccpb.KeyValue`.
pub(super) const KEY: &str = "key";
/// The id, big-endian → [`StoredLease`].
pub(super) const LEASE: &str = "lease";
/// `etcdserverpb.AlarmMember` → nothing.
pub(super) const ALARM: &str = "alarm";
pub(super) const AUTH: &str = "auth";
/// The name → `authpb.User`.
pub(super) const AUTH_USERS: &str = "authUsers";
/// The name → `authpb.Role`.
pub(super) const AUTH_ROLES: &str = "authRoles";
/// The version that the members have agreed on. Left empty: the members that restore the file agree
/// anew, and an older etcd would refuse a newer version.
pub(super) const CLUSTER: &str = "cluster";
/// The id in hexadecimal → [`StoredMember`] in JSON.
pub(super) const MEMBERS: &str = "members";
/// The id in hexadecimal → `removed`.
pub(super) const MEMBERS_REMOVED: &str = "members_removed";
pub(super) const META: &str = "meta";
/// Ours, and carried along by etcd: what the v2 API keeps beside the keys. `n` and a number →
/// `V2Node`; `e` and the index → `V2Event`.
pub(super) const V2: &str = "config_center.v2";

pub(super) const AUTH_ENABLED: &[u8] = b"authEnabled";
pub(super) const AUTH_REVISION: &[u8] = b"authRevision";
pub(super) const CONF_STATE: &[u8] = b"confState";
pub(super) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(super) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub(super) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(super) const STORAGE_VERSION: &[u8] = b"storageVersion";
pub(super) const TERM: &[u8] = b"term";

/// The key of a tombstone that stands for a revision without a row: a change of v2 directories only.
/// etcd takes the store's revision from its rows.
pub(super) const REVISION_ONLY: &[u8] = b"\0config-center/revision";

const REVISION_BYTES: usize = 17;

/// The key of a revision.
pub(super) fn revision_key(main: i64, sub: i64, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION_BYTES + 1);
    key.extend_from_slice(&main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&sub.to_be_bytes());
    if is_tombstone {
        key.push(b't');
    }
    key
}

/// `main`, `sub` and whether it is a tombstone; `None` for anything else.
pub(super) fn parse_revision(key: &[u8]) -> Option<(i64, i64, bool)> {
    let is_tombstone = match key.get(REVISION_BYTES..)? {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    let main = i64::from_be_bytes(key[..8].try_into().ok()?);
    let sub = i64::from_be_bytes(key[9..REVISION_BYTES].try_into().ok()?);
    (key[8] == b'_' && main > 0 && sub >= 0).then_some((main, sub, is_tombstone))
}

/// etcd's `leasepb.Lease`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredLease {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(int64, tag = "2")]
    pub(super) ttl_s: i64,
    #[prost(int64, tag = "3")]
    pub(super) remaining_s: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct StoredMember {
    pub(super) id: u64,
    #[serde(rename = "peerURLs")]
    pub(super) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_learner: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    pub(super) client_urls: Vec<String>,
}

/// Who votes, as Raft in etcd writes it down.
#[derive(Debug, Serialize)]
pub(super) struct ConfState {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) learners: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) voters_outgoing: Vec<u64>,
    pub(super) auto_leave: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_etcds_and_nothing_else_is_one() {
        let key = revision_key(0x0102, 3, true);
        assert_eq!(key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        assert_eq!(parse_revision(&key), Some((0x0102, 3, true)));
        assert_eq!(parse_revision(&key[..17]), Some((0x0102, 3, false)));
        let mut other = key.clone();
        other[8] = b'-';
        for bad in [&key[..16], &other, b"", &[&key[..], b"t"].concat()] {
            assert_eq!(parse_revision(bad), None, "{bad:?}");
        }
        let negative = revision_key(-1, 0, false);
        assert_eq!(parse_revision(&negative), None);
    }
}
