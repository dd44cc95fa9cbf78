//! The floor: a server that answers every put at once and stores nothing.
//!
//! What it costs is what the network path costs with the same libraries; no store can be cheaper.
//! With `--group-us` the answers come later and in groups, as behind any fsync.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::Parser;
use schemas::etcdserverpb::kv_server::{Kv, KvServer};
use schemas::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest,
    TxnResponse,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

/// Puts that may wait for their group.
const MAX_WAITING: usize = 65_536;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// Answer whatever has arrived once in so many microseconds.
    #[arg(long)]
    group_us: Option<u64>,
}

struct Floor {
    group: Option<SyncSender<oneshot::Sender<()>>>,
}

fn answer() -> PutResponse {
    PutResponse {
        header: Some(ResponseHeader {
            cluster_id: 1,
            member_id: 1,
            revision: 2,
            raft_term: 1,
        }),
        prev_kv: None,
    }
}

/// Lets the group go once per period, from a thread that can sleep exactly.
fn release_groups(waiting: Receiver<oneshot::Sender<()>>, period: Duration) {
    while let Ok(first) = waiting.recv() {
        std::thread::sleep(period);
        for one in std::iter::once(first).chain(waiting.try_iter()) {
            // A client that has gone no longer waits.
            one.send(()).unwrap_or_default();
        }
    }
}

#[tonic::async_trait]
impl Kv for Floor {
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        if let Some(group) = &self.group {
            let (done, wait) = oneshot::channel();
            group
                .try_send(done)
                .map_err(|_| Status::resource_exhausted("too many puts wait"))?;
            wait.await
                .map_err(|_| Status::internal("the group was dropped"))?;
        }
        Ok(Response::new(answer()))
    }

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Err(Status::unimplemented("the floor only takes puts"))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the floor only takes puts"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("the floor only takes puts"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the floor only takes puts"))
    }

    type RangeStreamStream = std::pin::Pin<
        Box<
            dyn tonic::codegen::tokio_stream::Stream<Item = Result<RangeStreamResponse, Status>>
                + Send,
        >,
    >;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the floor only takes puts"))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let group = arguments.group_us.map(|period_us| {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let period = Duration::from_micros(period_us);
        std::thread::spawn(move || release_groups(receiver, period));
        sender
    });
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(KvServer::new(Floor { group }))
        .serve(arguments.listen)
        .await?;
    Ok(())
}
