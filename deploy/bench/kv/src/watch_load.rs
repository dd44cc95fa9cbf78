//! Many watchers on one key: how long until a put has reached all of them.
//!
//! Watchers share a few connections, one stream on each, as a client library multiplexes them. The
//! puts come over a connection of their own, one at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use prost::Message as _;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};

use crate::cost;
use crate::latency::{Latencies, Outcome};
use crate::requests::{PUT, WATCH};
use crate::wire::{Event, Wire};

const POLL: Duration = Duration::from_millis(20);
const STALLED: Duration = Duration::from_secs(30);
const KEY: &[u8] = b"bench/watched";

#[derive(Debug, Clone)]
pub struct WatchPlan {
    pub endpoint: SocketAddr,
    pub watchers: usize,
    pub connections: usize,
    pub value_bytes: usize,
    pub puts: usize,
    pub server_pids: Vec<u32>,
}

/// One connection: either the watchers' stream or the puts.
struct Connection {
    socket: TcpStream,
    wire: Wire,
    written: usize,
    /// Bytes of messages that are not whole yet.
    partial: Vec<u8>,
    /// Create requests that wait for the peer's window.
    to_create: usize,
    stream: Option<u32>,
}

/// What has arrived since the start.
#[derive(Default)]
struct Seen {
    created: usize,
    events: usize,
    put_ended: usize,
}

/// Runs the plan: `ops` of the outcome are puts, its latencies are those of complete deliveries.
pub fn run(plan: &WatchPlan) -> anyhow::Result<Outcome> {
    let poll = Poll::new()?;
    let mut connections = Vec::new();
    // The last connection carries the puts.
    for token in 0..=plan.connections {
        let socket = std::net::TcpStream::connect(plan.endpoint)
            .with_context(|| format!("connect to {}", plan.endpoint))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(token), both)?;
        let share = plan.watchers / plan.connections
            + usize::from(token < plan.watchers % plan.connections);
        connections.push(Connection {
            socket,
            wire: Wire::new(&plan.endpoint.to_string()),
            written: 0,
            partial: Vec::new(),
            to_create: if token < plan.connections { share } else { 0 },
            stream: None,
        });
    }
    let mut run = Run {
        connections,
        poll,
        events: Events::with_capacity(1024),
        buffer: vec![0; 64 * 1024],
        seen: Seen::default(),
    };
    run.until("every watcher to be created", |seen| {
        seen.created >= plan.watchers
    })?;

    let put = PutRequest {
        key: KEY.to_vec().into(),
        value: vec![b'v'; plan.value_bytes].into(),
        ..PutRequest::default()
    }
    .encode_to_vec();
    let server_cpu = || cost::cpu_ms_of(&plan.server_pids);
    let mut latencies = Latencies::default();
    let mut began = (Instant::now(), 0, 0);
    // The first put warms up and is not counted.
    for number in 0..=plan.puts {
        if number == 1 {
            let costs = (server_cpu()?, cost::cpu_ms(std::process::id())?);
            began = (Instant::now(), costs.0, costs.1);
        }
        let since = Instant::now();
        let connection = &mut run.connections[plan.connections];
        connection.wire.request(PUT, &put, true);
        connection.flush()?;
        let wanted = (number + 1) * plan.watchers;
        run.until("every watcher to see the put", |seen| seen.events >= wanted)?;
        let took = since.elapsed();
        run.until("the put to be answered", |seen| seen.put_ended > number)?;
        anyhow::ensure!(run.seen.events == wanted, "an event arrived twice");
        if number > 0 {
            latencies.record(took);
        }
    }
    let server_cpu_ms = server_cpu()? - began.1;
    let client_cpu_ms = cost::cpu_ms(std::process::id())? - began.2;
    Ok(Outcome {
        server_cpu_ms,
        client_cpu_ms,
        ..latencies.outcome(began.0.elapsed().as_secs_f64())
    })
}

struct Run {
    connections: Vec<Connection>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    seen: Seen,
}

impl Run {
    fn until(&mut self, what: &str, mut done: impl FnMut(&Seen) -> bool) -> anyhow::Result<()> {
        let mut last_progress = Instant::now();
        while !done(&self.seen) {
            anyhow::ensure!(
                last_progress.elapsed() < STALLED,
                "waited {} s for {what}",
                STALLED.as_secs()
            );
            for connection in &mut self.connections {
                connection.create_some();
                connection.flush()?;
            }
            if let Err(error) = self.poll.poll(&mut self.events, Some(POLL))
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error).context("poll");
            }
            for event in &self.events {
                if event.is_readable() {
                    let connection = &mut self.connections[event.token().0];
                    connection.read(&mut self.buffer, &mut self.seen)?;
                    last_progress = Instant::now();
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn create_some(&mut self) {
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: KEY.to_vec().into(),
                ..WatchCreateRequest::default()
            })),
        }
        .encode_to_vec();
        while self.to_create > 0 && self.wire.can_send(create.len()) {
            match self.stream {
                Some(stream) => self.wire.message(stream, &create, false),
                None => self.stream = Some(self.wire.request(WATCH, &create, false)),
            }
            self.to_create -= 1;
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.wire.out.len() {
            match self.socket.write(&self.wire.out[self.written..]) {
                Ok(0) => anyhow::bail!("the server closed a connection"),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("write"),
            }
        }
        self.wire.out.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], seen: &mut Seen) -> anyhow::Result<()> {
        loop {
            let bytes = match self.socket.read(buffer) {
                Ok(0) => anyhow::bail!("the server closed a connection"),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read"),
            };
            let watches = self.stream;
            let partial = &mut self.partial;
            let mut failed = None;
            self.wire.receive(&buffer[..bytes], |event| match event {
                Event::Data { stream, bytes, .. } if Some(stream) == watches => {
                    partial.extend_from_slice(bytes);
                }
                Event::Headers { stream, end: true } if Some(stream) == watches => {
                    failed = Some("a watch stream ended".to_owned());
                }
                Event::Reset { stream, code } => {
                    failed = Some(format!("stream {stream} was reset with code {code}"));
                }
                Event::GoAway { code } => failed = Some(format!("GOAWAY with code {code}")),
                Event::Headers { end: true, .. } => seen.put_ended += 1,
                _ => {}
            });
            if let Some(failed) = failed {
                anyhow::bail!(failed);
            }
            self.take_messages(seen)?;
            if bytes < buffer.len() {
                break;
            }
        }
        Ok(())
    }

    fn take_messages(&mut self, seen: &mut Seen) -> anyhow::Result<()> {
        let mut at = 0;
        while let Some((prefix, rest)) = self.partial[at..].split_at_checked(5) {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let Some(message) = rest.get(..length) else {
                break;
            };
            let response = WatchResponse::decode(message)?;
            anyhow::ensure!(!response.canceled, "a watcher was cancelled");
            seen.created += usize::from(response.created);
            seen.events += response.events.len();
            at += 5 + length;
        }
        self.partial.drain(..at);
        Ok(())
    }
}
