//! The last good configuration on disk: what the agent runs when it starts and the center is down.
//!
//! One header line with the format's version and a checksum over the rest, one line of JSON, then
//! the value's bytes untouched. Only configurations that were applied are written here.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::durable::{self, SealError};

pub const FILE_NAME: &str = "config.cache";
const MAGIC: &str = "logagent-config-cache";
const VERSION: u32 = 1;
/// A value may have 4 MiB; the two lines before it are short.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A configuration as the store has it: the value of one key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConfig {
    pub cluster_id: u64,
    pub revision: i64,
    /// `None` is a deleted key: collect nothing.
    pub value: Option<Bytes>,
}

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cannot read the cached configuration: {0}")]
    Read(std::io::Error),
    #[error("cannot write the cached configuration: {0}")]
    Write(std::io::Error),
    #[error("the cached configuration is {0} and is not used")]
    Seal(#[from] SealError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    key: String,
    cluster_id: u64,
    revision: i64,
    deleted: bool,
    sha256: String,
}

/// `None` when there is no cache, or when it is that of another config key.
pub fn load(folder: &Path, key: &str) -> Result<Option<StoredConfig>, CacheError> {
    let path = folder.join(FILE_NAME);
    match durable::read_bounded(&path, FILE_MAX_BYTES).map_err(CacheError::Read)? {
        Some(content) => decode(&content, key),
        None => Ok(None),
    }
}

pub fn store(folder: &Path, key: &str, config: &StoredConfig) -> Result<(), CacheError> {
    durable::replace(folder, FILE_NAME, None, &encode(key, config)).map_err(CacheError::Write)
}

fn encode(key: &str, config: &StoredConfig) -> Vec<u8> {
    let value = config.value.clone().unwrap_or_default();
    let head = Head {
        key: key.to_owned(),
        cluster_id: config.cluster_id,
        revision: config.revision,
        deleted: config.value.is_none(),
        sha256: durable::sha256_hex(&value),
    };
    let mut body = serde_json::to_vec(&head).unwrap_or_default();
    body.push(b'\n');
    body.extend_from_slice(&value);
    durable::seal(MAGIC, VERSION, &body)
}

fn decode(content: &[u8], key: &str) -> Result<Option<StoredConfig>, CacheError> {
    let body = durable::unseal(MAGIC, VERSION, content)?;
    let (head, value) = durable::split_line(body).ok_or(SealError::Damaged("no body"))?;
    let head: Head = serde_json::from_slice(head).map_err(|_| SealError::Damaged("body"))?;
    if head.key != key {
        return Ok(None);
    }
    Ok(Some(StoredConfig {
        cluster_id: head.cluster_id,
        revision: head.revision,
        value: (!head.deleted).then(|| Bytes::copy_from_slice(value)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Option<&'static [u8]>) -> StoredConfig {
        StoredConfig {
            cluster_id: 7,
            revision: 42,
            value: value.map(Bytes::from_static),
        }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path(), "/k").unwrap(), None);
        for value in [Some(&b"[{\"path\":\"/a\"}]\n\0\xff"[..]), Some(b""), None] {
            store(folder.path(), "/k", &config(value)).unwrap();
            assert_eq!(load(folder.path(), "/k").unwrap(), Some(config(value)));
        }
        assert_eq!(load(folder.path(), "/other").unwrap(), None);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let good = encode("/k", &config(Some(b"[]")));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, "/k").is_err(), "byte {at}");
            assert!(decode(&good[..at], "/k").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn version_1_reads_as_it_was_written() {
        let golden = b"logagent-config-cache 1 \
            aec93457d0e8d5fba6f3ac8b8fbdce41ba4f7a2bce3f8fd7a0acd2d9f6e1a9c0\n";
        assert!(matches!(
            decode(golden, "/k"),
            Err(CacheError::Seal(SealError::Damaged("checksum")))
        ));
        let text = String::from_utf8(encode("/k", &config(Some(b"[]")))).unwrap();
        assert!(
            text.ends_with(
                "\n{\"key\":\"/k\",\"cluster_id\":7,\"revision\":42,\"deleted\":false,\"sha256\":\
                 \"4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945\"}\n[]"
            ),
            "{text}"
        );
    }
}
