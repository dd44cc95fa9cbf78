//! Clients that read and write through all members, and record every call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::request_op::Request as Op;
use schemas::etcdserverpb::response_op::Response as OpResponse;
use schemas::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest,
};
use schemas::mvccpb::KeyValue;
use tonic::Status;
use tonic::transport::Channel;

use crate::clients::{Connections, MARKERS, PATIENCE, Shared, WORK};
use crate::dice::Dice;
use crate::history::{Answer, Ask, Request, Seen, Told};

/// Keys that are in use at one time; contention makes the checks sharp.
const KEYS: u64 = 5;
/// After so long other keys are used, so that each key's search stays small.
const GENERATION: Duration = Duration::from_secs(8);
/// Between two requests of a worker, at most.
const PAUSE_MS: u64 = 40;

pub(crate) async fn work(shared: Arc<Shared>, client: usize) {
    let mut worker = Worker {
        client,
        dice: Dice::new(shared.seed, client as u64),
        connections: Connections::new(shared.members()),
        count: 0,
        modified: HashMap::new(),
        shared,
    };
    while !worker.shared.is_stopped() {
        worker.request().await;
        let pause = Duration::from_millis(worker.dice.below(PAUSE_MS));
        tokio::time::sleep(pause).await;
    }
}

struct Worker {
    shared: Arc<Shared>,
    client: usize,
    dice: Dice,
    connections: Connections,
    count: u64,
    /// When each key was last modified, as far as this client knows: what a swap expects.
    modified: HashMap<String, i64>,
}

impl Worker {
    async fn request(&mut self) {
        let generation = self.shared.now_ns() / u64::try_from(GENERATION.as_nanos()).unwrap_or(1);
        let key = format!("{WORK}{generation}/{}", self.dice.below(KEYS));
        let member = self.connections.any(&mut self.dice);
        self.count += 1;
        let value = format!("{}.{}", self.client, self.count);
        let ask = match self.dice.below(100) {
            0..30 => Ask::Put { value },
            30..55 => Ask::Get,
            55..70 => Ask::Peek,
            70..90 => Ask::Swap {
                expected: self.modified.get(&key).copied().unwrap_or(0),
                value,
            },
            _ => Ask::Delete {
                marker: format!("{MARKERS}{value}"),
            },
        };
        let life = self.shared.life(member);
        let called_ns = self.shared.now_ns();
        let kv = KvClient::new(self.connections.to(member));
        let outcome = tokio::time::timeout(PATIENCE, call(kv, &key, &ask)).await;
        let at_ns = self.shared.now_ns();
        let answer = match outcome {
            Ok(Ok((revision, told))) => Some(Answer {
                at_ns,
                revision,
                told,
            }),
            // Whatever it says, a write may have happened.
            Ok(Err(_)) | Err(_) => {
                self.connections.renew(member);
                None
            }
        };
        if let Some(answer) = &answer {
            self.learn(&key, answer);
        }
        self.shared.record(Request {
            member,
            life: (life == self.shared.life(member)).then_some(life),
            key,
            ask,
            called_ns,
            answer,
        });
    }

    fn learn(&mut self, key: &str, answer: &Answer) {
        let modified = match &answer.told {
            Told::Written | Told::Swapped => answer.revision,
            Told::Deleted { .. } => 0,
            Told::Found(found) | Told::Refused(found) => found.as_ref().map_or(0, |s| s.modified),
        };
        self.modified.insert(key.to_owned(), modified);
    }
}

async fn call(mut kv: KvClient<Channel>, key: &str, ask: &Ask) -> Result<(i64, Told), Status> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let range = |serializable| RangeRequest {
        key: key.clone(),
        serializable,
        ..Default::default()
    };
    let put = |key: Bytes, value: &str| PutRequest {
        key,
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    match ask {
        Ask::Put { value } => {
            let answer = kv.put(put(key.clone(), value)).await?.into_inner();
            Ok((revision(answer.header)?, Told::Written))
        }
        Ask::Get | Ask::Peek => {
            let answer = kv.range(range(*ask == Ask::Peek)).await?.into_inner();
            let found = Told::Found(seen(&answer)?);
            Ok((revision(answer.header)?, found))
        }
        Ask::Swap { expected, value } => {
            let request = TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key.clone(),
                    target_union: Some(TargetUnion::ModRevision(*expected)),
                    ..Default::default()
                }],
                success: vec![op(Op::RequestPut(put(key.clone(), value)))],
                failure: vec![op(Op::RequestRange(range(false)))],
            };
            let answer = kv.txn(request).await?.into_inner();
            let revision = revision(answer.header)?;
            let first = answer.responses.into_iter().next().and_then(|r| r.response);
            match first {
                Some(OpResponse::ResponsePut(_)) if answer.succeeded => {
                    Ok((revision, Told::Swapped))
                }
                Some(OpResponse::ResponseRange(found)) if !answer.succeeded => {
                    Ok((revision, Told::Refused(seen(&found)?)))
                }
                other => Err(strange(&other)),
            }
        }
        Ask::Delete { marker } => {
            let delete = DeleteRangeRequest {
                key: key.clone(),
                ..Default::default()
            };
            let request = TxnRequest {
                success: vec![
                    op(Op::RequestDeleteRange(delete)),
                    op(Op::RequestPut(put(
                        Bytes::copy_from_slice(marker.as_bytes()),
                        marker,
                    ))),
                ],
                ..Default::default()
            };
            let answer = kv.txn(request).await?.into_inner();
            let revision = revision(answer.header)?;
            match answer.responses.into_iter().next().and_then(|r| r.response) {
                Some(OpResponse::ResponseDeleteRange(deleted)) => {
                    let existed = deleted.deleted > 0;
                    Ok((revision, Told::Deleted { existed }))
                }
                other => Err(strange(&other)),
            }
        }
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn strange(answer: &impl std::fmt::Debug) -> Status {
    Status::data_loss(format!("an answer of another kind: {answer:?}"))
}

fn revision(header: Option<ResponseHeader>) -> Result<i64, Status> {
    let header = header.ok_or_else(|| Status::data_loss("an answer without a header"))?;
    Ok(header.revision)
}

fn seen(answer: &RangeResponse) -> Result<Option<Seen>, Status> {
    match answer.kvs.as_slice() {
        [] => Ok(None),
        [pair] => Ok(Some(seen_pair(pair))),
        _ => Err(strange(answer)),
    }
}

fn seen_pair(pair: &KeyValue) -> Seen {
    Seen {
        value: text(&pair.value),
        create: pair.create_revision,
        modified: pair.mod_revision,
        version: pair.version,
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
