//! Who is calling, and whether this is the member it means to call. Checked at the start of every
//! call: a stream belongs to one pair of members for its whole life.

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

use super::PROTOCOL_VERSION;
use crate::storage::Identity;

const PROTOCOL: &str = "cc-protocol";
const CLUSTER: &str = "cc-cluster";
const FROM: &str = "cc-from";
const TO: &str = "cc-to";

/// The stamp that one member puts on its calls to another one.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    protocol: AsciiMetadataValue,
    cluster: AsciiMetadataValue,
    from: AsciiMetadataValue,
    to: AsciiMetadataValue,
}

impl Stamp {
    pub(super) fn new(from: Identity, to: u64) -> Self {
        Self {
            protocol: AsciiMetadataValue::from(PROTOCOL_VERSION),
            cluster: hex(from.cluster_id),
            from: hex(from.member_id),
            to: hex(to),
        }
    }

    pub(super) fn on<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL, self.protocol.clone());
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        request
    }
}

/// A call of somebody who has no id yet.
pub(super) fn anonymous<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let version = AsciiMetadataValue::from(PROTOCOL_VERSION);
    request.metadata_mut().insert(PROTOCOL, version);
    request
}

fn hex(id: u64) -> AsciiMetadataValue {
    // Sixteen hex digits are ASCII.
    AsciiMetadataValue::try_from(format!("{id:016x}"))
        .unwrap_or_else(|_| AsciiMetadataValue::from_static(""))
}

fn id(metadata: &MetadataMap, name: &'static str) -> Result<u64, Status> {
    metadata
        .get(name)
        .and_then(|value| u64::from_str_radix(value.to_str().ok()?, 16).ok())
        .ok_or_else(|| Status::invalid_argument(format!("the peer's call has no valid {name}")))
}

/// The caller's id, when the call is meant for this member of this cluster.
pub(super) fn check(metadata: &MetadataMap, me: Identity) -> Result<u64, Status> {
    check_protocol(metadata)?;
    let cluster = id(metadata, CLUSTER)?;
    if cluster != me.cluster_id {
        return Err(Status::failed_precondition(format!(
            "cluster ID mismatch: the caller belongs to {cluster:x}, this member to {:x}",
            me.cluster_id
        )));
    }
    let to = id(metadata, TO)?;
    if to != me.member_id {
        return Err(Status::failed_precondition(format!(
            "member ID mismatch: the call is for {to:x}, this is {:x}",
            me.member_id
        )));
    }
    id(metadata, FROM)
}

/// For the call of a member that belongs to no cluster yet.
pub(super) fn check_protocol(metadata: &MetadataMap) -> Result<(), Status> {
    let spoken: Option<u32> = metadata
        .get(PROTOCOL)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if spoken != Some(PROTOCOL_VERSION) {
        return Err(Status::failed_precondition(format!(
            "the peer protocol has version {PROTOCOL_VERSION} here, and {spoken:?} at the caller"
        )));
    }
    Ok(())
}

const REMOVED: &str = "the member has been permanently removed from the cluster";

/// The answer to a member that was removed.
pub(super) fn removed() -> Status {
    Status::new(Code::PermissionDenied, REMOVED)
}

/// Whether a peer says that this member was removed.
pub(super) fn says_removed(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.message() == REMOVED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_cluster_and_member_get_through() {
        let me = |member_id, cluster_id| Identity {
            member_id,
            cluster_id,
        };
        let call = Stamp::new(me(1, 9), 2).on(());
        assert_eq!(check(call.metadata(), me(2, 9)).unwrap(), 1);
        let text = |status: Status| status.message().to_owned();
        let other_cluster = check(call.metadata(), me(2, 8)).unwrap_err();
        assert!(text(other_cluster).contains("cluster ID mismatch"));
        let other_member = check(call.metadata(), me(3, 9)).unwrap_err();
        assert!(text(other_member).contains("member ID mismatch"));
        let mut newer = Stamp::new(me(1, 9), 2).on(());
        newer
            .metadata_mut()
            .insert(PROTOCOL, AsciiMetadataValue::from(2u32));
        let newer = check(newer.metadata(), me(2, 9)).unwrap_err();
        assert!(text(newer).contains("version 1 here, and Some(2)"));
        assert!(check(&MetadataMap::new(), me(2, 9)).is_err());
        assert!(says_removed(&removed()) && !says_removed(&Status::aborted(REMOVED)));
    }
}
