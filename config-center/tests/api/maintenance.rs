//! Maintenance over the network: alarms and the quota, digests, snapshots, defragmentation.

use bytes::Bytes;
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::downgrade_request::DowngradeAction;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::request_op::Request as OpRequest;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tonic::transport::Channel;

use crate::fixture::{Fixture, assert_status, put, range, within};

const NOSPACE: i32 = pb::AlarmType::Nospace as i32;
const CORRUPT: i32 = pb::AlarmType::Corrupt as i32;
const NO_SPACE_TEXT: &str = "etcdserver: mvcc: database space exceeded";

fn maintenance(fixture: &Fixture) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(fixture.channel.clone())
}

async fn alarm(
    fixture: &Fixture,
    action: AlarmAction,
    kind: i32,
    member_id: u64,
) -> Vec<pb::AlarmMember> {
    let request = pb::AlarmRequest {
        action: action as i32,
        alarm: kind,
        member_id,
    };
    let answer = maintenance(fixture).alarm(request).await.unwrap();
    answer.into_inner().alarms
}

async fn status(fixture: &Fixture) -> pb::StatusResponse {
    let answer = maintenance(fixture).status(pb::StatusRequest {}).await;
    answer.unwrap().into_inner()
}

async fn hash_kv(fixture: &Fixture, revision: i64) -> pb::HashKvResponse {
    let answer = maintenance(fixture)
        .hash_kv(pb::HashKvRequest { revision })
        .await;
    answer.unwrap().into_inner()
}

async fn defragment(fixture: &Fixture) {
    let answer = maintenance(fixture)
        .defragment(pb::DefragmentRequest {})
        .await
        .unwrap();
    assert_eq!(answer.into_inner().header, None);
}

async fn snapshot(fixture: &Fixture) -> Vec<pb::SnapshotResponse> {
    let mut pieces = maintenance(fixture)
        .snapshot(pb::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut all = Vec::new();
    while let Some(piece) = within("piece", pieces.message()).await.unwrap() {
        all.push(piece);
    }
    all
}

#[tokio::test]
async fn an_alarm_of_any_member_forbids_what_needs_space() {
    let mut fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    assert_eq!(
        alarm(&fixture, AlarmAction::Deactivate, NOSPACE, 7).await,
        []
    );
    let raised = pb::AlarmMember {
        member_id: 7,
        alarm: NOSPACE,
    };
    for _ in 0..2 {
        let answer = alarm(&fixture, AlarmAction::Activate, NOSPACE, 7).await;
        assert_eq!(answer, [raised]);
    }
    // It outlives the process.
    fixture.restart().await;
    assert_eq!(alarm(&fixture, AlarmAction::Get, 0, 0).await, [raised]);
    assert_eq!(alarm(&fixture, AlarmAction::Get, CORRUPT, 0).await, []);
    assert_eq!(status(&fixture).await.errors, ["memberID:7 alarm:NOSPACE "]);
    assert_status(
        fixture.kv().put(put("a", "2")).await,
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    let txn = |request| pb::TxnRequest {
        failure: vec![pb::RequestOp {
            request: Some(request),
        }],
        ..pb::TxnRequest::default()
    };
    let nested = txn(OpRequest::RequestPut(put("a", "2")));
    assert_status(
        fixture.kv().txn(txn(OpRequest::RequestTxn(nested))).await,
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    assert_status(
        fixture
            .leases()
            .lease_grant(pb::LeaseGrantRequest { id: 9, ttl: 60 })
            .await,
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    // What makes room is allowed, and so is reading.
    fixture.kv().range(range("a")).await.unwrap();
    fixture.delete("a").await;
    let compaction = pb::CompactionRequest {
        revision: 2,
        physical: true,
    };
    fixture.kv().compact(compaction).await.unwrap();
    assert_eq!(
        alarm(&fixture, AlarmAction::Deactivate, NOSPACE, 7).await,
        [raised]
    );
    fixture.put("a", "3").await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_corrupt_cluster_changes_nothing_any_more() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    alarm(&fixture, AlarmAction::Activate, CORRUPT, 7).await;
    let text = "etcdserver: corrupt cluster";
    assert_status(fixture.kv().put(put("a", "2")).await, Code::DataLoss, text);
    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        ..pb::DeleteRangeRequest::default()
    };
    assert_status(
        fixture.kv().delete_range(delete).await,
        Code::DataLoss,
        text,
    );
    let compaction = pb::CompactionRequest {
        revision: 2,
        physical: false,
    };
    assert_status(fixture.kv().compact(compaction).await, Code::DataLoss, text);
    alarm(&fixture, AlarmAction::Deactivate, CORRUPT, 7).await;
    fixture.put("a", "2").await;
    fixture.stop().await;
}

/// The whole story: full, refused, and still refused when room was made, until the alarm is taken
/// back.
#[tokio::test]
async fn the_quota_is_kept_and_its_alarm_stays_until_it_is_taken_back() {
    let fixture = Fixture::start_with(&["--quota-backend-bytes=200000"]).await;
    assert_eq!(status(&fixture).await.db_size_quota, 200_000);
    fixture.put("small", "x").await;
    let large = "x".repeat(4096);
    let filling = async {
        loop {
            match fixture.kv().put(put("large", &large)).await {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    };
    let refused = within("the quota", filling).await;
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, NO_SPACE_TEXT)
    );
    let alarms = alarm(&fixture, AlarmAction::Get, 0, 0).await;
    let member_id = status(&fixture).await.header.unwrap().member_id;
    assert_eq!(
        alarms,
        [pb::AlarmMember {
            member_id,
            alarm: NOSPACE
        }]
    );
    assert_status(
        fixture.kv().put(put("small", "y")).await,
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    let compaction = pb::CompactionRequest {
        revision: fixture.server_revision(),
        physical: true,
    };
    fixture.kv().compact(compaction).await.unwrap();
    let before = status(&fixture).await;
    defragment(&fixture).await;
    let after = status(&fixture).await;
    assert!(after.db_size < before.db_size, "{before:?} {after:?}");
    assert_eq!(after.db_size, after.db_size_in_use);
    assert_status(
        fixture.kv().put(put("small", "y")).await,
        Code::ResourceExhausted,
        NO_SPACE_TEXT,
    );
    alarm(&fixture, AlarmAction::Deactivate, NOSPACE, member_id).await;
    fixture.put("small", "y").await;
    fixture.put("large", &large).await;
    fixture.stop().await;
}

#[tokio::test]
async fn without_a_quota_nothing_is_refused() {
    let fixture = Fixture::start_with(&["--quota-backend-bytes=-1"]).await;
    assert_eq!(status(&fixture).await.db_size_quota, -1);
    fixture.put("a", "1").await;
    fixture.stop().await;
    let fixture = Fixture::start().await;
    assert_eq!(status(&fixture).await.db_size_quota, 2 << 30);
    fixture.stop().await;
}

#[tokio::test]
async fn digests_are_those_of_the_keys_and_not_of_the_way_there() {
    let mut one = Fixture::start().await;
    let other = Fixture::start().await;
    for fixture in [&one, &other] {
        for n in 0..20 {
            fixture.put(&format!("k{}", n % 7), &n.to_string()).await;
        }
        fixture.delete("k3").await;
    }
    let digest = hash_kv(&one, 0).await;
    assert_eq!(digest.hash, hash_kv(&other, 0).await.hash);
    assert_eq!((digest.compact_revision, digest.hash_revision), (-1, 22));
    assert_eq!(digest.header.unwrap().revision, 22);
    let old = hash_kv(&one, 10).await;
    assert_ne!(old.hash, digest.hash);
    assert_eq!(old.header.unwrap().revision, 22);
    // A later write changes the newest digest and leaves the old one as it was.
    one.put("more", "1").await;
    assert_eq!(hash_kv(&one, 10).await.hash, old.hash);
    assert_eq!(hash_kv(&one, 22).await.hash, digest.hash);
    assert_ne!(hash_kv(&one, 0).await.hash, digest.hash);

    let compaction = |physical| pb::CompactionRequest {
        revision: 15,
        physical,
    };
    one.kv().compact(compaction(true)).await.unwrap();
    one.restart().await;
    other.kv().compact(compaction(false)).await.unwrap();
    let compacted = hash_kv(&one, 22).await;
    assert_eq!(compacted.compact_revision, 15);
    assert_eq!(compacted.hash, hash_kv(&other, 22).await.hash);
    let mut client = maintenance(&one);
    assert_status(
        client.hash_kv(pb::HashKvRequest { revision: 14 }).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
    assert_status(
        client.hash_kv(pb::HashKvRequest { revision: 99 }).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    let whole = client.hash(pb::HashRequest {}).await.unwrap().into_inner();
    let grant = pb::LeaseGrantRequest { id: 5, ttl: 60 };
    one.leases().lease_grant(grant).await.unwrap();
    let with_lease = client.hash(pb::HashRequest {}).await.unwrap().into_inner();
    assert_ne!(whole.hash, with_lease.hash);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_the_database_and_its_digest() {
    let fixture = Fixture::start().await;
    for n in 0..50 {
        fixture.put(&format!("k{n}"), &"v".repeat(3000)).await;
    }
    let pieces = snapshot(&fixture).await;
    let (digest, blobs) = pieces.split_last().unwrap();
    assert!(blobs.len() > 3);
    let mut left: u64 = blobs.iter().map(|piece| piece.blob.len() as u64).sum();
    assert_eq!(left % 512, 0, "what etcdctl demands of a snapshot");
    let mut hasher = Sha256::new();
    let mut file = Vec::new();
    for piece in blobs {
        assert!(!piece.blob.is_empty() && piece.blob.len() <= 32 * 1024);
        left -= piece.blob.len() as u64;
        assert_eq!(piece.remaining_bytes, left);
        hasher.update(&piece.blob);
        file.extend_from_slice(&piece.blob);
    }
    assert_eq!((digest.remaining_bytes, digest.blob.len()), (0, 32));
    assert_eq!(digest.blob[..], hasher.finalize()[..]);
    // The magic of bbolt, behind the head of the first page.
    assert_eq!(file[16..20], 0xED0C_DAED_u32.to_le_bytes());
    let needle = b"k49";
    assert!(file.windows(needle.len()).any(|bytes| bytes == needle));
    fixture.stop().await;
}

#[tokio::test]
async fn snapshots_and_defragmentation_stand_each_other_and_writes() {
    let fixture = Fixture::start().await;
    let writing = async {
        for n in 0..200 {
            fixture
                .put(&format!("k{}", n % 10), &"v".repeat(2000))
                .await;
        }
    };
    let defragmenting = async {
        for _ in 0..5 {
            defragment(&fixture).await;
        }
    };
    let copying = async {
        for _ in 0..5 {
            assert!(snapshot(&fixture).await.len() > 1);
        }
    };
    within("all of them", async {
        tokio::join!(writing, defragmenting, copying)
    })
    .await;
    let answer = fixture.kv().range(range("k9")).await.unwrap();
    assert_eq!(answer.into_inner().kvs[0].version, 20);
    fixture.stop().await;
}

#[tokio::test]
async fn questions_about_downgrades_are_answered() {
    let fixture = Fixture::start().await;
    let asked = |action: DowngradeAction, version: &str| pb::DowngradeRequest {
        action: action as i32,
        version: version.to_owned(),
    };
    let mut client = maintenance(&fixture);
    assert_status(
        client
            .downgrade(asked(DowngradeAction::Validate, "x"))
            .await,
        Code::InvalidArgument,
        "etcdserver: wrong downgrade target version format",
    );
    assert_status(
        client
            .downgrade(asked(DowngradeAction::Enable, "2.0.0"))
            .await,
        Code::InvalidArgument,
        "etcdserver: invalid downgrade target version",
    );
    let cancelled = client.downgrade(asked(DowngradeAction::Cancel, "")).await;
    let version = cancelled.unwrap().into_inner().version;
    // Without the patch, as etcd has it here.
    assert_eq!(version, "3.7");
    fixture.stop().await;
}
