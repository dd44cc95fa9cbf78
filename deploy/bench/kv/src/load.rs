//! Closed-loop clients over a few connections, all on one thread.
//!
//! Each client has one request in flight and sends the next as soon as the answer is read. What
//! arrives together is answered with one write, as a busy program's connection would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::cost;
use crate::latency::{Latencies, Outcome};
use crate::requests::{Operation, Template, templates};
use crate::wire::{Event, Wire};

/// How many failed requests end the run: by then something is wrong that a figure would hide.
const MAX_ERRORS: u64 = 100;
const READ_BYTES: usize = 64 * 1024;
const POLL: Duration = Duration::from_millis(20);
/// A run that receives nothing for so long is stuck.
const STALLED: Duration = Duration::from_secs(30);

/// What to do and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Connections are spread over them.
    pub endpoints: Vec<SocketAddr>,
    pub operation: Operation,
    pub clients: usize,
    pub connections: usize,
    pub value_bytes: usize,
    /// Keys are 0 up to this number.
    pub keys: u64,
    pub warmup: Duration,
    pub window: Duration,
    /// Ends after so many answers, whatever the window; then nothing is warm-up.
    pub count: Option<u64>,
    /// All members of the store.
    pub server_pids: Vec<u32>,
}

struct InFlight {
    stream: u32,
    client: usize,
    since: Instant,
    answered: bool,
}

struct Connection {
    socket: TcpStream,
    wire: Wire,
    written: usize,
    in_flight: Vec<InFlight>,
    /// Clients whose next request has to wait for the peer's window.
    waiting: Vec<usize>,
}

impl Connection {
    fn open(endpoint: SocketAddr) -> anyhow::Result<Self> {
        let socket = std::net::TcpStream::connect(endpoint)
            .with_context(|| format!("connect to {endpoint}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: TcpStream::from_std(socket),
            wire: Wire::new(&endpoint.to_string()),
            written: 0,
            in_flight: Vec::new(),
            waiting: Vec::new(),
        })
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
}

/// What the clients ask next.
struct Asker {
    templates: Vec<Template>,
    turn: Vec<usize>,
    sequential: bool,
    issued: u64,
    keys: u64,
    random: u64,
}

impl Asker {
    fn key(&mut self) -> u64 {
        if self.sequential {
            return self.issued;
        }
        // xorshift64: cheap, and repeats only after every other value.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % self.keys
    }

    /// Sends the client's next request; false when it does not fit into the window.
    fn ask(&mut self, connection: &mut Connection, client: usize) -> bool {
        let turn = self.turn[client] % self.templates.len();
        if !connection
            .wire
            .can_send(self.templates[turn].message_bytes())
        {
            return false;
        }
        self.turn[client] += 1;
        let key = self.key();
        self.issued += 1;
        let template = &mut self.templates[turn];
        let path = template.path;
        let stream = connection.wire.request(path, template.for_key(key), true);
        connection.in_flight.push(InFlight {
            stream,
            client,
            since: Instant::now(),
            answered: false,
        });
        true
    }
}

/// Runs the plan. Fails when the server does not answer properly.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for token in 0..plan.connections {
        let endpoint = plan.endpoints[token % plan.endpoints.len()];
        let mut connection = Connection::open(endpoint)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut connection.socket, Token(token), both)?;
        connections.push(connection);
    }
    let mut asker = Asker {
        templates: templates(plan.operation, plan.value_bytes),
        // Clients begin at different places of the cycle.
        turn: (0..plan.clients).collect(),
        sequential: plan.operation == Operation::Fill,
        issued: 0,
        keys: plan.keys,
        random: 0x9e37_79b9_7f4a_7c15,
    };
    let clients = plan.clients as u64;
    let first = plan.count.map_or(clients, |count| count.min(clients)) as usize;
    for client in 0..first {
        let connection = &mut connections[client % plan.connections];
        if !asker.ask(connection, client) {
            connection.waiting.push(client);
        }
    }
    for connection in &mut connections {
        connection.flush()?;
    }

    let warmup = if plan.count.is_some() {
        Duration::ZERO
    } else {
        plan.warmup
    };
    let mut window = Window::begin(warmup, plan)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BYTES];
    let mut last_answer = Instant::now();
    let mut errors = 0;
    loop {
        if let Err(error) = poll.poll(&mut events, Some(POLL))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error).context("poll");
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            if event.is_readable() {
                let finished = read(connection, &mut buffer)?;
                let now = Instant::now();
                for (request, good) in finished {
                    last_answer = now;
                    errors += u64::from(!good);
                    window.latencies.record(now - request.since);
                    connection.waiting.push(request.client);
                }
                anyhow::ensure!(errors < MAX_ERRORS, "{errors} requests failed");
            }
            while plan.count.is_none_or(|count| asker.issued < count)
                && let Some(client) = connection.waiting.pop()
            {
                if !asker.ask(connection, client) {
                    connection.waiting.push(client);
                    break;
                }
            }
            connection.flush()?;
        }
        anyhow::ensure!(
            last_answer.elapsed() < STALLED,
            "no answer for {} s",
            STALLED.as_secs()
        );
        if window.ended(plan)? {
            return window.outcome(plan, errors);
        }
    }
}

/// Reads what has arrived; returns the requests that ended, and whether each was answered.
fn read(connection: &mut Connection, buffer: &mut [u8]) -> anyhow::Result<Vec<(InFlight, bool)>> {
    let mut finished = Vec::new();
    let mut gone = None;
    loop {
        let bytes = match connection.socket.read(buffer) {
            Ok(0) => anyhow::bail!("the server closed a connection"),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read"),
        };
        let in_flight = &mut connection.in_flight;
        connection.wire.receive(&buffer[..bytes], |event| {
            let (stream, answered, end) = match event {
                Event::Data { stream, bytes, end } => (stream, !bytes.is_empty(), end),
                Event::Headers { stream, end } => (stream, false, end),
                Event::Reset { stream, .. } => (stream, false, true),
                Event::GoAway { code } => {
                    gone = Some(code);
                    return;
                }
            };
            let Some(at) = in_flight.iter().position(|one| one.stream == stream) else {
                return;
            };
            in_flight[at].answered |= answered;
            if end {
                let request = in_flight.swap_remove(at);
                let good = request.answered;
                finished.push((request, good));
            }
        });
        // A short read has emptied the socket; the next bytes raise a new event.
        if bytes < buffer.len() {
            break;
        }
    }
    match gone {
        Some(code) => anyhow::bail!("the server sent GOAWAY with code {code}"),
        None => Ok(finished),
    }
}

/// The measured part of a run.
struct Window {
    warm_at: Option<Instant>,
    began: Instant,
    server_cpu_ms: u64,
    client_cpu_ms: u64,
    latencies: Latencies,
}

impl Window {
    fn begin(warmup: Duration, plan: &Plan) -> anyhow::Result<Self> {
        let now = Instant::now();
        let mut window = Self {
            warm_at: Some(now + warmup),
            began: now,
            server_cpu_ms: 0,
            client_cpu_ms: 0,
            latencies: Latencies::default(),
        };
        window.note_costs(plan)?;
        if warmup.is_zero() {
            window.warm_at = None;
        }
        Ok(window)
    }

    fn note_costs(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.server_cpu_ms = cost::cpu_ms_of(&plan.server_pids)?;
        self.client_cpu_ms = cost::cpu_ms(std::process::id())?;
        Ok(())
    }

    fn ended(&mut self, plan: &Plan) -> anyhow::Result<bool> {
        if let Some(count) = plan.count {
            return Ok(self.latencies.len() as u64 >= count);
        }
        let now = Instant::now();
        match self.warm_at {
            Some(warm_at) if now < warm_at => Ok(false),
            Some(_) => {
                self.warm_at = None;
                self.latencies.clear();
                self.note_costs(plan)?;
                self.began = Instant::now();
                Ok(false)
            }
            None => Ok(now - self.began >= plan.window),
        }
    }

    fn outcome(self, plan: &Plan, errors: u64) -> anyhow::Result<Outcome> {
        let seconds = self.began.elapsed().as_secs_f64();
        let server_cpu_ms = cost::cpu_ms_of(&plan.server_pids)? - self.server_cpu_ms;
        let client_cpu_ms = cost::cpu_ms(std::process::id())? - self.client_cpu_ms;
        let mut outcome = self.latencies.outcome(seconds);
        outcome.ops -= errors.min(outcome.ops);
        Ok(Outcome {
            errors,
            server_cpu_ms,
            client_cpu_ms,
            ..outcome
        })
    }
}
