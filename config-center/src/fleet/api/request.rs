//! What a request brings along: credentials, an author, pages, preconditions.

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use schemas_client::Client;
use serde::{Deserialize, Serialize};

use super::{
    problem::Problem,
    server::{Api, Requester},
};
use crate::{
    auth::CertificateName,
    fleet::{audit::Author, keys::Namespace},
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// The framework's own refusals are a sentence.
const MAX_REFUSAL_BYTES: usize = 4_096;
/// What a client may say about itself in one header.
const MAX_HEADER_BYTES: usize = 1_024;

/// The store as the requester may use it.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) ns: Namespace,
    pub(super) author: Author,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let certificate = parts.extensions.get::<CertificateName>();
        let requester = Requester {
            login: credentials(&parts.headers)?,
            certificate: certificate
                .map(|CertificateName(name)| name.clone())
                .filter(|name| !name.is_empty()),
        };
        let name = requester.name().to_owned();
        let text = |header: &str| {
            let value = parts
                .headers
                .get(header)
                .and_then(|value| value.to_str().ok());
            value
                .unwrap_or_default()
                .chars()
                .take(MAX_HEADER_BYTES)
                .collect::<String>()
        };
        Ok(Self {
            client: api.client_for(requester)?,
            ns: api.namespace().clone(),
            author: Author {
                name,
                source: "api".into(),
                request_id: text("idempotency-key"),
                reason: text("x-reason"),
                may_repeat: parts.headers.contains_key("idempotency-key"),
            },
        })
    }
}

fn credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let wrong = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "The credentials are not understood",
            "send Authorization: Basic with name:password of a user of the store",
        )
    };
    let encoded = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Basic "))
        .ok_or_else(wrong)?;
    let bytes = BASE64_STANDARD
        .decode(encoded.trim())
        .map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (name, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Some((name.to_owned(), password.to_owned())))
}

/// Refuses what a foreign page might make a browser send: only same-origin pages and programs may
/// change anything.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && is_foreign(request.headers()) {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "The request comes from another site",
            "the Origin header names another host than the request goes to",
        )
        .into_response();
    }
    as_problem(next.run(request).await).await
}

/// What the framework refuses by itself, such as a query that is no number, in the API's words.
async fn as_problem(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_told = kind.is_some_and(|kind| kind == "application/problem+json");
    let status = response.status();
    if is_told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), MAX_REFUSAL_BYTES).await;
    let detail = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    Problem::new(
        status,
        "bad_request",
        "The request is not understood",
        detail,
    )
    .into_response()
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = origin
        .to_str()
        .ok()
        .and_then(|text| text.split_once("://"))
        .map(|(_, rest)| rest);
    authority.is_none() || authority != host
}

/// A page of a list: names in order, `continue` behind the last one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    limit: Option<usize>,
    #[serde(rename = "continue")]
    after: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Paged<T> {
    items: Vec<T>,
    total: usize,
    /// Absent: this is the last page.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl Page {
    /// Cuts a page out of items that are ordered by their names.
    pub(super) fn cut<T>(
        &self,
        items: Vec<T>,
        name: impl Fn(&T) -> String,
    ) -> Result<Paged<T>, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Problem::bad_request(format!(
                "limit goes from 1 to {MAX_PAGE}"
            )));
        }
        let total = items.len();
        let skipped = match &self.after {
            // The item may be gone meanwhile: then the page begins where it would have been.
            Some(after) => match items.iter().position(|item| name(item) == *after) {
                Some(index) => index + 1,
                None => items.iter().take_while(|item| name(item) <= *after).count(),
            },
            None => 0,
        };
        let mut rest = items.into_iter().skip(skipped);
        let page: Vec<T> = rest.by_ref().take(limit).collect();
        let after = rest.next().and_then(|_| page.last().map(&name));
        Ok(Paged {
            items: page,
            total,
            after,
        })
    }
}

/// The revision that `If-Match` names; 0 for `If-None-Match: *`, which means that there is none.
pub(super) fn expected_revision(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let wrong =
        || Problem::bad_request("If-Match holds the ETag of an earlier answer, such as \"42\"");
    if let Some(value) = headers.get(header::IF_NONE_MATCH) {
        return if value == "*" {
            Ok(Some(0))
        } else {
            Err(wrong())
        };
    }
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| wrong())?.trim_matches('"');
    text.parse().map(Some).map_err(|_| wrong())
}

/// The text of a body in one of the forms in which objects are written.
pub(super) fn text<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<&'a str, Problem> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(
        kind,
        "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml"
    ) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body's type is not known",
            "send Content-Type: application/yaml or application/json",
        ));
    }
    std::str::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: Option<usize>, after: Option<&str>) -> Result<(String, Option<String>), u16> {
        let items: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let page = Page {
            limit,
            after: after.map(str::to_owned),
        };
        let paged = page
            .cut(items, Clone::clone)
            .map_err(|problem| problem.into_response().status().as_u16())?;
        Ok((paged.items.concat(), paged.after))
    }

    #[test]
    fn pages_follow_each_other() {
        assert_eq!(page(Some(2), None), Ok(("ab".into(), Some("b".into()))));
        assert_eq!(page(Some(2), Some("b")), Ok(("cd".into(), None)));
        assert_eq!(page(None, None), Ok(("abcd".into(), None)));
        assert_eq!(
            page(Some(1), Some("bb")),
            Ok(("c".into(), Some("c".into())))
        );
        assert_eq!(page(Some(0), None), Err(400));
        assert_eq!(page(Some(1_001), None), Err(400));
    }

    #[test]
    fn foreign_pages_are_told_by_their_origin() {
        let headers = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "center:2381".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        assert!(!is_foreign(&headers(None)));
        assert!(!is_foreign(&headers(Some("http://center:2381"))));
        for foreign in [
            "http://evil",
            "http://center:2381.evil",
            "null",
            "https://center:80",
        ] {
            assert!(is_foreign(&headers(Some(foreign))), "{foreign}");
        }
    }

    #[test]
    fn preconditions_are_etags() {
        let headers = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            expected_revision(&headers).map_err(|_| ())
        };
        assert_eq!(headers(header::IF_MATCH, "\"42\""), Ok(Some(42)));
        assert_eq!(headers(header::IF_NONE_MATCH, "*"), Ok(Some(0)));
        assert_eq!(headers(header::IF_MATCH, "*"), Err(()));
        assert_eq!(headers(header::ACCEPT, "x"), Ok(None));
    }
}
