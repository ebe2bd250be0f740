//! What a process costs, read from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Time all threads of a process have spent on a processor. `schedstat` counts nanoseconds, where
/// `stat` counts hundredths of seconds.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid} does not run"))?
    {
        let file = thread?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(&file) else {
            // A thread that ended since it was listed; its time is lost, as of those before it.
            continue;
        };
        let first = text.split(' ').next().unwrap_or_default();
        nanoseconds += first
            .parse::<u64>()
            .with_context(|| format!("{}: {text}", file.display()))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory of a process, bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("process {pid} does not run"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .with_context(|| format!("{file} has no VmRSS"))?
        .trim()
        .parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let before = cpu(pid).expect("this process runs");
        let mut sum = 0_u64;
        while cpu(pid).expect("this process runs") == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident_bytes(pid).expect("this process runs") > 100_000);
        cpu(u32::MAX).expect_err("no such process");
    }
}
