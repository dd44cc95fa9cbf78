//! Leases over the network: grants, expiry, renewal and what hangs on them.

use std::time::Duration;

use schemas::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::fixture::{Fixture, assert_status, bytes, put, range, told, watch_letter, within};

async fn grant(fixture: &Fixture, id: i64, ttl: i64) -> (i64, i64) {
    let answer = fixture
        .leases()
        .lease_grant(LeaseGrantRequest { id, ttl })
        .await
        .unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.error, "");
    (answer.id, answer.ttl)
}

async fn time_to_live(fixture: &Fixture, id: i64) -> (i64, i64, Vec<bytes::Bytes>) {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let answer = fixture
        .leases()
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.id, id);
    (answer.ttl, answer.granted_ttl, answer.keys)
}

#[tokio::test]
async fn short_ttls_are_raised_and_long_ones_refused() {
    let fixture = Fixture::start().await;
    for ttl in [-5, 0, 1, 2] {
        let (id, granted) = grant(&fixture, 0, ttl).await;
        assert!(id > 0);
        assert_eq!(granted, 2);
    }
    assert_eq!(grant(&fixture, 7, 60).await, (7, 60));
    let mut leases = fixture.leases();
    assert_status(
        leases
            .lease_grant(LeaseGrantRequest { id: 7, ttl: 60 })
            .await,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    assert_status(
        leases
            .lease_grant(LeaseGrantRequest {
                id: 8,
                ttl: 9_000_000_001,
            })
            .await,
        Code::OutOfRange,
        "etcdserver: too large lease TTL",
    );
    let header = fixture
        .kv()
        .range(range("a"))
        .await
        .unwrap()
        .into_inner()
        .header
        .unwrap();
    assert_eq!(header.revision, 1, "leases do not move the revision");
    fixture.stop().await;
}

#[tokio::test]
async fn revoking_deletes_the_keys_in_one_revision() {
    let fixture = Fixture::start().await;
    grant(&fixture, 7, 60).await;
    for key in ["kb", "ka", "kc"] {
        fixture
            .kv()
            .put(PutRequest {
                lease: 7,
                ..put(key, "v")
            })
            .await
            .unwrap();
    }
    // A put without the lease takes the key off it.
    fixture.put("kc", "free").await;
    let (left, granted, keys) = time_to_live(&fixture, 7).await;
    assert!((1..=60).contains(&left));
    assert_eq!((granted, keys), (60, vec![bytes("ka"), bytes("kb")]));
    let mut watch = fixture.watch().await;
    watch.created(watch_letter('k')).await;
    fixture
        .leases()
        .lease_revoke(LeaseRevokeRequest { id: 7 })
        .await
        .unwrap();
    assert_eq!(told(&watch.next().await), ["6 ka -", "6 kb -"]);
    assert_eq!(time_to_live(&fixture, 7).await, (-1, 0, vec![]));
    assert_status(
        fixture
            .leases()
            .lease_revoke(LeaseRevokeRequest { id: 7 })
            .await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_lease_that_nobody_renews_runs_out_with_its_keys() {
    let fixture = Fixture::start().await;
    grant(&fixture, 7, 2).await;
    fixture
        .kv()
        .put(PutRequest {
            lease: 7,
            ..put("k", "v")
        })
        .await
        .unwrap();
    let mut watch = fixture.watch().await;
    watch.created(watch_letter('k')).await;
    assert_eq!(told(&watch.next().await), ["3 k -"]);
    let leases = fixture
        .leases()
        .lease_leases(LeaseLeasesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(leases.leases, vec![]);
    fixture.stop().await;
}

#[tokio::test]
async fn keep_alive_renews_and_answers_zero_for_unknown_leases() {
    let fixture = Fixture::start().await;
    grant(&fixture, 7, 2).await;
    fixture
        .kv()
        .put(PutRequest {
            lease: 7,
            ..put("k", "v")
        })
        .await
        .unwrap();
    let (requests, outgoing) = mpsc::channel(8);
    let mut leases = fixture.leases();
    let opening = leases.lease_keep_alive(ReceiverStream::new(outgoing));
    let mut answers = within("stream", opening).await.unwrap().into_inner();
    // Longer than the TTL in sum; every renewal must be granted for the key to live on.
    for _ in 0..6 {
        requests
            .send(LeaseKeepAliveRequest { id: 99 })
            .await
            .unwrap();
        let unknown = within("answer", answers.message()).await.unwrap().unwrap();
        assert_eq!((unknown.id, unknown.ttl), (99, 0));
        requests
            .send(LeaseKeepAliveRequest { id: 7 })
            .await
            .unwrap();
        let renewed = within("answer", answers.message()).await.unwrap().unwrap();
        assert_eq!((renewed.id, renewed.ttl), (7, 2));
        assert_eq!(renewed.header.unwrap().revision, 2);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(
        fixture
            .kv()
            .range(range("k"))
            .await
            .unwrap()
            .into_inner()
            .count,
        1
    );
    drop(requests);
    assert!(within("end", answers.message()).await.unwrap().is_none());
    fixture.stop().await;
}

#[tokio::test]
async fn leases_and_their_keys_survive_a_restart() {
    let mut fixture = Fixture::start().await;
    grant(&fixture, 7, 600).await;
    grant(&fixture, 8, 2).await;
    fixture
        .kv()
        .put(PutRequest {
            lease: 7,
            ..put("k", "v")
        })
        .await
        .unwrap();
    fixture
        .kv()
        .put(PutRequest {
            lease: 8,
            ..put("gone", "v")
        })
        .await
        .unwrap();
    fixture.restart().await;
    let (left, granted, keys) = time_to_live(&fixture, 7).await;
    assert!(left > 500);
    assert_eq!((granted, keys), (600, vec![bytes("k")]));
    let gone = async {
        while fixture
            .kv()
            .range(range("gone"))
            .await
            .unwrap()
            .into_inner()
            .count
            > 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("expiry after the restart", gone).await;
    fixture.stop().await;
}

#[tokio::test]
async fn leases_are_listed() {
    let fixture = Fixture::start().await;
    for id in [3, 1, 2] {
        grant(&fixture, id, 60).await;
    }
    let listed = fixture
        .leases()
        .lease_leases(LeaseLeasesRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut ids: Vec<i64> = listed.leases.iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    fixture.stop().await;
}
