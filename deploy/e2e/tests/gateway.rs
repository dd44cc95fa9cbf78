//! The same JSON requests to config-center and to real etcds: status, content type and JSON must be
//! equal, once ids and sizes are masked.
//!
//! etcd 3.7.1 is the judge. etcd 3.4.23 is asked too: where the two differ the newer one wins, so
//! only what they agree upon is compared with it.

use e2e::Center;
use e2e::http::{self, Answer};
use e2e::peer::Peer;
use serde_json::{Value, json};

/// One request, and what of the answer may differ.
struct Step {
    verb: &'static str,
    path: &'static str,
    body: &'static str,
    compared: Compared,
    /// Lines to read of an answer that does not end; 0 reads to the end.
    lines: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Everything,
    /// The words are the JSON library's own: only status and code.
    CodeOnly,
    /// etcd 3.4 is sent the request as well, but answers otherwise.
    NewestOnly,
    /// Only the code, and etcd 3.4 is not asked.
    NewestCodeOnly,
}

use Compared::{CodeOnly, Everything, NewestCodeOnly, NewestOnly};

const fn post(path: &'static str, body: &'static str) -> Step {
    Step {
        verb: "POST",
        path,
        body,
        compared: Everything,
        lines: 0,
    }
}

impl Step {
    const fn verb(mut self, verb: &'static str) -> Self {
        self.verb = verb;
        self
    }

    const fn compared(mut self, compared: Compared) -> Self {
        self.compared = compared;
        self
    }

    const fn lines(mut self, lines: usize) -> Self {
        self.lines = lines;
        self
    }
}

const SCRIPT: &[Step] = &[
    // KV. YQ== is a, Yg== is b, Yw== is c, MQ== is 1.
    post("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#),
    post("/v3/kv/put", r#"{"key":"YQ==","value":"Mg==","prev_kv":true}"#),
    post("/v3/kv/put", r#"{"key":"Yg==","value":"MQ==","prevKv":true}"#),
    post("/v3/kv/put", r#"{"key":"Yg==","lease":"777"}"#),
    post("/v3/kv/put", r#"{"key":"Yg==","value":"MQ==","ignore_value":true}"#),
    post("/v3/kv/put", r#"{"value":"MQ=="}"#),
    post("/v3/kv/put", r#"{"key":"%%"}"#).compared(CodeOnly),
    post("/v3/kv/put", r#"{"key":7}"#).compared(CodeOnly),
    post("/v3/kv/put", r#"{"key":"YQ==","key":"YQ=="}"#).compared(NewestCodeOnly),
    post("/v3/kv/range", r#"{"key":"YQ=="}"#),
    post("/v3/kv/range", r#"{"key":"YQ==","range_end":"eg=="}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","rangeEnd":"eg==","limit":1}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","range_end":"eg==","limit":"1","keys_only":true}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","range_end":"eg==","count_only":true}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","range_end":"eg==","sort_order":"DESCEND","sort_target":"MOD"}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","range_end":"eg==","sort_order":2,"sort_target":"VERSION"}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","sort_order":"NOPE"}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","sort_order":7}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":"2"}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":"1e0"}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":2.0}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":2.5}"#).compared(CodeOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":"99"}"#),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":"9223372036854775808"}"#).compared(CodeOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","unknown":[{"a":1}]}"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","serializable":true} and more"#).compared(NewestOnly),
    post("/v3/kv/range", r#"{"key":"YQ==","serializable":"true"}"#).compared(CodeOnly),
    post("/v3/kv/range", ""),
    post("/v3/kv/range", "{}"),
    post("/v3/kv/range", "null").compared(NewestCodeOnly),
    post("/v3/kv/range", "[]").compared(CodeOnly),
    post("/v3/kv/range", "{").compared(CodeOnly),
    post("/v3/kv/range", "\"x\"").compared(CodeOnly),
    post("/v3beta/kv/range", r#"{"key":"YQ=="}"#).compared(NewestOnly),
    post("/v3/kv/range", "").verb("GET").compared(NewestOnly),
    post("/v3/kv/range", "").verb("PUT").compared(NewestOnly),
    post("/v3/kv/range", "").verb("OPTIONS"),
    post("/v3/kv/nope", "{}").compared(NewestOnly),
    post("/v3/kv/range/", "{}").compared(NewestOnly),
    // Transactions.
    post("/v3/kv/txn", r#"{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"2"}],"success":[{"request_put":{"key":"YQ==","value":"Mw=="}},{"requestRange":{"key":"YQ=="}}],"failure":[{"request_delete_range":{"key":"YQ=="}}]}"#),
    // etcd 3.4 refuses these two; from here on its revisions differ.
    post("/v3/kv/put", r#"{"key":"_-8=","value":"-_8="}"#).compared(NewestOnly),
    post("/v3/kv/put", r#"{"key":"Yw","value":"Mg"}"#).compared(NewestOnly),
    post("/v3/kv/txn", r#"{"compare":[{"key":"YQ==","target":"VALUE","result":"NOT_EQUAL","value":"Mw=="}],"failure":[{"request_delete_range":{"key":"YQ==","prev_kv":true}}]}"#).compared(NewestOnly),
    post("/v3/kv/txn", r#"{"success":[{"request_txn":{"success":[{"request_put":{"key":"YQ==","value":"NA=="}}]}}]}"#).compared(NewestOnly),
    post("/v3/kv/txn", r#"{"success":[{"requestPut":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}"#).compared(NewestCodeOnly),
    post("/v3/kv/txn", r#"{"success":[{}]}"#),
    post("/v3/kv/txn", r#"{"compare":[{"result":0,"target":1,"key":"Zm9v","TargetUnion":null}],"success":[{"Request":{"RequestPut":{"key":"Zm9v","value":"YmFy"}}}]}"#),
    post("/v3/kv/txn", "{}").compared(NewestOnly),
    post("/v3/kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#).compared(NewestOnly),
    post("/v3/kv/deleterange", r#"{"key":"Yg=="}"#).compared(NewestOnly),
    post("/v3/kv/compaction", r#"{"revision":"3"}"#).compared(NewestOnly),
    post("/v3/kv/compaction", r#"{"revision":"3"}"#),
    post("/v3/kv/compaction", r#"{"revision":"99"}"#),
    post("/v3/kv/range", r#"{"key":"YQ==","revision":"2"}"#),
    // Leases.
    post("/v3/lease/grant", r#"{"TTL":"600","ID":"7"}"#).compared(NewestOnly),
    post("/v3/lease/grant", r#"{"TTL":600,"ID":7}"#).compared(NewestOnly),
    post("/v3/lease/grant", r#"{"TTL":"90000000000","ID":"8"}"#),
    post("/v3/kv/put", r#"{"key":"bGVhc2Vk","value":"MQ==","lease":"7"}"#).compared(NewestOnly),
    post("/v3/lease/timetolive", r#"{"ID":"7","keys":true}"#).compared(NewestOnly),
    post("/v3/kv/lease/timetolive", r#"{"ID":"7","keys":true}"#).compared(NewestOnly),
    post("/v3/lease/timetolive", r#"{"ID":"9"}"#).compared(NewestOnly),
    post("/v3/lease/leases", "{}").compared(NewestOnly),
    post("/v3/kv/lease/leases", "{}").compared(NewestOnly),
    post("/v3/lease/keepalive", r#"{"ID":"7"}"#).compared(NewestOnly),
    post("/v3/lease/keepalive", r#"{"ID":"7"}{"ID":"9"}"#).compared(NewestOnly),
    post("/v3/lease/keepalive", "").compared(NewestOnly),
    // Streams.
    post("/v3/watch", r#"{"create_request":{"key":"YQ==","start_revision":"4"}}"#).lines(2).compared(NewestOnly),
    post("/v3/watch", r#"{"createRequest":{"key":"YQ==","range_end":"eg==","start_revision":"4","prev_kv":true,"watch_id":"5"}}"#).lines(2).compared(NewestOnly),
    post("/v3/watch", r#"{"create_request":{"key":"YQ==","start_revision":"1"}}"#).lines(2).compared(NewestOnly),
    post("/v3/watch", r#"{"create_request":{"key":"YQ==","watch_id":"3"}} {"cancel_request":{"watch_id":"3"}}"#).lines(2).compared(NewestOnly),
    post("/v3/lease/revoke", r#"{"ID":"7"}"#).compared(NewestOnly),
    post("/v3/kv/lease/revoke", r#"{"ID":"7"}"#),
    // The rest.
    post("/v3/cluster/member/list", "{}").compared(NewestOnly),
    post("/v3/auth/status", "{}").compared(NewestOnly),
    post("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#).compared(NewestOnly),
    post("/v3/auth/nope", "{}").compared(NewestOnly),
];

#[test]
fn the_gateway_answers_as_real_etcds_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let center = Center::start(folder.path())?;
    let newest = Peer::start(folder.path(), &[])?;
    let older = Peer::start_3_4(folder.path(), &[])?;
    let mut differences = Vec::new();
    for step in SCRIPT {
        let ours = run(center.client_port, step)?;
        let judged = run(newest.client_port()?, step)?;
        let codes_only = matches!(step.compared, CodeOnly | NewestCodeOnly);
        let expected = shown(&judged, codes_only);
        let got = shown(&ours, codes_only);
        if got != expected {
            differences.push(difference(step, "3.7.1", &expected, &got));
        }
        if step.compared == NewestCodeOnly {
            // etcd 3.4 would carry out what the others refuse.
            continue;
        }
        let judged_older = run(older.client_port()?, step)?;
        if step.compared != NewestOnly {
            let expected = shown(&judged_older, codes_only);
            if got != expected {
                differences.push(difference(step, "3.4.23", &expected, &got));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn difference(step: &Step, release: &str, expected: &Value, got: &Value) -> String {
    format!(
        "{} {} {}\n  etcd {release}: {expected}\n  config-center: {got}",
        step.verb, step.path, step.body
    )
}

fn run(port: u16, step: &Step) -> anyhow::Result<Answer> {
    let headers = [("Content-Type", "application/json")];
    if step.lines == 0 {
        return http::exchange(port, step.verb, step.path, &headers, step.body);
    }
    let mut streaming = http::open(port, step.verb, step.path, &headers, step.body)?;
    let mut body = String::new();
    while body.lines().count() < step.lines {
        match streaming.piece()? {
            Some(piece) => body.push_str(&piece),
            None => break,
        }
    }
    Ok(Answer {
        status: streaming.status,
        headers: streaming.headers.clone(),
        body,
    })
}

/// What is compared of an answer.
fn shown(answer: &Answer, codes_only: bool) -> Value {
    let mut lines: Vec<Value> = answer
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line)))
        .collect();
    lines.iter_mut().for_each(mask);
    if codes_only {
        for line in &mut lines {
            if let Some(refusal) = line.as_object_mut() {
                refusal.remove("message");
            }
        }
    }
    let cors: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("access-control-"))
        .collect();
    json!({
        "status": answer.status,
        "type": if answer.body.is_empty() { None } else { answer.header("content-type") },
        "cors": cors.len(),
        "lines": lines,
    })
}

/// Ids, sizes and names that no two servers share; and `error`, which only 3.4 has beside `message`.
fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("message") {
                fields.remove("error");
                fields.remove("details");
            }
            // The error of a stream, of which each release has its own half.
            if let Some(Value::Object(error)) = fields.get_mut("error") {
                let code = error.get("grpc_code").or(error.get("code")).cloned();
                error.retain(|name, _| name == "message");
                error.insert("code".into(), code.unwrap_or_default());
            }
            for (name, field) in fields.iter_mut() {
                let masked = [
                    "cluster_id",
                    "member_id",
                    "raft_term",
                    "peerURLs",
                    "clientURLs",
                    "name",
                    "TTL",
                ];
                if masked.contains(&&name[..]) || (name == "ID" && is_member_id(field)) {
                    *field = json!("masked");
                } else {
                    mask(field);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

/// Members have large random ids, the leases of the script small ones.
fn is_member_id(id: &Value) -> bool {
    id.as_str().is_some_and(|digits| digits.len() > 10)
}
