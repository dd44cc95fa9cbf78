//! One call over several endpoints: who is asked next, when to stop, and what may be sent twice.
//!
//! The rule is etcd's: a read goes on to the next endpoint whenever one does not answer or says
//! Unavailable; a write goes on only while it certainly was not sent. Knows no RPC by name except
//! Status, which it uses to find out whether an endpoint is alive before trusting it with a write.

use std::{
    error::Error as _,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status, service::interceptor::InterceptedService};

use schemas::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient};

use crate::{
    Attempt, Attempts, ClientError, ConnectOptions,
    credentials::{Credentials, Token, is_spent_token},
    endpoint::{Connection, Remote, innermost},
};

const FIRST_BACKOFF: Duration = Duration::from_millis(25);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);
/// An endpoint that answered this recently gets a write without being asked first.
const FRESH_ANSWER: Duration = Duration::from_secs(5);
/// A spent token is renewed this often within one attempt.
const TOKEN_TRIES: usize = 2;

const NO_LEADER: &str = "etcdserver: no leader";
const LEARNER: &str = "etcdserver: rpc not supported for learner";
/// The generated stubs report a connection task that has ended in these words, before sending.
const NOT_READY: &str = "Service was not ready";

/// Whether a request may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

pub(crate) type Service = InterceptedService<Channel, Token>;

/// What one attempt works with: a connection and the metadata for it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    channel: Channel,
    token: Token,
    pub(crate) endpoint: String,
}

impl Session {
    pub(crate) fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) remotes: Vec<Remote>,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
    credentials: Option<Credentials>,
    pub(crate) options: ConnectOptions,
}

/// Why one attempt brought no answer to give to the caller.
enum Failure {
    /// The next endpoint may be asked; `retry_later` when this one is worth another round.
    Next {
        reason: String,
        retry_later: bool,
    },
    /// As `Next`, after the store itself said that it cannot serve now.
    Unavailable(ClientError),
    /// Silence until the attempt's time was up.
    Silent {
        reason: String,
    },
    Final(ClientError),
}

impl Endpoints {
    pub(crate) fn new(
        remotes: Vec<Remote>,
        credentials: Option<Credentials>,
        options: ConnectOptions,
    ) -> Self {
        Self {
            remotes,
            preferred: AtomicUsize::new(0),
            credentials,
            options,
        }
    }

    /// Carries out one call; `send` is run once per attempt.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        operation: &'static str,
        kind: Kind,
        send: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let deadline = started + self.options.request_timeout;
        let count = self.remotes.len();
        let mut tried = Attempts::default();
        let mut backoff = FIRST_BACKOFF;
        let (mut silent, mut refusal) = (false, None);
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            let mut retry_later = false;
            for step in 0..count {
                let index = (first + step) % count;
                let remote = &self.remotes[index];
                let now = Instant::now();
                // Endpoints not asked yet share the time left, so that a hung one cannot eat it all.
                let share = deadline.saturating_duration_since(now) / (count - step) as u32;
                match self
                    .attempt(remote, operation, kind, now + share, &send)
                    .await
                {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Next {
                        reason,
                        retry_later: worth_it,
                    }) => {
                        retry_later |= worth_it;
                        note(&mut tried, &remote.url, reason);
                    }
                    Err(Failure::Unavailable(error)) => {
                        retry_later = true;
                        note(&mut tried, &remote.url, error.to_string());
                        refusal = Some(error);
                    }
                    Err(Failure::Silent { reason }) => {
                        silent = true;
                        note(&mut tried, &remote.url, reason);
                    }
                }
            }
            let time_left = deadline.saturating_duration_since(Instant::now());
            if kind == Kind::Write || !retry_later || time_left <= backoff {
                break;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
        if silent {
            return Err(ClientError::Timeout {
                operation,
                timeout_ms: millis(started.elapsed()),
                attempts: tried,
            });
        }
        Err(refusal.unwrap_or(ClientError::Unreachable {
            operation,
            attempts: tried,
        }))
    }

    async fn attempt<T, F, Fut>(
        &self,
        remote: &Remote,
        operation: &'static str,
        kind: Kind,
        until: Instant,
        send: &F,
    ) -> Result<T, Failure>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let began = Instant::now();
        let silence = || Failure::Silent {
            reason: format!("no answer within {} ms", millis(began.elapsed())),
        };
        let connection = match timeout_at(until, remote.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(reason)) => {
                return Err(Failure::Next {
                    reason,
                    retry_later: false,
                });
            }
            Err(_) => return Err(silence()),
        };
        // Once a write is on its way to a server that hangs, nobody can say what became of it. With
        // another endpoint to turn to, it pays to see first that this one is alive.
        let must_prove_life =
            kind == Kind::Write && self.remotes.len() > 1 && !remote.answered_within(FRESH_ANSWER);
        if must_prove_life {
            let mut probe = MaintenanceClient::new(connection.channel.clone());
            match timeout_at(until, probe.status(StatusRequest {})).await {
                Ok(Err(status)) if !came_over_the_wire(&status) => {
                    return Err(self.broken(remote, &connection, &status).await);
                }
                Ok(_) => remote.mark_answered(),
                Err(_) => {
                    remote.discard(&connection).await;
                    return Err(silence());
                }
            }
        }
        let mut tries_left = TOKEN_TRIES;
        loop {
            tries_left -= 1;
            let token = match timeout_at(until, self.token(&connection)).await {
                Ok(Ok(token)) => token,
                Ok(Err(status)) if came_over_the_wire(&status) => {
                    return Err(answered(remote, "authenticate", Kind::Read, status));
                }
                Ok(Err(status)) => return Err(self.broken(remote, &connection, &status).await),
                Err(_) => {
                    remote.discard(&connection).await;
                    return Err(silence());
                }
            };
            let session = Session {
                channel: connection.channel.clone(),
                token: token.clone(),
                endpoint: remote.url.clone(),
            };
            let outcome = timeout_at(until, send(session)).await;
            let status = match outcome {
                Ok(Ok(answer)) => {
                    remote.mark_answered();
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    remote.discard(&connection).await;
                    return Err(match kind {
                        Kind::Read => silence(),
                        Kind::Write => Failure::Final(ClientError::OutcomeUnknown {
                            operation,
                            endpoint: remote.url.clone(),
                            reason: format!("no answer within {} ms", millis(began.elapsed())),
                        }),
                    });
                }
            };
            if came_over_the_wire(&status) {
                remote.mark_answered();
                if let Some(credentials) = &self.credentials
                    && is_spent_token(&status)
                    && tries_left > 0
                {
                    credentials.forget(&token).await;
                    continue;
                }
                return Err(answered(remote, operation, kind, status));
            }
            if kind == Kind::Write && !never_sent(&status) {
                remote.discard(&connection).await;
                return Err(Failure::Final(ClientError::OutcomeUnknown {
                    operation,
                    endpoint: remote.url.clone(),
                    reason: transport_words(&status),
                }));
            }
            return Err(self.broken(remote, &connection, &status).await);
        }
    }

    async fn token(&self, connection: &Connection) -> Result<Token, Status> {
        match &self.credentials {
            Some(credentials) => credentials.token(&connection.channel).await,
            None => Ok(Token::default()),
        }
    }

    /// The connection broke without harm: forget it and let the next endpoint try.
    async fn broken(&self, remote: &Remote, connection: &Connection, status: &Status) -> Failure {
        remote.discard(connection).await;
        Failure::Next {
            reason: transport_words(status),
            // A refused redial will not get better in a moment; a connection that was up may.
            retry_later: !never_sent(status),
        }
    }
}

/// Sorts an error that the store itself sent.
fn answered(remote: &Remote, operation: &'static str, kind: Kind, status: Status) -> Failure {
    let refused = |status: Status| ClientError::Refused {
        operation,
        endpoint: remote.url.clone(),
        code: status.code(),
        message: status.message().to_owned(),
    };
    match (status.code(), kind) {
        (Code::FailedPrecondition, _) if status.message() == LEARNER => Failure::Next {
            reason: status.message().to_owned(),
            retry_later: false,
        },
        (Code::Unavailable, Kind::Read) => Failure::Unavailable(refused(status)),
        // "no leader" comes before anything is proposed; a time-out may come after.
        (Code::Unavailable, Kind::Write) if status.message() != NO_LEADER => {
            Failure::Final(ClientError::OutcomeUnknown {
                operation,
                endpoint: remote.url.clone(),
                reason: status.message().to_owned(),
            })
        }
        _ => Failure::Final(refused(status)),
    }
}

/// A status made on this side of the connection carries the error it was made from.
fn came_over_the_wire(status: &Status) -> bool {
    status.source().is_none() && !status.message().starts_with(NOT_READY)
}

/// True when the failure happened while connecting, so that no byte of the request left.
fn never_sent(status: &Status) -> bool {
    if status.message().starts_with(NOT_READY) {
        return true;
    }
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

pub(crate) fn transport_words(status: &Status) -> String {
    match status.source() {
        Some(source) => innermost(source),
        None => status.message().to_owned(),
    }
}

/// Keeps one line per endpoint: the latest reason.
fn note(tried: &mut Attempts, endpoint: &str, reason: String) {
    match tried
        .0
        .iter_mut()
        .find(|attempt| attempt.endpoint == endpoint)
    {
        Some(attempt) => attempt.reason = reason,
        None => tried.0.push(Attempt {
            endpoint: endpoint.to_owned(),
            reason,
        }),
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
