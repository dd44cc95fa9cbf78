//! Watchers of everything that the clients write. Each follows one member for a while, or until its
//! stream ends, and goes on at another one behind the last event that it has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use schemas::mvccpb;
use schemas::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::check::watches::{Batch, Watched};
use crate::clients::{Connections, PATIENCE, Shared};
use crate::dice::Dice;
use crate::history::{Change, Event};
use crate::workers::text;

/// How long a watcher stays with one member.
const STAY_MS: (u64, u64) = (1_500, 8_000);
/// After a stream that failed.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks whether it is time to go on.
const TICK: Duration = Duration::from_millis(200);

pub(crate) async fn follow(shared: Arc<Shared>, number: usize) {
    let mut dice = Dice::new(shared.seed, 1_000 + number as u64);
    let mut connections = Connections::new(shared.members());
    let mut watched = Watched {
        name: number.to_string(),
        first_revision: 1,
        batches: Vec::new(),
    };
    while !shared.is_stopped() {
        let member = connections.any(&mut dice);
        let stay = Duration::from_millis(dice.between(STAY_MS.0, STAY_MS.1));
        let from = last_revision(&watched).map_or(watched.first_revision, |last| last + 1);
        let ended = follow_one(&shared, connections.to(member), from, stay, &mut watched).await;
        if ended.is_err() {
            connections.renew(member);
            tokio::time::sleep(PAUSE).await;
        }
    }
    shared.record_watched(watched);
}

fn last_revision(watched: &Watched) -> Option<i64> {
    let mut batches = watched.batches.iter().rev();
    let event = batches.find_map(|batch| batch.events.last())?;
    Some(event.revision)
}

async fn follow_one(
    shared: &Shared,
    channel: Channel,
    from: i64,
    stay: Duration,
    watched: &mut Watched,
) -> Result<(), Status> {
    let (requests, mut responses) = open(channel, from).await?;
    let until = tokio::time::Instant::now() + stay;
    let mut asked = tokio::time::Instant::now();
    while tokio::time::Instant::now() < until && !shared.is_stopped() {
        if asked.elapsed() > 3 * TICK {
            asked = tokio::time::Instant::now();
            let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
            // A full queue means that the member does not listen just now.
            if requests.try_send(request(ask)).is_err() {
                return Err(Status::unavailable("the stream takes no requests"));
            }
        }
        let Ok(response) = tokio::time::timeout(TICK, responses.message()).await else {
            continue;
        };
        let response = response?.ok_or_else(|| Status::unavailable("the stream ended"))?;
        if response.canceled {
            return Err(Status::unavailable(response.cancel_reason));
        }
        if !response.created {
            watched.batches.push(batch(response, shared.now_ns()));
        }
    }
    Ok(())
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

/// A stream with one watcher of every key from this revision on.
async fn open(
    channel: Channel,
    from: i64,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Status> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: from,
        ..Default::default()
    };
    let (requests, outgoing) = mpsc::channel(4);
    let sent = requests
        .send(request(RequestUnion::CreateRequest(create)))
        .await;
    sent.map_err(|_| Status::unavailable("the stream is closed"))?;
    let mut outgoing = tonic::Request::new(ReceiverStream::new(outgoing));
    // A member without a leader says so and is left.
    let value = tonic::metadata::MetadataValue::from_static("true");
    outgoing.metadata_mut().insert("hasleader", value);
    let mut client = WatchClient::new(channel);
    let answer = tokio::time::timeout(PATIENCE, client.watch(outgoing)).await;
    let answer = answer.map_err(|_| Status::unavailable("no answer to a watch"))??;
    Ok((requests, answer.into_inner()))
}

fn batch(response: WatchResponse, at_ns: u64) -> Batch {
    Batch {
        at_ns,
        revision: response.header.map_or(0, |header| header.revision),
        events: response.events.into_iter().map(event).collect(),
    }
}

fn event(event: mvccpb::Event) -> Event {
    let is_delete = event.r#type == EventType::Delete as i32;
    let pair = event.kv.unwrap_or_default();
    Event {
        revision: pair.mod_revision,
        key: text(&pair.key),
        change: if is_delete {
            Change::Delete
        } else {
            Change::Put {
                value: text(&pair.value),
                create: pair.create_revision,
                version: pair.version,
            }
        },
    }
}

/// Everything that happened up to this revision, as one member tells it.
pub(crate) async fn history(channel: Channel, until: i64) -> Result<Vec<Event>, Status> {
    let (_requests, mut responses) = open(channel, 1).await?;
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|last| last.revision < until) {
        let response = tokio::time::timeout(10 * PATIENCE, responses.message()).await;
        let response = response.map_err(|_| Status::unavailable("the history stopped"))??;
        let response = response.ok_or_else(|| Status::unavailable("the stream ended"))?;
        events.extend(response.events.into_iter().map(event));
    }
    events.retain(|event| event.revision <= until);
    Ok(events)
}
