//! Kills the leader of three members again and again; how long until the others take a write.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use schemas::etcdserverpb::PutRequest;
use schemas::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;

use crate::Arguments;
use crate::results::Cell;
use crate::rows::program;
use crate::store::{STORES, Store, block_on};

const MEMBERS: usize = 3;
const KILLS: usize = 10;
const QUICK_KILLS: usize = 2;
/// One attempt; an attempt that waits for the dead leader must not hide the next one's success.
const ATTEMPT: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Between the return of the killed member and the next kill, as much as three election timeouts.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Cell>> {
    let kills = if arguments.quick { QUICK_KILLS } else { KILLS };
    let mut cells = Vec::new();
    for kind in STORES {
        let program = program(arguments, kind);
        let mut store = Store::start_members(kind, program, &arguments.work, MEMBERS)?;
        let mut seconds = Vec::new();
        for _ in 0..kills {
            std::thread::sleep(SETTLE);
            let leader = store.leader()?;
            let mut others = store.endpoints();
            others.remove(leader);
            let took = until_written(&mut store, leader, &others)
                .with_context(|| format!("after a kill of the leader of {}", kind.name()))?;
            eprintln!("{}: {:.3} s", kind.name(), took.as_secs_f64());
            seconds.push(took.as_secs_f64());
            store.revive(leader)?;
        }
        seconds.sort_by(f64::total_cmp);
        let values = [
            ("best s", seconds[0]),
            ("median s", seconds[kills / 2]),
            ("worst s", seconds[kills - 1]),
        ];
        cells.push(Cell {
            row: format!("{kills} kills of the leader"),
            server: kind.name().to_owned(),
            rounds: Vec::new(),
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        });
    }
    Ok(cells)
}

/// Kills the member; the time until one of the others has answered a put that was sent after that.
fn until_written(
    store: &mut Store,
    leader: usize,
    others: &[SocketAddr],
) -> anyhow::Result<Duration> {
    block_on(async {
        let mut clients = Vec::new();
        for endpoint in others {
            clients.push(KvClient::connect(format!("http://{endpoint}")).await?);
        }
        store.kill(leader)?;
        let killed = Instant::now();
        let mut writing = JoinSet::new();
        for client in clients {
            writing.spawn(write(client));
        }
        let first = tokio::time::timeout(PATIENCE, writing.join_next()).await;
        first.context("no write within half a minute")?;
        Ok(killed.elapsed())
    })
}

async fn write(mut client: KvClient<tonic::transport::Channel>) {
    let put = PutRequest {
        key: b"bench/failover".to_vec().into(),
        value: b"written".to_vec().into(),
        ..PutRequest::default()
    };
    loop {
        let attempt = tokio::time::timeout(ATTEMPT, client.put(put.clone()));
        if matches!(attempt.await, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
