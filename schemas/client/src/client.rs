//! The calls: each method is one RPC of etcd's API, tried over the endpoints by `attempt`.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Request;

use schemas::{
    etcdserverpb::{
        AuthRoleGetRequest, AuthRoleGetResponse, AuthStatusRequest, AuthStatusResponse,
        AuthUserGetRequest, AuthUserGetResponse, CompactionRequest, CompactionResponse,
        DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse,
        LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
        MemberListRequest, MemberListResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, SnapshotRequest, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
        WatchCreateRequest, auth_client::AuthClient, cluster_client::ClusterClient,
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
    },
    mvccpb::KeyValue,
};

use crate::{
    ClientError, ConnectOptions, LeaseKeeper, SnapshotPieces, WatchStream,
    attempt::{Endpoints, Kind, Service, Session},
    credentials::Credentials,
    endpoint::{Pipe, Remote},
    lease,
    tls::TlsSettings,
    watch,
};

/// etcd sends a range of any size in one message.
pub(crate) const MAX_MESSAGE_BYTES: usize = usize::MAX;

/// How a store without an address is called in messages.
const PIPED_URL: &str = "http://this-member";

/// A client of one store; clones share connections and token.
#[derive(Debug, Clone)]
pub struct Client {
    endpoints: Arc<Endpoints>,
}

/// The answer to `get`: the key's value, and the store's revision at which it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub kv: Option<KeyValue>,
    /// Watch from `revision + 1` to miss nothing and see nothing twice.
    pub revision: i64,
}

impl Client {
    /// Checks the options and reads the TLS files. Connections are made by the first calls.
    pub fn new(options: ConnectOptions) -> Result<Self, ClientError> {
        let urls = options
            .endpoints
            .iter()
            .map(|endpoint| options.endpoint_url(endpoint))
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(ClientError::NoEndpoints);
        }
        let tls = if urls.iter().any(|url| url.starts_with("https://")) {
            Some(TlsSettings::load(&options)?)
        } else {
            None
        };
        let remotes = urls
            .into_iter()
            .map(|url| Remote::new(url, &options, tls.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::with(remotes, options))
    }

    /// A client of the store at the other end of a pipe; the endpoints of the options do not count.
    pub fn piped(pipe: Pipe, options: ConnectOptions) -> Result<Self, ClientError> {
        let remote = Remote::piped(PIPED_URL.to_owned(), &options, pipe)?;
        Ok(Self::with(vec![remote], options))
    }

    fn with(remotes: Vec<Remote>, options: ConnectOptions) -> Self {
        let credentials = options
            .username
            .clone()
            .filter(|name| !name.is_empty())
            .map(|name| Credentials::new(name, options.password.clone().unwrap_or_default()));
        Self {
            endpoints: Arc::new(Endpoints::new(remotes, credentials, options)),
        }
    }

    /// The endpoints as URLs, in the order given.
    pub fn endpoints(&self) -> Vec<String> {
        self.endpoints
            .remotes
            .iter()
            .map(|remote| remote.url.clone())
            .collect()
    }

    /// Reads one key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Found, ClientError> {
        let answer = self
            .range(RangeRequest {
                key: key.into(),
                ..Default::default()
            })
            .await?;
        Ok(Found {
            revision: answer.header.map_or(0, |header| header.revision),
            kv: answer.kvs.into_iter().next(),
        })
    }

    /// Reads all keys that begin with `prefix`, in key order.
    pub async fn get_prefix(&self, prefix: impl Into<Bytes>) -> Result<RangeResponse, ClientError> {
        let key = prefix.into();
        self.range(RangeRequest {
            range_end: prefix_end(&key),
            key,
            ..Default::default()
        })
        .await
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        self.unary(
            "range",
            Kind::Read,
            request,
            |session, request| async move { kv(&session).range(request).await },
        )
        .await
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        self.unary("put", Kind::Write, request, |session, request| async move {
            kv(&session).put(request).await
        })
        .await
    }

    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        self.unary(
            "delete",
            Kind::Write,
            request,
            |session, request| async move { kv(&session).delete_range(request).await },
        )
        .await
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, ClientError> {
        self.unary("txn", Kind::Write, request, |session, request| async move {
            kv(&session).txn(request).await
        })
        .await
    }

    pub async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, ClientError> {
        self.unary(
            "compact",
            Kind::Write,
            request,
            |session, request| async move { kv(&session).compact(request).await },
        )
        .await
    }

    /// Makes a lease; `id` 0 lets the store choose one.
    pub async fn lease_grant(
        &self,
        ttl_s: i64,
        id: i64,
    ) -> Result<LeaseGrantResponse, ClientError> {
        let request = LeaseGrantRequest { ttl: ttl_s, id };
        self.unary(
            "lease grant",
            Kind::Write,
            request,
            |session, request| async move { lease_client(&session).lease_grant(request).await },
        )
        .await
    }

    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, ClientError> {
        let request = LeaseRevokeRequest { id };
        self.unary(
            "lease revoke",
            Kind::Write,
            request,
            |session, request| async move { lease_client(&session).lease_revoke(request).await },
        )
        .await
    }

    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, ClientError> {
        let request = LeaseTimeToLiveRequest { id, keys };
        self.unary("lease time-to-live", Kind::Read, request, |session, request| async move {
            lease_client(&session).lease_time_to_live(request).await
        })
        .await
    }

    /// Opens a keep-alive stream for one lease and renews it once.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeeper, ClientError> {
        let timeout = self.endpoints.options.request_timeout;
        self.endpoints
            .call("lease keep-alive", Kind::Read, |session| {
                lease::open(session, id, timeout)
            })
            .await
    }

    /// Opens a watch and waits until the store has confirmed it.
    ///
    /// The stream does not reconnect: resume with `start_revision` one above the last revision seen.
    pub async fn watch(&self, request: WatchCreateRequest) -> Result<WatchStream, ClientError> {
        let stream = self
            .endpoints
            .call("watch", Kind::Read, |session| {
                watch::open(session, request.clone())
            })
            .await?;
        stream.checked()
    }

    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        let request = MemberListRequest { linearizable: true };
        self.unary(
            "member list",
            Kind::Read,
            request,
            |session, request| async move {
                ClusterClient::new(session.service())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .member_list(request)
                    .await
            },
        )
        .await
    }

    /// Whether authentication is on.
    pub async fn auth_status(&self) -> Result<AuthStatusResponse, ClientError> {
        let request = AuthStatusRequest {};
        self.unary(
            "auth status",
            Kind::Read,
            request,
            |session, request| async move {
                AuthClient::new(session.service())
                    .auth_status(request)
                    .await
            },
        )
        .await
    }

    /// The roles of a user.
    pub async fn user_get(&self, name: &str) -> Result<AuthUserGetResponse, ClientError> {
        let name = name.to_owned();
        let request = AuthUserGetRequest { name };
        self.unary("user get", Kind::Read, request, |session, request| async move {
            AuthClient::new(session.service()).user_get(request).await
        })
        .await
    }

    /// What a role permits.
    pub async fn role_get(&self, role: &str) -> Result<AuthRoleGetResponse, ClientError> {
        let role = role.to_owned();
        let request = AuthRoleGetRequest { role };
        self.unary("role get", Kind::Read, request, |session, request| async move {
            AuthClient::new(session.service()).role_get(request).await
        })
        .await
    }

    /// Opens a snapshot of the store; the request's time limit is for the first answer only.
    pub async fn snapshot(&self) -> Result<SnapshotPieces, ClientError> {
        let pieces = self
            .unary(
                "snapshot",
                Kind::Read,
                SnapshotRequest {},
                |session, request| async move {
                    MaintenanceClient::new(session.service())
                        .snapshot(request)
                        .await
                },
            )
            .await?;
        let endpoints = self.endpoints().join(", ");
        Ok(SnapshotPieces { pieces, endpoints })
    }

    /// The state of one member, asked at the given endpoint and no other.
    pub async fn status(&self, endpoint: &str) -> Result<StatusResponse, ClientError> {
        let options = &self.endpoints.options;
        let mut single = options.clone();
        single.endpoints = vec![endpoint.to_owned()];
        let client = Self::new(single)?;
        client
            .unary(
                "status",
                Kind::Read,
                StatusRequest {},
                |session, request| async move {
                    MaintenanceClient::new(session.service())
                        .status(request)
                        .await
                },
            )
            .await
    }

    async fn unary<Q, A, F, Fut>(
        &self,
        operation: &'static str,
        kind: Kind,
        request: Q,
        send: F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Fn(Session, Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        self.endpoints
            .call(operation, kind, |session| {
                let answer = send(session, Request::new(request.clone()));
                async { answer.await.map(tonic::Response::into_inner) }
            })
            .await
    }
}

fn kv(session: &Session) -> KvClient<Service> {
    KvClient::new(session.service()).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn lease_client(session: &Session) -> LeaseClient<Service> {
    LeaseClient::new(session.service()).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// The `range_end` with which a request covers every key that begins with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte < 0xff) else {
        // Nothing sorts after a prefix of 0xff bytes: "\0" means "to the end of the keys".
        return Bytes::from_static(b"\0");
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        let table: [(&[u8], &[u8]); 5] = [
            (b"a", b"b"),
            (b"/config/", b"/config0"),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
        ];
        for (prefix, end) in table {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }
}
