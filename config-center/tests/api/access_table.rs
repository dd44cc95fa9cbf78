//! Every call of the descriptor set and every HTTP route, by everybody who might make it. A new
//! call or route fails here until somebody has said who may use it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use config_center::api::routes::{Answers, ROUTES, Route};
use config_center::api::v2::V2Part;
use prost::Message;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use schemas::authpb::permission::Type;
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::request_op::Request as OpRequest;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::{v3electionpb as election, v3lockpb as lock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use super::auth::{Visitor, add_role, add_user, guarded};
use super::fixture::{Fixture, bytes, put, range, watch_key, within};

/// Who may make a call with the request given in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Everybody,
    EveryUser,
    /// bob and ann may read what it touches.
    Readers,
    /// ann may write what it touches.
    Writers,
    /// The request is about bob himself.
    BobAndRoot,
    Root,
    /// Not served on this port at all.
    Nobody,
}

const PEOPLE: [&str; 5] = ["", "eve", "bob", "ann", "root"];

fn may(class: Class, who: &str) -> bool {
    match class {
        Class::Everybody => true,
        Class::EveryUser => !who.is_empty(),
        Class::Readers => matches!(who, "bob" | "ann" | "root"),
        Class::Writers => matches!(who, "ann" | "root"),
        Class::BobAndRoot => matches!(who, "bob" | "root"),
        Class::Root => who == "root",
        Class::Nobody => false,
    }
}

fn encoded(message: impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn leader_key() -> Option<election::LeaderKey> {
    Some(election::LeaderKey {
        name: bytes("bo"),
        key: bytes("bo/1"),
        rev: 1,
        lease: 1,
    })
}

/// The class of each call, and a request for which it holds.
fn classify(path: &str, who: &str) -> Option<(Class, Bytes)> {
    use Class::{BobAndRoot, EveryUser, Everybody, Nobody, Readers, Root, Writers};
    let own_name = |prefix: &str| bytes(&format!("{prefix}-{who}"));
    let nothing = Bytes::new();
    let nobody = || "nobody".to_owned();
    Some(match path {
        "etcdserverpb.KV/Range" => (Readers, encoded(range("a"))),
        "etcdserverpb.KV/RangeStream" => (Readers, encoded(range("a"))),
        "etcdserverpb.KV/Put" => (Writers, encoded(put("a", "1"))),
        "etcdserverpb.KV/DeleteRange" => {
            let delete = pb::DeleteRangeRequest {
                key: bytes("azz"),
                ..pb::DeleteRangeRequest::default()
            };
            (Writers, encoded(delete))
        }
        "etcdserverpb.KV/Txn" => {
            let operation = pb::RequestOp {
                request: Some(OpRequest::RequestPut(put("a", "1"))),
            };
            let txn = pb::TxnRequest {
                failure: vec![operation],
                ..pb::TxnRequest::default()
            };
            (Writers, encoded(txn))
        }
        "etcdserverpb.KV/Compact" => (Root, nothing),
        "etcdserverpb.Watch/Watch" => {
            let watch = pb::WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(watch_key("a"))),
            };
            (Readers, encoded(watch))
        }
        "etcdserverpb.Lease/LeaseGrant" => {
            (EveryUser, encoded(pb::LeaseGrantRequest { id: 0, ttl: 60 }))
        }
        "etcdserverpb.Lease/LeaseRevoke" => (Writers, encoded(pb::LeaseRevokeRequest { id: 7 })),
        "etcdserverpb.Lease/LeaseKeepAlive" => {
            (Writers, encoded(pb::LeaseKeepAliveRequest { id: 8 }))
        }
        "etcdserverpb.Lease/LeaseTimeToLive" => {
            let asked = pb::LeaseTimeToLiveRequest { id: 8, keys: true };
            (Readers, encoded(asked))
        }
        "etcdserverpb.Lease/LeaseLeases" => (Readers, nothing),
        "etcdserverpb.Cluster/MemberList"
        | "etcdserverpb.Maintenance/Status"
        | "etcdserverpb.Maintenance/Alarm" => (EveryUser, nothing),
        "etcdserverpb.Cluster/MemberAdd" => {
            // A real one would wait for a member that never comes.
            let add = pb::MemberAddRequest {
                peer_ur_ls: vec!["no url".to_owned()],
                is_learner: false,
            };
            (Root, encoded(add))
        }
        "etcdserverpb.Auth/UserAdd" => {
            let user = pb::AuthUserAddRequest {
                name: "newcomer".to_owned(),
                ..pb::AuthUserAddRequest::default()
            };
            (Root, encoded(user))
        }
        "etcdserverpb.Cluster/MemberRemove"
        | "etcdserverpb.Cluster/MemberUpdate"
        | "etcdserverpb.Cluster/MemberPromote"
        | "etcdserverpb.Maintenance/Defragment"
        | "etcdserverpb.Maintenance/Hash"
        | "etcdserverpb.Maintenance/HashKV"
        | "etcdserverpb.Maintenance/Snapshot"
        | "etcdserverpb.Maintenance/MoveLeader"
        | "etcdserverpb.Maintenance/Downgrade"
        | "etcdserverpb.Auth/AuthEnable"
        | "etcdserverpb.Auth/UserList"
        | "etcdserverpb.Auth/UserDelete"
        | "etcdserverpb.Auth/UserGrantRole"
        | "etcdserverpb.Auth/UserRevokeRole"
        | "etcdserverpb.Auth/RoleAdd"
        | "etcdserverpb.Auth/RoleList"
        | "etcdserverpb.Auth/RoleDelete"
        | "etcdserverpb.Auth/RoleGrantPermission"
        | "etcdserverpb.Auth/RoleRevokePermission"
        // Carried out by root, this one would end the test: it is the last to be tried.
        | "etcdserverpb.Auth/AuthDisable" => (Root, nothing),
        "etcdserverpb.Auth/UserChangePassword" => {
            let change = pb::AuthUserChangePasswordRequest {
                name: nobody(),
                ..pb::AuthUserChangePasswordRequest::default()
            };
            (Root, encoded(change))
        }
        "etcdserverpb.Auth/UserGet" => {
            let name = "bob".to_owned();
            (BobAndRoot, encoded(pb::AuthUserGetRequest { name }))
        }
        "etcdserverpb.Auth/RoleGet" => {
            let role = "reader".to_owned();
            (BobAndRoot, encoded(pb::AuthRoleGetRequest { role }))
        }
        "etcdserverpb.Auth/AuthStatus" => (Everybody, nothing),
        "etcdserverpb.Auth/Authenticate" => {
            let login = pb::AuthenticateRequest {
                name: nobody(),
                password: String::new(),
            };
            (Everybody, encoded(login))
        }
        "v3lockpb.Lock/Lock" => {
            let name = own_name("al");
            (Writers, encoded(lock::LockRequest { name, lease: 0 }))
        }
        "v3lockpb.Lock/Unlock" => (Writers, encoded(lock::UnlockRequest { key: bytes("azz") })),
        "v3electionpb.Election/Campaign" => {
            let campaign = election::CampaignRequest {
                name: own_name("ac"),
                ..election::CampaignRequest::default()
            };
            (Writers, encoded(campaign))
        }
        "v3electionpb.Election/Proclaim" => {
            let proclaim = election::ProclaimRequest {
                leader: leader_key(),
                value: bytes("v"),
            };
            (Writers, encoded(proclaim))
        }
        "v3electionpb.Election/Leader" => {
            (Readers, encoded(election::LeaderRequest { name: bytes("ae") }))
        }
        "v3electionpb.Election/Observe" => {
            (Readers, encoded(election::LeaderRequest { name: bytes("ae") }))
        }
        "v3electionpb.Election/Resign" => {
            let leader = leader_key();
            (Writers, encoded(election::ResignRequest { leader }))
        }
        "grpc.health.v1.Health/Check" | "grpc.health.v1.Health/List" | "grpc.health.v1.Health/Watch" => (Everybody, nothing),
        // What members say to each other is said on another port.
        path if path.starts_with("config_center.") => (Nobody, nothing),
        _ => return None,
    })
}

/// `package.Service/Method` of everything that is described.
fn described() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(schemas::DESCRIPTORS).unwrap();
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let (service, method) = (service.name(), method.name());
                paths.insert(format!("{}.{service}/{method}", file.package()));
            }
        }
    }
    paths
}

/// Messages as they are on the wire.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// Sends one message and takes the first answer.
async fn call(visitor: &Visitor, path: &str, message: Bytes) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(visitor.channel());
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let uri = format!("/{path}").parse().unwrap();
    let request = Request::new(tokio_stream::once(message));
    let mut answers = grpc.streaming(request, uri, Raw).await?.into_inner();
    let first = within(path, answers.message()).await?;
    Ok(first.unwrap_or_default())
}

/// Whether the answer says that this caller may not; other refusals come after that question.
fn is_denied(path: &str, outcome: &Result<Bytes, Status>) -> bool {
    const DENIALS: [&str; 2] = [
        "etcdserver: permission denied",
        "etcdserver: user name is empty",
    ];
    match outcome {
        Err(status) if status.message().starts_with("unknown service of ") => {
            assert_eq!(status.code(), Code::Unimplemented);
            true
        }
        Err(status) => DENIALS.contains(&status.message()),
        Ok(answer) if path == "etcdserverpb.Watch/Watch" => {
            pb::WatchResponse::decode(answer.clone()).unwrap().canceled
        }
        Ok(_) => false,
    }
}

/// A lease that only those may touch who may touch its key.
async fn attach(root: &Visitor, key: &str, lease: i64) {
    let grant = pb::LeaseGrantRequest {
        id: lease,
        ttl: 600,
    };
    root.leases().lease_grant(grant).await.unwrap();
    let attached = pb::PutRequest {
        lease,
        ..put(key, "1")
    };
    root.kv().put(attached).await.unwrap();
}

async fn people(fixture: &Fixture) -> Vec<(&'static str, Visitor)> {
    let root = Visitor::login(fixture, "root", "r").await;
    add_role(&root, "nothing", Type::Read, "x", "").await;
    add_user(&root, "eve", "e", Some("nothing")).await;
    attach(&root, "a7", 7).await;
    attach(&root, "a8", 8).await;
    // Somebody leads, so that watching an election has something to tell.
    let campaign = election::CampaignRequest {
        name: bytes("ae"),
        ..election::CampaignRequest::default()
    };
    let path = "v3electionpb.Election/Campaign";
    call(&root, path, encoded(campaign)).await.unwrap();
    let mut people = vec![("", Visitor::anonymous(fixture))];
    for (name, password) in [("eve", "e"), ("bob", "b"), ("ann", "a"), ("root", "r")] {
        people.push((name, Visitor::login(fixture, name, password).await));
    }
    people
}

#[tokio::test]
async fn every_call_asks_who_calls() {
    let fixture = guarded(&[]).await;
    let people = people(&fixture).await;
    assert_eq!(
        people.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        PEOPLE
    );
    let last = "etcdserverpb.Auth/AuthDisable";
    let paths = described();
    assert!(paths.contains(last));
    let in_order = paths.iter().filter(|path| *path != last);
    for path in in_order.map(String::as_str).chain([last]) {
        for (who, visitor) in &people {
            let (class, request) =
                classify(path, who).unwrap_or_else(|| panic!("{path} is new: say who may call it"));
            let outcome = call(visitor, path, request).await;
            let is_allowed = !is_denied(path, &outcome);
            assert_eq!(
                is_allowed,
                may(class, who),
                "{path} by {who:?}: {outcome:?}"
            );
        }
    }
    fixture.stop().await;
}

/// The message as JSON, by the schema alone.
fn as_json(message: &DynamicMessage) -> serde_json::Value {
    let fields = message.fields().map(|(field, value)| {
        let value = match value {
            Value::List(values) => values.iter().map(one_as_json).collect(),
            value => one_as_json(value),
        };
        (field.name().to_owned(), value)
    });
    serde_json::Value::Object(fields.collect())
}

fn one_as_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(flag) => serde_json::json!(flag),
        Value::I32(number) | Value::EnumNumber(number) => serde_json::json!(number),
        Value::U32(number) => serde_json::json!(number),
        Value::I64(number) => serde_json::json!(number.to_string()),
        Value::U64(number) => serde_json::json!(number.to_string()),
        Value::String(text) => serde_json::json!(text),
        Value::Bytes(bytes) => serde_json::json!(STANDARD.encode(bytes)),
        Value::Message(message) => as_json(message),
        other => panic!("no request has {other:?}"),
    }
}

/// Sends HTTP/1.1 and reads until the answer, or the first piece of one without an end, is there.
async fn first_answer(fixture: &Fixture, request: &str) -> String {
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = within("an answer", stream.read(&mut piece)).await.unwrap();
        answer.extend(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if read == 0 || body.is_some_and(|body| body.contains('\n') && body.contains('}')) {
            return text.into_owned();
        }
    }
}

#[tokio::test]
async fn every_route_asks_who_calls() {
    let fixture = guarded(&["--enable-v2"]).await;
    let people = people(&fixture).await;
    let pool = DescriptorPool::decode(schemas::DESCRIPTORS).unwrap();
    // Carried out by root, this one would end the test: it is the last to be tried.
    let is_last = |route: &&Route| route.path == "/v3/auth/disable";
    let in_order = ROUTES.iter().filter(|route| !is_last(route));
    for route in in_order.chain(ROUTES.iter().filter(is_last)) {
        // A placeholder stands at the end of a path.
        let path = match route.path.split_once('{') {
            Some((fixed, _)) => format!("{fixed}a"),
            None => route.path.to_owned(),
        };
        // The path it had before has taken it.
        if path == "/v3/kv/lease/revoke" {
            attach(&people[people.len() - 1].1, "a7", 7).await;
        }
        for (who, visitor) in &people {
            let (method, class, body) = match route.answers {
                Answers::Rpc(rpc) => {
                    let name = format!("{}/{}", rpc.service(), rpc.method());
                    let (class, message) = classify(&name, who)
                        .unwrap_or_else(|| panic!("{name} is new: say who may call it"));
                    let called = pool.get_service_by_name(rpc.service()).unwrap();
                    let called = called.methods().find(|one| one.name() == rpc.method());
                    let input = called.unwrap().input();
                    let message = DynamicMessage::decode(input, message).unwrap();
                    ("POST", class, as_json(&message).to_string())
                }
                // Probes and scrapers have no users.
                Answers::Health | Answers::Checks(_) | Answers::Version | Answers::Metrics => {
                    ("GET", Class::Everybody, String::new())
                }
                // Keys, users and roles are those of v3; nobody is a guest unless v2 says so.
                Answers::V2(V2Part::Keys | V2Part::Users | V2Part::Roles) => {
                    ("GET", Class::Root, String::new())
                }
                // As in etcd, whoever looks for the cluster needs no name.
                Answers::V2(_) => ("GET", Class::Everybody, String::new()),
            };
            let login = match route.answers {
                // v2 takes passwords; each is the first letter of the name.
                Answers::V2(_) if !who.is_empty() => {
                    let login = STANDARD.encode(format!("{who}:{}", &who[..1]));
                    Some(format!("Basic {login}"))
                }
                Answers::V2(_) => None,
                _ => visitor.token().map(|token| token.to_string()),
            };
            let token =
                login.map_or_else(String::new, |login| format!("authorization: {login}\r\n"));
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = first_answer(&fixture, &request).await;
            let is_allowed = !is_refused(&answer);
            assert_eq!(is_allowed, may(class, who), "{path} by {who:?}: {answer}");
        }
    }
    fixture.stop().await;
}

/// Whether the answer says that this caller may not; other refusals come after that question.
fn is_refused(answer: &str) -> bool {
    let denials = [
        "etcdserver: permission denied",
        "etcdserver: user name is empty",
    ];
    answer.starts_with("HTTP/1.1 401 ") || denials.iter().any(|text| answer.contains(text))
}
