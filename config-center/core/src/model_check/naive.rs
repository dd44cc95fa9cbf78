//! The model: one full copy of the keyspace per revision, and every answer recomputed from them.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::command::{Command, command::Op};
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::response_op::Response;
use schemas::etcdserverpb::{
    CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantResponse,
    LeaseRevokeResponse, Member, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use schemas::mvccpb::{Event, KeyValue};

use crate::{Refusal, Reply};

type Copy = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
pub(super) struct Naive {
    /// The keyspace at revision 1, 2, 3, …
    copies: Vec<Copy>,
    /// Every event with its revision; `prev_kv` is found when asked for.
    events: Vec<(i64, Event)>,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
    members: BTreeMap<u64, Member>,
}

impl Default for Naive {
    fn default() -> Self {
        Self {
            copies: vec![Copy::new()],
            events: Vec::new(),
            compacted: -1,
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }
}

/// A command in progress: a copy that becomes the next revision if anything was written.
struct Draft {
    begin: i64,
    copy: Copy,
    events: Vec<Event>,
}

/// A transaction with its decisions taken.
struct Decided<'a> {
    succeeded: bool,
    ops: Vec<(&'a Request, Option<Decided<'a>>)>,
}

fn inside(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}

impl Naive {
    pub(super) fn revision(&self) -> i64 {
        self.copies.len() as i64
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) fn leases(&self) -> Vec<(i64, i64)> {
        self.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect()
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    pub(super) fn lease(&self, id: i64) -> Option<(i64, Vec<Bytes>)> {
        let ttl = *self.leases.get(&id)?;
        let attached = self.newest().values().filter(|kv| kv.lease == id);
        Some((ttl, attached.map(|kv| kv.key.clone()).collect()))
    }

    fn newest(&self) -> &Copy {
        self.at(self.revision())
    }

    fn at(&self, revision: i64) -> &Copy {
        &self.copies[(revision - 1) as usize]
    }

    pub(super) fn events(&self, key: &[u8], end: &[u8], from: i64) -> Result<Vec<Event>, Refusal> {
        if from < self.compacted {
            return Err(Refusal::Compacted);
        }
        let mut found = Vec::new();
        for (revision, event) in &self.events {
            let kv = event.kv.clone().unwrap_or_default();
            if *revision < from || !inside(&kv.key, key, end) {
                continue;
            }
            let mut event = event.clone();
            let is_create = event.r#type == 0 && kv.create_revision == *revision;
            if !is_create && *revision > self.compacted {
                event.prev_kv = self.at(revision - 1).get(&kv.key).cloned();
            }
            found.push(event);
        }
        Ok(found)
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let revision = match request.revision {
            future if future > self.revision() => return Err(Refusal::FutureRevision),
            newest if newest <= 0 => self.revision(),
            old if old < self.compacted => return Err(Refusal::Compacted),
            old => old,
        };
        Ok(read(self.at(revision), request))
    }

    pub(super) fn read_only_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let decided = self.decide(request);
        self.permit(&decided)?;
        let mut draft = self.draft();
        let mut response = self.run(&mut draft, &decided);
        assert!(draft.events.is_empty());
        response.header = None;
        Ok(response)
    }

    pub(super) fn apply(&mut self, command: &Command) -> (Result<Reply, Refusal>, i64) {
        let reply = self.reply(command);
        (reply, self.revision())
    }

    fn reply(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let mut draft = self.draft();
        let reply = match command
            .op
            .as_ref()
            .expect("every generated command has one")
        {
            Op::Put(put) => {
                self.permit_put(put)?;
                let mut response = draft.put(put);
                response.header = None;
                Reply::Put(response)
            }
            Op::DeleteRange(delete) => {
                let mut response = draft.delete(delete);
                response.header = None;
                Reply::DeleteRange(response)
            }
            Op::Txn(txn) => {
                let decided = self.decide(txn);
                self.permit(&decided)?;
                let mut response = self.run(&mut draft, &decided);
                response.header = None;
                Reply::Txn(response)
            }
            Op::Compaction(request) => {
                self.compact(request.revision)?;
                Reply::Compaction(CompactionResponse { header: None })
            }
            Op::LeaseGrant(request) => {
                if request.id == 0 {
                    return Err(Refusal::LeaseNotFound);
                }
                if self.leases.contains_key(&request.id) {
                    return Err(Refusal::LeaseExists);
                }
                self.leases.insert(request.id, request.ttl);
                Reply::LeaseGrant(LeaseGrantResponse {
                    id: request.id,
                    ttl: request.ttl,
                    ..LeaseGrantResponse::default()
                })
            }
            Op::LeaseRevoke(request) => {
                let Some((_, keys)) = self.lease(request.id) else {
                    return Err(Refusal::LeaseNotFound);
                };
                for key in keys {
                    draft.delete(&DeleteRangeRequest {
                        key,
                        ..DeleteRangeRequest::default()
                    });
                }
                self.leases.remove(&request.id);
                Reply::LeaseRevoke(LeaseRevokeResponse { header: None })
            }
            // Not part of this model: alarms have tests of their own.
            Op::Alarm(_) | Op::LeaseCheckpoint(_) => return Err(Refusal::NotCapable),
            Op::MemberPublish(publish) => {
                if let Some(member) = &publish.member {
                    self.members.insert(member.id, member.clone());
                }
                Reply::MemberPublish
            }
            Op::V2Write(_) | Op::V2Expire(_) => unreachable!("the v2 API has tests of its own"),
            other => unreachable!("{other:?} is never generated"),
        };
        if !draft.events.is_empty() {
            let revision = draft.begin + 1;
            let events = draft.events.into_iter().map(|event| (revision, event));
            self.events.extend(events);
            self.copies.push(draft.copy);
        }
        Ok(reply)
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if revision == 0 {
            return Ok(());
        }
        self.compacted = revision;
        // Nothing below can be watched. Of the compacted revision each key's last event stays.
        let all = self.events.clone();
        let mut index = 0;
        self.events.retain(|(at, event)| {
            let key = event.kv.as_ref().map(|kv| &kv.key);
            let superseded = all[index + 1..].iter().any(|(later, other)| {
                *later == revision && other.kv.as_ref().map(|kv| &kv.key) == key
            });
            index += 1;
            *at > revision || (*at == revision && !superseded)
        });
        Ok(())
    }

    fn draft(&self) -> Draft {
        Draft {
            begin: self.revision(),
            copy: self.newest().clone(),
            events: Vec::new(),
        }
    }

    fn decide<'a>(&self, request: &'a TxnRequest) -> Decided<'a> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let decided = |op: &'a schemas::etcdserverpb::RequestOp| {
            let request = op.request.as_ref().expect("every generated op has one");
            let inner = match request {
                Request::RequestTxn(inner) => Some(self.decide(inner)),
                _ => None,
            };
            (request, inner)
        };
        Decided {
            succeeded,
            ops: ops.iter().map(decided).collect(),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs: Vec<KeyValue> = self
            .newest()
            .values()
            .filter(|kv| inside(&kv.key, &compare.key, &compare.range_end))
            .cloned()
            .collect();
        if kvs.is_empty() {
            if compare.target == 3 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
            let order = match (compare.target, &compare.target_union) {
                (0, Some(Version(n))) => kv.version.cmp(n),
                (0, _) => kv.version.cmp(&0),
                (1, Some(CreateRevision(n))) => kv.create_revision.cmp(n),
                (1, _) => kv.create_revision.cmp(&0),
                (2, Some(ModRevision(n))) => kv.mod_revision.cmp(n),
                (2, _) => kv.mod_revision.cmp(&0),
                (3, Some(Value(value))) => kv.value.cmp(value),
                (3, _) => kv.value.cmp(&Bytes::new()),
                (4, Some(Lease(n))) => kv.lease.cmp(n),
                (4, _) => kv.lease.cmp(&0),
                _ => std::cmp::Ordering::Equal,
            };
            match compare.result {
                0 => order.is_eq(),
                1 => order.is_gt(),
                2 => order.is_lt(),
                3 => order.is_ne(),
                _ => true,
            }
        })
    }

    fn permit(&self, decided: &Decided<'_>) -> Result<(), Refusal> {
        for (request, inner) in &decided.ops {
            match request {
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Refusal::FutureRevision);
                }
                Request::RequestRange(range)
                    if range.revision != 0 && range.revision < self.compacted =>
                {
                    return Err(Refusal::Compacted);
                }
                Request::RequestPut(put) => self.permit_put(put)?,
                _ => {}
            }
            if let Some(inner) = inner {
                self.permit(inner)?;
            }
        }
        Ok(())
    }

    fn permit_put(&self, put: &PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.newest().contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn run(&self, draft: &mut Draft, decided: &Decided<'_>) -> TxnResponse {
        let mut responses = Vec::new();
        for (request, inner) in &decided.ops {
            let response = match request {
                Request::RequestRange(range) => {
                    let mut response = if range.revision > 0 {
                        read(self.at(range.revision), range)
                    } else {
                        read(&draft.copy, range)
                    };
                    response.header = header(draft.now());
                    Response::ResponseRange(response)
                }
                Request::RequestPut(put) => Response::ResponsePut(draft.put(put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(draft.delete(delete))
                }
                Request::RequestTxn(_) => {
                    let inner = inner.as_ref().expect("decided with its transaction");
                    Response::ResponseTxn(self.run(draft, inner))
                }
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded: decided.succeeded,
            responses,
        }
    }
}

impl Draft {
    fn now(&self) -> i64 {
        self.begin + i64::from(!self.events.is_empty())
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let previous = self.copy.get(&put.key).cloned();
        let mut kv = KeyValue {
            key: put.key.clone(),
            create_revision: self.begin + 1,
            mod_revision: self.begin + 1,
            version: 1,
            value: put.value.clone(),
            lease: put.lease,
        };
        if let Some(previous) = &previous {
            kv.create_revision = previous.create_revision;
            kv.version = previous.version + 1;
            if put.ignore_value {
                kv.value = previous.value.clone();
            }
            if put.ignore_lease {
                kv.lease = previous.lease;
            }
        }
        self.copy.insert(put.key.clone(), kv.clone());
        self.events.push(Event {
            r#type: 0,
            kv: Some(kv),
            prev_kv: None,
        });
        PutResponse {
            header: header(self.begin + 1),
            prev_kv: if put.prev_kv { previous } else { None },
        }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let doomed: Vec<KeyValue> = self
            .copy
            .values()
            .filter(|kv| inside(&kv.key, &delete.key, &delete.range_end))
            .cloned()
            .collect();
        for kv in &doomed {
            self.copy.remove(&kv.key);
            self.events.push(Event {
                r#type: 1,
                kv: Some(KeyValue {
                    key: kv.key.clone(),
                    mod_revision: self.begin + 1,
                    ..KeyValue::default()
                }),
                prev_kv: None,
            });
        }
        DeleteRangeResponse {
            header: header(self.now()),
            deleted: doomed.len() as i64,
            prev_kvs: if delete.prev_kv { doomed } else { Vec::new() },
        }
    }
}

fn read(copy: &Copy, request: &RangeRequest) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = copy
        .values()
        .filter(|kv| inside(&kv.key, &request.key, &request.range_end))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse {
            count,
            ..RangeResponse::default()
        };
    }
    let limit = if request.limit > 0 {
        request.limit as usize
    } else {
        usize::MAX
    };
    let (none, descend) = (request.sort_order == 0, request.sort_order == 2);
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if none && bounds == [0; 4] {
        kvs.truncate(limit.saturating_add(1));
    }
    kvs.retain(|kv| {
        (bounds[0] == 0 || kv.mod_revision >= bounds[0])
            && (bounds[1] == 0 || kv.mod_revision <= bounds[1])
            && (bounds[2] == 0 || kv.create_revision >= bounds[2])
            && (bounds[3] == 0 || kv.create_revision <= bounds[3])
    });
    kvs.sort_by(|a, b| {
        let order = match request.sort_target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        };
        if descend { order.reverse() } else { order }
    });
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if request.sort_target != 4 {
                kv.lease = 0;
            }
        }
    }
    RangeResponse {
        header: None,
        kvs,
        more,
        count,
    }
}
