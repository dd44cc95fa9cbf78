//! What a process has cost so far, read from /proc.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// The unit of /proc/PID/stat, the same on every Linux that Rust's standard library supports.
const TICK_MS: u64 = 10;

/// Processor time of a live process in milliseconds, all its threads together, ended ones included.
pub fn cpu_ms(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name in parentheses may hold spaces: fields are counted behind its end.
    let (_, fields) = stat
        .rsplit_once(") ")
        .with_context(|| format!("{path} names the program in parentheses"))?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || -> anyhow::Result<u64> {
        let field = fields.next().with_context(|| format!("{path} is short"))?;
        field.parse().with_context(|| format!("{path}: {field:?}"))
    };
    let (user, system) = (ticks()?, ticks()?);
    Ok((user + system) * TICK_MS)
}

/// The same, of several processes together.
pub fn cpu_ms_of(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter().map(|pid| cpu_ms(*pid)).sum()
}

/// Resident memory now and at its highest, in KiB.
pub fn rss_kib(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .with_context(|| format!("{path} has {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Bytes that a folder occupies on the disk; sparse and preallocated files count as allocated.
pub fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_cost() {
        let pid = std::process::id();
        let before = cpu_ms(pid).unwrap();
        let mut x = 1_u64;
        while cpu_ms(pid).unwrap() < before + 20 {
            x = std::hint::black_box(x.wrapping_mul(31));
        }
        let (now, highest) = rss_kib(pid).unwrap();
        assert!(now > 0 && highest >= now);
    }
}
