//! The numbers that a member and a cluster are known by.

use sha2::{Digest as _, Sha256};

use crate::storage::Identity;

/// The ids of a fresh data folder, from the token and the peer urls of the members. Computed once,
/// then stored: later changes of flags do not change who a member is.
pub(super) fn derive(cluster_token: &str, peer_urls: &[String]) -> Identity {
    Identity {
        member_id: number("member", cluster_token, peer_urls),
        cluster_id: number("cluster", cluster_token, peer_urls),
    }
}

fn number(of: &str, cluster_token: &str, peer_urls: &[String]) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha256::new();
    for part in [of, cluster_token].into_iter().chain(urls) {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    // Zero stands for "none" in the protocol.
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_token_and_urls_and_on_nothing_else() {
        let urls = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let one = derive("t", &urls(&["http://a:2380", "http://b:2380"]));
        assert_eq!(one, derive("t", &urls(&["http://b:2380", "http://a:2380"])));
        assert_ne!(one.member_id, one.cluster_id);
        assert_ne!(one, derive("u", &urls(&["http://a:2380", "http://b:2380"])));
        assert_ne!(one, derive("t", &urls(&["http://a:2380"])));
        // Written into data folders: this must never change.
        assert_eq!(
            derive("etcd-cluster", &urls(&["http://localhost:2380"])).member_id,
            derive("etcd-cluster", &urls(&["http://localhost:2380"])).member_id,
        );
    }
}
