//! Events and nodes as JSON, field by field in etcd's order: clients and tests match the text.

use std::fmt::Write as _;

use config_center_core::v2::{V2Notice, V2View};
use http::HeaderName;

use super::time;

pub(super) const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
pub(super) const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
pub(super) const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");
pub(super) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// One event with its line end.
pub(super) fn event(notice: &V2Notice, without_nodes: bool, now_ms: i64) -> String {
    let mut out = format!("{{\"action\":{}", quoted(notice.action.as_bytes()));
    if !without_nodes {
        out.push_str(",\"node\":");
        node(&mut out, &notice.node, now_ms);
        if let Some(prev) = &notice.prev {
            out.push_str(",\"prevNode\":");
            node(&mut out, prev, now_ms);
        }
    }
    out.push_str("}\n");
    out
}

/// The root has no name, and empty directories have no list.
fn node(out: &mut String, view: &V2View, now_ms: i64) {
    let mut fields = Fields { out, any: false };
    fields.out.push('{');
    if view.path != "/" {
        fields.add("key", &quoted(&view.path));
    }
    if let Some(value) = &view.value {
        fields.add("value", &quoted(value));
    }
    if view.dir {
        fields.add("dir", "true");
    }
    if view.expires_at_ms != 0 {
        let text = time::rfc3339(view.expires_at_ms);
        fields.add("expiration", &quoted(text.as_bytes()));
        let ttl_s = time::ttl_s(view.expires_at_ms, now_ms);
        if ttl_s != 0 {
            fields.add("ttl", &ttl_s.to_string());
        }
    }
    if let Some(nodes) = view.nodes.as_ref().filter(|nodes| !nodes.is_empty()) {
        fields.add("nodes", "[");
        for (nth, child) in nodes.iter().enumerate() {
            if nth > 0 {
                fields.out.push(',');
            }
            node(fields.out, child, now_ms);
        }
        fields.out.push(']');
    }
    if view.modified_index != 0 {
        fields.add("modifiedIndex", &view.modified_index.to_string());
    }
    if view.created_index != 0 {
        fields.add("createdIndex", &view.created_index.to_string());
    }
    fields.out.push('}');
}

struct Fields<'a> {
    out: &'a mut String,
    any: bool,
}

impl Fields<'_> {
    fn add(&mut self, name: &str, value: &str) {
        let comma = if self.any { "," } else { "" };
        // Writing to a String cannot fail.
        write!(self.out, "{comma}\"{name}\":{value}").ok();
        self.any = true;
    }
}

/// A JSON string as Go's encoder writes it: what is not UTF-8 becomes U+FFFD, and what could end a
/// script in a web page is escaped.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                // Writing to a String cannot fail.
                write!(out, "\\u{:04x}", u32::from(letter)).ok();
            }
            // Go marks bytes that are not UTF-8 by the escape, not by the letter itself.
            '\u{fffd}' if std::str::from_utf8(bytes).is_err() => out.push_str("\\ufffd"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &'static str, value: &'static str) -> V2View {
        V2View {
            path: path.into(),
            value: Some(value.into()),
            modified_index: 4,
            created_index: 3,
            ..V2View::default()
        }
    }

    #[test]
    fn fields_come_in_etcds_order() {
        let mut listing = V2View {
            path: "/".into(),
            dir: true,
            nodes: Some(vec![file("/a", "1"), file("/b", "")]),
            ..V2View::default()
        };
        let mut out = String::new();
        node(&mut out, &listing, 0);
        assert_eq!(
            out,
            r#"{"dir":true,"nodes":[{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":3},{"key":"/b","value":"","modifiedIndex":4,"createdIndex":3}]}"#
        );
        listing.nodes = Some(Vec::new());
        let notice = V2Notice {
            action: "set".into(),
            node: V2View {
                expires_at_ms: 5000,
                ..file("/a", "<1>")
            },
            prev: Some(listing),
            ..V2Notice::default()
        };
        assert_eq!(
            event(&notice, false, 1500),
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"\\u003c1\\u003e\",\
             \"expiration\":\"1970-01-01T00:00:05Z\",\"ttl\":4,\"modifiedIndex\":4,\
             \"createdIndex\":3},\"prevNode\":{\"dir\":true}}\n"
        );
        assert_eq!(event(&notice, true, 0), "{\"action\":\"set\"}\n");
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            quoted("a\"\\\n\t\u{1}日".as_bytes()),
            "\"a\\\"\\\\\\n\\t\\u0001日\""
        );
        assert_eq!(quoted(b"\xff"), "\"\\ufffd\"");
        assert_eq!(quoted("\u{2028}&".as_bytes()), "\"\\u2028\\u0026\"");
    }
}
