//! Figures of the machine and of this process, from `/proc`; zero where it does not tell.

use std::fs;

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Host {
    /// Load averages over 1, 5 and 15 minutes.
    pub(crate) load: [f64; 3],
    pub(crate) memory_total_bytes: u64,
    pub(crate) memory_used_bytes: u64,
    /// Limit on open files.
    pub(crate) max_fds: u64,
    /// Resident memory of this process.
    pub(crate) memory_process_bytes: u64,
    pub(crate) threads: u64,
}

impl Host {
    pub(crate) fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let total = kilobytes(&meminfo, "MemTotal:");
        Self {
            load: load(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            memory_total_bytes: total,
            memory_used_bytes: total.saturating_sub(kilobytes(&meminfo, "MemAvailable:")),
            max_fds: max_fds(),
            memory_process_bytes: kilobytes(&status, "VmRSS:"),
            threads: number(&status, "Threads:"),
        }
    }
}

fn max_fds() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn kilobytes(text: &str, name: &str) -> u64 {
    number(text, name) * 1024
}

fn load(text: &str) -> [f64; 3] {
    let mut parts = text
        .split_whitespace()
        .map(|part| part.parse().unwrap_or(0.0));
    [(); 3].map(|()| parts.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procs_forms_are_understood() {
        assert_eq!(
            load("0.14 0.03 12.01 1/100 4711\n").map(|l| (l * 100.0).round() as u32),
            [14, 3, 1201]
        );
        assert_eq!(load("").map(|l| l as u32), [0; 3]);
        assert_eq!(
            kilobytes("MemTotal:   2048 kB\nMemFree: 1 kB\n", "MemTotal:"),
            2048 * 1024
        );
        assert_eq!(number("Name:\tx\nThreads:\t7\n", "Threads:"), 7);
    }

    #[test]
    fn a_reading_of_this_machine_is_plausible() {
        let host = Host::read();
        assert!(host.memory_process_bytes > 0 && host.memory_used_bytes < host.memory_total_bytes);
        assert!(host.threads >= 1 && host.max_fds > 0);
    }
}
