//! Downgrade: questions about it are answered as etcd answers them. There is no older version of
//! the storage to go back to, so a downgrade that etcd would begin is refused.

use config_center_core::Refusal;

use crate::flags::ETCD_CLUSTER_VERSION;

/// The cluster's version as answers about downgrades have it: without the patch.
pub(super) const CLUSTER_MINOR: &str = "3.7";

/// Major and minor of `3.6`, `3.6.0` or `3.6.0-rc.1`; nothing shorter is a version to etcd.
fn parsed(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    if let Some(patch) = parts.next() {
        let number = patch.split(['-', '+']).next()?;
        number.parse::<u64>().ok()?;
    }
    Some((major, minor))
}

/// Whether etcd would take a cluster of this version there: one minor version back and no further.
pub(super) fn validate(target: &str) -> Result<(), Refusal> {
    let asked = parsed(target).ok_or(Refusal::DowngradeVersionFormat)?;
    match parsed(ETCD_CLUSTER_VERSION) {
        Some((major, minor)) if asked == (major, minor.saturating_sub(1)) => Ok(()),
        _ => Err(Refusal::DowngradeTarget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_the_clusters_version() {
        assert_eq!(ETCD_CLUSTER_VERSION, format!("{CLUSTER_MINOR}.0"));
    }

    #[test]
    fn only_one_minor_version_back_is_a_target() {
        let (major, minor) = parsed(ETCD_CLUSTER_VERSION).unwrap();
        let back = minor - 1;
        for good in [
            format!("{major}.{back}"),
            format!("{major}.{back}.0"),
            format!("{major}.{back}.9-rc.1"),
        ] {
            assert_eq!(validate(&good), Ok(()), "{good}");
        }
        for other in [format!("{major}.{minor}"), format!("{major}.{}", back - 1)] {
            assert_eq!(validate(&other), Err(Refusal::DowngradeTarget), "{other}");
        }
        for wrong in ["", "3", "v3.6.0", "3.x", "3.6.x", "a.b.c"] {
            assert_eq!(
                validate(wrong),
                Err(Refusal::DowngradeVersionFormat),
                "{wrong}"
            );
        }
    }
}
