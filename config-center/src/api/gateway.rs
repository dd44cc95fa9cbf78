//! The JSON gateway: `/v3/…` in JSON is the same call in gRPC.
//!
//! One mechanism for every RPC: the JSON becomes the protobuf message by the schema's own
//! descriptors, the gRPC services of this process are called as if a client had, and what they
//! answer becomes JSON. So limits, authorisation, counting, codes and texts are the services'
//! business, and exist once. Knows no RPC in particular.

mod answers;
mod frames;
mod json;
mod method;
mod requests;
mod stream;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::grpc::Services;
use super::hangup::{self, ClientSide};
use answers::refused;
pub(super) use frames::{Messages, framed};
use json::Notation;
pub(super) use method::{Method, Methods};
pub(super) use requests::metadata;

/// A JSON text may be this many times the largest message: base64 adds a third, names some more.
const JSON_FACTOR: usize = 2;
/// A client that sends its request drop by drop is let go.
const BODY_READ_TIME: Duration = Duration::from_secs(30);
/// Larger messages are translated on a thread of their own, not between other clients' calls.
const INLINE_BYTES: usize = 256 * 1024;

/// What all gateway routes share.
pub(super) struct Gateway {
    services: Arc<Services>,
    max_json_bytes: usize,
    /// The gateway is one client of the services, as etcd's is: all its calls together may be as
    /// many as the streams of one connection. A call that finds no place waits for one.
    places: Arc<Semaphore>,
}

/// Held while a call goes on.
type Place = OwnedSemaphorePermit;

impl Gateway {
    pub(super) fn new(
        services: Arc<Services>,
        max_message_bytes: usize,
        max_concurrent_streams: u32,
    ) -> Self {
        let places = usize::try_from(max_concurrent_streams).unwrap_or(usize::MAX);
        Self {
            services,
            max_json_bytes: max_message_bytes.saturating_mul(JSON_FACTOR),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a place, as long as the client does.
    async fn place(&self, client: Option<&ClientSide>) -> Result<Place, Status> {
        tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => {
                place.map_err(|_| Status::unavailable("the gateway has stopped"))
            }
            () = hangup::closed(client) => Err(Status::cancelled("the client has gone")),
        }
    }

    /// Answers one HTTP request for a method.
    pub(super) async fn answer(
        self: Arc<Self>,
        method: Arc<Method>,
        request: Request<Body>,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let notation = notation(parts.uri.query());
        if parts.headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
                Ok(upgrade) => websocket::upgrade(self, method, notation, &parts.headers, upgrade),
                Err(rejection) => rejection.into_response(),
            };
        }
        if parts.method != Verb::POST {
            // etcd 3.7's words and status.
            return refused(&Status::unimplemented("Method Not Allowed"));
        }
        let client = parts.extensions.get::<ClientSide>().cloned();
        if method.is_stream() {
            return stream::answer(&self, method, notation, &parts.headers, body, client).await;
        }
        match self
            .unary(&method, notation, &parts.headers, body, client)
            .await
        {
            Ok(json) => answers::respond(StatusCode::OK, json),
            Err(status) => refused(&status),
        }
    }

    async fn unary(
        &self,
        method: &Arc<Method>,
        notation: Notation,
        headers: &HeaderMap,
        body: Body,
        client: Option<ClientSide>,
    ) -> Result<Vec<u8>, Status> {
        let json = self.read_whole(body).await?;
        let message = method.request(json, notation).await?;
        let _place = self.place(client.as_ref()).await?;
        let body = tonic::body::Body::new(Full::new(framed(&message)?));
        let mut messages = Messages::of(self.call(method, headers, body).await)?;
        let Some(message) = messages.next().await? else {
            return Err(Status::internal("the call was answered without a message"));
        };
        // The status comes behind the message.
        messages.next().await?;
        method.answer(message, notation, Vec::new()).await
    }

    async fn read_whole(&self, body: Body) -> Result<Bytes, Status> {
        let whole = Limited::new(body, self.max_json_bytes).collect();
        match tokio::time::timeout(BODY_READ_TIME, whole).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Status::resource_exhausted(format!(
                    "the request is larger than {} bytes of JSON",
                    self.max_json_bytes
                )))
            }
            Ok(Err(_)) => Err(Status::cancelled("the request's body broke off")),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the request's body did not arrive within {} s",
                BODY_READ_TIME.as_secs()
            ))),
        }
    }

    /// Calls the gRPC service.
    async fn call(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: tonic::body::Body,
    ) -> Response<tonic::body::Body> {
        let mut request = Request::new(body);
        *request.method_mut() = Verb::POST;
        *request.uri_mut() = method.uri().clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = metadata(headers);
        self.services.call(request).await
    }
}

/// The answer for a path below `/v3/` that no method has.
pub(super) fn not_found() -> Response<Body> {
    refused(&Status::not_found("Not Found"))
}

/// `?text` asks for plain text in place of base64; etcd knows no query here.
fn notation(query: Option<&str>) -> Notation {
    let text = query.is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some("text"))
    });
    if text {
        Notation::Text
    } else {
        Notation::Base64
    }
}
