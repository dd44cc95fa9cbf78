//! Answers of the v2 API, made comparable: indexes count from a start, and what no two servers share
//! is masked.

use serde_json::{Value, json};

use crate::http::{self, Answer};

/// The index of a server at this moment.
pub fn index_of(port: u16) -> anyhow::Result<i64> {
    let answer = http::exchange(port, "GET", "/v2/keys/", &[], "")?;
    Ok(answer.header("x-etcd-index").unwrap_or_default().parse()?)
}

/// What is compared of an answer.
pub fn shown(answer: &Answer, base: i64) -> Value {
    let mut body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
    relative(&mut body, base);
    let index = answer
        .header("x-etcd-index")
        .and_then(|index| index.parse::<i64>().ok());
    let present = |name: &str| answer.header(name).is_some();
    json!({
        "status": answer.status,
        "type": answer.header("content-type").filter(|_| !answer.body.is_empty()),
        "index": index.map(|index| if index == 0 { 0 } else { index - base }),
        "raft": [present("x-raft-index"), present("x-raft-term")],
        "cluster": present("x-etcd-cluster-id"),
        "allow": answer.header("allow"),
        "body": body,
    })
}

/// Counts indexes from the start of the script and masks what no two servers share.
pub fn relative(value: &mut Value, base: i64) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match (&name[..], field.as_i64()) {
                    ("modifiedIndex" | "createdIndex", Some(index)) => *field = json!(index - base),
                    ("index", Some(index)) if index != 0 => *field = json!(index - base),
                    ("expiration", _) => *field = json!("masked"),
                    // A second may pass between the two servers.
                    ("ttl", Some(ttl)) => *field = json!((ttl + 1) / 10),
                    ("id" | "name" | "peerURLs" | "clientURLs", _) => *field = json!("masked"),
                    ("key" | "cause", _) => {
                        let text = field.as_str().unwrap_or_default();
                        *field = json!(relative_text(text, base));
                    }
                    _ => relative(field, base),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| relative(value, base)),
        _ => {}
    }
}

/// Names of in-order keys, and indexes in causes.
fn relative_text(text: &str, base: i64) -> String {
    let name = text.rsplit('/').next().unwrap_or_default();
    if name.len() == 20
        && let Ok(index) = name.parse::<i64>()
    {
        return text.replace(name, &format!("#{}", index - base));
    }
    let words = text.split_inclusive([' ', '[', ']']).map(|word| {
        let digits = word.trim_end_matches([' ', '[', ']']);
        match digits.parse::<i64>() {
            Ok(index) => word.replace(digits, &format!("#{}", index - base)),
            Err(_) => word.to_owned(),
        }
    });
    words.collect()
}

/// The body with every listing in the order of its keys; without `sorted=true` etcd's have none.
pub(crate) fn in_order(body: &str) -> String {
    fn sort(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(sort);
                if let Some(Value::Array(nodes)) = fields.get_mut("nodes") {
                    nodes.sort_by_key(|node| node.get("key").map(Value::to_string));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(sort),
            _ => {}
        }
    }
    match serde_json::from_str(body) {
        Ok(mut value) => {
            sort(&mut value);
            value.to_string()
        }
        Err(_) => body.to_owned(),
    }
}
