//! Drafts: changes of objects that are prepared, looked at, and published or thrown away.
//!
//! A draft lies beside the live objects and never in them: nothing that renders, compares or rolls
//! out looks at it. It remembers which versions of its objects it was made from, so that publishing
//! it cannot undo what somebody else published meanwhile.

use config_center_core::fleet::inventory::{Loaded, load_stored};
use schemas::objects::{Name, Object, ObjectId};
use schemas_client::Client;
use serde::{Deserialize, Serialize};

use super::{
    audit::{Author, now_ms},
    error::FleetError,
    keys::Namespace,
    publish::{Published, Wish, publish},
    records::{RECORD_FORMAT, decode, encode},
    snapshot,
    txn::{self, MAX_TXN_BYTES, Wanted, Written, put, read_together, unchanged},
};

/// A draft as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftRecord {
    pub format: u32,
    pub name: String,
    pub at_ms: u64,
    pub author: String,
    pub reason: String,
    /// Objects as they are to become, as their JSON.
    pub put: Vec<serde_json::Value>,
    pub delete: Vec<ObjectId>,
    /// The revision of each object when the draft was made; 0: it was not there.
    pub base: Vec<(ObjectId, i64)>,
}

/// A draft and the revision of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDraft {
    pub record: DraftRecord,
    pub revision: i64,
}

impl StoredDraft {
    pub fn objects(&self) -> Result<Vec<Loaded>, FleetError> {
        let name = format!("draft {}", self.record.name);
        let object = |value: &serde_json::Value| {
            load_stored(&name, 0, value.to_string().as_bytes())
                .map_err(|problem| FleetError::Objects(vec![problem]))
        };
        self.record.put.iter().map(object).collect()
    }

    /// What publishing it means.
    pub fn wish(&self, ns: &Namespace) -> Result<Wish, FleetError> {
        Ok(Wish {
            put: self.objects()?,
            delete: self.record.delete.clone(),
            expected: self.record.base.clone(),
            ends_draft: Some((ns.draft(&self.record.name), self.revision)),
            ..Default::default()
        })
    }
}

/// Makes a draft of these objects, or replaces the one that has this revision; 0: there is none.
pub async fn save(
    client: &Client,
    ns: &Namespace,
    name: &Name,
    objects: &[Loaded],
    delete: Vec<ObjectId>,
    expected: i64,
    author: &Author,
) -> Result<StoredDraft, FleetError> {
    let snapshot = snapshot::read(client, ns).await?;
    let revision = |id: ObjectId| {
        let there = snapshot.inventory.get(&id);
        let revision = there.and_then(Loaded::store_revision).unwrap_or(0);
        (id, revision)
    };
    let put_ids = objects.iter().map(|loaded| loaded.object.id());
    let record = DraftRecord {
        format: RECORD_FORMAT,
        name: name.to_string(),
        at_ms: now_ms(),
        author: author.name.clone(),
        reason: author.reason.clone(),
        base: put_ids
            .chain(delete.iter().cloned())
            .map(revision)
            .collect(),
        put: objects.iter().map(|loaded| json(&loaded.object)).collect(),
        delete,
    };
    let value = encode(&record);
    if value.len() > MAX_TXN_BYTES {
        return Err(FleetError::Invalid(format!(
            "the draft has {} bytes, more than the {MAX_TXN_BYTES} that a value may have: make several",
            value.len()
        )));
    }
    let key = ns.draft(name.as_str());
    let compare = vec![unchanged(key.clone(), expected)];
    match txn::write(client, compare, vec![put(key, value)]).await? {
        Written::At { revision } => Ok(StoredDraft { record, revision }),
        Written::Lost => Err(FleetError::Precondition(match expected {
            0 => format!("there is a draft {name} already: publish or discard it first"),
            _ => format!("the draft {name} was changed meanwhile"),
        })),
    }
}

fn json(object: &Object) -> serde_json::Value {
    serde_json::to_value(object).expect("an object is JSON: it was read from it")
}

/// By name.
pub async fn list(client: &Client, ns: &Namespace) -> Result<Vec<StoredDraft>, FleetError> {
    let prefix = ns.drafts();
    let (found, _) = read_together(client, &[Wanted::Prefix(&prefix)]).await?;
    let draft = |kv: &schemas::mvccpb::KeyValue| {
        Ok(StoredDraft {
            record: decode(&kv.key, &kv.value)?,
            revision: kv.mod_revision,
        })
    };
    found.iter().flatten().map(draft).collect()
}

pub async fn read(client: &Client, ns: &Namespace, name: &str) -> Result<StoredDraft, FleetError> {
    let key = ns.draft(name);
    let kv = client.get(key.clone()).await?.kv;
    let kv = kv.ok_or_else(|| FleetError::NotFound(format!("there is no draft {name}")))?;
    Ok(StoredDraft {
        record: decode(&kv.key, &kv.value)?,
        revision: kv.mod_revision,
    })
}

/// Publishes a draft and removes it, both or neither.
pub async fn publish_draft(
    client: &Client,
    ns: &Namespace,
    name: &str,
    allow_emptying: bool,
    author: &Author,
) -> Result<Published, FleetError> {
    let draft = read(client, ns, name).await?;
    let wish = Wish {
        allow_emptying,
        ..draft.wish(ns)?
    };
    let mut author = author.clone();
    if author.reason.is_empty() {
        author.reason = draft.record.reason.clone();
    }
    let published = publish(client, ns, &wish, &author).await?;
    if published.release.is_none() {
        // Everything is live as it says, so there was nothing to publish.
        remove(client, ns, &draft).await?;
    }
    Ok(published)
}

pub async fn discard(client: &Client, ns: &Namespace, name: &str) -> Result<(), FleetError> {
    let draft = read(client, ns, name).await?;
    remove(client, ns, &draft).await
}

async fn remove(client: &Client, ns: &Namespace, draft: &StoredDraft) -> Result<(), FleetError> {
    let key = ns.draft(&draft.record.name);
    let compare = vec![unchanged(key.clone(), draft.revision)];
    match txn::write(client, compare, vec![txn::delete(key)]).await? {
        Written::At { .. } => Ok(()),
        Written::Lost => Err(FleetError::Stale(format!(
            "the draft {} was changed at the same moment; it is still there",
            draft.record.name
        ))),
    }
}
