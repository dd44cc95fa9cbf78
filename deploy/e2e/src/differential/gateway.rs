//! One server under calls in JSON, whole and broken.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Subject;
use super::json::{Damage, Spelling, damage, spelling};
use super::operations::{Operation, unary};
use super::requests::{Known, lease};
use super::session;
use crate::http::{self, Answer};

const LENGTH: std::ops::Range<usize> = 1..40;

/// Broken bodies name revisions as they are, which must lie below every sequence on both servers:
/// a fault makes at most this of the numbers that are generated.
const REVISIONS_OF_FAULTS: i64 = 300;

/// Leases that live shorter than this are given back at once, so that no clock takes part.
const SHORT_TTL_S: i64 = 60;

/// One call as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonOperation {
    operation: Operation,
    spelling: Spelling,
    damage: Option<Damage>,
}

pub(super) struct Session {
    port: u16,
    /// Empties the store.
    store: session::Session,
}

fn operation() -> impl Strategy<Value = JsonOperation> {
    let fault = proptest::option::weighted(0.2, damage());
    (unary(), spelling(), fault).prop_map(|(operation, spelling, fault)| JsonOperation {
        // A broken lease could be one that ends while the sequence runs; and what is broken on a
        // stream etcd drops without a word, see docs/compatibility.md.
        damage: fault.filter(|_| {
            !matches!(
                operation,
                Operation::Grant { .. } | Operation::KeepAlive { .. }
            )
        }),
        operation,
        spelling,
    })
}

impl Subject for Session {
    type Operation = JsonOperation;

    fn sequences() -> impl Strategy<Value = Vec<JsonOperation>> {
        vec(operation(), LENGTH)
    }

    async fn connect(url: &str) -> anyhow::Result<Self> {
        let port = url.rsplit(':').next().unwrap_or_default().parse()?;
        let mut store = session::Session::connect(url).await?;
        store.grow_beyond(REVISIONS_OF_FAULTS).await?;
        Ok(Self { port, store })
    }

    async fn reset(&mut self) -> anyhow::Result<()> {
        self.store.reset().await
    }

    async fn perform(&mut self, call: &JsonOperation) -> anyhow::Result<String> {
        let known = match call.damage {
            None => self.store.known,
            Some(_) => Known::at(0),
        };
        let (path, body) = written(&call.operation, call.spelling, known)?;
        let mut body = body.to_string();
        if let Some(damage) = call.damage {
            body = damage.done_to(&body);
        }
        let headers = [("Content-Type", "application/json")];
        let answer = http::exchange(self.port, "POST", path, &headers, &body)?;
        // A server that is gone or stuck is no answer to compare.
        anyhow::ensure!(
            ![503, 504].contains(&answer.status),
            "no answer: {answer:?}"
        );
        if let Operation::Grant { slot, ttl_s } = call.operation
            && ttl_s < SHORT_TTL_S
        {
            let body = format!("{{\"ID\":{}}}", lease(slot.max(1)));
            http::exchange(self.port, "POST", "/v3/lease/revoke", &headers, &body)?;
        }
        Ok(self.told(&answer))
    }

    async fn finish(&mut self) -> anyhow::Result<String> {
        Ok(String::new())
    }
}

/// Where a call goes, and what it says.
fn written(
    operation: &Operation,
    spelling: Spelling,
    known: Known,
) -> anyhow::Result<(&'static str, Value)> {
    Ok(match operation {
        Operation::Put(put) => ("/v3/kv/put", spelling.put(&known.put(put))),
        Operation::Range(range) => ("/v3/kv/range", spelling.range(&known.range(range))),
        Operation::Delete(delete) => ("/v3/kv/deleterange", spelling.delete(&known.delete(delete))),
        Operation::Txn(txn) => ("/v3/kv/txn", spelling.txn(&known.txn(txn))),
        Operation::Compact { revision, physical } => {
            let revision = known.revision(*revision);
            let body = spelling.ints(&[("revision", revision)], &[("physical", *physical)]);
            ("/v3/kv/compaction", body)
        }
        Operation::Grant { slot, ttl_s } => {
            let id = lease((*slot).max(1));
            (
                "/v3/lease/grant",
                spelling.ints(&[("ID", id), ("TTL", *ttl_s)], &[]),
            )
        }
        Operation::Revoke { slot } => (
            "/v3/lease/revoke",
            spelling.ints(&[("ID", lease(*slot))], &[]),
        ),
        Operation::TimeToLive { slot, keys } => {
            let body = spelling.ints(&[("ID", lease(*slot))], &[("keys", *keys)]);
            ("/v3/lease/timetolive", body)
        }
        Operation::KeepAlive { slot } => (
            "/v3/lease/keepalive",
            spelling.ints(&[("ID", lease(*slot))], &[]),
        ),
        Operation::Leases => ("/v3/lease/leases", spelling.ints(&[], &[])),
        Operation::RangeStream(_) | Operation::Watch(_) | Operation::CancelWatch { .. } => {
            anyhow::bail!("{operation:?} has no answer that ends")
        }
    })
}

impl Session {
    fn told(&mut self, answer: &Answer) -> String {
        let lines = answer.body.lines().map(|line| {
            let mut value = serde_json::from_str(line).unwrap_or_else(|_| json!(line));
            if answer.status != 200 {
                mask_words(&mut value);
            }
            self.relative(&mut value);
            value
        });
        let lines: Vec<Value> = lines.collect();
        let newest = lines.iter().filter_map(|line| {
            let header = line.get("header").or(line.pointer("/result/header"))?;
            header.get("revision")?.as_str()?.parse::<i64>().ok()
        });
        if let Some(newest) = newest.max() {
            let known = &mut self.store.known;
            known.newest = known.newest.max(newest + known.base.0);
        }
        let told = json!({
            "status": answer.status,
            "type": answer.header("content-type"),
            "lines": lines,
        });
        format!("{told:#}")
    }

    /// Counts revisions from the start, and masks what no two servers share.
    fn relative(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    let number = field.as_str().and_then(|text| text.parse::<i64>().ok());
                    match (&name[..], number) {
                        ("cluster_id" | "member_id" | "raft_term", _) => *field = json!("masked"),
                        ("revision" | "create_revision" | "mod_revision", Some(revision)) => {
                            *field = json!((revision - self.store.known.base.0).to_string());
                        }
                        // The rest of the time depends on the clock, its presence does not.
                        ("TTL", Some(ttl)) if ttl > 0 => *field = json!("positive"),
                        ("leases" | "keys", _) => {
                            if let Some(list) = field.as_array_mut() {
                                list.sort_by_key(Value::to_string);
                            }
                        }
                        _ => self.relative(field),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.relative(value)),
            _ => {}
        }
    }
}

/// What is wrong with a body each JSON library says in its own words. `error` is there for clients
/// of older releases, and repeats the message.
fn mask_words(refusal: &mut Value) {
    let Some(fields) = refusal.as_object_mut() else {
        return;
    };
    if fields.get("error") == fields.get("message") {
        fields.remove("error");
    }
    let is_etcds = fields
        .get("message")
        .and_then(Value::as_str)
        .is_some_and(|message| message.starts_with("etcdserver: "));
    if !is_etcds {
        fields.insert("message".to_owned(), json!("masked"));
    }
}
