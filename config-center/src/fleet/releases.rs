//! Releases that were made: reading them, and the way back to any of them.
//!
//! Going back is a publish like any other: it has an author, a reason and a release of its own.

use config_center_core::fleet::change::Change;
use schemas::{
    etcdserverpb::{
        RangeRequest,
        range_request::{SortOrder, SortTarget},
    },
    objects::{ObjectId, PolicySpec},
};
use schemas_client::{Client, prefix_end};

use super::{
    audit::Author,
    error::FleetError,
    keys::Namespace,
    publish::{Published, Wish, publish},
    records::{Release, decode},
    snapshot::{self, Snapshot},
    txn::{Wanted, read_together},
};

/// Releases among which a repeated request is looked for.
const REQUESTS_REMEMBERED: i64 = 20;

/// Puts a release back: each object that it changed becomes what it was before.
pub async fn put_back(
    client: &Client,
    ns: &Namespace,
    number: u64,
    author: &Author,
) -> Result<Published, FleetError> {
    let release = release(client, ns, number).await?;
    let snapshot = snapshot::read(client, ns).await?;
    // Asked again, the objects are what they were before, and that is no reason to refuse.
    if let Some(published) = published_before(client, ns, &snapshot, author).await? {
        return Ok(published);
    }
    let mut wish = Wish {
        allow_emptying: true,
        policy: Some(PolicySpec::default()),
        puts_back: Some(number),
        ..Default::default()
    };
    for changed in &release.changes {
        let there = snapshot
            .inventory
            .get(&changed.id)
            .map(|loaded| loaded.object.clone());
        let after = changed
            .after
            .as_ref()
            .map(|version| changed.load(version))
            .transpose()?;
        if there != after.map(|loaded| loaded.object) {
            return Err(FleetError::Stale(format!(
                "{} was changed again after release {number}: putting that release back would undo \
                 the later change too. Look at `configctl history {}` and restore a version of it",
                changed.id, changed.id
            )));
        }
        match &changed.before {
            Some(version) => wish.put.push(changed.load(version)?),
            None => wish.delete.push(changed.id.clone()),
        }
    }
    publish(client, ns, &wish, author).await
}

/// Publishes the version of an object that a release made; also one that was deleted since.
pub async fn restore(
    client: &Client,
    ns: &Namespace,
    id: &ObjectId,
    number: u64,
    author: &Author,
) -> Result<Published, FleetError> {
    let release = release(client, ns, number).await?;
    let changed = release
        .changes
        .iter()
        .find(|changed| changed.id == *id)
        .ok_or_else(|| {
            FleetError::NotFound(format!(
                "release {number} did not change {id}: see `configctl history {id}`"
            ))
        })?;
    let mut wish = Wish {
        allow_emptying: true,
        ..Default::default()
    };
    match &changed.after {
        Some(version) => wish.put.push(changed.load(version)?),
        None => wish.delete.push(id.clone()),
    }
    publish(client, ns, &wish, author).await
}

/// Publishes the last version of an object that was deleted.
pub async fn undelete(
    client: &Client,
    ns: &Namespace,
    id: &ObjectId,
    author: &Author,
) -> Result<Published, FleetError> {
    let snapshot = snapshot::read(client, ns).await?;
    if let Some(published) = published_before(client, ns, &snapshot, author).await? {
        return Ok(published);
    }
    if snapshot.inventory.get(id).is_some() {
        let message = format!("{id} is there: see `configctl history {id}` for its versions");
        return Err(FleetError::Invalid(message));
    }
    let deleted = releases(client, ns)
        .await?
        .into_iter()
        .flat_map(|release| release.changes)
        .find(|changed| changed.id == *id && changed.after.is_none());
    let never = || FleetError::NotFound(format!("no release that is kept has deleted {id}"));
    let changed = deleted.ok_or_else(never)?;
    let version = changed.before.as_ref().ok_or_else(never)?;
    let wish = Wish {
        put: vec![changed.load(version)?],
        expected: vec![(id.clone(), 0)],
        ..Default::default()
    };
    publish(client, ns, &wish, author).await
}

pub async fn release(client: &Client, ns: &Namespace, number: u64) -> Result<Release, FleetError> {
    let key = ns.release(number);
    let kv = client
        .get(key.clone())
        .await?
        .kv
        .ok_or_else(|| FleetError::NotFound(format!("there is no release {number}")))?;
    decode(key.as_bytes(), &kv.value)
}

/// Releases, newest first.
pub async fn releases(client: &Client, ns: &Namespace) -> Result<Vec<Release>, FleetError> {
    let prefix = ns.releases();
    let (found, _) = read_together(client, &[Wanted::Prefix(&prefix)]).await?;
    let mut releases: Vec<Release> = found
        .iter()
        .flatten()
        .map(|kv| decode(&kv.key, &kv.value))
        .collect::<Result<_, _>>()?;
    releases.reverse();
    Ok(releases)
}

/// The release that the same request has made already: an answer may be lost, and asked for again.
pub(super) async fn published_before(
    client: &Client,
    ns: &Namespace,
    snapshot: &Snapshot,
    author: &Author,
) -> Result<Option<Published>, FleetError> {
    if !author.may_repeat {
        return Ok(None);
    }
    let prefix = ns.releases();
    let newest = RangeRequest {
        range_end: prefix_end(prefix.as_bytes()),
        key: prefix.into(),
        limit: REQUESTS_REMEMBERED,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Key.into(),
        ..Default::default()
    };
    for kv in client.range(newest).await?.kvs {
        let made: Release = decode(&kv.key, &kv.value)?;
        if (&made.request_id, &made.author) == (&author.request_id, &author.name) {
            return Ok(Some(Published {
                change: Change::default(),
                rollouts: made.rollouts.clone(),
                release: Some(made),
                revision: snapshot.revision,
            }));
        }
    }
    Ok(None)
}
