//! What the kernel says about this process.

use std::fs;

/// Seconds of CPU time, user and system.
pub(super) fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a metric, not an account")]
    {
        spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
    }
}

/// Bytes of resident memory; `None` where `/proc` is not mounted.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Open file descriptors; `None` where `/proc` is not mounted.
pub(super) fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}
