//! A blocking etcd v3 client of four calls, straight over the generated stubs.
//!
//! No retries and no cleverness: what the server answered is what the test sees.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use schemas::fleet::AgentStatus;
use schemas::mvccpb::KeyValue;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The one runtime of this process; calls block on it from plain threads.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all();
        builder
            .build()
            .expect("a runtime needs only threads and an epoll descriptor")
    })
}

fn endpoint(client_url: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(client_url.to_owned())
        .with_context(|| format!("{client_url} is a URL"))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT))
}

/// A lazy connection without a deadline for its calls: for streams.
pub fn channel(client_url: &str) -> anyhow::Result<Channel> {
    let endpoint = endpoint(client_url)?;
    let _inside = runtime().enter();
    Ok(endpoint.connect_lazy())
}

/// A lazy connection to one member.
#[derive(Debug, Clone)]
pub struct Store {
    kv: KvClient<Channel>,
}

impl Store {
    pub fn new(client_url: &str) -> anyhow::Result<Self> {
        let endpoint = endpoint(client_url)?.timeout(CALL_TIMEOUT);
        let _inside = runtime().enter();
        Ok(Self {
            kv: KvClient::new(endpoint.connect_lazy()),
        })
    }

    /// Puts and returns the revision of the put.
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: value.as_ref().to_vec().into(),
            ..Default::default()
        };
        let answer = runtime()
            .block_on(self.kv.clone().put(request))?
            .into_inner();
        Ok(answer
            .header
            .map(|header| header.revision)
            .unwrap_or_default())
    }

    pub fn get(&self, key: &str) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest {
            key: key.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let answer = runtime()
            .block_on(self.kv.clone().range(request))?
            .into_inner();
        Ok(answer.kvs.into_iter().next())
    }

    /// Every pair at or above `key`, and the store's revision.
    pub fn get_from(&self, key: &str) -> Result<(Vec<KeyValue>, i64), Status> {
        let request = RangeRequest {
            key: key.as_bytes().to_vec().into(),
            range_end: vec![0].into(),
            ..Default::default()
        };
        let answer = runtime()
            .block_on(self.kv.clone().range(request))?
            .into_inner();
        Ok((
            answer.kvs,
            answer
                .header
                .map(|header| header.revision)
                .unwrap_or_default(),
        ))
    }

    pub fn delete(&self, key: &str) -> Result<i64, Status> {
        let request = DeleteRangeRequest {
            key: key.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let answer = runtime()
            .block_on(self.kv.clone().delete_range(request))?
            .into_inner();
        Ok(answer
            .header
            .map(|header| header.revision)
            .unwrap_or_default())
    }

    /// What the agent of a host says about itself; `None` when it says nothing.
    pub fn agent_status(&self, status_key: &str) -> Option<AgentStatus> {
        let pair = self.get(status_key).ok().flatten()?;
        serde_json::from_slice(&pair.value).ok()
    }
}
