//! `/v2/auth`: the users and roles of v3 in v2's words. What a change means is decided in the core
//! (`core/src/auth/v2.rs`).

use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use config_center_core::auth::{ROOT_ROLE, V2AuthRefusal, V2Principal, V2Rights};
use config_center_core::{Access, Refusal, Reply, State};
use http::{Method, StatusCode};
use schemas::command::command::Op;
use schemas::command::v2_user_write::Verb;
use schemas::command::{V2AuthEnable, V2Permissions, V2RoleWrite, V2UserWrite};
use schemas::etcdserverpb::{AuthDisableRequest, AuthRoleDeleteRequest, AuthUserDeleteRequest};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::events::quoted;
use super::members::message;
use super::visitor::{Denied, Visitor};
use super::{V2, V2Part, json};
use crate::api::{Context, Fault};

/// A request names a user with some roles, or a role with some permissions.
const MAX_BODY_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    roles: Option<Vec<String>>,
    #[serde(default)]
    grant: Option<Vec<String>>,
    #[serde(default)]
    revoke: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    role: String,
    #[serde(default)]
    permissions: Option<Permissions>,
    #[serde(default)]
    grant: Option<Permissions>,
    #[serde(default)]
    revoke: Option<Permissions>,
}

#[derive(Deserialize, Default)]
struct Permissions {
    #[serde(default)]
    kv: Option<Keys>,
}

#[derive(Deserialize, Default)]
struct Keys {
    #[serde(default)]
    read: Option<Vec<String>>,
    #[serde(default)]
    write: Option<Vec<String>>,
}

impl Permissions {
    fn is_empty(&self) -> bool {
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        let kv = self.kv.as_ref();
        kv.is_none_or(|kv| none(&kv.read) && none(&kv.write))
    }

    fn asked(self) -> V2Permissions {
        let kv = self.kv.unwrap_or_default();
        V2Permissions {
            read: kv.read.unwrap_or_default(),
            write: kv.write.unwrap_or_default(),
        }
    }
}

/// Why a request was not carried out, as it is answered.
enum Refused {
    NotAllowed,
    Said(StatusCode, String),
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Insufficient => Self::NotAllowed,
            Denied::Failed(Fault::NotProposed(error)) => {
                Self::Said(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            Denied::Failed(fault @ Fault::Password(_)) => {
                Self::Said(StatusCode::BAD_REQUEST, fault.to_string())
            }
            Denied::Failed(fault) => {
                Self::Said(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string())
            }
        }
    }
}

impl From<V2AuthRefusal> for Refused {
    fn from(refusal: V2AuthRefusal) -> Self {
        use V2AuthRefusal as R;
        let status = match &refusal {
            R::EmptyPassword(_) | R::UserNotUpdated | R::RoleNotUpdated | R::EmptyPattern => {
                StatusCode::BAD_REQUEST
            }
            R::NoSuchUser(_) | R::NoSuchRole(_) => StatusCode::NOT_FOUND,
            R::IsRootRole(_) | R::RootNeedsRole => StatusCode::FORBIDDEN,
            R::UserExists(_)
            | R::RoleExists(_)
            | R::DuplicateRole { .. }
            | R::UngrantedRole { .. }
            | R::DuplicatePermission { .. }
            | R::AlreadyEnabled
            | R::NoRootUser
            | R::NoRootRole => StatusCode::CONFLICT,
        };
        Self::Said(status, refusal.to_string())
    }
}

fn said(status: StatusCode, text: impl Into<String>) -> Refused {
    Refused::Said(status, text.into())
}

type Answered = Result<Response, Refused>;

pub(super) async fn answer(v2: &V2, part: V2Part, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let visitor = Visitor::of(&parts);
    let context = &v2.context;
    let rest = name_in(parts.uri.path());
    let answered = match (part, rest) {
        (V2Part::AuthEnable, _) => switch(context, &visitor, &parts.method).await,
        (_, Err(refused)) => Err(refused),
        (V2Part::Users, Ok(None)) => list(context, &visitor, &parts.method, users).await,
        (_, Ok(None)) => list(context, &visitor, &parts.method, roles).await,
        (part, Ok(Some(name))) => match to_bytes(body, MAX_BODY_BYTES).await {
            Err(_) => Err(said(
                StatusCode::BAD_REQUEST,
                "Invalid JSON in request body.",
            )),
            Ok(body) if part == V2Part::Users => {
                user(context, &visitor, &parts.method, name, &body).await
            }
            Ok(body) => role(context, &visitor, &parts.method, name, &body).await,
        },
    };
    answered.unwrap_or_else(|refused| match refused {
        Refused::NotAllowed => message(StatusCode::UNAUTHORIZED, "Insufficient credentials"),
        Refused::Said(status, text) => message(status, &text),
    })
}

/// `/v2/auth/users/NAME` → `NAME`; nothing behind `users` means all of them.
fn name_in(path: &str) -> Result<Option<String>, Refused> {
    let invalid = |_| said(StatusCode::BAD_REQUEST, "Invalid path");
    let plain = super::form::unescaped(path.as_bytes(), false).map_err(invalid)?;
    let plain =
        String::from_utf8(plain).map_err(|_| said(StatusCode::BAD_REQUEST, "Invalid path"))?;
    let mut rest = plain.split('/').filter(|part| !part.is_empty()).skip(3);
    match (rest.next(), rest.next()) {
        (None, _) => Ok(None),
        (Some(name), None) => Ok(Some(name.to_owned())),
        _ => Err(said(StatusCode::BAD_REQUEST, "Invalid path")),
    }
}

async fn switch(context: &Context, visitor: &Visitor, method: &Method) -> Answered {
    match *method {
        Method::PUT => {
            change(context, visitor, Op::V2AuthEnable(V2AuthEnable {})).await?;
        }
        Method::DELETE => {
            // Asked first, so that a wrong password is not told whether there is anything to turn off.
            visitor.permit(context, Access::Admin).await?;
            if !context.engine().read(State::auth_is_enabled) {
                return Err(said(StatusCode::CONFLICT, "auth: already disabled"));
            }
            let op = Op::AuthDisable(AuthDisableRequest {});
            visitor.propose(context, op).await?;
        }
        _ => {
            let enabled = context.engine().read(State::auth_is_enabled);
            return Ok(json(StatusCode::OK, format!("{{\"enabled\":{enabled}}}\n")));
        }
    }
    Ok(json(StatusCode::OK, ""))
}

/// Replicates a change of v2's own kind.
async fn change(context: &Context, visitor: &Visitor, op: Op) -> Result<V2Principal, Refused> {
    let (reply, _, _) = visitor.propose(context, op).await?;
    match reply {
        Reply::V2Auth(outcome) => Ok((*outcome)?),
        _ => Err(Denied::Failed(Fault::MismatchedReply).into()),
    }
}

async fn list(
    context: &Context,
    visitor: &Visitor,
    method: &Method,
    shown: impl FnOnce(&State) -> String,
) -> Answered {
    if *method != Method::GET {
        return Ok(super::method_not_allowed(&[Method::GET]));
    }
    visitor.permit(context, Access::Admin).await?;
    Ok(json(StatusCode::OK, context.engine().read(shown)))
}

fn users(state: &State) -> String {
    let all = state.users();
    let all: Vec<String> = all
        .iter()
        .map(|name| user_with_roles(state, name))
        .collect();
    match all.is_empty() {
        true => "{\"users\":null}\n".to_owned(),
        false => format!("{{\"users\":[{}]}}\n", all.join(",")),
    }
}

fn roles(state: &State) -> String {
    let mut names = state.roles();
    names.push(ROOT_ROLE.to_owned());
    names.sort_unstable();
    names.dedup();
    let all: Vec<String> = names
        .iter()
        .filter_map(|name| role_text(state, name))
        .collect();
    format!("{{\"roles\":[{}]}}\n", all.join(","))
}

fn user_with_roles(state: &State, name: &str) -> String {
    let held = state.user(name).map(|user| user.roles.clone());
    let held = held.unwrap_or_default();
    let roles: Vec<String> = held
        .iter()
        .filter_map(|role| role_text(state, role))
        .collect();
    let roles = match roles.is_empty() {
        true => String::new(),
        false => format!(",\"roles\":[{}]", roles.join(",")),
    };
    format!("{{\"user\":{}{roles}}}", quoted(name.as_bytes()))
}

fn role_text(state: &State, name: &str) -> Option<String> {
    let rights = state.v2_role(name)?;
    Some(role_with(name, &rights))
}

fn role_with(name: &str, rights: &V2Rights) -> String {
    format!(
        "{{\"role\":{},\"permissions\":{{\"kv\":{{\"read\":{},\"write\":{}}}}}}}",
        quoted(name.as_bytes()),
        texts(&rights.read),
        texts(&rights.write)
    )
}

/// An empty list is `null`, as Go writes one that was never made.
fn texts(list: &[String]) -> String {
    if list.is_empty() {
        return "null".to_owned();
    }
    let list: Vec<String> = list.iter().map(|text| quoted(text.as_bytes())).collect();
    format!("[{}]", list.join(","))
}

/// The first JSON value of the body; what comes behind it is not looked at, as in etcd.
fn decoded<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter();
    match values.next() {
        Some(Ok(value)) => Ok(value),
        _ => Err(said(
            StatusCode::BAD_REQUEST,
            "Invalid JSON in request body.",
        )),
    }
}

async fn user(
    context: &Context,
    visitor: &Visitor,
    method: &Method,
    name: String,
    body: &[u8],
) -> Answered {
    visitor.permit(context, Access::Admin).await?;
    match *method {
        Method::GET => {
            let text = context.engine().read(|state| {
                state
                    .user(&name)
                    .map(|_| user_with_roles(state, &name) + "\n")
            });
            let missing = || {
                said(
                    StatusCode::NOT_FOUND,
                    format!("auth: User {name} does not exist."),
                )
            };
            Ok(json(StatusCode::OK, text.ok_or_else(missing)?))
        }
        Method::DELETE => {
            let op = Op::AuthUserDelete(AuthUserDeleteRequest { name: name.clone() });
            removed(visitor.propose(context, op).await.map(|_| ()), || {
                (
                    format!("auth: User {name} does not exist"),
                    "auth: Cannot delete root user while auth is enabled.",
                )
            })
        }
        _ => put_user(context, visitor, name, decoded(body)?).await,
    }
}

async fn put_user(context: &Context, visitor: &Visitor, name: String, asked: User) -> Answered {
    let bad = |text: &str| Err(said(StatusCode::BAD_REQUEST, text));
    if asked.user != name {
        return bad("User JSON name does not match the name in the URL");
    }
    let roles = asked.roles.unwrap_or_default();
    let grant = asked.grant.unwrap_or_default();
    let revoke = asked.revoke.unwrap_or_default();
    let changes_roles = !grant.is_empty() || !revoke.is_empty();
    if changes_roles && !roles.is_empty() {
        return bad("User JSON contains both roles and grant/revoke");
    }
    let verb = match (changes_roles, roles.is_empty()) {
        (true, _) => Verb::Update,
        (false, false) => Verb::Create,
        (false, true) => Verb::CreateOrUpdate,
    };
    let password_hash = match asked.password.filter(|password| !password.is_empty()) {
        Some(password) => {
            let hashed = context.passwords.hash(password).await;
            hashed.map_err(|error| Denied::from(Fault::from(error)))?
        }
        None => prost::bytes::Bytes::new(),
    };
    let write = V2UserWrite {
        verb: verb as i32,
        name: name.clone(),
        password_hash,
        grant: if changes_roles { grant } else { roles },
        revoke,
    };
    let made = change(context, visitor, Op::V2UserWrite(write)).await?;
    let V2Principal::User { roles, is_new } = made else {
        return Err(Denied::Failed(Fault::MismatchedReply).into());
    };
    // etcd tells apart what it made from what it changed only where it could have been either.
    let status = match is_new && verb == Verb::CreateOrUpdate {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let shown = match roles.is_empty() && !is_new {
        true => "[]".to_owned(),
        false => texts(&roles),
    };
    let body = format!(
        "{{\"user\":{},\"roles\":{shown}}}\n",
        quoted(name.as_bytes())
    );
    Ok(json(status, body))
}

async fn role(
    context: &Context,
    visitor: &Visitor,
    method: &Method,
    name: String,
    body: &[u8],
) -> Answered {
    visitor.permit(context, Access::Admin).await?;
    match *method {
        Method::GET => {
            let text = context.engine().read(|state| role_text(state, &name));
            let missing = || {
                said(
                    StatusCode::NOT_FOUND,
                    format!("auth: Role {name} does not exist."),
                )
            };
            Ok(json(StatusCode::OK, text.ok_or_else(missing)? + "\n"))
        }
        Method::DELETE if name == ROOT_ROLE => Err(V2AuthRefusal::IsRootRole(name).into()),
        Method::DELETE => {
            let op = Op::AuthRoleDelete(AuthRoleDeleteRequest { role: name.clone() });
            removed(visitor.propose(context, op).await.map(|_| ()), || {
                (
                    format!("auth: Role {name} doesn't exist."),
                    "auth: Cannot modify role root: is root role.",
                )
            })
        }
        _ => put_role(context, visitor, name, decoded(body)?).await,
    }
}

async fn put_role(context: &Context, visitor: &Visitor, name: String, asked: Role) -> Answered {
    let bad = |text: &str| Err(said(StatusCode::BAD_REQUEST, text));
    if asked.role != name {
        return bad("Role JSON name does not match the name in the URL");
    }
    let permissions = asked.permissions.unwrap_or_default();
    let (grant, revoke) = (
        asked.grant.unwrap_or_default(),
        asked.revoke.unwrap_or_default(),
    );
    let create = grant.is_empty() && revoke.is_empty();
    if !create && !permissions.is_empty() {
        return bad("Role JSON contains both permissions and grant/revoke");
    }
    let write = V2RoleWrite {
        name: name.clone(),
        create,
        grant: Some(if create { permissions } else { grant }.asked()),
        revoke: Some(revoke.asked()),
    };
    let made = change(context, visitor, Op::V2RoleWrite(write)).await?;
    let V2Principal::Role(rights) = made else {
        return Err(Denied::Failed(Fault::MismatchedReply).into());
    };
    let status = if create {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(json(status, role_with(&name, &rights) + "\n"))
}

/// The answer to a deletion; the texts say that there is nothing of that name, and that it must
/// stay.
fn removed(
    outcome: Result<(), Denied>,
    texts: impl FnOnce() -> (String, &'static str),
) -> Answered {
    let denied = match outcome {
        Ok(()) => return Ok(StatusCode::OK.into_response()),
        Err(denied) => denied,
    };
    match denied {
        Denied::Failed(Fault::Refused(Refusal::UserNotFound | Refusal::RoleNotFound)) => {
            Err(said(StatusCode::NOT_FOUND, texts().0))
        }
        Denied::Failed(Fault::Refused(Refusal::InvalidAuthManagement)) => {
            Err(said(StatusCode::FORBIDDEN, texts().1))
        }
        denied => Err(denied.into()),
    }
}
