//! What a process costs, and which one listens where, read from `/proc`.

use std::fs;
use std::net::SocketAddr;
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

/// Threads that want a processor of this machine, the mean of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or_default()
}

/// What a process is called.
pub(crate) fn name(pid: u32) -> anyhow::Result<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    let name = name.with_context(|| format!("process {pid} does not run"))?;
    Ok(name.trim().to_owned())
}

/// The process that listens on an address of this machine, as far as this user may know.
pub(crate) fn listening(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let mut inodes = tables.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines();
        let inodes = lines.filter_map(|line| listener(line, address.port()));
        inodes.map(str::to_owned).collect::<Vec<_>>()
    });
    let socket = format!("socket:[{}]", inodes.next()?);
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    pids.filter(|pid| holds(*pid, &socket).unwrap_or(false))
        .min()
}

/// The inode in a line of the kernel's table, if it is a listener on this port.
fn listener(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?.rsplit_once(':')?.1;
    let state = words.nth(1)?;
    let is_it = state == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    is_it.then(|| words.nth(5)).flatten()
}

fn holds(pid: u32, socket: &str) -> Option<bool> {
    let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(files.any(|file| {
        file.and_then(|file| fs::read_link(file.path()))
            .is_ok_and(|link| link.as_os_str() == socket)
    }))
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
        assert!(!name(pid).expect("this process runs").is_empty());
        cpu(u32::MAX).expect_err("no such process");
    }

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        assert_eq!(listening(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening(address), None);
    }
}
