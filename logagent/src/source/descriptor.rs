//! The descriptor of one file of a tail. It may be given back while the file rests, and is opened
//! again when the file is wanted: by identity, wherever the file has been renamed to.
//!
//! So more files can be followed than a process may hold open. Knows names and inodes; which tail
//! gives its descriptor back, and when, is the supervisor's.

use std::fs::File;
use std::path::{Path, PathBuf};

use logagent_core::identity::FileId;
use logagent_core::tailer::Blocked;

use super::allow::AllowList;
use super::directories::Directories;
use super::files::{self, Opened};
use super::tail::{base_of, directory_of};

#[derive(Debug)]
pub struct Descriptor {
    /// The name under which it was opened, for messages.
    path: PathBuf,
    /// Where that name led.
    resolved: PathBuf,
    id: FileId,
    file: Option<File>,
}

impl Descriptor {
    pub fn new(path: PathBuf, opened: Opened) -> Self {
        Self {
            path,
            resolved: opened.resolved,
            id: opened.stat.id,
            file: Some(opened.file),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub fn release(&mut self) {
        self.file = None;
    }

    /// The open file. `entry` is the path of the entry, beside which its rotated files lie.
    pub fn open(
        &mut self,
        entry: &Path,
        allow: &AllowList,
        directories: &Directories,
    ) -> Result<&File, Blocked> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.find(entry, allow, directories)?,
        };
        Ok(self.file.insert(file))
    }

    fn find(
        &mut self,
        entry: &Path,
        allow: &AllowList,
        directories: &Directories,
    ) -> Result<File, Blocked> {
        let mut why = Blocked::Missing;
        let mut try_path = |path: &Path| match files::open(path, allow) {
            Ok(opened) if opened.stat.id == self.id => Some(opened),
            Ok(_) | Err(Blocked::Missing) => None,
            Err(refused) => {
                why = refused;
                None
            }
        };
        let mut found = try_path(&self.resolved);
        if found.is_none() {
            let beside = [
                (directory_of(&self.resolved), base_of(&self.resolved)),
                (directory_of(&self.resolved), base_of(entry)),
                (directory_of(entry), base_of(entry)),
            ];
            for (directory, base) in beside {
                let siblings = directories.siblings(directory, base);
                let same = siblings.iter().find(|s| s.stat.id == self.id);
                found = same.and_then(|sibling| try_path(&directory.join(&sibling.name)));
                if found.is_some() {
                    break;
                }
            }
        }
        let Some(opened) = found else {
            return Err(why);
        };
        self.resolved = opened.resolved;
        Ok(opened.file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_released_file_is_found_under_its_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let allow = AllowList::new(vec![root.clone()]);
        let directories = Directories::default();
        let entry = root.join("a.log");
        std::fs::write(&entry, "old").unwrap();
        let opened = files::open(&entry, &allow).unwrap();
        let mut descriptor = Descriptor::new(entry.clone(), opened);
        let read = |descriptor: &mut Descriptor| -> Result<String, Blocked> {
            descriptor.release();
            assert!(!descriptor.is_open());
            let mut text = String::new();
            let mut file = descriptor.open(&entry, &allow, &directories)?;
            file.read_to_string(&mut text).unwrap();
            assert!(descriptor.is_open());
            Ok(text)
        };
        assert_eq!(read(&mut descriptor).unwrap(), "old");
        // Rotated twice, and another file has the name.
        for name in ["a.log.1", "a.log.2"] {
            let from = if name == "a.log.1" {
                "a.log"
            } else {
                "a.log.1"
            };
            std::fs::rename(root.join(from), root.join(name)).unwrap();
            std::fs::write(&entry, "new").unwrap();
            assert_eq!(read(&mut descriptor).unwrap(), "old", "{name}");
        }
        std::fs::remove_file(root.join("a.log.2")).unwrap();
        assert_eq!(read(&mut descriptor), Err(Blocked::Missing));
    }
}
