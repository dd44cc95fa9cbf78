//! A place in the queue: the key of one waiter, from its creation until its turn has come.

use std::sync::Arc;

use bytes::Bytes;
use config_center_core::KeyRange;
use schemas::etcdserverpb::range_request::{SortOrder, SortTarget};
use schemas::etcdserverpb::response_op::Response as OpResponse;
use schemas::etcdserverpb::{RangeRequest, RequestOp, TxnRequest, TxnResponse};
use schemas::mvccpb::KeyValue;
use tokio::runtime::Handle;
use tonic::Status;

use super::{Caller, create_revision_is, delete_op, prefix_end, put_op};
use crate::api::grpc::status;
use crate::engine::{Engine, WatchStream};

/// The id of the only watcher of a waiting call.
const WATCHER: i64 = 0;

/// A waiter's key. While it is held provisionally, letting it go deletes the key: a client that
/// hangs up must not block those behind it until its lease ends.
pub(super) struct Place {
    caller: Caller,
    pub(super) key: Bytes,
    pub(super) created: i64,
    provisional: bool,
}

impl Place {
    /// Takes the place of this key: creates it, or finds it taken by the same lease. `more` is what
    /// both outcomes read in the same transaction, beside `found` when the key was there. A client
    /// that hangs up meanwhile gives back what was created for it.
    pub(super) async fn take(
        caller: &Caller,
        key: Bytes,
        value: Bytes,
        lease: i64,
        found: RequestOp,
        more: Vec<RequestOp>,
    ) -> Result<(Self, TxnResponse), Status> {
        let put = put_op(&key, value, lease);
        let txn = TxnRequest {
            compare: vec![create_revision_is(&key, 0)],
            success: std::iter::once(put).chain(more.clone()).collect(),
            failure: std::iter::once(found).chain(more).collect(),
        };
        let caller = caller.clone();
        // In a task of its own: it ends also when the call that waits for it is dropped, and then
        // the place is dropped with the result that nobody takes.
        let taking = tokio::spawn(async move {
            let answer = caller.txn(txn).await?;
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            let created = if answer.succeeded {
                revision
            } else {
                found_key(&answer).map_or(revision, |kv| kv.create_revision)
            };
            let place = Self {
                caller,
                key,
                created,
                provisional: answer.succeeded,
            };
            Ok((place, answer))
        });
        match taking.await {
            Ok(taken) => taken,
            Err(_) => Err(status::stopped()),
        }
    }

    /// Returns when no key below the prefix is older than this one.
    pub(super) async fn reach_front(&mut self, prefix: &Bytes) -> Result<(), Status> {
        self.provisional = true;
        let older = RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            limit: 1,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: self.created - 1,
            ..RangeRequest::default()
        };
        loop {
            // Everybody waits for the one before: an end wakes one waiter and not all of them.
            let answer = self.caller.range(older.clone()).await?;
            match answer.kvs.first() {
                Some(before) => self.wait_for_end(before).await?,
                None => return Ok(()),
            }
        }
    }

    /// Returns when this life of the key is over.
    async fn wait_for_end(&self, awaited: &KeyValue) -> Result<(), Status> {
        let context = &self.caller.context;
        let bell = Bell::of(context.node.engine(), KeyRange::Single(awaited.key.clone()));
        let still_there = RangeRequest {
            key: awaited.key.clone(),
            ..RangeRequest::default()
        };
        loop {
            // The barrier before was the range's; from there on this member only moves forward.
            let now = context.engine().read(|state| state.range(&still_there));
            let kv = now.ok().and_then(|answer| answer.kvs.into_iter().next());
            if kv.is_none_or(|kv| kv.create_revision != awaited.create_revision) {
                return Ok(());
            }
            tokio::select! {
                () = bell.rings() => {}
                () = context.stopping.cancelled() => return Err(status::stopped()),
            }
        }
    }

    /// The turn has come: from here on the key ends with its lease, or when its owner deletes it.
    pub(super) fn keep(mut self) {
        self.provisional = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.provisional {
            return;
        }
        let caller = self.caller.clone();
        let txn = TxnRequest {
            compare: vec![create_revision_is(&self.key, self.created)],
            success: vec![delete_op(&self.key)],
            failure: Vec::new(),
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = caller.txn(txn).await {
                // The lease ends the key all the same.
                tracing::debug!(%error, "the key of a waiter that left could not be deleted");
            }
        });
    }
}

/// The key that the first read of a transaction found.
pub(super) fn found_key(answer: &TxnResponse) -> Option<&KeyValue> {
    nth_key(answer, 0)
}

/// The first key of the transaction's answer to its operation `n`.
pub(super) fn nth_key(answer: &TxnResponse, n: usize) -> Option<&KeyValue> {
    match answer.responses.get(n)?.response.as_ref()? {
        OpResponse::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

/// Rings when something in the range changes. What changed before it was made is not announced.
pub(super) struct Bell {
    engine: Arc<Engine>,
    stream: WatchStream,
}

impl Bell {
    pub(super) fn of(engine: &Arc<Engine>, range: KeyRange) -> Self {
        let stream = engine.open_stream();
        engine.watch(stream.id, WATCHER, range);
        Self {
            engine: Arc::clone(engine),
            stream,
        }
    }

    pub(super) async fn rings(&self) {
        self.stream.wake.notified().await;
        // Taken, or the next change would not be announced.
        self.engine.take_pending(self.stream.id);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.engine.close_stream(self.stream.id);
    }
}
