//! What of an HTTP request a gRPC call is made of: metadata from headers, messages from a body.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt as _;
use tonic::Status;

use super::frames::framed;
use super::json::{Notation, SplitError, ValueSplitter};
use super::method::Method;

/// gRPC gateways pass these on without the prefix.
const METADATA_PREFIX: &str = "grpc-metadata-";
const TOKEN: HeaderName = HeaderName::from_static("token");
const BEARER: &str = "Bearer ";

/// The metadata of the call that an HTTP request means.
pub(in crate::api) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else {
            continue;
        };
        if name.starts_with("grpc-") {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = token(headers) {
        metadata.insert(TOKEN, token);
    }
    // Last, so that nobody can choose them.
    metadata.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

/// The token of `Authorization: TOKEN` or `Authorization: Bearer TOKEN`; browsers, which cannot set
/// headers of a websocket, send it as its second protocol.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let text = given.to_str().ok()?;
        let is_bearer = text
            .get(..BEARER.len())
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER));
        let token = if is_bearer {
            text.get(BEARER.len()..)?
        } else {
            text
        };
        return HeaderValue::from_str(token.trim()).ok();
    }
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let (scheme, token) = protocols.split_once(',')?;
    (scheme.trim() == BEARER.trim())
        .then(|| HeaderValue::from_str(token.trim()).ok())
        .flatten()
}

/// The messages of a body with any number of JSON objects, each passed on as soon as it is whole.
pub(super) struct JsonMessages {
    method: Arc<Method>,
    notation: Notation,
    body: Body,
    splitter: ValueSplitter,
    ended: bool,
}

impl JsonMessages {
    pub(super) fn new(
        method: Arc<Method>,
        notation: Notation,
        body: Body,
        max_json_bytes: usize,
    ) -> Self {
        Self {
            method,
            notation,
            body,
            splitter: ValueSplitter::new(max_json_bytes),
            ended: false,
        }
    }

    /// The next message with its gRPC frame.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(json) = self.splitter.next().map_err(bad)? {
                let message = self.method.request(json, self.notation).await?;
                return framed(&message).map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.splitter.push(&bytes);
                    }
                }
                Some(Err(_)) => return Err(Status::cancelled("the request's body broke off")),
                None => {
                    self.splitter.finish().map_err(bad)?;
                    self.ended = true;
                }
            }
        }
    }
}

fn bad(error: SplitError) -> Status {
    match error {
        SplitError::TooLarge(_) => Status::resource_exhausted(error.to_string()),
        SplitError::NotAnObject(_) | SplitError::UnexpectedEnd => {
            Status::invalid_argument(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn a_token_comes_with_or_without_its_scheme() {
        for given in ["abc.1", "Bearer abc.1", "bearer  abc.1 "] {
            let metadata = metadata(&headers(&[("authorization", given)]));
            assert_eq!(metadata["token"], "abc.1", "{given}");
        }
        let by_websocket = headers(&[("sec-websocket-protocol", "Bearer, abc.1")]);
        assert_eq!(metadata(&by_websocket)["token"], "abc.1");
        for none in [
            headers(&[]),
            headers(&[("sec-websocket-protocol", "chat, abc.1")]),
            headers(&[("token", "abc.1")]),
        ] {
            assert!(!metadata(&none).contains_key("token"), "{none:?}");
        }
    }

    #[test]
    fn only_prefixed_headers_become_metadata() {
        let metadata = metadata(&headers(&[
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-content-type", "text/plain"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("cookie", "x"),
            ("x-forwarded-for", "10.0.0.1"),
        ]));
        let mut names: Vec<&str> = metadata.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "hasleader", "te"]);
        assert_eq!(metadata["content-type"], "application/grpc");
    }
}
