//! Where things lie in the store: the keys of one namespace, and which host names fit into them.

use std::ops::Range;

use bytes::Bytes;
use schemas::objects::{Kind, Name, ObjectId, validate_name};
use schemas_client::prefix_end;

pub const DEFAULT_NAMESPACE: &str = "/ningxin/backend";
/// The part of the key space that one fleet lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    prefix: String,
}

impl Namespace {
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// The prefix of every host's configuration.
    pub fn configs(&self) -> String {
        format!("{}/logagent/config/", self.prefix)
    }

    /// The prefix of every agent's status document.
    pub fn statuses(&self) -> String {
        format!("{}/logagent/status/", self.prefix)
    }

    /// The prefix of all of it: configurations, statuses and the fleet layer's own.
    pub fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The prefix of everything that the fleet layer keeps.
    pub fn fleet(&self) -> String {
        format!("{}/fleet/", self.prefix)
    }

    pub fn objects(&self, kind: Kind) -> String {
        format!("{}{}/", self.fleet(), kind.folder())
    }

    pub fn object(&self, id: &ObjectId) -> String {
        format!("{}{}", self.objects(id.kind), id.name)
    }

    /// The object that a key under `objects` is for.
    pub fn object_of(&self, kind: Kind, key: &[u8]) -> Option<ObjectId> {
        let name = host_of(key, &self.objects(kind))?;
        Some(ObjectId {
            kind,
            name: Name::new(name).ok()?,
        })
    }

    /// The last release and the last audit record: every change of the fleet compares and moves it.
    pub fn head(&self) -> String {
        format!("{}head", self.fleet())
    }

    pub fn releases(&self) -> String {
        format!("{}releases/", self.fleet())
    }

    /// Zeros in front, so that keys sort as numbers do.
    pub fn release(&self, number: u64) -> String {
        format!("{}{number:010}", self.releases())
    }

    /// The progress of rollouts.
    pub fn rollouts(&self) -> String {
        format!("{}rollouts/", self.fleet())
    }

    pub fn rollout(&self, id: &str) -> String {
        format!("{}{id}", self.rollouts())
    }

    /// The pieces of a rollout's plan. The hash is part of the key: two publishers who race for one
    /// release may both write their plans, and neither may touch the other's.
    pub fn plan(&self, id: &str, sha256: &str) -> String {
        format!("{}plans/{id}/{sha256}/", self.fleet())
    }

    /// What the keys of all plans of one release begin with.
    pub fn plans_of(&self, id: &str) -> String {
        format!("{}plans/{id}", self.fleet())
    }

    pub fn plan_piece(&self, id: &str, sha256: &str, piece: usize) -> String {
        format!("{}{piece:04}", self.plan(id, sha256))
    }

    /// What the fleet layer last wrote to hosts' keys: what a hand-written value differs from.
    pub fn published(&self) -> String {
        format!("{}published/", self.fleet())
    }

    pub fn published_to(&self, host: &str) -> String {
        format!("{}{host}", self.published())
    }

    pub fn drafts(&self) -> String {
        format!("{}drafts/", self.fleet())
    }

    pub fn draft(&self, name: &str) -> String {
        format!("{}{name}", self.drafts())
    }

    pub fn audit(&self) -> String {
        format!("{}audit/", self.fleet())
    }

    pub fn audit_record(&self, seq: u64) -> String {
        format!("{}{seq:016}", self.audit())
    }

    pub fn config(&self, host: &str) -> String {
        format!("{}{host}", self.configs())
    }

    pub fn status(&self, host: &str) -> String {
        format!("{}{host}", self.statuses())
    }
}

/// The part of a key behind its prefix, when the key is UTF-8 and names one host.
pub fn host_of(key: &[u8], prefix: &str) -> Option<String> {
    let host = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    (!host.is_empty() && !host.contains('/')).then(|| host.to_owned())
}

/// Checks a host name before it becomes part of a key.
pub fn validate_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("a host name is empty: give an address such as 192.168.56.1".into());
    }
    validate_name(host).map_err(|reason| format!("host {host:?}: {reason}"))
}

/// Key and range end that cover all of `keys`; a single key is asked for alone.
pub fn span(keys: &[String]) -> Range<Bytes> {
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
pub fn under(prefix: &str) -> Range<Bytes> {
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
            let group = ObjectId {
                kind: Kind::Group,
                name: Name::new("web").unwrap(),
            };
            assert_eq!(ns.object(&group), "/ningxin/backend/fleet/groups/web");
            assert_eq!(
                ns.object_of(Kind::Group, b"/ningxin/backend/fleet/groups/web"),
                Some(group)
            );
            assert_eq!(ns.release(7), "/ningxin/backend/fleet/releases/0000000007");
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
