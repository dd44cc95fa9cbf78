//! Who may use the HTTP side from where: origins of browsers (CORS) and names of this host. Knows no
//! users.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The rules, as `--cors` and `--host-whitelist` give them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub origins: Allowed,
    pub hosts: Allowed,
}

/// A set of names, or all names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    Any,
    Only(BTreeSet<String>),
}

impl Allowed {
    /// No name, or a `*` among them, allows all.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        if names.is_empty() || names.contains("*") {
            Self::Any
        } else {
            Self::Only(names)
        }
    }

    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// In the extensions of every request that came encrypted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverTls;

/// Stands before every route.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(host) = foreign_host(&access.hosts, &request) {
        return (
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "this server does not know itself as {host:?}\n\
                 Some page may be using your browser to reach it (DNS rebinding). If the name is \
                 right, allow it with --host-whitelist={host}, or use https.\n"
            ),
        )
            .into_response();
    }
    let origin = allowed_origin(&access.origins, &request);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
    response
}

/// The host that the client believes to talk to, if that is none of ours. With TLS the certificate
/// has answered the question already.
fn foreign_host(hosts: &Allowed, request: &Request) -> Option<String> {
    if *hosts == Allowed::Any || request.extensions().get::<OverTls>().is_some() {
        return None;
    }
    let by_uri = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let by_header = request.headers().get(header::HOST);
    let host = by_uri.or_else(|| by_header.and_then(|value| value.to_str().ok()));
    let host = without_port(host.unwrap_or_default());
    (!hosts.allows(host)).then(|| host.to_owned())
}

fn without_port(host: &str) -> &str {
    if let Some(bracketed) = host.strip_prefix('[')
        && let Some((address, _)) = bracketed.split_once(']')
    {
        return address;
    }
    match host.rsplit_once(':') {
        // More than one colon without brackets: an address, not a port.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

fn allowed_origin(origins: &Allowed, request: &Request) -> Option<HeaderValue> {
    if *origins == Allowed::Any {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = request.headers().get(header::ORIGIN)?;
    origins
        .allows(origin.to_str().ok()?)
        .then(|| origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_part_of_a_name() {
        for (host, name) in [
            ("example.org", "example.org"),
            ("example.org:2379", "example.org"),
            ("127.0.0.1:2379", "127.0.0.1"),
            ("[::1]:2379", "::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), name, "{host}");
        }
    }

    #[test]
    fn no_name_or_a_star_allows_all() {
        assert_eq!(Allowed::new([]), Allowed::Any);
        assert_eq!(Allowed::new(["a", "*"]), Allowed::Any);
        let some = Allowed::new(["a", "b"]);
        assert!(some.allows("a") && !some.allows("c") && !some.allows(""));
    }
}
