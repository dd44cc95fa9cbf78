//! Carrying rollouts out: one transaction per step, whoever takes it.
//!
//! A step compares the rollout's progress, each host's key, and what was last published to each
//! host, and writes all of them together. Whoever dies leaves a rollout between two steps, never
//! within one; whoever comes next computes the same step from what the store holds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use config_center_core::fleet::{
    document::Document,
    rollout::{Condition, Phase, Progress, step},
    sha256_hex,
    three_way::merge,
};
use schemas::etcdserverpb::{Compare, PutRequest, RequestOp, request_op::Request};
use schemas_client::{Client, ClientError, WatchStream};
use tokio::time::{Instant, timeout_at};

use super::{
    audit::{self, Author, now_ms},
    error::FleetError,
    keys::Namespace,
    records::{PublishedRecord, RECORD_FORMAT, StoredPlan, StoredRollout, decode, encode},
    releases, rollouts,
    snapshot::head_of,
    txn::{self, MAX_TXN_BYTES, Wanted, Written, put, read_together, unchanged},
    view::View,
};

/// Two compares and two puts per host, and a few for the rollout and the audit: below 128.
const HOSTS_PER_STEP: usize = 60;
/// Without news, a driver looks again after this time: clocks decide about bake and deadline.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// A look at a large fleet takes its time, and a large fleet sends many news: they are taken in
/// together, so that looking takes no more than one part in so many.
const LOOK_SHARE: u32 = 5;
/// Steps in a row that lost their comparison before the view is read anew.
const LOSSES_BEFORE_RELOAD: u32 = 3;

/// What a host's key is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Everything is as it should be.
    Nothing,
    Write {
        value: Option<String>,
        kept: Vec<String>,
    },
    Blocked(String),
}

/// A driver of all rollouts of one fleet.
pub struct Driver {
    client: Client,
    ns: Namespace,
    view: View,
    watch: Option<WatchStream>,
    losses: u32,
    /// Rollouts that cannot be carried out, at this revision of their keys.
    faulty: HashMap<String, i64>,
    /// When time alone makes the next step possible.
    wake_at_ms: Option<u64>,
    /// When the last look ended that found nothing to do, and how long it took.
    looked: (Instant, Duration),
}

/// What happened while driving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A step was written.
    Stepped {
        id: String,
    },
    /// A rollout cannot be carried out; the others go on, and this one when its key changes.
    Faulty {
        id: String,
        reason: String,
    },
    /// Nothing to do before something changes or time passes.
    Idle,
    StoreGone {
        reason: String,
    },
}

impl Driver {
    pub async fn new(client: Client, ns: Namespace) -> Result<Self, FleetError> {
        let view = View::load(&client, &ns).await?;
        Ok(Self {
            client,
            ns,
            view,
            watch: None,
            losses: 0,
            faulty: HashMap::new(),
            wake_at_ms: None,
            looked: (Instant::now(), Duration::ZERO),
        })
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes one step of one rollout if there is one to take.
    pub async fn step(&mut self) -> Result<News, FleetError> {
        let running: Vec<String> = self
            .view
            .rollouts
            .iter()
            .filter(|(_, (rollout, _))| {
                matches!(rollout.progress.phase, Phase::Running | Phase::RollingBack)
            })
            .map(|(id, _)| id.clone())
            .collect();
        self.wake_at_ms = None;
        let began = Instant::now();
        for id in running {
            let revision = self
                .view
                .rollouts
                .get(&id)
                .map_or(0, |(_, revision)| *revision);
            if self.faulty.get(&id) == Some(&revision) {
                continue;
            }
            match self.step_one(&id).await {
                Ok(true) => return Ok(News::Stepped { id }),
                Ok(false) => {}
                Err(FleetError::Client(error)) => return Err(error.into()),
                Err(error) => {
                    self.faulty.insert(id.clone(), revision);
                    let reason = error.to_string();
                    return Ok(News::Faulty { id, reason });
                }
            }
        }
        self.looked = (Instant::now(), began.elapsed());
        Ok(News::Idle)
    }

    /// Waits for news from the store, or until time alone may have made a step possible.
    pub async fn wait(&mut self, until: Instant) -> Result<News, FleetError> {
        let heard = match timeout_at(until, self.listen()).await {
            Ok(Ok(())) => Ok(self.gather().await),
            other => other,
        };
        match heard {
            Err(_) | Ok(Ok(())) => Ok(News::Idle),
            Ok(Err(FleetError::Client(error))) if is_passing(&error) => {
                self.watch = None;
                tokio::time::sleep(RECONNECT_PAUSE).await;
                // Loading anew is right after a broken stream as after a compaction.
                match self.reload().await {
                    Ok(()) => Ok(News::StoreGone {
                        reason: error.to_string(),
                    }),
                    Err(FleetError::Client(again)) if is_passing(&again) => Ok(News::StoreGone {
                        reason: again.to_string(),
                    }),
                    Err(other) => Err(other),
                }
            }
            Ok(Err(other)) => Err(other),
        }
    }

    /// Takes in what else arrives until it is time to look again.
    async fn gather(&mut self) -> Result<(), FleetError> {
        let (ended, took) = self.looked;
        let until = ended + took * (LOOK_SHARE - 1);
        while Instant::now() < until {
            match timeout_at(until, self.listen()).await {
                Ok(heard) => heard?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn listen(&mut self) -> Result<(), FleetError> {
        if self.watch.is_none() {
            self.watch = Some(self.view.watch(&self.client, &self.ns).await?);
        }
        if let Some(watch) = &mut self.watch {
            let response = watch.next().await?;
            self.view.absorb(&self.ns, response);
        }
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), FleetError> {
        let plans = std::mem::take(&mut self.view.plans);
        let twins = std::mem::take(&mut self.view.twins);
        self.view = View::load(&self.client, &self.ns).await?;
        self.view.twins = twins;
        self.view.plans = plans;
        self.watch = None;
        Ok(())
    }

    /// Until when to wait for news after a step that did nothing.
    pub fn next_look(&self) -> Instant {
        let in_ms = self.wake_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms()));
        let sleep = in_ms.map_or(LONGEST_SLEEP, |ms| {
            LONGEST_SLEEP.min(Duration::from_millis(ms))
        });
        Instant::now() + sleep
    }

    async fn plan(&mut self, rollout: &StoredRollout) -> Result<Arc<StoredPlan>, FleetError> {
        if let Some(plan) = self.view.plans.get(&rollout.id) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(load_plan(&self.client, &self.ns, rollout).await?);
        self.view.plans.insert(rollout.id.clone(), plan.clone());
        Ok(plan)
    }

    async fn step_one(&mut self, id: &str) -> Result<bool, FleetError> {
        let Some((rollout, mod_revision)) = self.view.rollouts.get(id).cloned() else {
            return Ok(false);
        };
        if rollout.progress.phase == Phase::RollingBack {
            return self.put_back(&rollout).await;
        }
        let plan = self.plan(&rollout).await?;
        let observe = observer(&self.view, &plan, &rollout.progress);
        let step = step(
            &plan.plan,
            &rollout.progress,
            observe,
            now_ms(),
            hosts_per_step(&plan),
        );
        if step.progress == rollout.progress && step.publish.is_empty() {
            let times = [self.wake_at_ms, step.wake_at_ms];
            self.wake_at_ms = times.into_iter().flatten().min();
            return Ok(false);
        }
        let next = StoredRollout {
            progress: step.progress,
            ..rollout.clone()
        };
        let mut compare = vec![unchanged(self.ns.rollout(id), mod_revision)];
        let mut puts = vec![put(self.ns.rollout(id), encode(&next))];
        for index in step.publish {
            self.publish_host(&plan, &rollout, index, &mut compare, &mut puts);
        }
        if next.progress.phase != rollout.progress.phase {
            self.tell(&next, &mut compare, &mut puts).await?;
        }
        match txn::write(&self.client, compare, puts).await {
            Ok(Written::At { revision }) => {
                self.losses = 0;
                self.catch_up(revision).await?;
                Ok(true)
            }
            Ok(Written::Lost) => {
                self.lost().await?;
                Ok(true)
            }
            // Whether it was written shows when the store is read again.
            Err(error) if is_passing(&error) => {
                self.watch = None;
                tokio::time::sleep(RECONNECT_PAUSE).await;
                self.reload().await?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Another driver was faster, or a key was edited meanwhile: the news are on their way.
    async fn lost(&mut self) -> Result<(), FleetError> {
        self.losses += 1;
        if self.losses >= LOSSES_BEFORE_RELOAD {
            self.losses = 0;
            return self.reload().await;
        }
        let soon = Instant::now() + RECONNECT_PAUSE;
        self.wait(soon).await.map(drop)
    }

    /// Takes in what was just written, before another step is decided.
    async fn catch_up(&mut self, revision: i64) -> Result<(), FleetError> {
        let soon = Instant::now() + LONGEST_SLEEP;
        while self.view.revision < revision {
            if Instant::now() >= soon {
                return self.reload().await;
            }
            self.wait(soon).await?;
        }
        Ok(())
    }

    /// Adds what one host needs to the transaction.
    fn publish_host(
        &self,
        plan: &StoredPlan,
        rollout: &StoredRollout,
        index: usize,
        compare: &mut Vec<Compare>,
        puts: &mut Vec<RequestOp>,
    ) {
        let host = &plan.plan.hosts[index];
        let (config_key, record_key) = (self.ns.config(host), self.ns.published_to(host));
        let there = self.view.configs.get(host);
        let record_revision = self
            .view
            .published
            .get(host)
            .map_or(0, |(_, revision)| *revision);
        compare.push(unchanged(
            config_key.clone(),
            there.map_or(0, |key| key.mod_revision),
        ));
        compare.push(unchanged(record_key.clone(), record_revision));
        let Target::Write { value, kept } = target(&self.view, plan, index) else {
            return;
        };
        let record = PublishedRecord {
            format: RECORD_FORMAT,
            release: rollout.release,
            rollout: rollout.id.clone(),
            document: plan.document(index).map(str::to_owned),
            kept,
        };
        let is_same = there.map(|key| &key.value[..]) == value.as_deref().map(str::as_bytes);
        // A key that holds the document already keeps its revision: its agent has nothing to do.
        if !is_same {
            puts.push(match value {
                Some(text) => RequestOp {
                    request: Some(Request::RequestPut(PutRequest {
                        key: config_key.into(),
                        value: text.into(),
                        // A key that somebody bound to a lease stays bound to it.
                        lease: there.map_or(0, |key| key.lease),
                        ..Default::default()
                    })),
                },
                None => txn::delete(config_key),
            });
        }
        puts.push(put(record_key, encode(&record)));
    }

    /// Adds the audit record of a rollout that came to a halt or to its end.
    async fn tell(
        &self,
        next: &StoredRollout,
        compare: &mut Vec<Compare>,
        puts: &mut Vec<RequestOp>,
    ) -> Result<(), FleetError> {
        let head_kv = self.client.get(self.ns.head()).await?.kv;
        let head = head_of(head_kv.as_ref())?;
        let author = Author {
            name: "policy".into(),
            source: "rollout".into(),
            reason: next
                .progress
                .halt
                .as_ref()
                .map(|halt| halt.reason.clone())
                .unwrap_or_default(),
            ..Author::default()
        };
        let action = format!("rollout.{}", next.progress.phase.as_str().replace(' ', "-"));
        let event = author.event(
            &action,
            &format!("rollout {}", next.id),
            next.progress.phase.as_str(),
        );
        let revision = head_kv.map_or(0, |kv| kv.mod_revision);
        let (same_head, appended) = audit::append(&self.ns, &head, revision, event, head.release);
        compare.push(same_head);
        puts.extend(appended);
        Ok(())
    }

    async fn put_back(&mut self, rollout: &StoredRollout) -> Result<bool, FleetError> {
        let author = Author {
            name: "policy".into(),
            source: "rollout".into(),
            reason: rollout
                .progress
                .halt
                .as_ref()
                .map(|halt| halt.reason.clone())
                .unwrap_or_default(),
            ..Author::default()
        };
        match releases::put_back(&self.client, &self.ns, rollout.release, &author).await {
            Ok(published) if published.release.is_some() => {
                self.catch_up(published.revision).await?;
            }
            // What it changed is no more: there is nothing to put back, and somebody has to look.
            Ok(_) | Err(FleetError::Stale(_)) => {
                let pause = |progress: &Progress| {
                    // What was changed again may be what another driver has put back just now.
                    if progress.phase != Phase::RollingBack {
                        return Err(FleetError::Stale("it was put back meanwhile".into()));
                    }
                    let reason = "the release cannot be put back: its objects were changed again";
                    Ok(progress.abort("policy", reason, now_ms())?)
                };
                let told = rollouts::command(
                    &self.client,
                    &self.ns,
                    &rollout.id,
                    "rollout.abort",
                    &author,
                    pause,
                );
                match told.await {
                    Ok(_) | Err(FleetError::Stale(_)) => self.reload().await?,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

fn is_passing(error: &ClientError) -> bool {
    error.is_transient()
        || matches!(
            error,
            ClientError::WatchCanceled {
                compact_revision: 1..,
                ..
            }
        )
}

/// As many hosts as fit into a transaction by number and by size: each document is written to the
/// host's key and, escaped, to the record beside it.
fn hosts_per_step(plan: &StoredPlan) -> usize {
    let largest = plan.documents.iter().map(String::len).max().unwrap_or(0);
    let each_bytes = largest * 5 / 2 + 1_024;
    (MAX_TXN_BYTES / each_bytes).clamp(1, HOSTS_PER_STEP)
}

/// How each host of a rollout stands.
pub fn observer<'a>(
    view: &'a View,
    plan: &'a StoredPlan,
    progress: &'a Progress,
) -> impl Fn(&str) -> Condition + use<'a> {
    let places: HashMap<&str, usize> = plan
        .plan
        .hosts
        .iter()
        .enumerate()
        .map(|(index, host)| (host.as_str(), index))
        .collect();
    move |host| {
        let Some(index) = places.get(host).copied() else {
            return Condition::Pending;
        };
        if index < progress.published && !progress.again.contains(host) {
            return view.condition(host);
        }
        match target(view, plan, index) {
            Target::Blocked(reason) => Condition::Blocked(reason),
            Target::Nothing | Target::Write { .. } => Condition::Pending,
        }
    }
}

/// Decides what to write to a host's key, with regard to what somebody may have written there.
fn target(view: &View, plan: &StoredPlan, index: usize) -> Target {
    let host = &plan.plan.hosts[index];
    let there = view.configs.get(host);
    let record = view.published.get(host).map(|(record, _)| record);
    let wanted = plan.document(index);
    let base_text = record.and_then(|record| record.document.as_deref());
    let is_untouched = there.map(|key| &key.value[..]) == base_text.map(str::as_bytes);
    if is_untouched {
        return match (wanted == base_text, record) {
            (true, Some(record)) if record.release == plan.release => Target::Nothing,
            _ => Target::Write {
                value: wanted.map(str::to_owned),
                kept: Vec::new(),
            },
        };
    }
    let parse = |text: Option<&[u8]>| match text {
        Some(text) if !text.trim_ascii().is_empty() => Document::parse(text),
        _ => Ok(Document::default()),
    };
    let documents = (
        parse(base_text.map(str::as_bytes)),
        parse(there.map(|key| &key.value[..])),
        parse(wanted.map(str::as_bytes)),
    );
    let (base, current, desired) = match documents {
        (Ok(base), Ok(current), Ok(desired)) => (base, current, desired),
        (_, Err(error), _) => {
            return Target::Blocked(format!("the key was written by hand and {error}"));
        }
        _ => return Target::Blocked("what was published cannot be read".into()),
    };
    match merge(&base, &current, &desired) {
        Err(both) => Target::Blocked(both.to_string()),
        // Nothing is left to collect, by the fleet or by hand.
        Ok(merged) if wanted.is_none() && merged.kept.is_empty() => Target::Write {
            value: None,
            kept: Vec::new(),
        },
        Ok(merged) => Target::Write {
            value: Some(merged.text),
            kept: merged.kept,
        },
    }
}

/// Reads a rollout's plan and checks that it is whole.
pub async fn load_plan(
    client: &Client,
    ns: &Namespace,
    rollout: &StoredRollout,
) -> Result<StoredPlan, FleetError> {
    let prefix = ns.plan(&rollout.id, &rollout.plan_sha256);
    let (found, _) = read_together(client, &[Wanted::Prefix(&prefix)]).await?;
    let pieces = found.into_iter().flatten();
    let bytes: Vec<u8> = pieces.flat_map(|kv| kv.value).collect();
    if sha256_hex(&bytes) != rollout.plan_sha256 {
        return Err(FleetError::Corrupt {
            key: prefix,
            reason: "the pieces of the plan do not have the hash that the rollout names".into(),
        });
    }
    decode(prefix.as_bytes(), &bytes)
}
