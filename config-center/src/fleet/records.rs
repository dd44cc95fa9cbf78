//! The documents that the fleet layer keeps in the store, each with a format number.

use std::collections::BTreeMap;

use config_center_core::fleet::{
    audit,
    change::ObjectDiff,
    inventory::{Loaded, load_stored},
    rollout::{Plan, Progress},
};
use schemas::objects::{Name, Object, ObjectId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::FleetError;

pub const RECORD_FORMAT: u32 = 1;

/// Where the fleet stands: compared and moved by every change of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub format: u32,
    /// The last release; 0 before the first.
    pub release: u64,
    pub audit: Option<audit::Head>,
}

/// One publish: what changed and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub format: u32,
    pub number: u64,
    pub at_ms: u64,
    pub author: String,
    pub source: String,
    pub reason: String,
    pub request_id: String,
    /// "12 hosts · +1 path"
    pub summary: String,
    pub changes: Vec<ReleasedObject>,
    /// Hosts whose document this release changed.
    pub hosts: Vec<String>,
    pub rollouts: Vec<String>,
    /// The release that this one put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub puts_back: Option<u64>,
}

/// An object before and after a release, as its JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedObject {
    pub id: ObjectId,
    pub before: Option<serde_json::Value>,
    pub after: Option<serde_json::Value>,
}

impl ReleasedObject {
    pub fn new(diff: &ObjectDiff) -> Self {
        let json = |object: &Option<Object>| {
            object.as_ref().map(|object| {
                serde_json::to_value(object).expect("an object is JSON: it was read from it")
            })
        };
        Self {
            id: diff.id.clone(),
            before: json(&diff.before),
            after: json(&diff.after),
        }
    }

    /// A version of the object, ready to be published again.
    pub fn load(&self, version: &serde_json::Value) -> Result<Loaded, FleetError> {
        let text = version.to_string();
        load_stored(&self.id.to_string(), 0, text.as_bytes())
            .map_err(|problem| FleetError::Objects(vec![problem]))
    }
}

/// What a rollout publishes to which host; written once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPlan {
    pub format: u32,
    pub release: u64,
    pub policy_name: Option<Name>,
    pub plan: Plan,
    /// Each distinct document once: most hosts of a group share theirs.
    pub documents: Vec<String>,
    /// For each host of the plan the index of its document; absent: its key is deleted.
    pub targets: Vec<Option<usize>>,
}

impl StoredPlan {
    pub fn new(
        release: u64,
        policy_name: Option<Name>,
        plan: Plan,
        documents_by_host: &BTreeMap<String, Option<String>>,
    ) -> Self {
        let mut documents: Vec<String> = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let targets = plan
            .hosts
            .iter()
            .map(|host| {
                let text = documents_by_host.get(host)?.as_deref()?;
                Some(*known.entry(text).or_insert_with(|| {
                    documents.push(text.to_owned());
                    documents.len() - 1
                }))
            })
            .collect();
        Self {
            format: RECORD_FORMAT,
            release,
            policy_name,
            plan,
            documents,
            targets,
        }
    }

    /// The document for the host at this index of the plan.
    pub fn document(&self, index: usize) -> Option<&str> {
        let target = (*self.targets.get(index)?)?;
        self.documents.get(target).map(String::as_str)
    }
}

/// How far a rollout is; rewritten by every step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRollout {
    pub id: String,
    pub release: u64,
    pub policy_name: Option<Name>,
    pub hosts: usize,
    pub waves: usize,
    /// Pieces of the plan, and the hash of the whole.
    pub plan_pieces: usize,
    pub plan_sha256: String,
    pub progress: Progress,
}

/// What the fleet layer last wrote to a host's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRecord {
    pub format: u32,
    pub release: u64,
    pub rollout: String,
    /// Absent: the key was deleted.
    pub document: Option<String>,
    /// Paths on which an edit by hand was left as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys and finite numbers only")
}

pub fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, FleetError> {
    serde_json::from_slice(value).map_err(|error| FleetError::Corrupt {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: error.to_string(),
    })
}
