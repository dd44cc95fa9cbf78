//! Documents of older tools as Host objects.
//!
//! `logpath` and `log_path` may list several paths separated by commas; `send_rate` is a rate in
//! lines per second. A field that no object has is left out, and said.

use schemas::objects::{Host, Log, Object};
use serde_json::{Map, Value};

use super::{
    decode::{decode, did_you_mean},
    source::Node,
};

/// How an entry may name its path, and whether commas separate several.
const PATH_NAMES: [(&str, bool); 4] = [
    ("path", false),
    ("logpath", true),
    ("log_path", true),
    ("filepath", false),
];
/// Fields of an entry that objects have under the same name.
const KNOWN: [&str; 12] = [
    "topic",
    "from",
    "exclude",
    "multiline",
    "encoding",
    "format",
    "rate",
    "max_line_bytes",
    "on_long_line",
    "skip_empty",
    "key",
    "headers",
];

#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    pub host: Host,
    /// What could not be carried over as it was.
    pub remarks: Vec<String>,
}

/// Gives a host the entries of a key's value; the error is a sentence.
pub fn host_object(mut host: Host, value: &[u8]) -> Result<Imported, String> {
    let mut remarks = Vec::new();
    if !value.trim_ascii().is_empty() {
        let document: Value =
            serde_json::from_slice(value).map_err(|error| format!("this is not JSON: {error}"))?;
        let items = match document {
            Value::Array(items) => items,
            // One entry without brackets is how some tools wrote a list of one.
            Value::Object(_) => vec![document],
            _ => return Err("this is neither a list of entries nor an entry".into()),
        };
        for (index, item) in items.iter().enumerate() {
            let Value::Object(fields) = item else {
                return Err(format!("entry {}: not an object", index + 1));
            };
            let logs = entry(fields, &mut remarks)
                .map_err(|reason| format!("entry {}: {reason}", index + 1))?;
            for log in logs {
                let is_there = host
                    .spec
                    .logs
                    .iter()
                    .any(|known| (&known.path, &known.topic) == (&log.path, &log.topic));
                if is_there {
                    remarks.push(format!(
                        "{} → {} is listed twice; once is enough",
                        log.path, log.topic
                    ));
                } else {
                    host.spec.logs.push(log);
                }
            }
        }
    }
    host.spec
        .logs
        .sort_by(|a, b| (&a.path, &a.topic).cmp(&(&b.path, &b.topic)));
    match Object::Host(host.clone()).faults().into_iter().next() {
        Some(fault) => Err(fault.message),
        None => Ok(Imported { host, remarks }),
    }
}

fn entry(fields: &Map<String, Value>, remarks: &mut Vec<String>) -> Result<Vec<Log>, String> {
    let mut plain = Map::new();
    for (name, value) in fields {
        match name.as_str() {
            known if KNOWN.contains(&known) => {
                plain.insert(name.clone(), value.clone());
            }
            known if PATH_NAMES.iter().any(|(path, _)| *path == known) => {}
            "send_rate" if value.as_u64().is_some_and(|rate| rate > 0) => {
                plain.insert("rate".into(), serde_json::json!({ "lines_per_s": value }));
            }
            "service" if value.is_string() => {
                plain.insert("headers".into(), serde_json::json!({ "service": value }));
            }
            other => {
                let hint =
                    did_you_mean(other, KNOWN).map(|name| format!(" (did you mean {name:?}?)"));
                remarks.push(format!(
                    "field {other:?} is left out{}",
                    hint.unwrap_or_default()
                ));
            }
        }
    }
    paths(fields)?
        .into_iter()
        .map(|path| {
            let mut one = plain.clone();
            one.insert("path".into(), spelled_plainly(&path).into());
            decode::<Log>(&Node::from(&Value::Object(one))).map_err(|error| error.to_string())
        })
        .collect()
}

fn paths(fields: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut named = PATH_NAMES
        .iter()
        .filter_map(|(name, list)| Some((name, *list, fields.get(*name)?)));
    let (name, is_list, value) = named.next().ok_or("path is missing")?;
    let text = value
        .as_str()
        .ok_or_else(|| format!("{name} is not text"))?;
    if let Some((other, ..)) = named.find(|(_, _, other)| *other != value) {
        return Err(format!("{name} and {other} differ"));
    }
    if !is_list {
        return Ok(vec![text.to_owned()]);
    }
    let paths = text
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty());
    Ok(paths.map(str::to_owned).collect())
}

/// Older tools did not mind `//` and `/./`, and the file is the same.
fn spelled_plainly(path: &str) -> String {
    if !path.starts_with('/') || path.ends_with('/') {
        return path.to_owned();
    }
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    parts.flat_map(|part| ["/", part]).collect()
}

#[cfg(test)]
mod tests {
    use schemas::objects::Name;

    use super::*;

    fn import(value: &str) -> Result<(String, Vec<String>), String> {
        let host = Host::new(Name::new("h").unwrap(), Default::default());
        let imported = host_object(host, value.as_bytes())?;
        Ok((
            serde_json::to_string(&imported.host.spec.logs).unwrap(),
            imported.remarks,
        ))
    }

    #[test]
    fn old_entries_become_logs() {
        let table = [
            (
                r#"[{"path":"/a","topic":"t"}]"#,
                r#"[{"path":"/a","topic":"t"}]"#,
                0,
            ),
            (
                r#"[{"logpath":"/b, /a//x","topic":"t"}]"#,
                r#"[{"path":"/a/x","topic":"t"},{"path":"/b","topic":"t"}]"#,
                0,
            ),
            (
                r#"[{"log_path":"/a","topic":"t","service":"web","send_rate":1000}]"#,
                r#"[{"path":"/a","topic":"t","rate":{"lines_per_s":1000},"headers":{"service":"web"}}]"#,
                0,
            ),
            (
                r#"{"path":"/a","topic":"t","colour":"red"}"#,
                r#"[{"path":"/a","topic":"t"}]"#,
                1,
            ),
            (
                r#"[{"path":"/a","topic":"t"},{"path":"/a","topic":"t"}]"#,
                r#"[{"path":"/a","topic":"t"}]"#,
                1,
            ),
            ("", "[]", 0),
            ("[]", "[]", 0),
        ];
        for (value, logs, remarks) in table {
            let (got, told) = import(value).unwrap();
            assert_eq!(
                (got.as_str(), told.len()),
                (logs, remarks),
                "{value}: {told:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_carried_over_is_refused_with_its_place() {
        for (value, words) in [
            ("sample_value", "not JSON"),
            ("7", "neither a list"),
            (
                r#"[{"path":"/a","topic":"t"},{"path":"D:/x","topic":"t"}]"#,
                "entry 2: path: path \"D:/x\" is not absolute",
            ),
            (r#"[{"topic":"t"}]"#, "entry 1: path is missing"),
            (r#"[{"path":"/a"}]"#, "entry 1: topic is missing"),
            (r#"[{"path":"/a","logpath":"/b","topic":"t"}]"#, "differ"),
        ] {
            let reason = import(value).unwrap_err();
            assert!(reason.contains(words), "{value}: {reason}");
        }
    }
}
