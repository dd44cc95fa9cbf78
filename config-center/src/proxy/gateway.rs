//! The gateway: TCP in, TCP out. Endpoints take turns; one that does not answer is left out for a
//! while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{
    ACCEPT_RETRY_TIME, CONNECT_TIME, Command, Common, MAX_CLIENTS, duration, without_scheme,
};

/// Pass connections on to the members of a cluster, TLS and all.
#[derive(Debug, clap::Parser)]
#[command(name = "config-center gateway")]
pub(super) struct Flags {
    #[command(subcommand)]
    _command: Command,
    #[command(flatten)]
    common: Common,
    /// Before an endpoint that failed is tried again
    #[arg(long, global = true, default_value = "1m", value_parser = duration)]
    retry_delay: Duration,
    /// Only for discovery
    #[arg(long, global = true, hide = true, default_value = "")]
    trusted_ca_file: String,
}

pub(super) async fn run(flags: Flags) -> Result<(), String> {
    flags.common.refuse_discovery()?;
    super::refuse(
        "trusted-ca-file",
        &flags.trusted_ca_file,
        "TLS is between the client and the member; the gateway does not look into it",
    )?;
    let (listener, address) = flags.common.listen().await?;
    let endpoints = flags.common.endpoints.iter();
    let addresses: Vec<String> = endpoints.map(|e| without_scheme(e).to_owned()).collect();
    tracing::info!(%address, endpoints = addresses.join(","), "ready to proxy client requests");
    let endpoints = Arc::new(Endpoints::new(addresses, flags.retry_delay));
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let endpoints = Arc::clone(&endpoints);
                tokio::spawn(async move {
                    serve(client, &endpoints).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_RETRY_TIME).await;
            }
        }
    }
}

async fn serve(mut client: TcpStream, endpoints: &Endpoints) {
    let Some(mut member) = endpoints.connect().await else {
        tracing::warn!("no endpoint answers; a client is turned away");
        return;
    };
    let passed = async {
        client.set_nodelay(true)?;
        member.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut member).await
    };
    if let Err(error) = passed.await {
        tracing::debug!(%error, "a connection broke");
    }
}

struct Endpoints {
    all: Vec<Endpoint>,
    next: AtomicUsize,
    retry_delay: Duration,
}

struct Endpoint {
    address: String,
    failed: Mutex<Option<Instant>>,
}

impl Endpoints {
    fn new(addresses: Vec<String>, retry_delay: Duration) -> Self {
        let endpoint = |address| Endpoint {
            address,
            failed: Mutex::new(None),
        };
        Self {
            all: addresses.into_iter().map(endpoint).collect(),
            next: AtomicUsize::new(0),
            retry_delay,
        }
    }

    /// In turns; those that failed lately come last, because a try costs less than a client.
    fn in_turn(&self, now: Instant) -> Vec<&Endpoint> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let (before, after) = self.all.split_at(first);
        let mut turn: Vec<&Endpoint> = after.iter().chain(before).collect();
        let failed_lately = |endpoint: &&Endpoint| {
            let failed = *endpoint.failed.lock();
            failed.is_some_and(|at| now.duration_since(at) < self.retry_delay)
        };
        turn.sort_by_key(failed_lately);
        turn
    }

    async fn connect(&self) -> Option<TcpStream> {
        for endpoint in self.in_turn(Instant::now()) {
            let connecting = TcpStream::connect(&endpoint.address);
            let error = match tokio::time::timeout(CONNECT_TIME, connecting).await {
                Ok(Ok(stream)) => {
                    if endpoint.failed.lock().take().is_some() {
                        tracing::info!(endpoint = endpoint.address, "activated");
                    }
                    return Some(stream);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", CONNECT_TIME.as_secs()),
            };
            if endpoint.failed.lock().replace(Instant::now()).is_none() {
                tracing::warn!(endpoint = endpoint.address, error, "deactivated endpoint");
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_and_the_failed_come_last() {
        let retry = Duration::from_secs(60);
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let endpoints = Endpoints::new(names, retry);
        let now = Instant::now();
        let turn = |now| -> String {
            let turn = endpoints.in_turn(now);
            turn.iter().map(|endpoint| &endpoint.address[..]).collect()
        };
        assert_eq!([turn(now), turn(now), turn(now)], ["abc", "bca", "cab"]);
        *endpoints.all[0].failed.lock() = Some(now);
        assert_eq!([turn(now), turn(now)], ["bca", "bca"]);
        assert_eq!(turn(now), "cba");
        assert_eq!(turn(now + retry), "abc");
    }
}
