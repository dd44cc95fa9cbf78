//! Where things lie in the store: the keys of one namespace, and which host names fit into them.

use std::ops::Range;

use bytes::Bytes;
use schemas_client::prefix_end;

pub(crate) const DEFAULT_NAMESPACE: &str = "/ningxin/backend";
/// A host name is one segment of a key; DNS allows 253 bytes and nobody needs more.
const MAX_HOST_BYTES: usize = 253;

/// The part of the key space that one fleet lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    prefix: String,
}

impl Namespace {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// The prefix of every host's configuration.
    pub(crate) fn configs(&self) -> String {
        format!("{}/logagent/config/", self.prefix)
    }

    /// The prefix of every agent's status document.
    pub(crate) fn statuses(&self) -> String {
        format!("{}/logagent/status/", self.prefix)
    }

    pub(crate) fn config(&self, host: &str) -> String {
        format!("{}{host}", self.configs())
    }

    pub(crate) fn status(&self, host: &str) -> String {
        format!("{}{host}", self.statuses())
    }
}

/// The part of a key behind its prefix, when the key is UTF-8 and names one host.
pub(crate) fn host_of(key: &[u8], prefix: &str) -> Option<String> {
    let host = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    (!host.is_empty() && !host.contains('/')).then(|| host.to_owned())
}

/// Checks a host name before it becomes part of a key.
pub(crate) fn validate_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("a host name is empty: give an address such as 192.168.56.1".into());
    }
    if host.len() > MAX_HOST_BYTES {
        return Err(format!(
            "a host name has {} bytes, more than the {MAX_HOST_BYTES} that a name can have",
            host.len()
        ));
    }
    match host
        .chars()
        .find(|c| *c == '/' || c.is_whitespace() || c.is_control())
    {
        Some(bad) => Err(format!(
            "host {host:?} contains {bad:?}, which cannot be part of a name"
        )),
        None => Ok(()),
    }
}

/// Key and range end that cover all of `keys`; a single key is asked for alone.
pub(crate) fn span(keys: &[String]) -> Range<Bytes> {
    let first = keys.iter().min().cloned().unwrap_or_default();
    let last = keys.iter().max().cloned().unwrap_or_default();
    let end = if first == last {
        Bytes::new()
    } else {
        Bytes::from(format!("{last}\0"))
    };
    Bytes::from(first)..end
}

/// Key and range end that cover everything under `prefix`.
pub(crate) fn under(prefix: &str) -> Range<Bytes> {
    Bytes::from(prefix.to_owned())..prefix_end(prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_layout() {
        for spelling in ["/ningxin/backend", "/ningxin/backend/"] {
            let ns = Namespace::new(spelling);
            assert_eq!(
                ns.config("192.168.56.1"),
                "/ningxin/backend/logagent/config/192.168.56.1"
            );
            assert_eq!(ns.status("h"), "/ningxin/backend/logagent/status/h");
        }
        let prefix = Namespace::new(DEFAULT_NAMESPACE).configs();
        assert_eq!(
            host_of(format!("{prefix}h").as_bytes(), &prefix).as_deref(),
            Some("h")
        );
        assert_eq!(host_of(format!("{prefix}a/b").as_bytes(), &prefix), None);
        assert_eq!(host_of(prefix.as_bytes(), &prefix), None);
    }

    #[test]
    fn hosts_are_one_segment() {
        for good in ["192.168.56.1", "web-1", "::1", "主机一"] {
            assert_eq!(validate_host(good), Ok(()), "{good}");
        }
        for bad in ["", "a/b", "a b", "a\n", &"x".repeat(254)] {
            assert!(validate_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_covers_first_and_last() {
        let one = span(&["b".into()]);
        assert_eq!((&one.start[..], &one.end[..]), (&b"b"[..], &b""[..]));
        let some = span(&["b".into(), "a".into(), "c".into()]);
        assert_eq!((&some.start[..], &some.end[..]), (&b"a"[..], &b"c\0"[..]));
    }
}
