//! All objects of the fleet at one revision, and the head of releases and audit.

use config_center_core::fleet::inventory::{Inventory, Loaded, Problem, load_stored};
use schemas::{
    mvccpb::KeyValue,
    objects::{Kind, ObjectId},
};
use schemas_client::Client;

use super::{
    error::FleetError,
    keys::Namespace,
    records::{Head, RECORD_FORMAT, decode},
    txn::{Wanted, read_together},
};

/// An object's key that holds something else.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Absent when even the name is none.
    pub id: Option<ObjectId>,
    pub problem: Problem,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The store's revision at which all of it was read.
    pub revision: i64,
    /// As the store has it, right or wrong: names may lead nowhere when keys were written by hand.
    pub inventory: Inventory,
    pub broken: Vec<Broken>,
    pub head: Head,
    pub head_revision: i64,
}

pub async fn read(client: &Client, ns: &Namespace) -> Result<Snapshot, FleetError> {
    let prefixes = Kind::ALL.map(|kind| ns.objects(kind));
    let head_key = ns.head();
    let mut wanted: Vec<Wanted<'_>> = prefixes
        .iter()
        .map(|prefix| Wanted::Prefix(prefix))
        .collect();
    wanted.push(Wanted::Key(&head_key));
    let (mut found, revision) = read_together(client, &wanted).await?;
    let head_kv = found.pop().and_then(|kvs| kvs.into_iter().next());
    let mut objects = Vec::new();
    let mut broken = Vec::new();
    for (kind, kvs) in Kind::ALL.into_iter().zip(found) {
        for kv in kvs {
            let id = ns.object_of(kind, &kv.key);
            match object(&kv, id.as_ref()) {
                Ok(loaded) => objects.push(loaded),
                Err(problem) => broken.push(Broken { id, problem }),
            }
        }
    }
    Ok(Snapshot {
        revision,
        inventory: Inventory::unchecked(objects),
        broken,
        head_revision: head_kv.as_ref().map_or(0, |kv| kv.mod_revision),
        head: head_of(head_kv.as_ref())?,
    })
}

pub(super) fn head_of(kv: Option<&KeyValue>) -> Result<Head, FleetError> {
    let Some(kv) = kv else {
        return Ok(Head {
            format: RECORD_FORMAT,
            ..Default::default()
        });
    };
    let head: Head = decode(&kv.key, &kv.value)?;
    if head.format != RECORD_FORMAT {
        return Err(FleetError::Corrupt {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            reason: format!("format {} is newer than this program", head.format),
        });
    }
    Ok(head)
}

fn object(kv: &KeyValue, id: Option<&ObjectId>) -> Result<Loaded, Problem> {
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    let loaded = load_stored(&key, kv.mod_revision, &kv.value)?;
    if id != Some(&loaded.object.id()) {
        return Err(Problem {
            at: format!("{key} at revision {}", kv.mod_revision),
            object: id.cloned(),
            message: format!("the key holds {} instead", loaded.object.id()),
        });
    }
    Ok(loaded)
}
