//! `GET /api/v1/events`: what changes, as it changes, resumable by revision.
//!
//! One message per revision, with the revision as its id: a client that reconnects with
//! `Last-Event-ID` misses nothing and sees nothing twice. When the store has compacted what lies
//! between, the first message is `reset`: read again, then go on.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, stream};
use schemas::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::event::EventType,
};
use schemas_client::{ClientError, WatchStream, prefix_end};
use serde::Serialize;

use super::{problem::Problem, request::Caller};
use crate::fleet::keys::{Namespace, host_of};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Changed {
    /// `config`, `status`, `published`, `rollout`, `release`, or the kind of an object.
    what: &'static str,
    name: String,
    deleted: bool,
}

pub(super) async fn stream(
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let seen = headers.get("last-event-id").map(|value| {
        let text = value.to_str().ok();
        text.and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| Problem::bad_request("Last-Event-ID is the id of an earlier event"))
    });
    let seen = seen.transpose()?;
    let prefix = caller.ns.root();
    let request = |start_revision| WatchCreateRequest {
        range_end: prefix_end(prefix.as_bytes()),
        key: prefix.clone().into(),
        start_revision,
        ..Default::default()
    };
    let opened = caller
        .client
        .watch(request(seen.map_or(0, |seen| seen + 1)))
        .await;
    let (watch, first) = match opened {
        Ok(watch) => (watch, None),
        Err(ClientError::WatchCanceled {
            compact_revision: 1..,
            ..
        }) => {
            let watch = caller.client.watch(request(0)).await?;
            (watch, Some(reset()))
        }
        Err(error) => return Err(error.into()),
    };
    let first = first.map(Ok::<_, Infallible>);
    let ns = caller.ns.clone();
    let rest = stream::unfold(Some((watch, Vec::new())), move |state| {
        next(state, ns.clone())
    });
    let events = futures::StreamExt::chain(stream::iter(first), rest);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

type State = Option<(WatchStream, Vec<Event>)>;

/// The next message; the stream ends when the watch does, and the client comes back.
async fn next(state: State, ns: Namespace) -> Option<(Result<Event, Infallible>, State)> {
    let (mut watch, mut ready) = state?;
    loop {
        if let Some(event) = ready.pop() {
            return Some((Ok(event), Some((watch, ready))));
        }
        match watch.next().await {
            Ok(response) => {
                ready = messages(&ns, response);
                ready.reverse();
            }
            Err(ClientError::WatchCanceled {
                compact_revision: 1..,
                ..
            }) => {
                return Some((Ok(reset()), None));
            }
            Err(_) => return None,
        }
    }
}

fn reset() -> Event {
    Event::default().event("reset").data("{}")
}

fn messages(ns: &Namespace, response: WatchResponse) -> Vec<Event> {
    let mut by_revision: Vec<(i64, Vec<Changed>)> = Vec::new();
    for event in response.events {
        let deleted = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv else { continue };
        let Some((what, name)) = meaning(ns, &kv.key) else {
            continue;
        };
        let changed = Changed {
            what,
            name,
            deleted,
        };
        match by_revision.last_mut() {
            Some((revision, changes)) if *revision == kv.mod_revision => changes.push(changed),
            _ => by_revision.push((kv.mod_revision, vec![changed])),
        }
    }
    by_revision
        .into_iter()
        .map(|(revision, changes)| {
            let data = serde_json::json!({ "revision": revision, "changes": changes });
            Event::default()
                .id(revision.to_string())
                .event("change")
                .data(data.to_string())
        })
        .collect()
}

fn meaning(ns: &Namespace, key: &[u8]) -> Option<(&'static str, String)> {
    let folders = [
        ("config", ns.configs()),
        ("status", ns.statuses()),
        ("published", ns.published()),
        ("rollout", ns.rollouts()),
        ("release", ns.releases()),
    ];
    let kinds = schemas::objects::Kind::ALL.map(|kind| (kind.as_str(), ns.objects(kind)));
    folders
        .into_iter()
        .chain(kinds)
        .find_map(|(what, prefix)| host_of(key, &prefix).map(|name| (what, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_meaning() {
        let ns = Namespace::new("/n");
        let table = [
            ("/n/logagent/config/h", Some(("config", "h"))),
            ("/n/logagent/status/h", Some(("status", "h"))),
            ("/n/fleet/groups/web", Some(("Group", "web"))),
            (
                "/n/fleet/rollouts/0000000001-p",
                Some(("rollout", "0000000001-p")),
            ),
            ("/n/fleet/head", None),
            ("/n/other/x", None),
        ];
        for (key, expected) in table {
            let got = meaning(&ns, key.as_bytes());
            assert_eq!(
                got.as_ref().map(|(what, name)| (*what, name.as_str())),
                expected,
                "{key}"
            );
        }
    }
}
