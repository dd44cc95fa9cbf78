//! `/v2/stats`: who leads, and what the v2 API of this process has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::response::Response;
use http::StatusCode;
use schemas::command::v2_write::Verb;

use super::{V2, events, hex, json, members, time};

/// Successes and failures of one kind of request.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) success: AtomicU64,
    pub(super) fail: AtomicU64,
}

/// Since this process started, as in etcd.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) gets: Outcomes,
    sets: Outcomes,
    deletes: Outcomes,
    updates: Outcomes,
    creates: Outcomes,
    swaps: Outcomes,
    compared_deletes: Outcomes,
}

impl Counts {
    pub(super) fn of(&self, verb: Verb) -> &Outcomes {
        match verb {
            Verb::Set | Verb::Unspecified => &self.sets,
            Verb::Create | Verb::CreateUnique => &self.creates,
            Verb::Update => &self.updates,
            Verb::CompareAndSwap => &self.swaps,
            Verb::Delete => &self.deletes,
            Verb::CompareAndDelete => &self.compared_deletes,
        }
    }
}

pub(super) fn store(v2: &V2) -> Response {
    let counts = &v2.counts;
    let kinds = [
        ("gets", &counts.gets),
        ("sets", &counts.sets),
        ("delete", &counts.deletes),
        ("update", &counts.updates),
        ("create", &counts.creates),
        ("compareAndSwap", &counts.swaps),
        ("compareAndDelete", &counts.compared_deletes),
    ];
    let mut body = String::from("{");
    for (kind, outcomes) in kinds {
        let (success, fail) = (
            outcomes.success.load(Ordering::Relaxed),
            outcomes.fail.load(Ordering::Relaxed),
        );
        body.push_str(&format!(
            "\"{kind}Success\":{success},\"{kind}Fail\":{fail},"
        ));
    }
    let (_, watchers) = v2.context.engine().watch_counts();
    body.push_str(&format!("\"expireCount\":0,\"watchers\":{watchers}}}"));
    json(StatusCode::OK, body)
}

pub(super) fn own(v2: &V2) -> Response {
    let context = &v2.context;
    let own_id = context.member_id();
    let leader_id = context.node.status().leader_id;
    let name = members::all(context)
        .into_iter()
        .find(|member| member.id == own_id)
        .map_or_else(String::new, |member| member.name);
    let state = if leader_id == own_id {
        "StateLeader"
    } else {
        "StateFollower"
    };
    let started = time::rfc3339(time::unix_ms(v2.started));
    let uptime = SystemTime::now()
        .duration_since(v2.started)
        .unwrap_or_default();
    let body = format!(
        "{{\"name\":{},\"id\":\"{}\",\"state\":\"{state}\",\"startTime\":\"{started}\",\
         \"leaderInfo\":{{\"leader\":\"{}\",\"uptime\":\"{}ms\",\"startTime\":\"{started}\"}},\
         \"recvAppendRequestCnt\":0,\"sendAppendRequestCnt\":0}}",
        events::quoted(name.as_bytes()),
        hex(own_id),
        hex(leader_id),
        uptime.as_millis(),
    );
    json(StatusCode::OK, body)
}

/// Only the leader knows; the others say so.
pub(super) fn leader(v2: &V2) -> Response {
    let own_id = v2.context.member_id();
    if v2.context.node.status().leader_id != own_id {
        return members::message(StatusCode::FORBIDDEN, "not current leader");
    }
    let body = format!("{{\"leader\":\"{}\",\"followers\":{{}}}}", hex(own_id));
    json(StatusCode::OK, body)
}
