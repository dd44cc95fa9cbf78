//! `?wait=true`: an answer that begins at once and goes on when something happens. The next event is
//! read from the store's history each time, so nothing is queued for a client that reads slowly.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use config_center_core::v2::{V2Cursor, V2Notice, V2Refusal, watched_range};
use futures::stream;
use http::StatusCode;

use super::refusals::Refusal;
use super::request::KeysRequest;
use super::{events, json, keys, time};
use crate::api::Context;
use crate::api::hangup::{self, ClientSide};
use crate::engine::WatchStream;

/// A stream has one watcher.
const WATCH_ID: i64 = 0;

pub(super) fn answer(
    context: &Arc<Context>,
    request: KeysRequest,
    client: Option<ClientSide>,
) -> Result<Response, Refusal> {
    let watcher = Watcher::open(context, &request, client);
    // Asked for what is gone: said before the answer begins.
    watcher.look()?;
    let index = watcher.started_at;
    let events = stream::unfold(watcher, |mut watcher| async {
        let line = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watcher))
    });
    let mut response = json(StatusCode::OK, "");
    keys::state_headers(response.headers_mut(), context, index, context.node.term());
    *response.body_mut() = Body::from_stream(events);
    Ok(response)
}

/// Dropped with the client's connection; then the store forgets it.
struct Watcher {
    context: Arc<Context>,
    stream: WatchStream,
    client: Option<ClientSide>,
    path: Bytes,
    recursive: bool,
    /// It goes on after the first event.
    goes_on: bool,
    cursor: V2Cursor,
    started_at: i64,
    ended: bool,
}

impl Watcher {
    fn open(context: &Arc<Context>, request: &KeysRequest, client: Option<ClientSide>) -> Self {
        let engine = context.engine();
        let stream = engine.open_stream();
        let range = watched_range(&request.path, request.recursive);
        // The stream is fresh, so the id is free.
        let started_at = engine
            .watch(stream.id, WATCH_ID, range)
            .unwrap_or_else(|| engine.revision());
        let index = match request.wait_index {
            0 => started_at + 1,
            index => i64::try_from(index).unwrap_or(i64::MAX),
        };
        Self {
            context: Arc::clone(context),
            stream,
            client,
            path: request.path.clone(),
            recursive: request.recursive,
            goes_on: request.stream,
            cursor: V2Cursor {
                index,
                seen: 0,
                began: started_at,
            },
            started_at,
            ended: false,
        }
    }

    fn look(&self) -> Result<(Option<V2Notice>, V2Cursor), V2Refusal> {
        self.context
            .engine()
            .read(|state| state.v2_next(self.cursor, &self.path, self.recursive))
    }

    /// The next event; `None` when the answer is over.
    async fn next(&mut self) -> Option<String> {
        while !self.ended {
            // Taken before looking, so that what happens meanwhile rings again.
            self.context.engine().take_pending(self.stream.id);
            // Overtaken by a thousand other events: etcd ends such a stream as well.
            let (event, cursor) = self.look().ok()?;
            self.cursor = cursor;
            if let Some(event) = event {
                self.ended = !self.goes_on;
                return Some(events::event(&event, false, time::now_ms()));
            }
            tokio::select! {
                () = self.stream.wake.notified() => {}
                () = hangup::closed(self.client.as_ref()) => return None,
                () = self.context.stopping.cancelled() => return None,
            }
        }
        None
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.context.engine().close_stream(self.stream.id);
    }
}
