//! The numbers that a member and a cluster are known by.
//!
//! A cluster that is formed now has the ids that etcd would give it: whoever kept them in scripts or
//! dashboards keeps them. They are computed once and stored; later changes of flags do not change
//! who a member is.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The id of a member that is there from the beginning: every member computes it from the same
/// flags, perhaps with another version of this program, so the way must never change.
pub(super) fn member_id(cluster_token: &str, peer_urls: &[String]) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(cluster_token);
    first_bytes(&hash.finalize())
}

/// The id of a member that joins later: `moment` makes it another one each time, because an id
/// never comes back, not even with the same urls.
pub(super) fn joining_member_id(cluster_id: u64, peer_urls: &[String], moment: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.push(moment);
    urls.sort_unstable();
    let cluster = format!("{cluster_id:x}");
    let mut hash = Sha256::new();
    for part in ["joining member", &cluster].into_iter().chain(urls) {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    first_bytes(&hash.finalize())
}

/// The id of the cluster that these members found together.
pub(super) fn cluster_id(member_ids: impl IntoIterator<Item = u64>) -> u64 {
    let mut ids: Vec<u64> = member_ids.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_bytes(&hash.finalize())
}

fn first_bytes(digest: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // Zero stands for "none" in the protocol.
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// As etcd 3.4.23 and 3.7.1 print them for these flags.
    #[test]
    fn ids_are_those_of_etcd() {
        let one = member_id("etcd-cluster", &urls(&["http://localhost:2380"]));
        assert_eq!(one, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id([one]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn ids_depend_on_token_and_urls_and_not_on_their_order() {
        let one = member_id("t", &urls(&["http://a:2380", "http://b:2380"]));
        let turned = member_id("t", &urls(&["http://b:2380", "http://a:2380"]));
        assert_eq!(one, turned);
        let other = member_id("u", &urls(&["http://a:2380", "http://b:2380"]));
        assert_ne!(one, other);
        assert_ne!(one, member_id("t", &urls(&["http://a:2380"])));
        assert_eq!(cluster_id([one, other]), cluster_id([other, one]));
        assert_ne!(cluster_id([one, other]), cluster_id([one]));
    }

    #[test]
    fn a_member_that_is_added_again_is_another_one() {
        let urls = urls(&["http://a:2380"]);
        let first = joining_member_id(7, &urls, "1");
        assert_ne!(first, joining_member_id(7, &urls, "2"));
        assert_ne!(first, joining_member_id(8, &urls, "1"));
    }
}
