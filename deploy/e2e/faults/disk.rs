//! A disk of its own for each member: a small ext4 file system on a loop device. It can be full, and
//! it can be slow.
//!
//! Slow: the file system is frozen again and again for a moment. Every write and sync that comes then
//! waits, as on a disk that stalls, while the process itself and its network go on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::enclosure::run;

const SIZE_BYTES: u64 = 256 << 20;
/// How long a slow disk stands still, and then goes on.
const FROZEN: Duration = Duration::from_millis(80);
const THAWED: Duration = Duration::from_millis(20);

/// One member's file system.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: PathBuf,
    stalls: Option<Stalls>,
}

impl Disk {
    pub(crate) fn create(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let mount = folder.join(format!("{name}.disk"));
        std::fs::create_dir_all(&mount)?;
        File::create(&image)?.set_len(SIZE_BYTES)?;
        let (image, to) = (path_text(&image)?, path_text(&mount)?.to_owned());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
        run("mount", &["-o", "loop", image, &to])
            .context("a loop device is needed for each member's disk")?;
        Ok(Self {
            mount,
            stalls: None,
        })
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        // In falling steps, down to the last block.
        for step_bytes in [1 << 20, 1 << 16, 1 << 12] {
            loop {
                let len = ballast.metadata()?.len();
                let flags = rustix::fs::FallocateFlags::empty();
                if rustix::fs::fallocate(&ballast, flags, len, step_bytes).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn slow_down(&mut self) {
        self.stalls = Some(Stalls::start(self.mount.clone()));
    }

    pub(crate) fn speed_up(&mut self) {
        self.stalls = None;
    }

    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.data_dir())?;
        Ok(())
    }
}

/// Freezes and thaws until it is dropped. It must end thawed: a frozen process cannot even be killed.
#[derive(Debug)]
struct Stalls {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    fn start(mount: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let Ok(mount) = path_text(&mount) else { return };
            while !asked.load(Ordering::Relaxed) {
                if let Err(error) = run("fsfreeze", &["--freeze", mount]) {
                    eprintln!("{error}");
                }
                std::thread::sleep(FROZEN);
                if let Err(error) = run("fsfreeze", &["--unfreeze", mount]) {
                    eprintln!("{error}");
                }
                std::thread::sleep(THAWED);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing that could panic; the disk is thawed when it has ended.
            drop(thread.join());
        }
    }
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the work folder's path is text")
}
