//! Users and tokens over the wire. What each user may do is decided, and tested, in the core; here
//! it is shown that every call asks.

use schemas::authpb::{Permission, UserAddOptions, permission::Type};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_client::AuthClient;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::fixture::{Fixture, assert_status, bytes, put, range, watch_key, within};

/// bcrypt's lowest cost: what is tested is not how slow it is.
const FLAGS: &[&str] = &["--bcrypt-cost=4"];

/// Adds a token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

type Guarded = InterceptedService<Channel, Bearer>;

/// One user's view of the server.
#[derive(Clone)]
pub(crate) struct Visitor {
    channel: Channel,
    bearer: Bearer,
}

impl Visitor {
    pub(crate) fn anonymous(fixture: &Fixture) -> Self {
        Self {
            channel: fixture.channel.clone(),
            bearer: Bearer(None),
        }
    }

    pub(crate) fn with_token(fixture: &Fixture, token: &str) -> Self {
        Self {
            channel: fixture.channel.clone(),
            bearer: Bearer(Some(token.parse().unwrap())),
        }
    }

    pub(crate) async fn login(fixture: &Fixture, name: &str, password: &str) -> Self {
        let token = login(fixture, name, password).await.unwrap();
        Self::with_token(fixture, &token)
    }

    /// `None` for whoever has none.
    pub(crate) fn token(&self) -> Option<&str> {
        self.bearer.0.as_ref()?.to_str().ok()
    }

    pub(crate) fn channel(&self) -> Guarded {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn kv(&self) -> KvClient<Guarded> {
        KvClient::new(self.channel())
    }

    pub(crate) fn auth(&self) -> AuthClient<Guarded> {
        AuthClient::new(self.channel())
    }

    pub(crate) fn leases(&self) -> LeaseClient<Guarded> {
        LeaseClient::new(self.channel())
    }

    async fn put(&self, key: &str) -> Result<i64, Status> {
        let answer = self.kv().put(put(key, "v")).await?.into_inner();
        Ok(answer.header.unwrap().revision)
    }

    async fn get(&self, key: &str) -> Result<i64, Status> {
        Ok(self.kv().range(range(key)).await?.into_inner().count)
    }
}

async fn login(fixture: &Fixture, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let mut client = AuthClient::new(fixture.channel.clone());
    Ok(client.authenticate(request).await?.into_inner().token)
}

pub(crate) async fn add_user(visitor: &Visitor, name: &str, password: &str, role: Option<&str>) {
    let mut auth = visitor.auth();
    let user = pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    auth.user_add(user).await.unwrap();
    if let Some(role) = role {
        let grant = pb::AuthUserGrantRoleRequest {
            user: name.to_owned(),
            role: role.to_owned(),
        };
        auth.user_grant_role(grant).await.unwrap();
    }
}

pub(crate) async fn add_role(
    visitor: &Visitor,
    role: &str,
    perm_type: Type,
    key: &str,
    range_end: &str,
) {
    let mut auth = visitor.auth();
    let name = role.to_owned();
    auth.role_add(pb::AuthRoleAddRequest { name })
        .await
        .unwrap();
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Permission {
            perm_type: perm_type as i32,
            key: bytes(key),
            range_end: bytes(range_end),
        }),
    };
    auth.role_grant_permission(grant).await.unwrap();
}

/// root (password r), ann (a) may read and write a to c, bob (b) may read them; authentication on.
pub(crate) async fn guarded(flags: &[&str]) -> Fixture {
    let flags: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
    let fixture = Fixture::start_with(&flags).await;
    let founder = Visitor::anonymous(&fixture);
    add_user(&founder, "root", "r", Some("root")).await;
    add_role(&founder, "editor", Type::Readwrite, "a", "c").await;
    add_role(&founder, "reader", Type::Read, "a", "c").await;
    add_user(&founder, "ann", "a", Some("editor")).await;
    add_user(&founder, "bob", "b", Some("reader")).await;
    founder
        .auth()
        .auth_enable(pb::AuthEnableRequest {})
        .await
        .unwrap();
    fixture
}

const DENIED: &str = "etcdserver: permission denied";
const EMPTY: &str = "etcdserver: user name is empty";
const INVALID: &str = "etcdserver: invalid auth token";

#[tokio::test]
async fn a_token_opens_what_its_user_may_touch() {
    let fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    let ann = Visitor::login(&fixture, "ann", "a").await;
    let bob = Visitor::login(&fixture, "bob", "b").await;
    let nobody = Visitor::anonymous(&fixture);
    let forged = Visitor::with_token(&fixture, "abcdefghijklmnop.1");
    assert!(ann.put("a").await.is_ok());
    assert_eq!(bob.get("a").await.unwrap(), 1);
    assert!(root.put("z").await.is_ok());
    assert_status(bob.put("a").await, Code::PermissionDenied, DENIED);
    assert_status(ann.get("z").await, Code::PermissionDenied, DENIED);
    assert_status(nobody.get("a").await, Code::InvalidArgument, EMPTY);
    assert_status(nobody.put("a").await, Code::InvalidArgument, EMPTY);
    assert_status(forged.get("a").await, Code::Unauthenticated, INVALID);
    assert_status(forged.put("a").await, Code::Unauthenticated, INVALID);
    let status = forged.auth().auth_status(pb::AuthStatusRequest {}).await;
    assert_status(status, Code::Unauthenticated, INVALID);
    // Whether there is anything to prove may be asked by everybody.
    let status = nobody.auth().auth_status(pb::AuthStatusRequest {}).await;
    assert!(status.unwrap().into_inner().enabled);
    // A malformed request is malformed for everybody.
    let text = "etcdserver: key is not provided";
    assert_status(nobody.get("").await, Code::InvalidArgument, text);
    assert_status(nobody.put("").await, Code::InvalidArgument, text);
    fixture.stop().await;
}

#[tokio::test]
async fn wrong_passwords_and_names_sound_alike() {
    let fixture = guarded(&[]).await;
    let text = "etcdserver: authentication failed, invalid user ID or password";
    for (name, password) in [("ann", "b"), ("ann", ""), ("nobody", "a"), ("", "")] {
        let outcome = login(&fixture, name, password).await;
        assert_status(outcome, Code::InvalidArgument, text);
    }
    let token = login(&fixture, "ann", "a").await.unwrap();
    let (letters, index) = token.split_once('.').unwrap();
    assert_eq!(letters.len(), 16);
    assert!(index.parse::<u64>().unwrap() > 0);
    fixture.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_the_password_the_user_or_the_process() {
    let mut fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    let ann = Visitor::login(&fixture, "ann", "a").await;
    let bob = Visitor::login(&fixture, "bob", "b").await;
    let change = pb::AuthUserChangePasswordRequest {
        name: "ann".to_owned(),
        password: "new".to_owned(),
        ..pb::AuthUserChangePasswordRequest::default()
    };
    root.auth().user_change_password(change).await.unwrap();
    assert_status(ann.get("a").await, Code::Unauthenticated, INVALID);
    assert!(login(&fixture, "ann", "a").await.is_err());
    let ann = Visitor::login(&fixture, "ann", "new").await;
    assert!(ann.get("a").await.is_ok());
    let name = "bob".to_owned();
    let delete = pb::AuthUserDeleteRequest { name };
    root.auth().user_delete(delete).await.unwrap();
    assert_status(bob.get("a").await, Code::Unauthenticated, INVALID);
    assert!(root.get("a").await.is_ok(), "others keep theirs");

    fixture.restart().await;
    let ann_again = Visitor::with_token(&fixture, ann.bearer.0.unwrap().to_str().unwrap());
    assert_status(ann_again.get("a").await, Code::Unauthenticated, INVALID);
    // Users, roles and the switch are on disk.
    assert!(
        Visitor::login(&fixture, "ann", "new")
            .await
            .put("b")
            .await
            .is_ok()
    );
    let nobody = Visitor::anonymous(&fixture);
    assert_status(nobody.get("a").await, Code::InvalidArgument, EMPTY);
    fixture.stop().await;
}

#[tokio::test]
async fn an_unused_token_runs_out() {
    let fixture = guarded(&["--auth-token-ttl=1"]).await;
    let ann = Visitor::login(&fixture, "ann", "a").await;
    let running_out = async {
        // Asking prolongs its life, so ask rarely.
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
            if let Err(status) = ann.get("a").await {
                return status;
            }
        }
    };
    let status = within("the end of the token", running_out).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, INVALID)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_watcher_that_may_not_is_created_and_cancelled() {
    let fixture = guarded(&[]).await;
    let bob = Visitor::login(&fixture, "bob", "b").await;
    let open_ended = |key: &str| pb::WatchCreateRequest {
        range_end: bytes("\0"),
        ..watch_key(key)
    };
    for (visitor, request, reason) in [
        (&bob, watch_key("a"), None),
        (
            &bob,
            watch_key("z"),
            Some("rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        ),
        (
            &bob,
            open_ended("a"),
            Some("rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        ),
        (
            &Visitor::anonymous(&fixture),
            watch_key("a"),
            Some("rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        ),
        (
            &Visitor::with_token(&fixture, "abcdefghijklmnop.1"),
            watch_key("a"),
            Some("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        ),
    ] {
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let mut responses = WatchClient::new(visitor.channel())
            .watch(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(request)),
        };
        requests.send(create).await.unwrap();
        let answer = within("answer", responses.message())
            .await
            .unwrap()
            .unwrap();
        assert!(answer.created);
        assert_eq!(answer.canceled, reason.is_some());
        assert_eq!(answer.watch_id, if reason.is_some() { -1 } else { 0 });
        assert_eq!(answer.cancel_reason, reason.unwrap_or_default());
        assert_eq!(answer.header.unwrap().revision, 1);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_lease_shows_and_obeys_only_whom_its_keys_obey() {
    let fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    let bob = Visitor::login(&fixture, "bob", "b").await;
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 100 };
    let nobody = Visitor::anonymous(&fixture);
    let outcome = nobody.leases().lease_grant(grant).await;
    assert_status(outcome, Code::InvalidArgument, EMPTY);
    bob.leases().lease_grant(grant).await.unwrap();
    let attached = pb::PutRequest {
        lease: 7,
        ..put("z", "1")
    };
    root.kv().put(attached).await.unwrap();
    let ask = |keys| pb::LeaseTimeToLiveRequest { id: 7, keys };
    let seen = bob.leases().lease_time_to_live(ask(false)).await.unwrap();
    assert_eq!(seen.into_inner().granted_ttl, 100);
    let outcome = bob.leases().lease_time_to_live(ask(true)).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let outcome = bob.leases().lease_leases(pb::LeaseLeasesRequest {}).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let outcome = bob
        .leases()
        .lease_revoke(pb::LeaseRevokeRequest { id: 7 })
        .await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let renew = tokio_stream::once(pb::LeaseKeepAliveRequest { id: 7 });
    let mut answers = bob
        .leases()
        .lease_keep_alive(renew)
        .await
        .unwrap()
        .into_inner();
    let answer = within("keep alive", answers.message()).await;
    assert_status(answer, Code::PermissionDenied, DENIED);
    let outcome = root
        .leases()
        .lease_revoke(pb::LeaseRevokeRequest { id: 7 })
        .await;
    assert!(outcome.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn users_are_managed_by_root_and_seen_by_themselves() {
    let fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    let ann = Visitor::login(&fixture, "ann", "a").await;
    let name = |name: &str| pb::AuthUserGetRequest {
        name: name.to_owned(),
    };
    let own = ann.auth().user_get(name("ann")).await.unwrap().into_inner();
    assert_eq!(own.roles, ["editor"]);
    let outcome = ann.auth().user_get(name("bob")).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let outcome = ann.auth().user_list(pb::AuthUserListRequest {}).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let listed = root.auth().user_list(pb::AuthUserListRequest {}).await;
    assert_eq!(listed.unwrap().into_inner().users, ["ann", "bob", "root"]);
    let listed = root.auth().role_list(pb::AuthRoleListRequest {}).await;
    assert_eq!(listed.unwrap().into_inner().roles, ["editor", "reader"]);
    let role = |role: &str| pb::AuthRoleGetRequest {
        role: role.to_owned(),
    };
    let own = ann.auth().role_get(role("editor")).await.unwrap();
    assert_eq!(own.into_inner().perm[0].key, bytes("a"));
    let outcome = ann.auth().role_get(role("reader")).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let outcome = root.auth().role_get(role("nothing")).await;
    assert_status(
        outcome,
        Code::FailedPrecondition,
        "etcdserver: role name not found",
    );

    // The whole of a wrong attempt is refused before anything is hashed or proposed.
    let revision_before = root
        .auth()
        .auth_status(pb::AuthStatusRequest {})
        .await
        .unwrap();
    let user = pb::AuthUserAddRequest {
        name: "mallory".to_owned(),
        password: "m".to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    let outcome = ann.auth().user_add(user.clone()).await;
    assert_status(outcome, Code::PermissionDenied, DENIED);
    let long = pb::AuthUserAddRequest {
        password: "x".repeat(73),
        ..user.clone()
    };
    let outcome = root.auth().user_add(long).await;
    assert_status(
        outcome,
        Code::Unknown,
        "bcrypt: password length exceeds 72 bytes",
    );
    let revision_after = root
        .auth()
        .auth_status(pb::AuthStatusRequest {})
        .await
        .unwrap();
    assert_eq!(
        revision_before.into_inner().auth_revision,
        revision_after.into_inner().auth_revision
    );
    let certificate_only = pb::AuthUserAddRequest {
        password: String::new(),
        options: Some(UserAddOptions { no_password: true }),
        ..user
    };
    root.auth().user_add(certificate_only).await.unwrap();
    let text = "auth: authentication failed, password was given for no password user";
    let outcome = login(&fixture, "mallory", "m").await;
    assert_status(outcome, Code::Unknown, text);

    root.auth()
        .auth_disable(pb::AuthDisableRequest {})
        .await
        .unwrap();
    assert!(Visitor::anonymous(&fixture).put("z").await.is_ok());
    let outcome = login(&fixture, "ann", "a").await;
    let text = "etcdserver: authentication is not enabled";
    assert_status(outcome, Code::FailedPrecondition, text);
    // A left-over token is not looked at any more.
    assert!(ann.put("z").await.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn no_client_gives_itself_a_certificates_name() {
    let fixture = guarded(&[]).await;
    let mut request = Request::new(range("a"));
    request.metadata_mut().insert_bin(
        "config-center-certificate-name-bin",
        tonic::metadata::MetadataValue::from_bytes(b"root"),
    );
    let outcome = fixture.kv().range(request).await;
    assert_status(outcome, Code::InvalidArgument, EMPTY);
    // Nor through the gateway, which makes metadata of such headers.
    let body = r#"{"key":"YQ=="}"#;
    let answer = fixture
        .raw(&format!(
            "POST /v3/kv/range HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             grpc-metadata-config-center-certificate-name-bin: cm9vdA\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains(EMPTY),
        "{answer}"
    );
    fixture.stop().await;
}

/// Helpers for whoever is somebody by the connection.
pub(crate) async fn add_user_by(
    channel: Channel,
    name: &str,
    options: Option<UserAddOptions>,
    role: Option<&str>,
) {
    let mut auth = AuthClient::new(channel);
    let user = pb::AuthUserAddRequest {
        name: name.to_owned(),
        options,
        ..pb::AuthUserAddRequest::default()
    };
    auth.user_add(user).await.unwrap();
    if let Some(role) = role {
        let grant = pb::AuthUserGrantRoleRequest {
            user: name.to_owned(),
            role: role.to_owned(),
        };
        auth.user_grant_role(grant).await.unwrap();
    }
}

pub(crate) async fn add_role_by(
    channel: Channel,
    role: &str,
    perm_type: Type,
    key: &str,
    range_end: &str,
) {
    let visitor = Visitor {
        channel,
        bearer: Bearer(None),
    };
    add_role(&visitor, role, perm_type, key, range_end).await;
}

pub(crate) async fn enable_by(channel: Channel) {
    let mut auth = AuthClient::new(channel);
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}
