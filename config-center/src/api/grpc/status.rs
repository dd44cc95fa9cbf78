//! The one place where a fault becomes a gRPC status: clients compare code and text as a whole,
//! and the code decides whether they retry.

use tonic::{Code, Status};

use crate::api::Fault;
use crate::auth::PasswordError;

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Refused(refusal) => Code::from_i32(refusal.code() as i32),
            Fault::NotProposed(error) => Code::from_i32(error.code() as i32),
            Fault::Member(refusal) => Code::from_i32(refusal.code() as i32),
            Fault::NotForLearner => Code::FailedPrecondition,
            Fault::ClientApiVersion => Code::InvalidArgument,
            Fault::Password(PasswordError::TooManyRequests) => Code::ResourceExhausted,
            Fault::Password(_) | Fault::NoSigningKey => Code::Unknown,
            Fault::NoDowngrade => Code::Unimplemented,
            Fault::MismatchedReply => Code::Internal,
        };
        Self::new(code, fault.to_string())
    }
}

/// The server goes down: clients of streams look for another member.
pub(crate) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// tonic refuses an oversized message as OutOfRange in its own words; gRPC for Go, and with it
/// every etcd client, knows this text.
pub(crate) fn received_too_large(status: &Status) -> Option<Status> {
    let sizes = status
        .message()
        .strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = sizes.split_once(" bytes, the limit is: ")?;
    let limit = limit.strip_suffix(" bytes")?;
    Some(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    )))
}

#[cfg(test)]
mod tests {
    use config_center_core::Refusal;

    use super::*;
    use crate::raft::ProposeError;

    #[test]
    fn every_fault_has_etcds_code_and_text() {
        let table: [(Fault, Code, &str); 12] = [
            (
                Refusal::EmptyKey.into(),
                Code::InvalidArgument,
                "etcdserver: key is not provided",
            ),
            (
                Refusal::LeaseNotFound.into(),
                Code::NotFound,
                "etcdserver: requested lease not found",
            ),
            (
                Refusal::LeaseExists.into(),
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
            ),
            (
                Refusal::LeaseTtlTooLarge.into(),
                Code::OutOfRange,
                "etcdserver: too large lease TTL",
            ),
            (
                Refusal::Compacted.into(),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                Refusal::FutureRevision.into(),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (
                ProposeError::TooLarge.into(),
                Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (
                ProposeError::TooManyRequests.into(),
                Code::ResourceExhausted,
                "etcdserver: too many requests",
            ),
            (
                ProposeError::NoLeader.into(),
                Code::Unavailable,
                "etcdserver: no leader",
            ),
            (
                ProposeError::Timeout.into(),
                Code::Unavailable,
                "etcdserver: request timed out",
            ),
            (
                Fault::ClientApiVersion,
                Code::InvalidArgument,
                "etcdserver: invalid client api version",
            ),
            (
                Refusal::AuthNotEnabled.into(),
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
            ),
        ];
        for (fault, code, text) in table {
            let status = Status::from(fault);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }

    #[test]
    fn only_tonics_refusal_of_size_is_reworded() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 2097152 bytes",
        );
        let reworded = received_too_large(&tonics).unwrap();
        assert_eq!(reworded.code(), Code::ResourceExhausted);
        assert_eq!(
            reworded.message(),
            "grpc: received message larger than max (5000000 vs. 2097152)"
        );
        assert!(received_too_large(&Status::from(Fault::Refused(Refusal::Compacted))).is_none());
    }
}
