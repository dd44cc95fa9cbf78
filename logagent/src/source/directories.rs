//! Listings of directories, kept as long as nothing changes in them.
//!
//! Each tail asks which files lie beside its own. With many files in one directory the same listing
//! answers all of them: the names are kept in order, and only those that begin as the tail's file
//! does are looked at.

use std::cell::RefCell;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use logagent_core::rotation::Sibling;
use rustc_hash::FxHashMap;

use super::files::stat_of;

/// A directory with more names that begin like the file's is not searched to its end.
const SIBLINGS_MAX: usize = 10_000;
/// Directories whose listings are kept.
const KEPT_MAX: usize = 256;
/// A directory that changed this recently may change again within the same tick of its clock.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

type Identity = (u64, u64, i64, i64);

#[derive(Debug)]
struct Listing {
    seen: Identity,
    /// In order, so that those with the same beginning stand together.
    names: Vec<String>,
}

/// See the module's words. Owned by the tailer thread.
#[derive(Debug, Default)]
pub struct Directories {
    kept: RefCell<FxHashMap<PathBuf, Listing>>,
}

impl Directories {
    /// Regular files whose names begin with `base`; what cannot be read is left out.
    pub fn siblings(&self, directory: &Path, base: &str) -> Vec<Sibling> {
        let Ok(metadata) = std::fs::metadata(directory) else {
            return Vec::new();
        };
        let seen = identity(&metadata);
        let mut kept = self.kept.borrow_mut();
        if let Some(listing) = kept.get(directory).filter(|listing| listing.seen == seen) {
            return beginning_with(directory, base, &listing.names);
        }
        let names = list(directory);
        let siblings = beginning_with(directory, base, &names);
        if is_settled(&metadata) {
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
            kept.insert(directory.to_owned(), Listing { seen, names });
        } else {
            kept.remove(directory);
        }
        siblings
    }
}

/// Changes whenever a name comes or goes.
pub(super) fn identity(metadata: &Metadata) -> Identity {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// Whether a later change is certain to show.
pub(super) fn is_settled(metadata: &Metadata) -> bool {
    let age = metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > CLOCK_SLACK)
}

fn list(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

fn beginning_with(directory: &Path, base: &str, names: &[String]) -> Vec<Sibling> {
    let from = names.partition_point(|name| name.as_str() < base);
    names[from..]
        .iter()
        .take_while(|name| name.starts_with(base))
        .filter_map(|name| {
            // Not followed: a symlink beside the file is not a rotated file.
            let metadata = std::fs::symlink_metadata(directory.join(name)).ok()?;
            metadata.is_file().then(|| Sibling {
                name: name.clone(),
                stat: stat_of(&metadata),
            })
        })
        .take(SIBLINGS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directories: &Directories, folder: &Path, base: &str) -> Vec<String> {
        let found = directories.siblings(folder, base);
        found.into_iter().map(|sibling| sibling.name).collect()
    }

    #[test]
    fn siblings_share_the_beginning_of_the_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1", "a.log-2026", "b.log", "a"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("a.log.d")).unwrap();
        let directories = Directories::default();
        let found = names(&directories, folder.path(), "a.log");
        assert_eq!(found, ["a.log", "a.log-2026", "a.log.1"]);
        assert!(names(&directories, &folder.path().join("none"), "a").is_empty());
    }

    #[test]
    fn a_kept_listing_is_never_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::default();
        for round in 0..200 {
            let name = format!("a.{round}");
            std::fs::write(folder.path().join(&name), &name).unwrap();
            assert!(names(&directories, folder.path(), "a.").contains(&name));
            // Sizes are those of now, whatever the listing is.
            std::fs::write(folder.path().join(&name), [name.as_str(), "x"].concat()).unwrap();
            let found = directories.siblings(folder.path(), &name);
            assert_eq!(found[0].stat.size, name.len() as u64 + 1);
        }
    }
}
