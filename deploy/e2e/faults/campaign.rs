//! One campaign from its start to its verdict.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::store::runtime;
use e2e::{DEADLINE, wait_until};
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::calls;
use crate::check;
use crate::clients::{LEASED, PATIENCE, Shared};
use crate::dice::Dice;
use crate::faults::{self, ALL, Fault};
use crate::history::{Event, History};
use crate::holders;
use crate::members::{Members, client_url};
use crate::report::{Played, Report};
use crate::watchers;
use crate::workers;

/// Clients that read and write, clients that hold leases, and watchers per member.
const WORKERS: usize = 10;
const HOLDERS: usize = 4;
const WATCHERS_PER_MEMBER: usize = 2;
/// Between two faults the cluster is left alone for so long.
const CALM_MS: (u64, u64) = (300, 2_500);
/// Requests that have to be answered between two faults.
const ANSWERS_BETWEEN: usize = 20;
/// How much later than its time a lease may end: an election, on a machine that does other things.
const LEASE_GRACE_NS: u64 = 6_000_000_000;
/// Keys that the campaign itself writes in the end.
const LAST: &str = "last/";

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    pub(crate) time: Duration,
    /// Only these, in turn, when it is not empty.
    pub(crate) only: Vec<Fault>,
}

/// Runs the plan. An error means that the campaign itself could not go on.
pub(crate) fn run(plan: &Plan, folder: &Path) -> anyhow::Result<Report> {
    let mut members = Members::start(folder, plan.members)?;
    wait_until("the members to agree", DEADLINE, || {
        members.agree().then_some(())
    })?;
    let shared = Shared::new(plan.seed, &members);
    let clients = start_clients(&shared);
    let mut report = Report::new(plan);
    let mut dice = Dice::new(plan.seed, u64::MAX);
    let mut disturbances = Vec::new();
    let began = Instant::now();
    let mut deck: Vec<Fault> = Vec::new();
    while began.elapsed() < plan.time && report.violations.is_empty() {
        let Some(fault) = deck.pop() else {
            deck = if plan.only.is_empty() {
                ALL.to_vec()
            } else {
                plan.only.clone()
            };
            dice.shuffle(&mut deck);
            continue;
        };
        let from_ns = shared.now_ns();
        let at_s = began.elapsed().as_secs_f64();
        let outcome = play(fault, &mut members, &mut dice, &shared, &mut report)?;
        println!("{at_s:7.1} s  {fault:?}: {outcome}");
        disturbances.push((from_ns, shared.now_ns()));
        std::thread::sleep(Duration::from_millis(dice.between(CALM_MS.0, CALM_MS.1)));
    }
    shared.stop();
    for client in clients {
        runtime().block_on(client)?;
    }
    judge(&members, &shared, &disturbances, &mut report)?;
    Ok(report)
}

fn start_clients(shared: &std::sync::Arc<Shared>) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::new();
    for number in 0..WORKERS {
        clients.push(runtime().spawn(workers::work(shared.clone(), number)));
    }
    for number in 0..HOLDERS {
        clients.push(runtime().spawn(holders::hold(shared.clone(), number)));
    }
    for number in 0..WATCHERS_PER_MEMBER * shared.members() {
        clients.push(runtime().spawn(watchers::follow(shared.clone(), number)));
    }
    clients
}

/// One fault and the recovery from it.
fn play(
    fault: Fault,
    members: &mut Members,
    dice: &mut Dice,
    shared: &Shared,
    report: &mut Report,
) -> anyhow::Result<String> {
    let began = Instant::now();
    let outcome = faults::play(fault, members, dice)?;
    let healed = Instant::now();
    for ended in faults::take_back(members)? {
        if !fault.may_end_a_process() {
            report.violations.push(format!("under {fault:?} {ended}"));
        }
    }
    let agreed = wait_until("the members to agree", DEADLINE, || {
        members.agree().then_some(())
    });
    let before = shared.answered();
    let served = agreed.and_then(|()| {
        wait_until("requests to be answered", DEADLINE, || {
            (shared.answered() >= before + ANSWERS_BETWEEN).then_some(())
        })
    });
    if let Err(error) = served {
        report
            .violations
            .push(format!("after {fault:?}, {outcome}: {error}"));
    }
    report.played.push(Played {
        fault,
        outcome: outcome.clone(),
        lasted: healed - began,
        recovered: healed.elapsed(),
    });
    Ok(outcome)
}

/// The phase after the faults, in which everything has to be well, and the checks.
fn judge(
    members: &Members,
    shared: &Shared,
    disturbances: &[(u64, u64)],
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut requests, leased, watched) = shared.take();
    requests.sort_by_key(|request| request.called_ns);
    for at in 0..members.seats.len() {
        let done = wait_until("a last put through each member", DEADLINE, || {
            runtime().block_on(last_put(at)).ok()
        });
        if let Err(error) = done {
            report
                .violations
                .push(format!("{}: {error}", members.seats[at].name));
        }
    }
    let gone = wait_until("the last leases to end", DEADLINE, || {
        let left = runtime().block_on(count(0, LEASED, false)).ok()?;
        (left.0 == 0).then_some(left.1)
    });
    let until = match gone {
        Ok(revision) => revision,
        Err(error) => {
            report.violations.push(error.to_string());
            return Ok(());
        }
    };
    let mut histories: Vec<Vec<Event>> = Vec::new();
    let mut digests = Vec::new();
    for seat in &members.seats {
        wait_until("every member to have everything", DEADLINE, || {
            let (_, revision) = runtime().block_on(count(seat.at, LEASED, true)).ok()?;
            (revision >= until).then_some(())
        })?;
        let channel = calls::channel(&client_url(seat.at));
        let history = runtime().block_on(watchers::history(channel, until));
        histories.push(
            history.map_err(|status| anyhow::anyhow!("the history of {}: {status}", seat.name))?,
        );
        digests.push(calls::hash_kv(&seat.client_url(), until));
    }
    report.digests.clone_from(&digests);
    if digests[0].is_none() || digests.iter().any(|digest| *digest != digests[0]) {
        report
            .violations
            .push(format!("HashKV at {until} differs: {digests:?}"));
    }
    for (seat, history) in members.seats.iter().zip(&histories) {
        if *history != histories[0] {
            report
                .violations
                .push(format!("the history of {} differs", seat.name));
        }
    }
    let mut events = histories.swap_remove(0);
    events.retain(|event| !event.key.starts_with(LAST));
    let mut watched_ones = watched;
    for watched in &mut watched_ones {
        for batch in &mut watched.batches {
            batch.events.retain(|event| !event.key.starts_with(LAST));
        }
    }
    let history = History::new(events);
    report.revision = until;
    report.count(&requests, &leased, &watched_ones);
    report
        .violations
        .extend(check::writes::check(&requests, &history, LEASED));
    report.violations.extend(check::order::check(&requests));
    report
        .violations
        .extend(check::linear::check(&requests, &history));
    report
        .violations
        .extend(check::peeks::check(&requests, &history));
    report
        .violations
        .extend(check::watches::check(&watched_ones, &history));
    report.violations.extend(check::leases::check(
        &leased,
        &watched_ones,
        &history,
        disturbances,
        LEASE_GRACE_NS,
    ));
    Ok(())
}

async fn last_put(at: usize) -> Result<(), Status> {
    let mut client = KvClient::new(calls::channel(&client_url(at)));
    let request = PutRequest {
        key: format!("{LAST}{at}").into(),
        value: "done".into(),
        ..Default::default()
    };
    let answer = tokio::time::timeout(PATIENCE, client.put(request)).await;
    answer
        .map_err(|_| Status::deadline_exceeded("a put"))?
        .map(drop)
}

/// How many keys there are below a prefix, and the revision as of which.
async fn count(at: usize, prefix: &str, serializable: bool) -> Result<(i64, i64), Status> {
    let mut client = KvClient::new(calls::channel(&client_url(at)));
    let mut end = prefix.to_owned().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let request = RangeRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: end.into(),
        count_only: true,
        serializable,
        ..Default::default()
    };
    let answer = tokio::time::timeout(PATIENCE, client.range(request)).await;
    let answer = answer
        .map_err(|_| Status::deadline_exceeded("a range"))??
        .into_inner();
    Ok((
        answer.count,
        answer.header.map_or(0, |header| header.revision),
    ))
}
