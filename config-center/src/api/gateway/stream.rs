//! Streams over plain HTTP: any number of JSON objects in, one line per message out, each sent as
//! soon as it is there.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tonic::Status;

use super::frames::Messages;
use super::json::Notation;
use super::method::Method;
use super::requests::JsonMessages;
use super::{Gateway, Place, answers};
use crate::api::hangup::{self, ClientSide};

/// Answers when the first message is there, as etcd does: a stream that is refused at once has a
/// status of its own.
pub(super) async fn answer(
    gateway: &Gateway,
    method: Arc<Method>,
    notation: Notation,
    headers: &HeaderMap,
    body: Body,
    client: Option<ClientSide>,
) -> Response<Body> {
    let requests = match requests(gateway, &method, notation, body).await {
        Ok(requests) => requests,
        Err(status) => return answers::stream_refused(&status),
    };
    let place = match gateway.place(client.as_ref()).await {
        Ok(place) => place,
        Err(status) => return answers::stream_refused(&status),
    };
    let begun = async {
        let mut messages = Messages::of(gateway.call(&method, headers, requests).await)?;
        let first = messages.next().await?;
        Ok::<_, Status>((messages, first))
    };
    let begun = tokio::select! {
        begun = begun => begun,
        // Nobody reads what is answered now.
        () = hangup::closed(client.as_ref()) => Err(Status::cancelled("the client has gone")),
    };
    match begun {
        Err(status) => answers::stream_refused(&status),
        Ok((_, None)) => Response::new(Body::empty()),
        Ok((messages, first)) => {
            let lines = Lines {
                method,
                notation,
                messages,
                first,
                client,
                ended: false,
                _place: place,
            };
            let lines = stream::unfold(lines, |mut lines| async {
                let line = lines.next().await?;
                Some((Ok::<_, std::convert::Infallible>(line), lines))
            });
            answers::respond(StatusCode::OK, Body::from_stream(lines))
        }
    }
}

/// A method that hears one message only gets the first object; it would wait for the body's end.
async fn requests(
    gateway: &Gateway,
    method: &Arc<Method>,
    notation: Notation,
    body: Body,
) -> Result<tonic::body::Body, Status> {
    if !method.hears_stream() {
        let json = gateway.read_whole(body).await?;
        let message = method.request(json, notation).await?;
        let framed = super::framed(&message)?;
        return Ok(tonic::body::Body::new(http_body_util::Full::new(framed)));
    }
    let messages = JsonMessages::new(Arc::clone(method), notation, body, gateway.max_json_bytes);
    let frames = stream::try_unfold(messages, |mut messages| async {
        let next = messages.next().await?;
        Ok::<_, Status>(next.map(|frame| (Frame::data(frame), messages)))
    });
    Ok(tonic::body::Body::new(StreamBody::new(frames)))
}

/// An answer on its way. Dropped when the client's connection is.
struct Lines {
    method: Arc<Method>,
    notation: Notation,
    messages: Messages,
    first: Option<Bytes>,
    client: Option<ClientSide>,
    ended: bool,
    _place: Place,
}

impl Lines {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let next = match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => tokio::select! {
                next = self.messages.next() => next,
                () = hangup::closed(self.client.as_ref()) => return None,
            },
        };
        let line = match next {
            Ok(Some(message)) => self.method.line(message, self.notation).await,
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        Some(line.unwrap_or_else(|status| {
            self.ended = true;
            answers::stream_error(&status)
        }))
    }
}
