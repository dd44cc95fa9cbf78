//! Refusals as clients see them: code and whole text, and the stateless checks that give them.

use super::*;
use crate::validation::{check_delete_range, check_lease_grant, check_put, check_range};

#[test]
fn codes_and_texts_are_etcds() {
    use Refusal::*;
    for (refusal, code, message) in [
        (EmptyKey, 3, "etcdserver: key is not provided"),
        (KeyNotFound, 3, "etcdserver: key not found"),
        (ValueProvided, 3, "etcdserver: value is provided"),
        (LeaseProvided, 3, "etcdserver: lease is provided"),
        (
            TooManyOps,
            3,
            "etcdserver: too many operations in txn request",
        ),
        (
            DuplicateKey,
            3,
            "etcdserver: duplicate key given in txn request",
        ),
        (InvalidSortOption, 3, "etcdserver: invalid sort option"),
        (LeaseNotFound, 5, "etcdserver: requested lease not found"),
        (LeaseExists, 9, "etcdserver: lease already exists"),
        (NotCapable, 9, "etcdserver: not capable"),
        (LeaseTtlTooLarge, 11, "etcdserver: too large lease TTL"),
        (
            Compacted,
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            FutureRevision,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        assert_eq!(refusal.code() as u8, code, "{refusal:?}");
        assert_eq!(refusal.to_string(), message);
    }
}

#[test]
fn puts_are_checked_in_etcds_order() {
    let request = |key: &str, value: &str, lease, ignore_value, ignore_lease| PutRequest {
        lease,
        ignore_value,
        ignore_lease,
        ..put_request(key, value)
    };
    for (put, expected) in [
        (request("a", "1", 7, false, false), Ok(())),
        (request("a", "", 7, true, false), Ok(())),
        (request("", "1", 7, true, true), Err(Refusal::EmptyKey)),
        (
            request("a", "1", 7, true, true),
            Err(Refusal::ValueProvided),
        ),
        (request("a", "", 7, true, true), Err(Refusal::LeaseProvided)),
    ] {
        assert_eq!(check_put(&put), expected, "{put:?}");
    }
}

#[test]
fn an_empty_key_is_refused_even_with_a_range_end() {
    assert_eq!(
        check_range(&range_request("", "\0")),
        Err(Refusal::EmptyKey)
    );
    assert_eq!(
        check_delete_range(&delete_request("", "\0")),
        Err(Refusal::EmptyKey)
    );
    assert_eq!(check_range(&range_request("\0", "\0")), Ok(()));
    assert_eq!(check_delete_range(&delete_request("z", "a")), Ok(()));
}

#[test]
fn unknown_sort_options_are_refused() {
    for (sort_order, sort_target, expected) in [
        (2, 4, Ok(())),
        (3, 0, Err(Refusal::InvalidSortOption)),
        (0, 5, Err(Refusal::InvalidSortOption)),
        (-1, 0, Err(Refusal::InvalidSortOption)),
    ] {
        let request = RangeRequest {
            sort_order,
            sort_target,
            ..range_request("a", "")
        };
        assert_eq!(check_range(&request), expected);
    }
}

#[test]
fn a_ttl_has_an_upper_end() {
    let grant = |ttl| LeaseGrantRequest { id: 0, ttl };
    assert_eq!(check_lease_grant(&grant(9_000_000_000)), Ok(()));
    assert_eq!(check_lease_grant(&grant(-3)), Ok(()), "raised, not refused");
    assert_eq!(
        check_lease_grant(&grant(9_000_000_001)),
        Err(Refusal::LeaseTtlTooLarge)
    );
}
