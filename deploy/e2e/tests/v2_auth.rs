//! The same requests about users, roles and guarded keys to config-center and to etcd 3.4.23: status
//! and body must be equal, once indexes are masked.
//!
//! Left out is where docs/v2.md says that config-center gives less away or refuses more.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::http;
use e2e::peer::Peer;
use e2e::{Center, binaries};
use serde_json::{Value, json};

/// Who (`name:password`, nobody, or a whole header), method, target below `/v2`, body.
type Step = (&'static str, &'static str, &'static str, &'static str);

const ROOT: &str = "root:r";

const SCRIPT: &[Step] = &[
    ("", "GET", "/auth/enable", ""),
    ("", "POST", "/auth/enable", ""),
    ("", "GET", "/auth/users", ""),
    ("", "GET", "/auth/roles", ""),
    ("", "PUT", "/auth/users", ""),
    ("", "GET", "/auth/roles/root", ""),
    ("", "GET", "/auth/users/none", ""),
    ("", "GET", "/auth/roles/none", ""),
    ("", "PUT", "/auth/enable", ""),
    ("", "DELETE", "/auth/enable", ""),
    // Roles.
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","permissions":{"kv":{"read":["/foo/*"]}}}"#,
    ),
    ("", "PUT", "/auth/roles/foo", r#"{"role":"foo"}"#),
    ("", "GET", "/auth/roles/foo", ""),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","grant":{"kv":{"read":["/bar"],"write":["/foo/*"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","grant":{"kv":{"read":["/bar"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","grant":{"kv":{"write":["/foo/*"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","revoke":{"kv":{"read":["/bar"],"write":["/never"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","revoke":{"kv":{"read":["/never"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/foo",
        r#"{"role":"foo","permissions":{"kv":{"read":["/x"]}},"grant":{"kv":{"read":["/x"]}}}"#,
    ),
    (
        "",
        "PUT",
        "/auth/roles/none",
        r#"{"role":"none","grant":{"kv":{"read":["/x"]}}}"#,
    ),
    ("", "PUT", "/auth/roles/foo", r#"{"role":"other"}"#),
    ("", "PUT", "/auth/roles/foo", "{"),
    ("", "PUT", "/auth/roles/foo", ""),
    ("", "PUT", "/auth/roles/a/b", "{}"),
    ("", "PUT", "/auth/roles/root", r#"{"role":"root"}"#),
    (
        "",
        "PUT",
        "/auth/roles/root",
        r#"{"role":"root","grant":{"kv":{"read":["/x"]}}}"#,
    ),
    ("", "DELETE", "/auth/roles/root", ""),
    ("", "DELETE", "/auth/roles/none", ""),
    ("", "PUT", "/auth/roles/gone", r#"{"role":"gone"}"#),
    ("", "DELETE", "/auth/roles/gone", ""),
    ("", "GET", "/auth/roles", ""),
    // Users.
    ("", "PUT", "/auth/users/foo", r#"{"user":"foo"}"#),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","password":"first"} behind"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","password":"pass"}"#,
    ),
    ("", "PUT", "/auth/users/foo", r#"{"user":"foo"}"#),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","grant":["foo"]}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","grant":["foo"]}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","revoke":["bar"]}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","roles":["foo"],"grant":["x"]}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","roles":["foo"],"password":"x"}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/bar",
        r#"{"user":"bar","roles":["foo"],"password":"b"}"#,
    ),
    (
        "",
        "PUT",
        "/auth/users/none",
        r#"{"user":"none","grant":["foo"]}"#,
    ),
    ("", "PUT", "/auth/users/foo", r#"{"user":"other"}"#),
    ("", "PUT", "/auth/users/foo", "no json"),
    ("", "GET", "/auth/users/a/b", ""),
    ("", "GET", "/auth/users", ""),
    ("", "GET", "/auth/users/foo", ""),
    ("", "DELETE", "/auth/users/none", ""),
    (
        "",
        "PUT",
        "/auth/users/root",
        r#"{"user":"root","password":"r"}"#,
    ),
    ("", "GET", "/auth/users/root", ""),
    // On. Guests have everything until somebody says otherwise.
    ("", "PUT", "/keys/foo", "value=top"),
    ("", "PUT", "/auth/enable", ""),
    ("", "GET", "/auth/enable", ""),
    ("", "PUT", "/auth/enable", ""),
    (ROOT, "PUT", "/auth/enable", ""),
    ("", "GET", "/auth/roles/guest", ""),
    (ROOT, "GET", "/auth/roles/guest", ""),
    ("", "PUT", "/keys/pub/a", "value=1"),
    ("", "GET", "/keys/pub/a", ""),
    (
        ROOT,
        "PUT",
        "/auth/roles/guest",
        r#"{"role":"guest","revoke":{"kv":{"write":["/*"]}}}"#,
    ),
    ("", "PUT", "/keys/pub/a", "value=2"),
    ("", "DELETE", "/keys/pub/a", ""),
    ("", "POST", "/keys/pub", "value=2"),
    ("", "GET", "/keys/pub/a", ""),
    (
        ROOT,
        "PUT",
        "/auth/roles/guest",
        r#"{"role":"guest","revoke":{"kv":{"read":["/*"]}}}"#,
    ),
    (
        ROOT,
        "PUT",
        "/auth/roles/guest",
        r#"{"role":"guest","grant":{"kv":{"read":["/pub/*"]}}}"#,
    ),
    ("", "GET", "/keys/pub/a", ""),
    ("", "GET", "/keys/foo", ""),
    ("", "GET", "/keys/foo?wait=true", ""),
    // Users.
    ("foo:pass", "PUT", "/keys/new/x", "value=1"),
    (ROOT, "DELETE", "/keys/foo", ""),
    ("foo:pass", "PUT", "/keys/foo/x", "value=1"),
    ("foo:pass", "PUT", "/keys/foo/x", "value=2"),
    ("foo:pass", "PUT", "/keys/foo/x?prevValue=2", "value=3"),
    ("foo:pass", "PUT", "/keys/foo/x?prevValue=2", "value=4"),
    ("foo:pass", "GET", "/keys/foo/x", ""),
    ("foo:pass", "GET", "/keys/foo", ""),
    ("foo:pass", "GET", "/keys/foo/", ""),
    ("foo:pass", "GET", "/keys/foo?recursive=true", ""),
    ("foo:pass", "GET", "/keys/foo/?recursive=true", ""),
    ("foo:pass", "GET", "/keys/pub/a", ""),
    ("foo:pass", "DELETE", "/keys/foo/x", ""),
    ("foo:pass", "GET", "/keys/foo/x", ""),
    ("foo:wrong", "GET", "/keys/foo/x", ""),
    ("foo:", "GET", "/keys/foo/x", ""),
    ("none:pass", "GET", "/keys/foo/x", ""),
    ("Basic !!!", "GET", "/keys/pub/a", ""),
    ("Bearer abc", "GET", "/keys/pub/a", ""),
    (ROOT, "GET", "/keys/pub/a", ""),
    (ROOT, "PUT", "/keys/other", "value=1"),
    // What only root may.
    ("", "GET", "/auth/users", ""),
    ("foo:pass", "GET", "/auth/users", ""),
    (
        "foo:pass",
        "PUT",
        "/auth/users/foo",
        r#"{"user":"foo","password":"mine"}"#,
    ),
    ("foo:pass", "DELETE", "/auth/roles/foo", ""),
    ("", "POST", "/members", ""),
    ("foo:pass", "DELETE", "/members/77", ""),
    (ROOT, "DELETE", "/members/77", ""),
    (ROOT, "DELETE", "/auth/users/root", ""),
    (ROOT, "DELETE", "/auth/users/bar", ""),
    (ROOT, "GET", "/auth/users", ""),
    ("", "DELETE", "/auth/enable", ""),
    (ROOT, "DELETE", "/auth/enable", ""),
    ("", "DELETE", "/auth/enable", ""),
    ("", "PUT", "/keys/other", "value=2"),
];

#[test]
fn users_and_roles_of_v2_are_as_in_etcd_3_4() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // bcrypt's lowest cost: what is compared is not how slow it is.
    let mut program = Command::new(binaries::program("config-center")?);
    program.arg("--bcrypt-cost=4");
    let center = Center::start_program(folder.path(), program)?;
    let etcd = Peer::start_3_4(folder.path(), &[])?;
    let (ours, theirs) = (center.client_port, etcd.client_port()?);
    let mut differences = Vec::new();
    for step in SCRIPT {
        let (got, expected) = (run(ours, step)?, run(theirs, step)?);
        if got != expected {
            differences.push(format!(
                "{step:?}\n  etcd:          {expected}\n  config-center: {got}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn run(port: u16, (who, verb, target, body): &Step) -> anyhow::Result<Value> {
    let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
    let login = match who.contains(' ') {
        true => (*who).to_owned(),
        false => format!("Basic {}", STANDARD.encode(who)),
    };
    if !who.is_empty() {
        headers.push(("Authorization", &login));
    }
    let answer = http::exchange(port, verb, &format!("/v2{target}"), &headers, body)?;
    let mut shown = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
    mask(&mut shown);
    Ok(json!({ "status": answer.status, "body": shown }))
}

/// Indexes differ, and Go tells a list that was emptied from one that was never made.
fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match &name[..] {
                    "modifiedIndex" | "createdIndex" | "index" => *field = json!("masked"),
                    "read" | "write" if field == &json!([]) => *field = Value::Null,
                    _ => mask(field),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
