//! Who changed what, in a chain that shows when somebody changed the record afterwards.
//!
//! Every record carries the hash of the one before it, and its own hash covers that. Whoever has a
//! copy can verify it without the store: a changed, removed, inserted or reordered record breaks
//! the chain at its place. Records missing at the end show against the head, which names the last.

use serde::{Deserialize, Serialize};

use super::sha256_hex;
use crate::planted::{self, Bug};

pub const AUDIT_FORMAT: u32 = 1;
/// What the first record of all names as the one before.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What happened, before it gets its place in the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub at_ms: u64,
    pub actor: String,
    /// The program through which it was done, such as `configctl` or `console`.
    pub source: String,
    pub request_id: String,
    /// Such as `publish`, `rollout.pause` or `host.adopt`.
    pub action: String,
    /// What was acted upon: an object, a host, a rollout.
    pub target: String,
    pub reason: String,
    /// In words, such as "12 hosts · +1 path".
    pub summary: String,
    pub changes: Vec<ObjectChange>,
}

/// An object before and after, by the hash of its JSON; the release keeps the objects themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectChange {
    pub object: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A link of the chain. The order of fields is part of the format: the hash covers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub format: u32,
    /// From 1, without gaps.
    pub seq: u64,
    pub event: Event,
    pub prev: String,
    pub hash: String,
}

/// The last record: what the next one is chained to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
    /// The first record that is kept; those before it were pruned.
    pub oldest: u64,
}

impl Record {
    /// Chains an event to what the head names.
    pub fn seal(event: Event, head: Option<&Head>) -> Self {
        let (seq, prev) = head.map_or((1, GENESIS), |head| (head.seq + 1, head.hash.as_str()));
        let mut record = Self {
            format: AUDIT_FORMAT,
            seq,
            event,
            prev: prev.to_owned(),
            hash: String::new(),
        };
        record.hash = record.computed_hash();
        record
    }

    /// The head when this is the last record.
    pub fn head(&self, oldest: u64) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash.clone(),
            oldest,
        }
    }

    fn computed_hash(&self) -> String {
        let mut covered = self.clone();
        covered.hash.clear();
        if planted::is(Bug::AuditWithoutChain) {
            covered.prev.clear();
        }
        let bytes = serde_json::to_vec(&covered).expect("a record has text and whole numbers only");
        sha256_hex(&bytes)
    }
}

/// Where the chain is broken, and how that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("record {seq} was changed after it was written: its hash is {computed}, not {written}")]
    Changed {
        seq: u64,
        written: String,
        computed: String,
    },
    #[error("record {seq} does not follow record {before}: {}", gap(*seq, *before))]
    Gap { seq: u64, before: u64 },
    #[error("record {seq} is chained to {prev}, and record {} has {expected}", seq - 1)]
    Unchained {
        seq: u64,
        prev: String,
        expected: String,
    },
    #[error("the last record is {last}, and the head names {head}: records are missing at the end")]
    CutOff { last: u64, head: u64 },
    #[error("the first record is {first}, and records are kept from {oldest} on")]
    NoBeginning { first: u64, oldest: u64 },
    #[error("the head names another hash for record {seq} than the record has")]
    OtherHead { seq: u64 },
    #[error("record {seq} has format {format}, which this program does not know")]
    Format { seq: u64, format: u32 },
}

fn gap(seq: u64, before: u64) -> &'static str {
    if seq <= before {
        "records are out of order or twice there"
    } else {
        "records between them are missing"
    }
}

/// Verifies records in their order. Old ones may have been pruned; the head says from where on they
/// are kept. Without a head, nothing is known of records missing at either end.
pub fn verify(records: &[Record], head: Option<&Head>) -> Result<(), Broken> {
    let mut before: Option<&Record> = None;
    for record in records {
        let seq = record.seq;
        if record.format != AUDIT_FORMAT {
            return Err(Broken::Format {
                seq,
                format: record.format,
            });
        }
        let computed = record.computed_hash();
        if computed != record.hash {
            let written = record.hash.clone();
            return Err(Broken::Changed {
                seq,
                written,
                computed,
            });
        }
        let expected = match before {
            Some(before) if seq != before.seq + 1 => {
                return Err(Broken::Gap {
                    seq,
                    before: before.seq,
                });
            }
            Some(before) => Some(before.hash.as_str()),
            None if seq == 1 => Some(GENESIS),
            None => None,
        };
        if let Some(expected) = expected.filter(|expected| *expected != record.prev) {
            let (prev, expected) = (record.prev.clone(), expected.to_owned());
            return Err(Broken::Unchained {
                seq,
                prev,
                expected,
            });
        }
        before = Some(record);
    }
    match (before, head) {
        (last, Some(head)) if last.map_or(0, |last| last.seq) != head.seq => Err(Broken::CutOff {
            last: last.map_or(0, |last| last.seq),
            head: head.seq,
        }),
        (Some(_), Some(head)) if records[0].seq != head.oldest => Err(Broken::NoBeginning {
            first: records[0].seq,
            oldest: head.oldest,
        }),
        (Some(last), Some(head)) if last.hash != head.hash => {
            Err(Broken::OtherHead { seq: last.seq })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(length: usize) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for index in 0..length {
            let event = Event {
                at_ms: index as u64,
                actor: "anna".into(),
                action: "publish".into(),
                target: format!("Host/h{index}"),
                ..Default::default()
            };
            let head = records.last().map(|last| last.head(1));
            records.push(Record::seal(event, head.as_ref()));
        }
        records
    }

    /// Changes a chain in one of the ways in which somebody might.
    fn tampered(mut records: Vec<Record>, how: u8, at: usize) -> Vec<Record> {
        match how {
            0 => records[at].event.actor = "nobody".into(),
            1 => {
                records.remove(at);
            }
            2 => {
                let copy = records[at].clone();
                records.insert(at, copy);
            }
            3 => {
                let last = records.len() - 1;
                records.swap(at, last);
            }
            // A careful forger computes the hash of the changed record again.
            4 => {
                records[at].event.reason = "harmless".into();
                records[at].hash = records[at].computed_hash();
            }
            _ => {
                records[at].prev = GENESIS.replace('0', "f");
                records[at].hash = records[at].computed_hash();
            }
        }
        records
    }

    #[test]
    fn a_chain_verifies_from_any_record_on() {
        let records = chain(5);
        for from in 0..5 {
            let head = records[4].head(from as u64 + 1);
            assert_eq!(verify(&records[from..], Some(&head)), Ok(()));
        }
        let head = records[4].head(1);
        assert_eq!(
            verify(&records[1..], Some(&head)),
            Err(Broken::NoBeginning {
                first: 2,
                oldest: 1
            })
        );
        assert_eq!(verify(&[], None), Ok(()));
        assert_eq!(
            verify(&records[..4], Some(&head)),
            Err(Broken::CutOff { last: 4, head: 5 })
        );
        assert!(matches!(
            verify(&[], Some(&head)),
            Err(Broken::CutOff { .. })
        ));
    }

    #[test]
    fn records_survive_being_stored() {
        let records = chain(2);
        let text = serde_json::to_string(&records).unwrap();
        let read: Vec<Record> = serde_json::from_str(&text).unwrap();
        assert_eq!(verify(&read, Some(&records[1].head(1))), Ok(()));
        let more = text.replacen("\"seq\":1", "\"seq\":1,\"note\":\"x\"", 1);
        assert!(serde_json::from_str::<Vec<Record>>(&more).is_err());
    }

    proptest! {
        #[test]
        fn no_change_goes_unseen(length in 2..8usize, at in any::<prop::sample::Index>(), how in 0..6u8) {
            let records = chain(length);
            let head = records[length - 1].head(1);
            let changed = tampered(records.clone(), how, at.index(length));
            prop_assert!(changed == records || verify(&changed, Some(&head)).is_err());
        }
    }

    #[test]
    fn the_property_can_fail() {
        planted::with(Bug::AuditWithoutChain, || {
            let records = chain(3);
            let mut forged = records.clone();
            forged[1].prev = records[1].prev.replace(|_: char| true, "f");
            // Without the chain in the hash, only the comparison of neighbours is left; a forger
            // who drops the first records and rewrites `prev` is not seen.
            assert_eq!(verify(&forged[1..], Some(&records[2].head(2))), Ok(()));
        });
        let records = chain(3);
        let mut forged = records.clone();
        forged[1].prev = records[1].prev.replace(|_: char| true, "f");
        assert!(verify(&forged[1..], Some(&records[2].head(2))).is_err());
    }
}
