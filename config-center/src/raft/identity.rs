//! The numbers that a member and a cluster are known by.

use sha2::{Digest as _, Sha256};

/// The id of a member that is there from the beginning: every member computes it from the same
/// flags. Stored once; later changes of flags do not change who a member is.
pub(super) fn member_id(cluster_token: &str, peer_urls: &[String]) -> u64 {
    number(
        "member",
        cluster_token,
        peer_urls.iter().map(String::as_str),
    )
}

/// The id of a member that joins later: `moment` makes it another one each time, because an id
/// never comes back, not even with the same urls.
pub(super) fn joining_member_id(cluster_id: u64, peer_urls: &[String], moment: &str) -> u64 {
    let urls = peer_urls.iter().map(String::as_str);
    number(
        "joining member",
        &format!("{cluster_id:x}"),
        urls.chain([moment]),
    )
}

/// The id of the cluster that these peer urls, of all members together, form.
pub(super) fn cluster_id<'a>(
    cluster_token: &str,
    peer_urls: impl IntoIterator<Item = &'a str>,
) -> u64 {
    number("cluster", cluster_token, peer_urls)
}

fn number<'a>(of: &str, cluster_token: &str, peer_urls: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.into_iter().collect();
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
        let one = member_id("t", &urls(&["http://a:2380", "http://b:2380"]));
        assert_eq!(
            one,
            member_id("t", &urls(&["http://b:2380", "http://a:2380"]))
        );
        assert_ne!(
            one,
            member_id("u", &urls(&["http://a:2380", "http://b:2380"]))
        );
        assert_ne!(one, member_id("t", &urls(&["http://a:2380"])));
        assert_ne!(one, cluster_id("t", ["http://a:2380", "http://b:2380"]));
        // Members of one cluster compute this apart from each other, perhaps with different
        // versions: it must never change.
        assert_eq!(
            member_id("etcd-cluster", &urls(&["http://localhost:2380"])),
            number("member", "etcd-cluster", ["http://localhost:2380"]),
        );
    }

    #[test]
    fn a_member_that_is_added_again_is_another_one() {
        let urls = vec!["http://a:2380".to_owned()];
        let first = joining_member_id(7, &urls, "1");
        assert_ne!(first, joining_member_id(7, &urls, "2"));
        assert_ne!(first, joining_member_id(8, &urls, "1"));
    }
}
