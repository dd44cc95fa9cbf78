//! Publishing a change of objects: one transaction that compares everything it rests on.
//!
//! ```text
//! compare  the head, every object changed, and that no object at all is newer than what was read
//! put      the objects, the release, the progress of each rollout, the audit record, the head
//!          the plans (before it, when they do not fit into it)
//! ```
//!
//! From then on the hosts' keys follow, wave by wave (`driver`). A publish that loses reads again
//! and decides again; nothing of it is in the store before the transaction, except plans that no
//! rollout names.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use config_center_core::fleet::{
    audit::ObjectChange,
    change::{Change, ObjectDiff, change},
    inventory::{Inventory, Loaded},
    render::render,
    rollout::{Plan, Progress},
    sha256_hex,
};
use schemas::{
    etcdserverpb::{Compare, RequestOp},
    objects::{Kind, Name, Object, ObjectId, PolicySpec},
};
use schemas_client::Client;

use super::{
    audit::{self, Author, now_ms},
    driver::load_plan,
    error::FleetError,
    keys::Namespace,
    records::{RECORD_FORMAT, Release, ReleasedObject, StoredPlan, StoredRollout, encode},
    releases::published_before,
    rollouts::running_rollouts,
    snapshot::{self, Snapshot},
    txn::{self, MAX_TXN_BYTES, MAX_TXN_OPS, Written, none_newer, put, unchanged},
};

/// Publishers who meet sort themselves out in a few rounds.
const ROUNDS: u32 = 16;
const PAUSE: Duration = Duration::from_millis(20);
/// Objects in one release: each is a compare and a put, and the transaction needs a few more.
const OBJECTS_PER_RELEASE: usize = 100;
/// What the objects of one release may hold together; plans come beside it.
const RELEASE_BYTES: usize = 600_000;
/// Releases that are kept, with their rollouts; the audit is kept whole.
const RELEASES_KEPT: u64 = 500;
/// A plan is cut into values of this size.
const PLAN_PIECE_BYTES: usize = 512 * 1_024;

/// What is to become of the objects.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub put: Vec<Loaded>,
    pub delete: Vec<ObjectId>,
    /// Delete every object that is not in `put`.
    pub prune: bool,
    pub allow_emptying: bool,
    /// Objects that must still have these revisions; 0 means that there must be none.
    pub expected: Vec<(ObjectId, i64)>,
    /// Instead of the groups' policies.
    pub policy: Option<PolicySpec>,
    /// The release that this one puts back; its rollouts end as rolled back.
    pub puts_back: Option<u64>,
    /// The key and revision of the draft that this publishes and removes.
    pub ends_draft: Option<(String, i64)>,
}

/// What a wish would change.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub after: Inventory,
    pub change: Change,
}

#[derive(Debug, Clone)]
pub struct Published {
    pub change: Change,
    /// Absent: everything is as wished, and nothing was written.
    pub release: Option<Release>,
    pub rollouts: Vec<String>,
    pub revision: i64,
}

/// Decides what a wish means for what was read.
pub fn prepare(snapshot: &Snapshot, wish: &Wish) -> Result<Prepared, FleetError> {
    for (id, expected) in &wish.expected {
        let loaded = snapshot.inventory.get(id);
        let revision = loaded.and_then(Loaded::store_revision).unwrap_or(0);
        if revision != *expected {
            return Err(FleetError::Precondition(match revision {
                0 => format!("{id} is not there any more"),
                revision => format!("{id} has revision {revision}, and {expected} was expected"),
            }));
        }
    }
    let mut delete = wish.delete.clone();
    let wished: BTreeSet<ObjectId> = wish.put.iter().map(|loaded| loaded.object.id()).collect();
    if wish.prune {
        let there = snapshot.inventory.objects().map(|(id, _)| id);
        let there = there.chain(
            snapshot
                .broken
                .iter()
                .filter_map(|broken| broken.id.as_ref()),
        );
        delete.extend(there.filter(|id| !wished.contains(id)).cloned());
    }
    // A key that cannot be read could say anything about any host.
    let left = snapshot.broken.iter().filter(|broken| {
        broken
            .id
            .as_ref()
            .is_none_or(|id| !wished.contains(id) && !delete.contains(id))
    });
    let left: Vec<_> = left.map(|broken| broken.problem.clone()).collect();
    if !left.is_empty() {
        return Err(FleetError::Objects(left));
    }
    // An object that is there as wished keeps its revision.
    let is_new = |loaded: &&Loaded| {
        snapshot
            .inventory
            .get(&loaded.object.id())
            .is_none_or(|there| there.object != loaded.object)
    };
    let put: Vec<Loaded> = wish.put.iter().filter(is_new).cloned().collect();
    let all_given = snapshot
        .inventory
        .changed(wish.put.iter().cloned(), &delete);
    all_given.map_err(FleetError::Objects)?;
    let after = snapshot
        .inventory
        .changed(put, &delete)
        .map_err(FleetError::Objects)?;
    let change = change(&snapshot.inventory, &after).map_err(FleetError::Rendering)?;
    Ok(Prepared { after, change })
}

/// Publishes. The same wish again writes nothing.
///
/// More objects than a transaction holds become several releases, in an order in which each is
/// right by itself: what is named comes before what names it, and what is particular to a host
/// comes before what all hosts of a group get.
pub async fn publish(
    client: &Client,
    ns: &Namespace,
    wish: &Wish,
    author: &Author,
) -> Result<Published, FleetError> {
    let snapshot = snapshot::read(client, ns).await?;
    if let Some(published) = published_before(client, ns, &snapshot, author).await? {
        return Ok(published);
    }
    let Prepared { change, .. } = prepare(&snapshot, wish)?;
    let mut objects: Vec<&ObjectDiff> = change.objects.iter().collect();
    objects.sort_by_key(|diff| (diff.after.is_none(), order_in_parts(diff)));
    let parts = parts(&objects);
    if parts.len() <= 1 {
        return publish_together(client, ns, wish, author).await;
    }
    if !wish.allow_emptying {
        change.guard()?;
    }
    let mut published: Option<Published> = None;
    let mut releases = Vec::new();
    let last_part = parts.len() - 1;
    for (index, part) in parts.into_iter().enumerate() {
        let is_put = |id: &ObjectId| {
            part.iter()
                .any(|diff| diff.id == *id && diff.after.is_some())
        };
        let deleted = part.iter().filter(|diff| diff.after.is_none());
        let wished = wish.put.iter().filter(|loaded| is_put(&loaded.object.id()));
        let one = Wish {
            put: wished.cloned().collect(),
            delete: deleted.map(|diff| diff.id.clone()).collect(),
            prune: false,
            allow_emptying: true,
            expected: Vec::new(),
            policy: wish.policy.clone(),
            puts_back: wish.puts_back,
            ends_draft: wish.ends_draft.clone().filter(|_| index == last_part),
        };
        let done = publish_together(client, ns, &one, author).await?;
        releases.extend(done.release.as_ref().map(|release| release.number));
        published = Some(done);
    }
    // A later part took over from the earlier ones where they meet.
    let running = running_rollouts(client, ns).await?;
    let is_of_this = |rollout: &StoredRollout| releases.contains(&rollout.release);
    let rollouts = running
        .into_iter()
        .map(|(rollout, _)| rollout)
        .filter(is_of_this);
    let rollouts = rollouts.map(|rollout| rollout.id).collect();
    let last = published.ok_or(FleetError::RaceLost { rounds: 1 })?;
    Ok(Published {
        change,
        rollouts,
        ..last
    })
}

/// Cuts changes into what one transaction holds, by number and by size.
fn parts<'a, 'b>(objects: &'a [&'b ObjectDiff]) -> Vec<&'a [&'b ObjectDiff]> {
    let bytes =
        |object: &Option<Object>| object.as_ref().map_or(0, |object| object.to_json().len());
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut part_bytes = 0;
    for (index, diff) in objects.iter().enumerate() {
        // Once for the object's key, and before and after in the release.
        let more_bytes = bytes(&diff.before) + 2 * bytes(&diff.after);
        let is_full =
            index - begin == OBJECTS_PER_RELEASE || part_bytes + more_bytes > RELEASE_BYTES;
        if is_full && index > begin {
            parts.push(&objects[begin..index]);
            begin = index;
            part_bytes = 0;
        }
        part_bytes += more_bytes;
    }
    if begin < objects.len() {
        parts.push(&objects[begin..]);
    }
    parts
}

fn order_in_parts(diff: &ObjectDiff) -> u8 {
    let comes = match diff.id.kind {
        Kind::RolloutPolicy => 0,
        Kind::LogSet => 1,
        Kind::Host => 2,
        Kind::Group => 3,
    };
    if diff.after.is_some() {
        comes
    } else {
        3 - comes
    }
}

async fn publish_together(
    client: &Client,
    ns: &Namespace,
    wish: &Wish,
    author: &Author,
) -> Result<Published, FleetError> {
    for _ in 0..ROUNDS {
        let snapshot = snapshot::read(client, ns).await?;
        let prepared = prepare(&snapshot, wish)?;
        let broken_replaced = snapshot.broken.iter().any(|broken| broken.id.is_some());
        if prepared.change.is_empty() && !broken_replaced {
            return Ok(Published {
                change: prepared.change,
                release: None,
                rollouts: Vec::new(),
                revision: snapshot.revision,
            });
        }
        if !wish.allow_emptying {
            prepared.change.guard()?;
        }
        if let Some(draft) = Draft::new(client, ns, snapshot, prepared, wish, author).await?
            && let Some(published) = draft.commit(client, ns).await?
        {
            return Ok(published);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(FleetError::RaceLost { rounds: ROUNDS })
}

/// A release that is ready to be written.
struct Draft {
    snapshot: Snapshot,
    change: Change,
    release: Release,
    plans: Vec<(StoredRollout, Vec<Vec<u8>>)>,
    /// Rollouts that end because this release takes over: how they will look, and what they rest on.
    ended: Vec<(StoredRollout, i64)>,
    /// The release that grows too old with this one; absent while a rollout of it is under way.
    forgotten: Option<u64>,
    ends_draft: Option<(String, i64)>,
    author: Author,
}

impl Draft {
    /// `None` when somebody else published after the snapshot was read.
    async fn new(
        client: &Client,
        ns: &Namespace,
        snapshot: Snapshot,
        prepared: Prepared,
        wish: &Wish,
        author: &Author,
    ) -> Result<Option<Self>, FleetError> {
        let Prepared { after, change } = prepared;
        let number = snapshot.head.release + 1;
        let now_ms = now_ms();
        let mut documents: BTreeMap<Name, Option<String>> = change
            .hosts
            .iter()
            .map(|(host, affected)| (host.clone(), affected.after.clone()))
            .collect();
        let mut ended = Vec::new();
        let running = running_rollouts(client, ns).await?;
        // Their release has the number that this one would get, and their rollouts have its names.
        if running.iter().any(|(rollout, _)| rollout.release >= number) {
            return Ok(None);
        }
        let is_over = |old: &u64| running.iter().all(|(rollout, _)| rollout.release != *old);
        let forgotten = number
            .checked_sub(RELEASES_KEPT)
            .filter(|old| *old > 0)
            .filter(is_over);
        let rendered = render(&after).map_err(FleetError::Rendering)?;
        for (rollout, mod_revision) in running {
            let plan = load_plan(client, ns, &rollout).await?;
            let touches = |host: &String| {
                Name::new(host.as_str()).is_ok_and(|name| change.hosts.contains_key(&name))
            };
            let puts_it_back = wish.puts_back == Some(rollout.release);
            if !puts_it_back && !plan.plan.hosts.iter().any(touches) {
                continue;
            }
            // What it did not reach yet, this release reaches.
            for host in unreached(&plan, &rollout.progress) {
                if let Ok(name) = Name::new(host) {
                    let document = rendered
                        .hosts
                        .get(&name)
                        .map(|effective| effective.document());
                    documents.insert(name, document);
                }
            }
            let progress = if puts_it_back {
                rollout.progress.rolled_back(number, now_ms)?
            } else {
                rollout.progress.supersede(number, now_ms)?
            };
            ended.push((
                StoredRollout {
                    progress,
                    ..rollout
                },
                mod_revision,
            ));
        }
        let mut by_policy: BTreeMap<Option<Name>, BTreeMap<String, Option<String>>> =
            BTreeMap::new();
        for (host, document) in documents {
            let named = match rendered.hosts.get(&host) {
                _ if wish.policy.is_some() => None,
                Some(effective) => effective.policy.clone(),
                // The host is leaving: by the policy under which it was.
                None => change
                    .hosts
                    .get(&host)
                    .and_then(|affected| affected.policy.clone()),
            };
            let policy = named.filter(|name| after.policy(name).is_some());
            by_policy
                .entry(policy)
                .or_default()
                .insert(host.to_string(), document);
        }
        let plans: Vec<_> = by_policy
            .into_iter()
            .map(|(policy_name, documents)| {
                let spec = wish
                    .policy
                    .clone()
                    .or_else(|| Some(after.policy(policy_name.as_ref()?)?.spec.clone()));
                rollout(
                    number,
                    policy_name,
                    spec.unwrap_or_default(),
                    &documents,
                    now_ms,
                )
            })
            .collect();
        let release = Release {
            format: RECORD_FORMAT,
            number,
            at_ms: now_ms,
            author: author.name.clone(),
            source: author.source.clone(),
            reason: author.reason.clone(),
            request_id: author.request_id.clone(),
            summary: change.radius().to_string(),
            changes: change.objects.iter().map(ReleasedObject::new).collect(),
            hosts: change.hosts.keys().map(Name::to_string).collect(),
            rollouts: plans
                .iter()
                .map(|(rollout, _)| rollout.id.clone())
                .collect(),
            puts_back: wish.puts_back,
        };
        Ok(Some(Self {
            snapshot,
            change,
            release,
            plans,
            ended,
            forgotten,
            ends_draft: wish.ends_draft.clone(),
            author: author.clone(),
        }))
    }

    /// Writes it; `None` when somebody else was faster.
    async fn commit(
        self,
        client: &Client,
        ns: &Namespace,
    ) -> Result<Option<Published>, FleetError> {
        let mut compare: Vec<Compare> = Kind::ALL
            .iter()
            .map(|kind| none_newer(&ns.objects(*kind), self.snapshot.revision))
            .collect();
        let mut puts: Vec<RequestOp> = Vec::new();
        for diff in &self.change.objects {
            let key = ns.object(&diff.id);
            let there = self.snapshot.inventory.get(&diff.id);
            let revision = there.and_then(Loaded::store_revision).unwrap_or(0);
            let was_broken = self
                .snapshot
                .broken
                .iter()
                .any(|broken| broken.id.as_ref() == Some(&diff.id));
            if !was_broken {
                compare.push(unchanged(key.clone(), revision));
            }
            puts.push(match &diff.after {
                Some(object) => put(key, object.to_json()),
                None => txn::delete(key),
            });
        }
        // What could not be read and is not written anew was asked to be deleted.
        let is_written = |id: &ObjectId| self.change.objects.iter().any(|diff| diff.id == *id);
        let unreadable = self
            .snapshot
            .broken
            .iter()
            .filter_map(|broken| broken.id.as_ref());
        puts.extend(
            unreadable
                .filter(|id| !is_written(id))
                .map(|id| txn::delete(ns.object(id))),
        );
        for (rollout, mod_revision) in &self.ended {
            compare.push(unchanged(ns.rollout(&rollout.id), *mod_revision));
            puts.push(put(ns.rollout(&rollout.id), encode(rollout)));
        }
        if let Some((draft, mod_revision)) = self.ends_draft {
            compare.push(unchanged(draft.clone(), mod_revision));
            puts.push(txn::delete(draft));
        }
        if let Some(old) = self.forgotten {
            let begins = rollout_id(old, None);
            puts.push(txn::delete(ns.release(old)));
            puts.push(txn::delete_prefix(&ns.rollout(&begins)));
            puts.push(txn::delete_prefix(&ns.plans_of(&begins)));
        }
        puts.push(put(ns.release(self.release.number), encode(&self.release)));
        let mut event = self.author.event(
            if self.release.puts_back.is_some() {
                "rollback"
            } else {
                "publish"
            },
            &format!("release {}", self.release.number),
            &self.release.summary,
        );
        event.changes = self.change.objects.iter().map(object_change).collect();
        let (head, appended) = audit::append(
            ns,
            &self.snapshot.head,
            self.snapshot.head_revision,
            event,
            self.release.number,
        );
        compare.push(head);
        puts.extend(appended);
        let plan_bytes: usize = self
            .plans
            .iter()
            .flat_map(|(_, pieces)| pieces)
            .map(Vec::len)
            .sum();
        let written_bytes: usize = puts.iter().map(prost::Message::encoded_len).sum();
        let pieces: usize = self.plans.iter().map(|(_, pieces)| pieces.len()).sum();
        let together = plan_bytes + written_bytes < MAX_TXN_BYTES
            && puts.len() + pieces + self.plans.len() <= MAX_TXN_OPS;
        for (rollout, pieces) in &self.plans {
            compare.push(unchanged(ns.rollout(&rollout.id), 0));
            puts.push(put(ns.rollout(&rollout.id), encode(rollout)));
            for (index, piece) in pieces.iter().enumerate() {
                let operation = put(
                    ns.plan_piece(&rollout.id, &rollout.plan_sha256, index),
                    piece.clone(),
                );
                if together {
                    puts.push(operation);
                } else {
                    // No rollout names it yet, and none will if this release is overtaken.
                    let guard = vec![unchanged(ns.rollout(&rollout.id), 0)];
                    if txn::write(client, guard, vec![operation]).await? == Written::Lost {
                        return Ok(None);
                    }
                }
            }
        }
        if puts.len() > MAX_TXN_OPS || compare.len() > MAX_TXN_OPS {
            return Err(FleetError::Invalid(format!(
                "{} objects change at once, and a transaction of the store holds {MAX_TXN_OPS} \
                 operations: apply them in several parts",
                self.change.objects.len()
            )));
        }
        match txn::write(client, compare, puts).await? {
            Written::Lost => Ok(None),
            Written::At { revision } => Ok(Some(Published {
                rollouts: self.release.rollouts.clone(),
                change: self.change,
                release: Some(self.release),
                revision,
            })),
        }
    }
}

fn object_change(diff: &ObjectDiff) -> ObjectChange {
    let hash = |object: &Option<Object>| {
        object
            .as_ref()
            .map(|object| sha256_hex(object.to_json().as_bytes()))
    };
    ObjectChange {
        object: diff.id.to_string(),
        before: hash(&diff.before),
        after: hash(&diff.after),
    }
}

fn rollout(
    release: u64,
    policy_name: Option<Name>,
    policy: PolicySpec,
    documents: &BTreeMap<String, Option<String>>,
    now_ms: u64,
) -> (StoredRollout, Vec<Vec<u8>>) {
    let plan = Plan::new(policy, documents.keys().cloned());
    let id = rollout_id(release, policy_name.as_ref());
    let stored = StoredPlan::new(release, policy_name.clone(), plan, documents);
    let bytes = encode(&stored);
    let pieces: Vec<Vec<u8>> = bytes.chunks(PLAN_PIECE_BYTES).map(<[u8]>::to_vec).collect();
    let rollout = StoredRollout {
        id,
        release,
        policy_name,
        hosts: stored.plan.hosts.len(),
        waves: stored.plan.waves(),
        plan_pieces: pieces.len(),
        plan_sha256: sha256_hex(&bytes),
        progress: Progress::new(now_ms),
    };
    (rollout, pieces)
}

/// The ids of one release's rollouts begin with the release alone.
fn rollout_id(release: u64, policy_name: Option<&Name>) -> String {
    match policy_name {
        Some(name) => format!("{release:010}-{name}"),
        None => format!("{release:010}"),
    }
}

/// Hosts of a rollout whose keys it has not written.
fn unreached<'a>(plan: &'a StoredPlan, progress: &'a Progress) -> impl Iterator<Item = &'a str> {
    let hosts = &plan.plan.hosts;
    let written = hosts[..progress.published.min(hosts.len())].iter();
    let left_out = |host: &&String| {
        progress.skipped.contains_key(host.as_str()) || progress.again.contains(host.as_str())
    };
    let rest = hosts[progress.published.min(hosts.len())..].iter();
    written.filter(left_out).chain(rest).map(String::as_str)
}
