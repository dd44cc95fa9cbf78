//! Three real members under kills and restarts, through every one of them: what was acknowledged
//! stays, the revision never falls, a watch sees each event once and in order, and the members
//! agree in the end.
#![expect(
    clippy::unwrap_used,
    reason = "what fails in a thread of a test fails the test"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use e2e::cluster::{Cluster, Seat};
use e2e::store::runtime;
use e2e::{DEADLINE, Store, wait_until};
use schemas::etcdserverpb::WatchCreateRequest;
use schemas::etcdserverpb::WatchRequest;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;

const LEADER_KILLS: usize = 5;
/// `E2E_TOTAL_KILLS` asks for more.
const TOTAL_KILLS: usize = 10;
const PUTTERS: usize = 6;
/// Acknowledged puts between two faults.
const PUTS_BETWEEN: usize = 40;

/// Putters over all members, each key once; what was acknowledged with its revision.
struct Load {
    acknowledged: Arc<Mutex<BTreeMap<String, i64>>>,
    stop: Arc<AtomicBool>,
    putters: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(seats: &[Seat]) -> anyhow::Result<Self> {
        let mut load = Self {
            acknowledged: Arc::default(),
            stop: Arc::default(),
            putters: Vec::new(),
        };
        for putter in 0..PUTTERS {
            let stores: Result<Vec<Store>, _> = seats.iter().map(Seat::store).collect();
            let stores = stores?;
            let (acknowledged, stop) = (Arc::clone(&load.acknowledged), Arc::clone(&load.stop));
            load.putters.push(thread::spawn(move || {
                let mut at = putter;
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("load/{putter}/{number:06}");
                    number += 1;
                    match stores[at % stores.len()].put(&key, &key) {
                        Ok(revision) => {
                            acknowledged.lock().unwrap().insert(key, revision);
                        }
                        // The outcome is unknown: another key, another member.
                        Err(_) => {
                            at += 1;
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                }
            }));
        }
        Ok(load)
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn highest(&self) -> i64 {
        let acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.values().copied().max().unwrap_or(0)
    }

    fn wait_for_more(&self) -> anyhow::Result<()> {
        let before = self.count();
        wait_until("more puts to be acknowledged", DEADLINE, || {
            (self.count() >= before + PUTS_BETWEEN).then_some(())
        })
    }

    fn end(self) -> BTreeMap<String, i64> {
        self.stop.store(true, Ordering::Relaxed);
        for putter in self.putters {
            putter.join().unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

/// Every member has every acknowledged put at its revision, and all have the same, also by HashKV.
fn check_members(seats: &[&Seat], acknowledged: &BTreeMap<String, i64>) -> anyhow::Result<i64> {
    let mut first: Option<(BTreeMap<String, i64>, i64)> = None;
    for seat in seats {
        let (pairs, revision) = seat.store()?.get_from("load/")?;
        let found: BTreeMap<String, i64> = pairs
            .into_iter()
            .map(|pair| {
                let key = String::from_utf8_lossy(&pair.key).into_owned();
                (key, pair.mod_revision)
            })
            .collect();
        for (key, revision) in acknowledged {
            assert_eq!(found.get(key), Some(revision), "{} lost {key}", seat.name);
        }
        match &first {
            None => first = Some((found, revision)),
            Some(first) => assert_eq!(*first, (found, revision), "{} differs", seat.name),
        }
    }
    let revision = first.map_or(0, |(_, revision)| revision);
    let digests: Result<Vec<u32>, _> = seats.iter().map(|seat| seat.hash_kv(revision)).collect();
    let digests = digests?;
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:x?} at {revision}"
    );
    Ok(revision)
}

/// Follows a prefix from revision 1 over the members in turn, resuming behind the last event.
struct Follower {
    events: Arc<Mutex<Vec<(i64, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    fn start(seats: &[Seat]) -> anyhow::Result<Self> {
        let channels: Result<Vec<_>, _> = seats.iter().map(Seat::channel).collect();
        let channels = channels?;
        let events: Arc<Mutex<Vec<(i64, String)>>> = Arc::default();
        let seen = Arc::clone(&events);
        let task = runtime().spawn(async move {
            for channel in channels.iter().cycle() {
                let from = seen
                    .lock()
                    .unwrap()
                    .last()
                    .map_or(1, |(revision, _)| revision + 1);
                let create = WatchRequest {
                    request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                        key: b"load/".to_vec().into(),
                        range_end: b"load0".to_vec().into(),
                        start_revision: from,
                        ..Default::default()
                    })),
                };
                let (requests, outgoing) = tokio::sync::mpsc::channel(1);
                requests.send(create).await.unwrap();
                let mut request =
                    tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
                // A member without a leader is left.
                request
                    .metadata_mut()
                    .insert("hasleader", "true".parse().unwrap());
                if let Ok(answer) = WatchClient::new(channel.clone()).watch(request).await {
                    let mut responses = answer.into_inner();
                    while let Ok(Some(response)) = responses.message().await {
                        let mut seen = seen.lock().unwrap();
                        for event in response.events {
                            let pair = event.kv.unwrap();
                            let key = String::from_utf8_lossy(&pair.key).into_owned();
                            seen.push((pair.mod_revision, key));
                        }
                    }
                }
                drop(requests);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Self { events, task })
    }

    /// All events up to this revision came once and in order, and every acknowledged put is there.
    fn check(&self, revision: i64, acknowledged: &BTreeMap<String, i64>) -> anyhow::Result<()> {
        wait_until("the watch to catch up", DEADLINE, || {
            let events = self.events.lock().unwrap();
            (events.last()?.0 >= revision).then_some(())
        })?;
        let events = self.events.lock().unwrap();
        for pair in events.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{:?} before {:?}", pair[0], pair[1]);
        }
        let seen: BTreeMap<&str, i64> = events
            .iter()
            .map(|(revision, key)| (key.as_str(), *revision))
            .collect();
        for (key, revision) in acknowledged {
            assert_eq!(seen.get(key.as_str()), Some(revision), "{key} was not seen");
        }
        Ok(())
    }
}

#[test]
fn puts_and_a_watch_survive_kills_of_the_leader() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut cluster = Cluster::start(work.path(), 3)?;
    let follower = Follower::start(&cluster.seats)?;
    let load = Load::start(&cluster.seats)?;
    for _ in 0..LEADER_KILLS {
        load.wait_for_more()?;
        let leader = cluster.leader()?;
        cluster.seats[leader].process()?.kill9()?;
        // The other two go on without it.
        let promised = load.highest();
        load.wait_for_more()?;
        let other = &cluster.seats[(leader + 1) % 3];
        let (_, revision) = other.store()?.get_from("load/")?;
        assert!(revision >= promised, "{revision} after {promised}");
        cluster.seats[leader].start()?;
        cluster.wait_healthy()?;
    }
    load.wait_for_more()?;
    let acknowledged = load.end();
    let all: Vec<&Seat> = cluster.seats.iter().collect();
    let revision = check_members(&all, &acknowledged)?;
    follower.check(revision, &acknowledged)?;
    Ok(())
}

#[test]
fn nothing_is_lost_when_all_members_die_at_once() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut cluster = Cluster::start(work.path(), 3)?;
    let load = Load::start(&cluster.seats)?;
    let kills = match std::env::var("E2E_TOTAL_KILLS") {
        Ok(asked) => asked.parse()?,
        Err(_) => TOTAL_KILLS,
    };
    for kill in 0..kills {
        load.wait_for_more()?;
        for seat in &mut cluster.seats {
            seat.process()?.kill9()?;
        }
        let promised = load.highest();
        for seat in &mut cluster.seats {
            seat.start()?;
        }
        cluster.wait_healthy()?;
        let (_, revision) = cluster.seats[kill % 3].store()?.get_from("load/")?;
        assert!(revision >= promised, "{revision} after {promised}");
    }
    let acknowledged = load.end();
    let all: Vec<&Seat> = cluster.seats.iter().collect();
    check_members(&all, &acknowledged)?;
    println!(
        "{} acknowledged puts over {kills} kills are there",
        acknowledged.len()
    );
    Ok(())
}

/// How a client of etcd tries again: at the next endpoint, so often.
const TRIES: usize = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Terms that one restart may cost: the leadership is handed over, and perhaps a vote is split.
const TERMS_PER_RESTART: u64 = 3;

#[test]
fn a_rolling_restart_fails_no_request_that_is_tried_again() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut cluster = Cluster::start(work.path(), 3)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for client in 0..PUTTERS {
        let stores: Result<Vec<Store>, _> = cluster.seats.iter().map(Seat::store).collect();
        let (stores, stop) = (stores?, Arc::clone(&stop));
        clients.push(thread::spawn(move || {
            let (mut done, mut again) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let key = format!("load/{client}/{done:06}");
                let mut tries = (0..TRIES).map(|tried| {
                    let outcome = stores[(client + tried) % stores.len()].put(&key, &key);
                    if outcome.is_err() {
                        again += 1;
                        thread::sleep(RETRY_PAUSE);
                    }
                    outcome
                });
                let outcome = tries.by_ref().find_map(Result::ok);
                assert!(outcome.is_some(), "{key} failed {TRIES} times");
                done += 1;
            }
            (done, again)
        }));
    }
    let term = |seat: &Seat| {
        seat.status()
            .map(|status| status.raft_term)
            .unwrap_or_default()
    };
    let before = term(&cluster.seats[0]);
    for n in 0..3 {
        let ended = cluster.seats[n].process()?.terminate()?;
        assert_eq!(ended.code(), Some(0));
        cluster.seats[n].start()?;
        cluster.wait_healthy()?;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut done, mut again) = (0, 0);
    for client in clients {
        let (its_done, its_again): (usize, usize) = client.join().unwrap();
        done += its_done;
        again += its_again;
    }
    println!("{done} puts, {again} tried again");
    assert!(done > PUTTERS, "{done} puts in three restarts");
    let after = term(&cluster.seats[0]);
    assert!(
        after <= before + 3 * TERMS_PER_RESTART,
        "terms {before} to {after}"
    );
    let all: Vec<&Seat> = cluster.seats.iter().collect();
    let revision = check_members(&all, &BTreeMap::new())?;
    assert!(revision > 0);
    Ok(())
}

#[test]
fn members_restart_one_after_the_other_and_a_lost_one_is_replaced() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut cluster = Cluster::start(work.path(), 3)?;
    let load = Load::start(&cluster.seats)?;
    for n in 0..3 {
        load.wait_for_more()?;
        let ended = cluster.seats[n].process()?.terminate()?;
        assert_eq!(ended.code(), Some(0));
        cluster.seats[n].start()?;
        cluster.wait_healthy()?;
    }
    // A member's disk is gone: it may not come back as the one it was.
    let lost = (cluster.leader()? + 1) % 3;
    let asked = (lost + 1) % 3;
    cluster.seats[lost].process()?.kill9()?;
    std::fs::remove_dir_all(cluster.seats[lost].data_dir())?;
    cluster.seats[lost].start()?;
    let refused = cluster.seats[lost].process()?.wait_exit(DEADLINE)?;
    assert_eq!(refused.code(), Some(1));
    let log = cluster.seats[lost].process()?.log_text();
    assert!(log.contains("has already been bootstrapped"), "{log}");
    // So it is removed, and another one takes its place.
    let members = cluster.seats[asked].members()?;
    let name = cluster.seats[lost].name.clone();
    let member = members.iter().find(|member| member.name == name).unwrap();
    let left = wait_until("the removal", DEADLINE, || {
        cluster.seats[asked].remove_member(member.id).ok()
    })?;
    assert_eq!(left.len(), 2);
    let new = cluster.grow(asked)?;
    wait_until("the new member to be healthy", DEADLINE, || {
        cluster.seats[new].is_healthy().then_some(())
    })?;
    load.wait_for_more()?;
    let acknowledged = load.end();
    let present: Vec<&Seat> = cluster
        .seats
        .iter()
        .filter(|seat| seat.name != name)
        .collect();
    check_members(&present, &acknowledged)?;
    let listed = cluster.seats[new].members()?;
    assert_eq!(listed.len(), 3);
    assert!(
        listed
            .iter()
            .all(|member| !member.is_learner && !member.name.is_empty())
    );
    Ok(())
}

#[test]
fn two_of_three_serve_on_etcds_usual_endpoints() -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let mut cluster = Cluster::start(work.path(), 3)?;
    for dead in 0..3 {
        cluster.seats[dead].process()?.kill9()?;
        let endpoints: Vec<String> = cluster
            .seats
            .iter()
            .map(|seat| format!("127.0.0.1:{}", seat.client_port))
            .collect();
        let key = format!("key{dead}");
        let mut put = std::process::Command::new("etcdctl");
        put.env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .args(["put", &key, "value"]);
        let put = e2e::tools::run(&mut put, "")?.ok()?;
        assert_eq!(put, "OK\n");
        for n in (0..3).filter(|n| *n != dead) {
            let found = cluster.seats[n].store()?.get(&key)?;
            assert_eq!(
                found.map(|pair| pair.value.to_vec()),
                Some(b"value".to_vec())
            );
        }
        cluster.seats[dead].start()?;
        cluster.wait_healthy()?;
    }
    Ok(())
}
