//! Transactions in the few forms that the fleet uses.

use bytes::Bytes;
use schemas::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
        TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use schemas_client::{Client, ClientError, prefix_end};

/// etcd's default for `--max-txn-ops`, which counts compares and operations each by themselves.
pub const MAX_TXN_OPS: usize = 128;
/// Below etcd's default limit of a request, with room for keys and framing.
pub const MAX_TXN_BYTES: usize = 1_200_000;

/// The key is as it was read: `mod_revision` 0 means that there was none.
pub fn unchanged(key: impl Into<Bytes>, mod_revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    }
}

/// No key under the prefix was written after this revision. Deletions do not show.
pub fn none_newer(prefix: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        target_union: Some(TargetUnion::ModRevision(revision + 1)),
    }
}

pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        })),
    }
}

pub fn delete(key: impl Into<Bytes>) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            ..Default::default()
        })),
    }
}

pub fn delete_prefix(prefix: &str) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
            key: Bytes::from(prefix.to_owned()),
            range_end: prefix_end(prefix.as_bytes()),
            ..Default::default()
        })),
    }
}

/// Reads prefixes and keys at one revision; answers come in the order asked, with that revision.
pub async fn read_together(
    client: &Client,
    wanted: &[Wanted<'_>],
) -> Result<(Vec<Vec<KeyValue>>, i64), ClientError> {
    let range = |wanted: &Wanted<'_>| {
        let (key, range_end) = match wanted {
            Wanted::Key(key) => (*key, Bytes::new()),
            Wanted::Prefix(prefix) => (*prefix, prefix_end(prefix.as_bytes())),
        };
        RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: Bytes::from(key.to_owned()),
                range_end,
                ..Default::default()
            })),
        }
    };
    let request = TxnRequest {
        success: wanted.iter().map(range).collect(),
        ..Default::default()
    };
    let answer = client.txn(request).await?;
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    let found = |response| match response {
        Some(Response::ResponseRange(RangeResponse { kvs, .. })) => kvs,
        _ => Vec::new(),
    };
    Ok((
        answer
            .responses
            .into_iter()
            .map(|op| found(op.response))
            .collect(),
        revision,
    ))
}

#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    Key(&'a str),
    Prefix(&'a str),
}

/// How a conditional write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    At {
        revision: i64,
    },
    /// Something compared had changed; nothing was written.
    Lost,
}

pub async fn write(
    client: &Client,
    compare: Vec<Compare>,
    success: Vec<RequestOp>,
) -> Result<Written, ClientError> {
    let TxnResponse {
        header, succeeded, ..
    } = client
        .txn(TxnRequest {
            compare,
            success,
            failure: Vec::new(),
        })
        .await?;
    Ok(if succeeded {
        Written::At {
            revision: header.map_or(0, |header| header.revision),
        }
    } else {
        Written::Lost
    })
}
