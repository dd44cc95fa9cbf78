//! The same calls over a websocket: each message from the client is one request, each to it one
//! answer. Browsers watch this way.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::frames::{Messages, framed};
use super::json::Notation;
use super::method::Method;
use super::{Gateway, Place, answers};

/// Requests that wait for the service to take them. The client is read no further meanwhile.
const REQUESTS: usize = 1;

/// What a token is announced with; the answer repeats it.
const BEARER: &str = "Bearer";

pub(super) fn upgrade(
    gateway: Arc<Gateway>,
    method: Arc<Method>,
    notation: Notation,
    headers: &HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    let headers = headers.clone();
    let max_bytes = gateway.max_json_bytes;
    upgrade
        .protocols([BEARER])
        .max_message_size(max_bytes)
        .max_frame_size(max_bytes)
        .on_upgrade(move |socket| async move {
            let (requests, heard) = mpsc::channel::<Result<Bytes, Status>>(REQUESTS);
            let frames = ReceiverStream::new(heard).map(|frame| frame.map(Frame::data));
            let body = tonic::body::Body::new(StreamBody::new(frames));
            let calling = {
                let (gateway, method) = (Arc::clone(&gateway), Arc::clone(&method));
                async move {
                    let place = gateway.place(None).await?;
                    let messages = Messages::of(gateway.call(&method, &headers, body).await)?;
                    Ok((messages, place))
                }
            };
            let conversation = Conversation {
                method,
                notation,
                socket,
                requests: Some(requests),
                answer: Answer::Coming(Box::pin(calling)),
            };
            conversation.run().await;
        })
}

struct Conversation {
    method: Arc<Method>,
    notation: Notation,
    socket: WebSocket,
    /// `None` once the client may say nothing more.
    requests: Option<mpsc::Sender<Result<Bytes, Status>>>,
    answer: Answer,
}

/// A call that has not been answered yet; it may still wait for its place.
type Calling = Pin<Box<dyn Future<Output = Result<(Messages, Place), Status>> + Send>>;

enum Answer {
    Coming(Calling),
    Here { messages: Messages, _place: Place },
}

impl Answer {
    /// The next message. May be dropped and asked again.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Self::Coming(calling) = self {
            let (messages, place) = calling.await?;
            *self = Self::Here {
                messages,
                _place: place,
            };
        }
        match self {
            Self::Here { messages, .. } => messages.next().await,
            Self::Coming(_) => Ok(None),
        }
    }
}

impl Conversation {
    async fn run(mut self) {
        loop {
            tokio::select! {
                heard = hear(&mut self.socket, self.requests.as_ref()) => {
                    let Some(heard) = heard else {
                        return;
                    };
                    self.pass_on(heard).await;
                }
                answer = self.answer.next() => {
                    let line = match answer {
                        Ok(Some(message)) => self.method.line(message, self.notation).await,
                        Ok(None) => break,
                        Err(status) => Err(status),
                    };
                    let (line, last) = match line {
                        Ok(line) => (line, false),
                        Err(status) => (answers::stream_error(&status), true),
                    };
                    let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                    if self.socket.send(Message::Text(text.into())).await.is_err() {
                        return;
                    }
                    if last {
                        break;
                    }
                }
            }
        }
        // The client may have closed already.
        self.socket.send(Message::Close(None)).await.ok();
    }

    /// There is room for one: `hear` has waited for it.
    async fn pass_on(&mut self, json: Bytes) {
        let message = match self.method.request(json, self.notation).await {
            Ok(message) => framed(&message),
            Err(status) => Err(status),
        };
        let more = self.method.hears_stream() && message.is_ok();
        if let Some(requests) = &self.requests
            && (requests.try_send(message).is_err() || !more)
        {
            self.requests = None;
        }
    }
}

/// The client's next request; `None` when it has gone.
async fn hear(
    socket: &mut WebSocket,
    requests: Option<&mpsc::Sender<Result<Bytes, Status>>>,
) -> Option<Bytes> {
    loop {
        let taken = match requests {
            // Held until the request is here, so that there is room for it.
            Some(requests) => requests.reserve().await.ok(),
            None => None,
        };
        match socket.recv().await?.ok()? {
            Message::Text(text) if taken.is_some() => return Some(text.into()),
            Message::Binary(bytes) if taken.is_some() => return Some(bytes),
            Message::Close(_) => return None,
            // Pings are answered by the library; nobody listens to more requests.
            _ => {}
        }
    }
}
