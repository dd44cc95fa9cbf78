//! A request to `/v2/keys`: its parameters, checked in etcd's order.

use bytes::Bytes;
use config_center_core::v2::clean_path;
use http::Method;
use schemas::command::V2Write;
use schemas::command::v2_write::Verb;

use super::form::{Form, unescaped};
use super::refusals::{BadParameter, Refusal};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeysRequest {
    pub(super) path: Bytes,
    /// The path ended with a slash: what lies inside is meant.
    pub(super) inside: bool,
    value: Bytes,
    dir: bool,
    pub(super) recursive: bool,
    pub(super) quorum: bool,
    pub(super) wait: bool,
    pub(super) wait_index: u64,
    pub(super) stream: bool,
    pub(super) no_value_on_success: bool,
    prev_value: Bytes,
    prev_index: u64,
    prev_exist: Option<bool>,
    ttl_s: Option<u64>,
    refresh: bool,
}

impl KeysRequest {
    pub(super) fn parse(
        method: &Method,
        encoded_path: &str,
        form: Result<Form, String>,
    ) -> Result<Self, Refusal> {
        let invalid_form = |cause: String| BadParameter::Form.with(cause);
        let form = form.map_err(invalid_form)?;
        let path = unescaped(encoded_path.as_bytes(), false).map_err(invalid_form)?;
        let path = String::from_utf8(path)
            .map_err(|_| invalid_form("the path is not valid UTF-8".to_owned()))?;
        let prev_index = number(&form, "prevIndex", BadParameter::Index)?;
        let wait_index = number(&form, "waitIndex", BadParameter::Index)?;
        let recursive = switch(&form, "recursive")?;
        switch(&form, "sorted")?;
        let wait = switch(&form, "wait")?;
        let dir = switch(&form, "dir")?;
        let quorum = switch(&form, "quorum")?;
        let stream = switch(&form, "stream")?;
        if wait && method != Method::GET {
            return Err(BadParameter::Field.with("\"wait\" can only be used with GET requests"));
        }
        let prev_value = form.get("prevValue");
        if prev_value.is_some_and(<[u8]>::is_empty) {
            return Err(BadParameter::PrevValue.with("\"prevValue\" cannot be empty"));
        }
        let no_value_on_success = switch(&form, "noValueOnSuccess")?;
        let ttl_s = match form.get("ttl") {
            None | Some(b"") => None,
            Some(_) => Some(number(&form, "ttl", BadParameter::Ttl)?),
        };
        let optional = |name: &str| match form.get(name) {
            None => Ok(None),
            Some(_) => switch(&form, name).map(Some),
        };
        let prev_exist = optional("prevExist").map_err(unquoted)?;
        let refresh = optional("refresh").map_err(unquoted)?.unwrap_or(false);
        let value = form.get("value").unwrap_or_default();
        if refresh && !value.is_empty() {
            return Err(BadParameter::RefreshValue.with("A value was provided on a refresh"));
        }
        if refresh && ttl_s.is_none() {
            return Err(BadParameter::RefreshTtl.with("No TTL value set"));
        }
        Ok(Self {
            path: clean_path(&path),
            inside: path.ends_with('/'),
            value: Bytes::copy_from_slice(value),
            dir,
            recursive,
            quorum,
            wait,
            wait_index,
            stream,
            no_value_on_success,
            prev_value: Bytes::copy_from_slice(prev_value.unwrap_or_default()),
            prev_index,
            prev_exist,
            ttl_s,
            refresh,
        })
    }

    /// The command for a writing method.
    pub(super) fn write(self, method: &Method, now_ms: i64) -> V2Write {
        let compares = self.prev_index > 0 || !self.prev_value.is_empty();
        let verb = if method == Method::POST {
            Verb::CreateUnique
        } else if method == Method::DELETE {
            if compares {
                Verb::CompareAndDelete
            } else {
                Verb::Delete
            }
        } else {
            match self.prev_exist {
                Some(false) => Verb::Create,
                _ if compares => Verb::CompareAndSwap,
                Some(true) => Verb::Update,
                None => Verb::Set,
            }
        };
        V2Write {
            verb: verb as i32,
            path: self.path,
            value: self.value,
            dir: self.dir,
            recursive: self.recursive,
            prev_value: self.prev_value,
            prev_index: self.prev_index,
            expires_at_ms: self.ttl_s.map_or(0, |ttl_s| ends_at_ms(now_ms, ttl_s)),
            refresh: self.refresh,
        }
    }
}

/// Never 0, which means "does not end".
fn ends_at_ms(now_ms: i64, ttl_s: u64) -> i64 {
    let ttl_ms = i64::try_from(ttl_s)
        .unwrap_or(i64::MAX)
        .saturating_mul(1000);
    now_ms.saturating_add(ttl_ms).max(1)
}

fn number(form: &Form, name: &str, fault: BadParameter) -> Result<u64, Refusal> {
    let Some(given) = form.get(name) else {
        return Ok(0);
    };
    std::str::from_utf8(given)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| fault.with(format!("invalid value for \"{name}\"")))
}

/// What Go's `strconv.ParseBool` accepts.
fn switch(form: &Form, name: &str) -> Result<bool, Refusal> {
    match form.get(name) {
        None => Ok(false),
        Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => Ok(false),
        Some(_) => Err(BadParameter::Field.with(format!("invalid value for \"{name}\""))),
    }
}

/// Two causes have no quotes in etcd.
fn unquoted(refusal: Refusal) -> Refusal {
    Refusal {
        cause: refusal.cause.replace('"', ""),
        ..refusal
    }
}
