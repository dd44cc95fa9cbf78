//! `/v2/members` and `/v2/machines`: the members as v2 shows them. Changes go through the gRPC
//! service, so that what is allowed and what is checked has one place.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use config_center_core::{Access, Caller};
use http::request::Parts;
use http::{Method, StatusCode, header};
use http_body_util::Full;
use prost::Message;
use schemas::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Code, Status};

use super::events::quoted;
use super::visitor::{Denied, Visitor};
use super::{V2, hex, json};
use crate::api::Context;
use crate::api::gateway::{Messages, framed};
use crate::auth::CertificateName;

const PREFIX: &str = "/v2/members";
/// A request names a few URLs.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(serde::Deserialize)]
struct Wanted {
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
}

pub(super) async fn answer(v2: &V2, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let rest = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let rest = rest.trim_start_matches('/').to_owned();
    let visitor = Visitor::of(&parts);
    let caller = if parts.method == Method::GET {
        // As in etcd, whoever looks for the cluster needs no name.
        Caller::Anonymous
    } else {
        match visitor.permit(&v2.context, Access::Admin).await {
            Ok(caller) => caller,
            Err(Denied::Insufficient) => {
                return message(StatusCode::UNAUTHORIZED, "Insufficient credentials");
            }
            Err(Denied::Failed(fault)) => {
                return message(StatusCode::SERVICE_UNAVAILABLE, &fault.to_string());
            }
        }
    };
    let outcome = match parts.method {
        Method::GET => return get(&v2.context, &rest),
        Method::POST => match wanted(&parts, body).await {
            Ok(wanted) => add(v2, &caller, wanted).await,
            Err(response) => return response,
        },
        _ if rest.is_empty() => {
            return (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response();
        }
        _ => {
            let Ok(id) = u64::from_str_radix(&rest, 16) else {
                return no_such(&rest);
            };
            if parts.method == Method::DELETE {
                remove(v2, &caller, id).await
            } else {
                match wanted(&parts, body).await {
                    Ok(wanted) => update(v2, &caller, id, wanted).await,
                    Err(response) => return response,
                }
            }
        }
    };
    outcome.unwrap_or_else(|status| refused(&status, &rest))
}

pub(super) fn machines(v2: &V2) -> Response {
    let mut urls: Vec<String> = all(&v2.context)
        .into_iter()
        .flat_map(|member| member.client_ur_ls)
        .collect();
    urls.sort();
    urls.join(", ").into_response()
}

pub(super) fn all(context: &Context) -> Vec<Member> {
    context.engine().read(|state| state.members())
}

fn get(context: &Context, rest: &str) -> Response {
    match rest {
        "" => {
            let members: Vec<String> = all(context).iter().map(shown).collect();
            let body = format!("{{\"members\":[{}]}}\n", members.join(","));
            json(StatusCode::OK, body)
        }
        "leader" => {
            let leader_id = context.node.status().leader_id;
            match all(context).iter().find(|member| member.id == leader_id) {
                Some(leader) => json(StatusCode::OK, shown(leader) + "\n"),
                None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
            }
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

fn shown(member: &Member) -> String {
    let list = |urls: &[String]| {
        let urls: Vec<String> = urls.iter().map(|url| quoted(url.as_bytes())).collect();
        urls.join(",")
    };
    format!(
        "{{\"id\":\"{}\",\"name\":{},\"peerURLs\":[{}],\"clientURLs\":[{}]}}",
        hex(member.id),
        quoted(member.name.as_bytes()),
        list(&member.peer_ur_ls),
        list(&member.client_ur_ls)
    )
}

async fn wanted(parts: &Parts, body: axum::body::Body) -> Result<Wanted, Response> {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind != "application/json" {
        let text = format!("Bad Content-Type {kind}, accept application/json");
        return Err(message(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text));
    }
    let bad = |error: String| message(StatusCode::BAD_REQUEST, &error);
    let bytes = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

async fn add(v2: &V2, caller: &Caller, wanted: Wanted) -> Result<Response, Status> {
    let request = MemberAddRequest {
        peer_ur_ls: wanted.peer_urls,
        is_learner: false,
    };
    let answer: MemberAddResponse = call(v2, caller, "MemberAdd", &request).await?;
    let member = answer.member.unwrap_or_default();
    Ok(json(StatusCode::CREATED, shown(&member) + "\n"))
}

async fn remove(v2: &V2, caller: &Caller, id: u64) -> Result<Response, Status> {
    let request = MemberRemoveRequest { id };
    let _: MemberRemoveResponse = call(v2, caller, "MemberRemove", &request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn update(v2: &V2, caller: &Caller, id: u64, wanted: Wanted) -> Result<Response, Status> {
    let request = MemberUpdateRequest {
        id,
        peer_ur_ls: wanted.peer_urls,
    };
    let _: MemberUpdateResponse = call(v2, caller, "MemberUpdate", &request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Calls the gRPC service of this process, for whoever was established to ask.
async fn call<A: Message + Default>(
    v2: &V2,
    caller: &Caller,
    method: &str,
    request: &impl Message,
) -> Result<A, Status> {
    let framed = framed(&request.encode_to_vec().into())?;
    let mut call = http::Request::new(tonic::body::Body::new(Full::new(framed)));
    *call.method_mut() = Method::POST;
    *call.uri_mut() = format!("/etcdserverpb.Cluster/{method}")
        .parse()
        .map_err(|_| Status::internal("a method's path"))?;
    *call.version_mut() = http::Version::HTTP_2;
    if let Caller::User { name, .. } = caller {
        // The services know a user by a token or by a certificate; this name is as good as verified.
        let name = CertificateName(name.as_str().into());
        call.extensions_mut().insert(name);
    }
    let mut messages = Messages::of(v2.services.call(call).await)?;
    let answer = messages.next().await?.unwrap_or_default();
    messages.next().await?;
    A::decode(answer).map_err(|error| Status::internal(error.to_string()))
}

fn refused(status: &Status, id: &str) -> Response {
    let text = status.message();
    match status.code() {
        Code::NotFound => no_such(id),
        Code::FailedPrecondition if text.contains("exist") => message(StatusCode::CONFLICT, text),
        Code::InvalidArgument => message(StatusCode::BAD_REQUEST, text),
        Code::Unauthenticated | Code::PermissionDenied => {
            message(StatusCode::UNAUTHORIZED, "Insufficient credentials")
        }
        Code::Unavailable => message(StatusCode::SERVICE_UNAVAILABLE, text),
        Code::Unimplemented => message(StatusCode::NOT_IMPLEMENTED, text),
        _ => message(StatusCode::INTERNAL_SERVER_ERROR, text),
    }
}

fn no_such(id: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("No such member: {id}"))
}

pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json(
        status,
        format!("{{\"message\":{}}}", quoted(text.as_bytes())),
    )
}
