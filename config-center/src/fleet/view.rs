//! What is known of hosts and rollouts, kept up to date by one watch.
//!
//! Everything that a driver looks at lies under one prefix, so one watch brings it in the store's
//! order. A view that lost its stream or fell behind a compaction is loaded anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use config_center_core::fleet::{
    diff::{EntryChange, diff, rows_of_value},
    host_state::{Desired, HostState, Report, complaints, host_state, waits_for_first_line},
    rollout::Condition,
    sha256_hex,
};
use schemas::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::{KeyValue, event::EventType},
    objects::{LabelKey, LabelValue, Labels},
};
use schemas_client::{Client, WatchStream, prefix_end};
use serde::Serialize;

use super::{
    error::FleetError,
    keys::{Namespace, host_of},
    records::{PublishedRecord, StoredPlan, StoredRollout, decode},
    twins::Twins,
    txn::{Wanted, read_together},
};

/// A host's key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    pub mod_revision: i64,
    pub value: Bytes,
    pub sha256: String,
    pub lease: i64,
}

#[derive(Debug, Clone, Default)]
pub struct View {
    pub revision: i64,
    pub configs: BTreeMap<String, HostKey>,
    pub reports: BTreeMap<String, Report>,
    /// Known to a view that lives long enough to see them take turns.
    pub twins: Twins,
    /// With the revisions of their keys.
    pub published: BTreeMap<String, (PublishedRecord, i64)>,
    pub rollouts: BTreeMap<String, (StoredRollout, i64)>,
    /// Plans never change, so they are read once.
    pub plans: BTreeMap<String, Arc<StoredPlan>>,
    /// Keys of the fleet layer that hold something else, and why. One of them must not hold up all.
    pub unreadable: BTreeMap<String, String>,
}

/// A host's key that is not what the fleet layer wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub host: String,
    /// The revision of the edit; absent when the key was deleted.
    pub revision: Option<i64>,
    pub release: u64,
    /// From what was published to what is there; absent when it is no document.
    pub changes: Option<Vec<EntryChange>>,
}

impl View {
    pub async fn load(client: &Client, ns: &Namespace) -> Result<Self, FleetError> {
        let prefixes = [ns.configs(), ns.statuses(), ns.published(), ns.rollouts()];
        let wanted = prefixes.each_ref().map(|prefix| Wanted::Prefix(prefix));
        let (found, revision) = read_together(client, &wanted).await?;
        let mut view = Self {
            revision,
            ..Default::default()
        };
        for kv in found.into_iter().flatten() {
            view.put(ns, kv);
        }
        Ok(view)
    }

    /// Watches from where this view stands.
    pub async fn watch(&self, client: &Client, ns: &Namespace) -> Result<WatchStream, FleetError> {
        let prefix = ns.root();
        let request = WatchCreateRequest {
            range_end: prefix_end(prefix.as_bytes()),
            key: prefix.into(),
            start_revision: self.revision + 1,
            ..Default::default()
        };
        Ok(client.watch(request).await?)
    }

    pub fn absorb(&mut self, ns: &Namespace, response: WatchResponse) {
        for event in response.events {
            let is_gone = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            self.revision = self.revision.max(kv.mod_revision);
            if is_gone {
                self.delete(ns, &kv.key);
            } else {
                self.put(ns, kv);
            }
        }
    }

    fn put(&mut self, ns: &Namespace, kv: KeyValue) {
        if let Some(host) = host_of(&kv.key, &ns.configs()) {
            let key = HostKey {
                mod_revision: kv.mod_revision,
                sha256: sha256_hex(&kv.value),
                value: kv.value,
                lease: kv.lease,
            };
            self.configs.insert(host, key);
        } else if let Some(host) = host_of(&kv.key, &ns.statuses()) {
            let report = Report::parse(&kv.value);
            if let Report::Status(status) = &report {
                self.twins.reported(&host, &status.instance);
            }
            self.reports.insert(host, report);
        } else if let Some(host) = host_of(&kv.key, &ns.published()) {
            match decode(&kv.key, &kv.value) {
                Ok(record) => {
                    self.published.insert(host, (record, kv.mod_revision));
                }
                Err(error) => {
                    self.published.remove(&host);
                    self.note(&kv, &error);
                }
            }
        } else if let Some(id) = host_of(&kv.key, &ns.rollouts()) {
            match decode(&kv.key, &kv.value) {
                Ok(rollout) => {
                    self.rollouts.insert(id, (rollout, kv.mod_revision));
                }
                Err(error) => {
                    self.rollouts.remove(&id);
                    self.note(&kv, &error);
                }
            }
        }
    }

    fn note(&mut self, kv: &KeyValue, error: &FleetError) {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        self.unreadable.insert(key, error.to_string());
    }

    fn delete(&mut self, ns: &Namespace, key: &[u8]) {
        if let Some(host) = host_of(key, &ns.configs()) {
            self.configs.remove(&host);
        } else if let Some(host) = host_of(key, &ns.statuses()) {
            self.reports.remove(&host);
            self.twins.gone(&host);
        } else if let Some(host) = host_of(key, &ns.published()) {
            self.published.remove(&host);
        } else if let Some(id) = host_of(key, &ns.rollouts()) {
            self.rollouts.remove(&id);
        }
    }

    /// Every host that has a key, an agent, or something published, by name.
    pub fn hosts(&self) -> Vec<&str> {
        let published = self
            .published
            .iter()
            .filter(|(_, (record, _))| record.document.is_some());
        let keys = self.configs.keys().chain(self.reports.keys());
        let mut hosts: Vec<&str> = keys
            .chain(published.map(|(host, _)| host))
            .map(String::as_str)
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    pub fn desired(&self, host: &str) -> Option<Desired> {
        self.configs.get(host).map(|key| Desired {
            revision: key.mod_revision,
            sha256: key.sha256.clone(),
        })
    }

    pub fn report(&self, host: &str) -> &Report {
        self.reports.get(host).unwrap_or(&Report::Absent)
    }

    /// What the host's agent says of itself.
    pub fn labels(&self, host: &str) -> Labels {
        let Report::Status(status) = self.report(host) else {
            return Labels::new();
        };
        let label = |(key, value): (&String, &String)| {
            let key = LabelKey::new(key.as_str()).ok()?;
            Some((key, LabelValue::new(value.as_str()).ok()?))
        };
        status.labels.iter().filter_map(label).collect()
    }

    pub fn state(&self, host: &str) -> HostState {
        host_state(self.desired(host).as_ref(), self.report(host))
    }

    /// How a host stands that has been published to.
    pub fn condition(&self, host: &str) -> Condition {
        let desired = self.desired(host);
        let report = self.report(host);
        let reasons = || {
            let reasons = complaints(desired.as_ref(), report);
            if reasons.is_empty() {
                "no reason given".to_owned()
            } else {
                reasons.join("; ")
            }
        };
        if let Some(complaint) = self.twins.complaint(host) {
            return Condition::Failed(complaint);
        }
        match host_state(desired.as_ref(), report) {
            HostState::Applied if waits_for_line(report) => Condition::Pending,
            HostState::Applied => Condition::Applied,
            HostState::Degraded | HostState::Failed | HostState::Unknown => {
                Condition::Failed(reasons())
            }
            HostState::Pending => Condition::Pending,
            HostState::Offline if desired.is_none() => Condition::Applied,
            HostState::Offline => Condition::Offline,
            // The key is deleted: done when the agent collects nothing any more.
            HostState::NoConfig => match report {
                Report::Status(status) if !status.entries.is_empty() => Condition::Pending,
                _ => Condition::Applied,
            },
        }
    }

    /// Hosts whose keys were edited by hand since the fleet layer wrote them.
    pub fn drifts(&self) -> Vec<Drift> {
        self.published
            .keys()
            .filter_map(|host| self.drift(host))
            .collect()
    }

    pub fn drift(&self, host: &str) -> Option<Drift> {
        let (record, _) = self.published.get(host)?;
        let there = self.configs.get(host);
        let value = there.map(|key| &key.value[..]);
        let written = record.document.as_deref().map(str::as_bytes);
        if value == written && record.kept.is_empty() {
            return None;
        }
        let rows = (rows_of_value(written), rows_of_value(value));
        Some(Drift {
            host: host.to_owned(),
            revision: there.map(|key| key.mod_revision),
            release: record.release,
            changes: match rows {
                (Ok(written), Ok(there)) => Some(diff(&written, &there)),
                _ => None,
            },
        })
    }
}

fn waits_for_line(report: &Report) -> bool {
    match report {
        Report::Status(status) => waits_for_first_line(status).is_some(),
        Report::Absent | Report::Unreadable(_) => false,
    }
}
