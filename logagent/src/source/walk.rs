//! The walk over the directories of one pattern: which files it means, now.
//!
//! A directory is listed again only when it changed, so that a walk costs one `stat` per directory
//! while nothing happens. Files are told by their names and inodes; nothing is opened here, so the
//! allow-list is not asked: the tail asks it.

use std::collections::BTreeMap;
use std::fs::{DirEntry, FileType};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use logagent_core::identity::Inode;
use logagent_core::pattern::Pattern;
use logagent_core::rotation;
use rustc_hash::FxHashMap;

use super::directories;

/// More directories than this are not walked: the pattern means more than was thought of.
const DIRECTORIES_MAX: usize = 20_000;
/// More files than this are not collected by one pattern.
const FILES_MAX: usize = 100_000;

/// What one directory held when it was listed.
#[derive(Debug, Default)]
struct Listing {
    /// Device, inode and change time; `None` when the listing has to be made again.
    seen: Option<(u64, u64, i64, i64)>,
    files: Vec<(PathBuf, Inode)>,
    directories: Vec<PathBuf>,
}

/// See the module's words.
#[derive(Debug)]
pub struct Walk {
    pattern: Pattern,
    listings: FxHashMap<PathBuf, Listing>,
    found: BTreeMap<PathBuf, Inode>,
    trouble: Option<String>,
}

impl Walk {
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            listings: FxHashMap::default(),
            found: BTreeMap::new(),
            trouble: None,
        }
    }

    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The files that are meant, in the order of their names.
    pub fn found(&self) -> &BTreeMap<PathBuf, Inode> {
        &self.found
    }

    /// The directories in which files may appear.
    pub fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.listings.keys()
    }

    /// Why something that is meant is not collected.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Walks; true when other files are meant than before.
    pub fn walk(&mut self) -> bool {
        self.trouble = None;
        let mut before = std::mem::take(&mut self.listings);
        let mut found = BTreeMap::new();
        let mut waiting = vec![PathBuf::from(self.pattern.root())];
        while let Some(directory) = waiting.pop() {
            if self.listings.contains_key(&directory) {
                continue;
            }
            if self.listings.len() == DIRECTORIES_MAX {
                self.trouble = Some(format!(
                    "the pattern means more than {DIRECTORIES_MAX} directories: the others are \
                     not looked into"
                ));
                break;
            }
            let known = before.remove(&directory).unwrap_or_default();
            let listing = self.list(&directory, known);
            waiting.extend(listing.directories.iter().cloned());
            found.extend(listing.files.iter().cloned());
            self.listings.insert(directory, listing);
        }
        if found.len() > FILES_MAX {
            self.trouble = Some(format!(
                "the pattern means {} files: only the first {FILES_MAX} are collected",
                found.len()
            ));
            found = found.into_iter().take(FILES_MAX).collect();
        }
        let is_news = found != self.found;
        self.found = found;
        is_news
    }

    fn list(&self, directory: &Path, known: Listing) -> Listing {
        let Ok(metadata) = std::fs::metadata(directory) else {
            return Listing::default();
        };
        let now = directories::identity(&metadata);
        if known.seen == Some(now) {
            return known;
        }
        let mut listing = Listing {
            seen: directories::is_settled(&metadata).then_some(now),
            ..Listing::default()
        };
        let Ok(entries) = std::fs::read_dir(directory) else {
            return listing;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(text) = path.to_str() else { continue };
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if self.pattern.matches(text) && !self.is_rotation(&path) {
                let id = inode_of(&entry, kind, metadata.dev());
                listing.files.extend(id.map(|id| (path.clone(), id)));
            }
            if self.pattern.may_contain(text) && self.is_walked(&path, kind, directory) {
                listing.directories.push(path);
            }
        }
        listing
    }

    /// Links are followed where the pattern says which names it means; below `**` they could lead
    /// back.
    fn is_walked(&self, path: &Path, kind: FileType, parent: &Path) -> bool {
        let any_depth = parent
            .to_str()
            .is_some_and(|parent| self.pattern.is_any_depth(parent));
        kind.is_dir() || (kind.is_symlink() && !any_depth && path.is_dir())
    }

    /// A rotated file belongs to the file that it was, if that one is meant too, and is read there;
    /// a compressed one cannot be read.
    fn is_rotation(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        let base = rotation::base_of(name).map(|base| path.with_file_name(base));
        let is_meant = |base: PathBuf| base.to_str().is_some_and(|b| self.pattern.matches(b));
        rotation::is_compressed(name) || base.is_some_and(is_meant)
    }
}

/// The inode of a regular file, without looking at it where the directory tells.
fn inode_of(entry: &DirEntry, kind: FileType, dev: u64) -> Option<Inode> {
    if kind.is_file() {
        return Some(Inode {
            dev,
            ino: entry.ino(),
        });
    }
    if !kind.is_symlink() {
        return None;
    }
    let metadata = std::fs::metadata(entry.path()).ok()?;
    metadata.is_file().then(|| Inode {
        dev: metadata.dev(),
        ino: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walk: &Walk, root: &Path) -> Vec<String> {
        let below = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        walk.found().keys().map(below).collect()
    }

    fn walk(root: &Path, pattern: &str, exclude: &[&str]) -> Walk {
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let text = format!("{}/{pattern}", root.display());
        let mut walk = Walk::new(Pattern::parse(&text, &exclude).unwrap());
        walk.walk();
        walk
    }

    #[test]
    fn files_at_any_depth_are_found_and_rotated_ones_belong_to_their_base() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for directory in ["a/b/c", "tmp"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let files = [
            "x.log",
            "x.log.1",
            "x.log.2.gz",
            "y.log.1",
            "a/x.log",
            "a/b/c/x.log",
            "tmp/x.log",
            "a/x.txt",
        ];
        for file in files {
            std::fs::write(root.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        let found = walk(root, "**/*.log*", &["tmp/*"]);
        assert_eq!(names(&found, root), ["a/b/c/x.log", "a/x.log", "x.log"]);
        assert_eq!(
            names(&walk(root, "*.log.*", &[]), root),
            ["x.log.1", "y.log.1"]
        );
        assert_eq!(
            names(&walk(root, "*/x.log", &[]), root),
            ["a/x.log", "tmp/x.log"]
        );
        assert_eq!(names(&walk(root, "a/loop/x.log", &[]), root).len(), 1);
    }

    #[test]
    fn what_comes_later_is_found_and_what_goes_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("later");
        let mut walk = walk(&root, "**/x%H.log", &[]);
        assert!(walk.found().is_empty());
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/x07.log"), "1").unwrap();
        assert!(walk.walk());
        assert_eq!(names(&walk, &root), ["a/b/x07.log"]);
        assert!(!walk.walk());
        std::fs::write(root.join("a/b/x08.log"), "1").unwrap();
        std::fs::remove_file(root.join("a/b/x07.log")).unwrap();
        assert!(walk.walk());
        assert_eq!(names(&walk, &root), ["a/b/x08.log"]);
        assert_eq!(walk.directories().count(), 3);
    }
}
