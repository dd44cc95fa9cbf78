//! KV: writes go through consensus, reads are served from memory after a read barrier.

use std::sync::Arc;

use config_center_core::{Access, Reply, validation};
use schemas::command::command::Op;
use schemas::etcdserverpb::kv_server::Kv;
use schemas::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::range_stream::{self, Chunks};
use super::{admit, counted, refused};
use crate::api::{Context, Fault};
use crate::auth::Credentials;
use crate::metrics::Rpc;

pub(super) struct KvService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream = Chunks;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let (metadata, _, range) = request.into_parts();
        counted(
            &self.0,
            Rpc::Range,
            &metadata,
            self.serve_range_apart(Credentials::of(&metadata), range),
        )
        .await
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (metadata, _, range) = request.into_parts();
        self.0.metrics.started(Rpc::RangeStream);
        let opened = match admit(&self.0, Rpc::RangeStream, &metadata).await {
            Ok(()) => range_stream::open(&self.0, &Credentials::of(&metadata), range).await,
            Err(fault) => Err(fault),
        };
        opened
            .map(Response::new)
            .map_err(|fault| refused(&self.0, Rpc::RangeStream, fault))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (metadata, _, put) = request.into_parts();
        counted(&self.0, Rpc::Put, &metadata, async {
            validation::check_put(&put)?;
            let credentials = Credentials::of(&metadata);
            match self.0.propose(&credentials, Op::Put(put)).await? {
                (Reply::Put(reply), header) => Ok(PutResponse {
                    header: Some(header),
                    ..reply
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (metadata, _, delete) = request.into_parts();
        counted(&self.0, Rpc::DeleteRange, &metadata, async {
            validation::check_delete_range(&delete)?;
            let credentials = Credentials::of(&metadata);
            match self
                .0
                .propose(&credentials, Op::DeleteRange(delete))
                .await?
            {
                (Reply::DeleteRange(reply), header) => Ok(DeleteRangeResponse {
                    header: Some(header),
                    ..reply
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (metadata, _, txn) = request.into_parts();
        counted(&self.0, Rpc::Txn, &metadata, async {
            validation::check_txn(&txn, self.0.limits.max_txn_ops)?;
            if validation::is_read_only(&txn) {
                return self.serve_read_only(&Credentials::of(&metadata), txn).await;
            }
            let credentials = Credentials::of(&metadata);
            match self.0.propose(&credentials, Op::Txn(txn)).await? {
                (Reply::Txn(reply), header) => Ok(TxnResponse {
                    header: Some(header),
                    ..reply
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (metadata, _, compaction) = request.into_parts();
        counted(&self.0, Rpc::Compact, &metadata, async {
            let credentials = Credentials::of(&metadata);
            match self
                .0
                .propose(&credentials, Op::Compaction(compaction))
                .await?
            {
                (Reply::Compaction(_), header) => Ok(CompactionResponse {
                    header: Some(header),
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }
}

impl KvService {
    /// A read of many keys may take long, and the other calls of its connection must not wait.
    async fn serve_range_apart(
        &self,
        credentials: Credentials,
        range: RangeRequest,
    ) -> Result<RangeResponse, Fault> {
        if range.range_end.is_empty() {
            return self.serve_range(&credentials, range).await;
        }
        let service = Self(Arc::clone(&self.0));
        let reading =
            tokio::spawn(async move { service.serve_range(&credentials, range).await }).await;
        // It is never aborted, so it has panicked; so does the call.
        reading.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
    }

    async fn serve_range(
        &self,
        credentials: &Credentials,
        range: RangeRequest,
    ) -> Result<RangeResponse, Fault> {
        validation::check_range(&range)?;
        if !range.serializable {
            if self.0.node.is_learner() {
                return Err(Fault::NotForLearner);
            }
            self.0.node.read_barrier().await?;
        }
        // The header shows the current revision even when an old one was read.
        let (answer, revision) = self
            .0
            .read(credentials, Access::Range(&range), |state| {
                (state.range(&range), state.revision())
            })
            .await?;
        let answer = answer?;
        self.0.engine().operations().read();
        Ok(RangeResponse {
            header: Some(self.0.header(revision)),
            ..answer
        })
    }

    /// A transaction of ranges only needs no entry in the log.
    async fn serve_read_only(
        &self,
        credentials: &Credentials,
        txn: TxnRequest,
    ) -> Result<TxnResponse, Fault> {
        if !validation::is_serializable(&txn) {
            self.0.node.read_barrier().await?;
        }
        let (answer, revision) = self
            .0
            .read(credentials, Access::Txn(&txn), |state| {
                (state.read_only_txn(&txn), state.revision())
            })
            .await?;
        Ok(TxnResponse {
            header: Some(self.0.header(revision)),
            ..answer?
        })
    }
}
