//! Lock and Election against config-center and against etcd 3.7.1: the same calls, the same
//! answers, waits and leftovers. And both recipes against Go's client-side ones, in etcdctl.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use e2e::peer::{Peer, newest_etcdctl};
use e2e::store::runtime;
use e2e::{Center, DEADLINE};
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest, ResponseHeader,
};
use schemas::mvccpb::KeyValue;
use schemas::v3electionpb::election_client::ElectionClient;
use schemas::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use schemas::v3lockpb::lock_client::LockClient;
use schemas::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: timed out"))
}

/// One server, and what it answered so far.
struct Scene {
    channel: Channel,
    told: Vec<String>,
}

impl Scene {
    fn new(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        Self {
            channel: endpoint.connect_lazy(),
            told: Vec::new(),
        }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    fn tell(&mut self, what: &str, outcome: Result<String, Status>) {
        let line = match outcome {
            Ok(text) => format!("{what}: {text}"),
            Err(status) => format!("{what}: {:?} {:?}", status.code(), status.message()),
        };
        self.told.push(line);
    }

    async fn grant(&self, id: i64, ttl: i64) {
        let request = LeaseGrantRequest { id, ttl };
        self.leases().lease_grant(request).await.expect("a lease");
    }

    async fn revoke(&self, id: i64) {
        let request = LeaseRevokeRequest { id };
        self.leases().lease_revoke(request).await.expect("revoked");
    }

    /// The keys below a prefix; asked until there are as many as said.
    async fn keys(&mut self, prefix: &str, count: i64) {
        let request = || RangeRequest {
            key: prefix.as_bytes().to_vec().into(),
            range_end: format!("{}0", prefix.trim_end_matches('/'))
                .into_bytes()
                .into(),
            ..RangeRequest::default()
        };
        let mut kv = self.kv();
        let answer = within(&format!("{count} keys below {prefix}"), async {
            loop {
                let answer = kv.range(request()).await.expect("a range").into_inner();
                if answer.count == count {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let keys: Vec<String> = answer.kvs.iter().map(key_value).collect();
        self.tell("keys", Ok(keys.join(" ")));
    }
}

fn key_value(kv: &KeyValue) -> String {
    format!(
        "{}={}@{}/{} lease {}",
        String::from_utf8_lossy(&kv.key),
        String::from_utf8_lossy(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.lease
    )
}

fn revision(header: Option<ResponseHeader>) -> String {
    let header = header.expect("every answer has a header");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    format!("at {}", header.revision)
}

async fn lock(mut client: LockClient<Channel>, name: &str, lease: i64) -> Result<String, Status> {
    let name = name.as_bytes().to_vec().into();
    let answer = client.lock(LockRequest { name, lease }).await?.into_inner();
    let key = String::from_utf8_lossy(&answer.key).into_owned();
    Ok(format!("{key} {}", revision(answer.header)))
}

async fn unlock(mut client: LockClient<Channel>, key: &str) -> Result<String, Status> {
    let key = key.as_bytes().to_vec().into();
    let answer = client.unlock(UnlockRequest { key }).await?.into_inner();
    Ok(revision(answer.header))
}

async fn campaign(
    mut client: ElectionClient<Channel>,
    name: &str,
    lease: i64,
    value: &str,
) -> Result<String, Status> {
    let request = CampaignRequest {
        name: name.as_bytes().to_vec().into(),
        lease,
        value: value.as_bytes().to_vec().into(),
    };
    let answer = client.campaign(request).await?.into_inner();
    let leader = answer.leader.expect("a leader");
    Ok(format!("{leader:?} {}", revision(answer.header)))
}

fn leader_key(name: &str, key: &str, rev: i64, lease: i64) -> LeaderKey {
    LeaderKey {
        name: name.as_bytes().to_vec().into(),
        key: key.as_bytes().to_vec().into(),
        rev,
        lease,
    }
}

async fn proclaim(
    mut client: ElectionClient<Channel>,
    leader: Option<LeaderKey>,
    value: &str,
) -> Result<String, Status> {
    let value = value.as_bytes().to_vec().into();
    let request = ProclaimRequest { leader, value };
    Ok(revision(
        client.proclaim(request).await?.into_inner().header,
    ))
}

async fn resign(
    mut client: ElectionClient<Channel>,
    leader: Option<LeaderKey>,
) -> Result<String, Status> {
    let answer = client.resign(ResignRequest { leader }).await?;
    Ok(revision(answer.into_inner().header))
}

async fn leader(mut client: ElectionClient<Channel>, name: &str) -> Result<String, Status> {
    let name = name.as_bytes().to_vec().into();
    let answer = client.leader(LeaderRequest { name }).await?.into_inner();
    let kv = key_value(&answer.kv.expect("a key"));
    Ok(format!("{kv} {}", revision(answer.header)))
}

async fn locks(scene: &mut Scene) {
    let refused = lock(scene.locks(), "l", 777).await;
    scene.tell("lock with an unknown lease", refused);
    let refused = unlock(scene.locks(), "").await;
    scene.tell("unlock of nothing", refused);
    let unlocked = unlock(scene.locks(), "nobody").await;
    scene.tell("unlock of a missing key", unlocked);
    for lease in [100, 200, 300, i64::MAX] {
        scene.grant(lease, 600).await;
    }
    let own = lock(scene.locks(), "none", 0).await.map(|answer| {
        // The lease is the server's choice.
        let (key, at) = answer.split_once(' ').expect("two words");
        format!(
            "{} digits or fewer: {} {at}",
            16,
            key.len() <= "none/".len() + 16
        )
    });
    scene.tell("lock without a lease", own);
    for round in ["first", "again"] {
        let locked = lock(scene.locks(), "l", 100).await;
        scene.tell(round, locked);
    }
    let locked = lock(scene.locks(), "big", i64::MAX).await;
    scene.tell("the largest lease", locked);
    // Two wait; the order is that of their keys.
    let second = tokio::spawn(lock(scene.locks(), "l", 200));
    scene.keys("l/", 2).await;
    let third = tokio::spawn(lock(scene.locks(), "l", 300));
    scene.keys("l/", 3).await;
    assert!(!second.is_finished() && !third.is_finished());
    let unlocked = unlock(scene.locks(), "l/64").await;
    scene.tell("unlock", unlocked);
    let locked = within("the second", second).await.expect("no panic");
    scene.tell("second", locked);
    assert!(!third.is_finished());
    // The third hangs up: its key goes, though its lease lives.
    third.abort();
    scene.keys("l/", 1).await;
    // A waiter whose lease ends is told so when its turn comes.
    scene.grant(400, 600).await;
    let expired = tokio::spawn(lock(scene.locks(), "l", 400));
    scene.keys("l/", 2).await;
    scene.revoke(400).await;
    scene.keys("l/", 1).await;
    let unlocked = unlock(scene.locks(), "l/c8").await;
    scene.tell("unlock", unlocked);
    let outcome = within("the expired", expired).await.expect("no panic");
    scene.tell("expired", outcome);
    // The holder's lease ends: the lock is free.
    let locked = lock(scene.locks(), "m", 200).await;
    scene.tell("held", locked);
    let next = tokio::spawn(lock(scene.locks(), "m", 300));
    scene.keys("m/", 2).await;
    scene.revoke(200).await;
    let locked = within("the next", next).await.expect("no panic");
    scene.tell("next", locked);
    scene.keys("m/", 1).await;
    let mut leases = scene.leases();
    let asked = LeaseTimeToLiveRequest {
        id: 300,
        keys: true,
    };
    let answer = leases.lease_time_to_live(asked).await.expect("a lease");
    scene.tell(
        "keys of the lease",
        Ok(format!("{:?}", answer.into_inner().keys)),
    );
}

async fn elections(scene: &mut Scene) {
    for lease in [100, 200] {
        scene.grant(lease, 600).await;
    }
    let nobody = leader(scene.elections(), "e").await;
    scene.tell("no leader", nobody);
    let refused = campaign(scene.elections(), "e", 777, "x").await;
    scene.tell("campaign with an unknown lease", refused);
    let won = campaign(scene.elections(), "e", 100, "one").await;
    scene.tell("campaign", won);
    // etcd opens the stream with its first response, so somebody must lead already.
    let mut watching = scene.elections();
    let name = b"e".to_vec().into();
    let observing = watching.observe(LeaderRequest { name });
    let mut observed = within("observe", observing)
        .await
        .expect("a stream")
        .into_inner();
    let won = campaign(scene.elections(), "e", 100, "one").await;
    scene.tell("campaign again", won);
    let won = campaign(scene.elections(), "e", 100, "two").await;
    scene.tell("campaign with another value", won);
    let key = || Some(leader_key("e", "e/64", 2, 100));
    let said = proclaim(scene.elections(), key(), "three").await;
    scene.tell("proclaim", said);
    let said = proclaim(scene.elections(), None, "x").await;
    scene.tell("proclaim as nobody", said);
    let stale = Some(leader_key("e", "e/64", 1, 100));
    let said = proclaim(scene.elections(), stale.clone(), "x").await;
    scene.tell("proclaim of another life", said);
    let left = resign(scene.elections(), stale).await;
    scene.tell("resign of another life", left);
    let left = resign(scene.elections(), None).await;
    scene.tell("resign as nobody", left);
    let left = resign(scene.elections(), Some(leader_key("", "", 0, 100))).await;
    scene.tell("resign without a key", left);
    let now = leader(scene.elections(), "e").await;
    scene.tell("leader", now);
    let waiting = tokio::spawn(campaign(scene.elections(), "e", 200, "four"));
    scene.keys("e/", 2).await;
    assert!(!waiting.is_finished());
    let left = resign(scene.elections(), key()).await;
    scene.tell("resign", left);
    let won = within("the next leader", waiting).await.expect("no panic");
    scene.tell("next", won);
    let told = within("what was observed", async {
        let mut told = Vec::new();
        while told.len() < 4 {
            let response = observed.message().await.expect("open").expect("open");
            let kv = key_value(&response.kv.expect("a key"));
            told.push(format!("{kv} {}", revision(response.header)));
        }
        told
    })
    .await;
    scene.tell("observed", Ok(told.join("; ")));
    // A candidate that hangs up leaves the queue.
    scene.grant(300, 600).await;
    let waiting = tokio::spawn(campaign(scene.elections(), "e", 300, "five"));
    scene.keys("e/", 2).await;
    waiting.abort();
    scene.keys("e/", 1).await;
}

fn compare(play: impl AsyncFn(&mut Scene)) {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let peer = Peer::start(folder.path(), &[]).expect("etcd");
    let tell = |url: &str| {
        runtime().block_on(async {
            let mut scene = Scene::new(url);
            play(&mut scene).await;
            scene.told
        })
    };
    let etcds = tell(&peer.url);
    let ours = tell(&center.url());
    assert!(etcds.len() > 10, "{etcds:?}");
    for (ours, etcds) in ours.iter().zip(&etcds) {
        assert_eq!(ours, etcds);
    }
    assert_eq!(ours.len(), etcds.len());
}

#[test]
fn locks_are_etcds() {
    compare(locks);
}

#[test]
fn elections_are_etcds() {
    compare(elections);
}

/// `etcdctl lock` is Go's recipe on the client's side: each waits for the other.
#[test]
fn a_lock_is_shared_with_gos_client_recipe() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = Center::start(folder.path()).expect("config-center");
    let mut holder = std::process::Command::new(newest_etcdctl().expect("etcdctl"))
        .args(["--endpoints", &center.url(), "lock", "shared"])
        .stdout(Stdio::null())
        .spawn()
        .expect("etcdctl runs");
    let outcome = runtime().block_on(async {
        let mut scene = Scene::new(&center.url());
        scene.keys("shared/", 1).await;
        scene.grant(100, 600).await;
        let waiting = tokio::spawn(lock(scene.locks(), "shared", 100));
        scene.keys("shared/", 2).await;
        assert!(!waiting.is_finished(), "etcdctl holds the lock");
        let pid = rustix::process::Pid::from_child(&holder);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("alive");
        let locked = within("the lock", waiting).await.expect("no panic");
        scene.keys("shared/", 1).await;
        locked
    });
    holder.wait().expect("etcdctl ends");
    assert!(outcome.expect("locked").starts_with("shared/64 "));

    // The other way round: etcdctl waits for the key of the service, then runs its command.
    let mut waiter = std::process::Command::new(newest_etcdctl().expect("etcdctl"))
        .args(["--endpoints", &center.url(), "lock", "shared", "true"])
        .spawn()
        .expect("etcdctl runs");
    runtime().block_on(async {
        let mut scene = Scene::new(&center.url());
        scene.keys("shared/", 2).await;
        unlock(scene.locks(), "shared/64").await.expect("unlocked");
        scene.keys("shared/", 0).await;
    });
    assert!(waiter.wait().expect("etcdctl ends").success());
}
