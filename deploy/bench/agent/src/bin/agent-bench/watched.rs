//! One program under measurement: its processor time and its highest memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// The unit of /proc/PID/stat, the same on every Linux that Rust's standard library supports.
const TICK_MS: u64 = 10;
const END: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) cpu_ms: u64,
    pub(crate) peak_rss_kib: u64,
}

pub(crate) struct Watched {
    child: Child,
    log: PathBuf,
    sample: Sample,
}

impl Watched {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            sample: Sample::default(),
        })
    }

    /// Notes what it has cost so far. An ended child still tells its processor time until it is
    /// reaped, but no longer its memory: the last value stays.
    pub(crate) fn sample(&mut self) -> anyhow::Result<bool> {
        let pid = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat names the program")?;
        let fields: Vec<_> = fields.split(' ').collect();
        let ticks = |at: usize| -> anyhow::Result<u64> {
            Ok(fields.get(at).context("stat is short")?.parse()?)
        };
        self.sample.cpu_ms = (ticks(11)? + ticks(12)?) * TICK_MS;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let highest = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        self.sample.peak_rss_kib = self.sample.peak_rss_kib.max(highest.unwrap_or(0));
        Ok(fields.first() == Some(&"Z"))
    }

    /// What it has cost so far.
    pub(crate) fn cost(&mut self) -> anyhow::Result<Sample> {
        let ended = self.sample()?;
        anyhow::ensure!(
            !ended,
            "it has ended: {}",
            fs::read_to_string(&self.log).unwrap_or_default()
        );
        Ok(self.sample)
    }

    /// Its memory in KiB and its open descriptors, now.
    pub(crate) fn holds(&self) -> anyhow::Result<(u64, usize)> {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok((rss.context("no VmRSS")?, descriptors))
    }

    /// A program that has ended without having delivered everything never will.
    pub(crate) fn must_go_on(&mut self, arrived: u64, wanted: u64) -> anyhow::Result<()> {
        let ended = self.sample()?;
        anyhow::ensure!(
            !ended || arrived >= wanted.saturating_sub(1),
            "ended after {arrived} of {wanted} lines: {}",
            fs::read_to_string(&self.log).unwrap_or_default()
        );
        Ok(())
    }

    /// The whole cost: to its own end, or to now for a program that runs on.
    pub(crate) fn finish(mut self, ends_by_itself: bool) -> anyhow::Result<Sample> {
        let since = Instant::now();
        while ends_by_itself && !self.sample()? {
            anyhow::ensure!(since.elapsed() < END, "it delivered but does not end");
            std::thread::sleep(POLL);
        }
        self.sample()?;
        Ok(self.sample)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Asked first, so that it can say goodbye; what fails here has ended already.
        if let Some(pid) = pid
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(10) {
                if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                std::thread::sleep(POLL);
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
