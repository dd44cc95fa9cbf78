//! Hints from the file system: the only file that names notify.
//!
//! Watches directories, never files. A hint means "look now"; nothing is lost when it does not
//! come, because the sweep looks anyway. When the kernel has no watches left, the sweep is alone
//! and the status says so.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustc_hash::{FxHashMap, FxHashSet};

/// Where hints go.
pub trait HintTarget: Send + Sync {
    fn push_hint(&self, path: PathBuf);
    fn push_rescan(&self);
}

impl<C: Send> HintTarget for crate::inbox::Inbox<C> {
    fn push_hint(&self, path: PathBuf) {
        crate::inbox::Inbox::push_hint(self, path);
    }

    fn push_rescan(&self) {
        crate::inbox::Inbox::push_rescan(self);
    }
}

/// The directories being watched.
pub struct DirectoryWatcher {
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a directory made anew under the old name needs a new watch.
    watched: FxHashMap<PathBuf, (u64, u64)>,
    /// Those of them whose file system tells nothing of changes by other machines.
    silent: FxHashSet<PathBuf>,
    trouble: Option<String>,
}

impl DirectoryWatcher {
    pub fn new(target: Arc<dyn HintTarget>) -> Self {
        let handler = move |event: notify::Result<notify::Event>| match event {
            Ok(event) if event.need_rescan() => target.push_rescan(),
            // Opening and closing, ours included, changes nothing.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => event
                .paths
                .into_iter()
                .for_each(|path| target.push_hint(path)),
            Err(error) => {
                tracing::debug!(%error, "the file watcher reports an error");
                target.push_rescan();
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(watcher) => Self {
                watcher: Some(watcher),
                watched: FxHashMap::default(),
                silent: FxHashSet::default(),
                trouble: None,
            },
            Err(error) => {
                let trouble = Some(words(&error));
                tracing::warn!(reason = trouble, "no file notifications: polling");
                Self {
                    watcher: None,
                    watched: FxHashMap::default(),
                    silent: FxHashSet::default(),
                    trouble,
                }
            }
        }
    }

    /// A watcher that never gives a hint, as where the kernel has none to give.
    pub fn polling(reason: &str) -> Self {
        Self {
            watcher: None,
            watched: FxHashMap::default(),
            silent: FxHashSet::default(),
            trouble: Some(reason.to_owned()),
        }
    }

    /// Watches exactly these directories; those that do not exist are tried again next time.
    /// Returns those that are watched anew: what happened there before is not known.
    pub fn watch_only(&mut self, wanted: &FxHashSet<PathBuf>) -> Vec<PathBuf> {
        let Some(watcher) = &mut self.watcher else {
            return Vec::new();
        };
        self.watched.retain(|directory, identity| {
            let keep = wanted.contains(directory) && identity_of(directory) == Some(*identity);
            if !keep && let Err(error) = watcher.unwatch(directory) {
                // The kernel drops the watch of a removed directory by itself.
                tracing::trace!(%error, directory = %directory.display(), "unwatch");
            }
            keep
        });
        self.silent
            .retain(|directory| self.watched.contains_key(directory));
        let mut added = Vec::new();
        let mut trouble = None;
        for directory in wanted {
            if self.watched.contains_key(directory) {
                continue;
            }
            let Some(identity) = identity_of(directory) else {
                continue;
            };
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    if is_silent(directory) {
                        self.silent.insert(directory.clone());
                    }
                    self.watched.insert(directory.clone(), identity);
                    added.push(directory.clone());
                }
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => trouble = Some(format!("{}: {}", directory.display(), words(&error))),
            }
        }
        if trouble.is_none()
            && let Some(directory) = self.silent.iter().next()
        {
            trouble = Some(format!(
                "{}: its file system tells nothing of changes from elsewhere",
                directory.display()
            ));
        }
        if self.trouble.is_none()
            && let Some(reason) = &trouble
        {
            tracing::warn!(reason, "a directory cannot be watched: it is polled");
        }
        self.trouble = trouble;
        added
    }

    /// The directories in which every change gives a hint.
    pub fn hinted(&self) -> impl Iterator<Item = &PathBuf> {
        let all = self.watched.keys();
        all.filter(|directory| !self.silent.contains(*directory))
    }

    /// Why some directories are polled; `None` when hints come from all that exist.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// NFS, CIFS, SMB 2, FUSE, 9P, Ceph, AFS: what another machine writes gives no notification here.
const SILENT_FILE_SYSTEMS: [u64; 7] = [
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
];

fn is_silent(directory: &Path) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|stat| {
        u64::try_from(stat.f_type).is_ok_and(|kind| SILENT_FILE_SYSTEMS.contains(&kind))
    })
}

fn identity_of(directory: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

fn words(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the limit of inotify watches is reached (fs.inotify.max_user_watches)".to_owned()
        }
        ErrorKind::Io(io) if io.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "the limit of inotify instances is reached (fs.inotify.max_user_instances)".to_owned()
        }
        ErrorKind::Io(io) => io.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::inbox::Inbox;

    #[test]
    fn a_write_gives_a_hint_and_a_new_directory_a_new_watch() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("log");
        let inbox: Arc<Inbox<()>> = Arc::default();
        let mut watcher = DirectoryWatcher::new(Arc::clone(&inbox) as Arc<dyn HintTarget>);
        assert_eq!(watcher.trouble(), None);
        let wanted = FxHashSet::from_iter([directory.clone()]);
        assert!(watcher.watch_only(&wanted).is_empty());
        for round in 0..2 {
            std::fs::create_dir(&directory).unwrap();
            assert_eq!(
                watcher.watch_only(&wanted),
                std::slice::from_ref(&directory),
                "round {round}"
            );
            assert!(watcher.watch_only(&wanted).is_empty());
            let file = directory.join("a.log");
            std::fs::write(&file, "x").unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !inbox.take_until(deadline).hints.contains(&file) {
                assert!(Instant::now() < deadline, "no hint in round {round}");
            }
            std::fs::rename(&directory, folder.path().join(format!("old{round}"))).unwrap();
        }
    }

    #[test]
    fn without_notifications_it_says_so() {
        let mut watcher = DirectoryWatcher::polling("no inotify here");
        assert!(
            watcher
                .watch_only(&FxHashSet::from_iter([PathBuf::from("/")]))
                .is_empty()
        );
        assert_eq!(watcher.trouble(), Some("no inotify here"));
    }
}
