//! Makes answers of two servers comparable: ids and terms go, revisions count from the start of the
//! sequence, and what has no order is sorted. Everything else must be equal as it is.

use schemas::etcdserverpb::response_op::Response;
use schemas::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse,
};
use schemas::mvccpb::KeyValue;

/// Revisions of one server, counted from where the sequence began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base(pub(super) i64);

impl Base {
    fn revision(self, revision: &mut i64) {
        // Zero stands for "none" and is no revision.
        if *revision > 0 {
            *revision -= self.0;
        }
    }

    pub(super) fn header(self, header: &mut Option<ResponseHeader>) {
        if let Some(header) = header {
            // Whether there is a header, and whether its ids are set, is compared.
            header.cluster_id = u64::from(header.cluster_id != 0);
            header.member_id = u64::from(header.member_id != 0);
            header.raft_term = u64::from(header.raft_term != 0);
            self.revision(&mut header.revision);
        }
    }

    fn pair(self, pair: &mut KeyValue) {
        self.revision(&mut pair.create_revision);
        self.revision(&mut pair.mod_revision);
    }

    pub(super) fn put(self, answer: &mut PutResponse) {
        self.header(&mut answer.header);
        if let Some(pair) = &mut answer.prev_kv {
            self.pair(pair);
        }
    }

    pub(super) fn range(self, answer: &mut RangeResponse) {
        self.header(&mut answer.header);
        answer.kvs.iter_mut().for_each(|pair| self.pair(pair));
    }

    pub(super) fn delete(self, answer: &mut DeleteRangeResponse) {
        self.header(&mut answer.header);
        answer.prev_kvs.iter_mut().for_each(|pair| self.pair(pair));
    }

    pub(super) fn txn(self, answer: &mut TxnResponse) {
        self.header(&mut answer.header);
        for operation in &mut answer.responses {
            match &mut operation.response {
                Some(Response::ResponsePut(answer)) => self.put(answer),
                Some(Response::ResponseRange(answer)) => self.range(answer),
                Some(Response::ResponseDeleteRange(answer)) => self.delete(answer),
                Some(Response::ResponseTxn(answer)) => self.txn(answer),
                None => {}
            }
        }
    }

    /// What a watcher was told, without how it was cut into messages.
    pub(super) fn watch(self, answer: &WatchResponse, text: &mut Vec<String>) {
        for event in &answer.events {
            let mut event = event.clone();
            for pair in event.kv.iter_mut().chain(&mut event.prev_kv) {
                self.pair(pair);
            }
            text.push(format!("{event:?}"));
        }
        if answer.created || answer.canceled {
            let mut answer = answer.clone();
            answer.events.clear();
            self.header(&mut answer.header);
            self.revision(&mut answer.compact_revision);
            text.push(format!("{answer:?}"));
        }
    }
}
