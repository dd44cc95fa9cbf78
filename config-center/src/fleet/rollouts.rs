//! Rollouts in the store: which there are, and what an operator does to one.

use std::time::Duration;

use config_center_core::fleet::rollout::Progress;
use schemas::mvccpb::KeyValue;
use schemas_client::Client;

use super::{
    audit::{self, Author},
    error::FleetError,
    keys::Namespace,
    records::{StoredRollout, decode, encode},
    snapshot::head_of,
    txn::{self, Wanted, Written, put, read_together, unchanged},
};

/// A command meets steps of drivers, which come one after the other.
const ROUNDS: u32 = 16;
const PAUSE: Duration = Duration::from_millis(20);

/// Rollouts that are not over, with the revisions of their keys.
pub async fn running_rollouts(
    client: &Client,
    ns: &Namespace,
) -> Result<Vec<(StoredRollout, i64)>, FleetError> {
    let rollouts = all_rollouts(client, ns).await?;
    Ok(rollouts
        .into_iter()
        .filter(|(rollout, _)| !rollout.progress.phase.is_final())
        .collect())
}

pub async fn all_rollouts(
    client: &Client,
    ns: &Namespace,
) -> Result<Vec<(StoredRollout, i64)>, FleetError> {
    let prefix = ns.rollouts();
    let (found, _) = read_together(client, &[Wanted::Prefix(&prefix)]).await?;
    let rollout = |kv: &KeyValue| Ok((decode(&kv.key, &kv.value)?, kv.mod_revision));
    found.iter().flatten().map(rollout).collect()
}

/// A command of an operator to a rollout, with its audit record.
pub async fn command(
    client: &Client,
    ns: &Namespace,
    id: &str,
    action: &str,
    author: &Author,
    command: impl Fn(&Progress) -> Result<Progress, FleetError>,
) -> Result<StoredRollout, FleetError> {
    for _ in 0..ROUNDS {
        let (key, head_key) = (ns.rollout(id), ns.head());
        let (mut found, _) =
            read_together(client, &[Wanted::Key(&key), Wanted::Key(&head_key)]).await?;
        let head_kv = found.pop().and_then(|kvs| kvs.into_iter().next());
        let kv = found.pop().and_then(|kvs| kvs.into_iter().next());
        let kv = kv.ok_or_else(|| FleetError::NotFound(format!("there is no rollout {id}")))?;
        let mut rollout: StoredRollout = decode(&kv.key, &kv.value)?;
        rollout.progress = command(&rollout.progress)?;
        let head = head_of(head_kv.as_ref())?;
        let event = author.event(
            action,
            &format!("rollout {id}"),
            rollout.progress.phase.as_str(),
        );
        let revision = head_kv.map_or(0, |kv| kv.mod_revision);
        let (compare, appended) = audit::append(ns, &head, revision, event, head.release);
        let mut puts = vec![put(key.clone(), encode(&rollout))];
        puts.extend(appended);
        let compare = vec![unchanged(key, kv.mod_revision), compare];
        if txn::write(client, compare, puts).await? != Written::Lost {
            return Ok(rollout);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(FleetError::RaceLost { rounds: ROUNDS })
}
