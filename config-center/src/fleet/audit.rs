//! The audit chain in the store: appended in the transaction of the change that it tells of.

use std::time::{SystemTime, UNIX_EPOCH};

use config_center_core::fleet::audit::{Broken, Event, Record, verify};
use schemas::etcdserverpb::{Compare, RequestOp};
use schemas_client::Client;

use super::{
    error::FleetError,
    keys::Namespace,
    records::{Head, decode, encode},
    snapshot::head_of,
    txn::{Wanted, put, read_together, unchanged},
};

/// Who does something, and why; the same for everything that one command does.
#[derive(Debug, Clone, Default)]
pub struct Author {
    pub name: String,
    /// The program, such as `configctl`.
    pub source: String,
    pub request_id: String,
    pub reason: String,
    /// The request id is the client's, and the same request may come again.
    pub may_repeat: bool,
}

impl Author {
    pub fn event(&self, action: &str, target: &str, summary: &str) -> Event {
        Event {
            at_ms: now_ms(),
            actor: self.name.clone(),
            source: self.source.clone(),
            request_id: self.request_id.clone(),
            action: action.into(),
            target: target.into(),
            reason: self.reason.clone(),
            summary: summary.into(),
            changes: Vec::new(),
        }
    }
}

/// What a transaction needs to append a record: compare the head, write the record, move the head.
pub fn append(
    ns: &Namespace,
    head: &Head,
    head_revision: i64,
    event: Event,
    release: u64,
) -> (Compare, [RequestOp; 2]) {
    let oldest = head.audit.as_ref().map_or(1, |audit| audit.oldest);
    let record = Record::seal(event, head.audit.as_ref());
    let moved = Head {
        audit: Some(record.head(oldest)),
        release,
        ..head.clone()
    };
    (
        unchanged(ns.head(), head_revision),
        [
            put(ns.audit_record(record.seq), encode(&record)),
            put(ns.head(), encode(&moved)),
        ],
    )
}

/// The records, oldest first, and whether the chain holds.
#[derive(Debug, Clone)]
pub struct Audit {
    pub records: Vec<Record>,
    pub head: Head,
    pub broken: Option<Broken>,
}

pub async fn read(client: &Client, ns: &Namespace) -> Result<Audit, FleetError> {
    let (prefix, head_key) = (ns.audit(), ns.head());
    let (mut found, _) =
        read_together(client, &[Wanted::Prefix(&prefix), Wanted::Key(&head_key)]).await?;
    let head_kv = found.pop().and_then(|kvs| kvs.into_iter().next());
    let head = head_of(head_kv.as_ref())?;
    let records = found
        .pop()
        .unwrap_or_default()
        .iter()
        .map(|kv| decode::<Record>(&kv.key, &kv.value))
        .collect::<Result<Vec<_>, _>>()?;
    let broken = verify(&records, head.audit.as_ref()).err();
    Ok(Audit {
        records,
        head,
        broken,
    })
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
