//! The local allow-list: which directories the remote configuration may make this agent read.
//!
//! A path is judged by where it really leads, and the descriptor is judged again after opening, so
//! that a symlink switched in between gains nothing.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

const DELETED_SUFFIX: &str = " (deleted)";

#[derive(Debug, Clone)]
pub struct AllowList {
    directories: Vec<PathBuf>,
}

impl AllowList {
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// Whether a resolved path lies inside. An allowed directory may itself be a symlink: it was
    /// named by the operator of this host.
    pub fn permits(&self, resolved: &Path) -> bool {
        self.directories.iter().any(|directory| {
            std::fs::canonicalize(directory).is_ok_and(|real| resolved.starts_with(real))
        })
    }

    /// Whether the path may lead inside once something exists there: judged by its nearest
    /// existing ancestor, or by its spelling when the allowed directory does not exist yet.
    pub fn may_permit(&self, missing: &Path) -> bool {
        if self
            .directories
            .iter()
            .any(|directory| missing.starts_with(directory))
        {
            return true;
        }
        let existing = missing
            .ancestors()
            .skip(1)
            .find_map(|p| std::fs::canonicalize(p).ok());
        existing.is_some_and(|ancestor| self.permits(&ancestor))
    }

    /// False for a path that cannot come to lead inside by itself: it is spelled outside, and leads
    /// outside. A path that is spelled inside may be a symlink that is switched back.
    pub fn could_permit(&self, path: &Path) -> bool {
        match std::fs::canonicalize(path) {
            Ok(resolved) => {
                self.permits(&resolved) || self.directories.iter().any(|d| path.starts_with(d))
            }
            Err(_) => self.may_permit(path),
        }
    }

    /// Judges what was opened, not its name.
    pub fn permits_descriptor(&self, file: &File) -> bool {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let Ok(target) = std::fs::read_link(link) else {
            // Without /proc the check of the resolved name before opening has to do.
            return true;
        };
        let text = target.to_string_lossy();
        let name = text.strip_suffix(DELETED_SUFFIX).unwrap_or(&text);
        self.permits(Path::new(name))
    }

    /// What the status says of a path outside.
    pub fn refusal(&self, resolved: &Path) -> String {
        let allowed: Vec<_> = self
            .directories
            .iter()
            .map(|d| d.display().to_string())
            .collect();
        format!(
            "{} is outside of the directories that this agent may read ({}): add its directory to \
             `allow` in agent.yaml on this host",
            resolved.display(),
            allowed.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_counts_is_where_a_path_leads() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        std::fs::create_dir_all(path("log/app")).unwrap();
        std::fs::create_dir_all(path("logs-not")).unwrap();
        std::fs::create_dir_all(path("secret")).unwrap();
        for file in ["log/app/a.log", "secret/key", "logs-not/x"] {
            std::fs::write(path(file), "x").unwrap();
        }
        symlink(path("secret/key"), path("log/sneaky.log")).unwrap();
        symlink(path("log/app/a.log"), path("secret/fine.log")).unwrap();
        symlink(path("log"), path("alias")).unwrap();

        for allowed in [path("log"), path("alias")] {
            let list = AllowList::new(vec![allowed]);
            let judge = |name: &str| list.permits(&std::fs::canonicalize(path(name)).unwrap());
            assert!(judge("log/app/a.log") && judge("secret/fine.log") && judge("log/app/../app"));
            assert!(!judge("log/sneaky.log") && !judge("secret/key") && !judge("logs-not/x"));
            assert!(list.permits_descriptor(&File::open(path("secret/fine.log")).unwrap()));
            assert!(!list.permits_descriptor(&File::open(path("log/sneaky.log")).unwrap()));
            assert!(list.may_permit(&path("log/later/deep/b.log")));
            assert!(!list.may_permit(&path("secret/later.log")));
            let could = |name: &str| list.could_permit(&path(name));
            assert!(could("secret/fine.log") && could("log/app/a.log") && could("log/later"));
            assert!(!could("secret/key") && !could("secret/later.log"));
        }
        assert!(AllowList::new(vec![path("not-yet")]).may_permit(&path("not-yet/a/b")));
    }
}
