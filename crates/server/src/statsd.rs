//! Push of gauges and counters to a `StatsD` server over UDP, as EMQX 5.0 has it; off by default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_config::settings::Statsd;
use tokio::net::{UdpSocket, lookup_host};

use crate::admin::Admin;

/// Payload of one datagram, in bytes: what passes every network unfragmented.
const DATAGRAM_BYTES_MAX: usize = 1432;

/// Pushes until the task is dropped. A server that is not there costs a warning per change only:
/// the figures are for a graph, not for the operation of the node.
pub(crate) async fn push(admin: Admin, settings: Statsd) {
    let mut counters = BTreeMap::new();
    let mut failing = false;
    let period = Duration::from_millis(settings.flush_time_interval_ms.max(1));
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        let pushed = push_once(&admin, &settings.server, &mut counters).await;
        if let (Err(error), false) = (&pushed, failing) {
            tracing::warn!(server = settings.server, reason = %error, "statsd_push_failed");
        }
        failing = pushed.is_err();
    }
}

async fn push_once(
    admin: &Admin,
    server: &str,
    counters: &mut BTreeMap<String, u64>,
) -> std::io::Result<()> {
    let Ok(gauges) = admin.local_stats().await else {
        return Ok(());
    };
    let lines = lines(&gauges, counters, admin.local_metrics());
    let mut addresses = lookup_host(server).await?;
    let to = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any.parse::<SocketAddr>().expect("a literal")).await?;
    for datagram in datagrams(&lines) {
        socket.send_to(datagram.as_bytes(), to).await?;
    }
    Ok(())
}

/// Gauges as they are, counters by what they grew since the last push.
fn lines(
    gauges: &BTreeMap<String, u64>,
    before: &mut BTreeMap<String, u64>,
    counters: BTreeMap<String, u64>,
) -> Vec<String> {
    let mut lines: Vec<String> = gauges
        .iter()
        .map(|(name, value)| format!("{name}:{value}|g"))
        .collect();
    for (name, value) in &counters {
        let grown = value - before.get(name).unwrap_or(&0).min(value);
        if grown > 0 {
            lines.push(format!("{name}:{grown}|c"));
        }
    }
    *before = counters;
    lines
}

/// Lines packed into datagrams.
fn datagrams(lines: &[String]) -> Vec<String> {
    let mut datagrams: Vec<String> = Vec::new();
    for line in lines {
        match datagrams.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= DATAGRAM_BYTES_MAX => {
                last.push('\n');
                last.push_str(line);
            }
            _ => datagrams.push(line.clone()),
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figures: &[(&str, u64)]) -> BTreeMap<String, u64> {
        figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn counters_are_sent_by_what_they_grew() {
        let mut before = BTreeMap::new();
        let gauges = figures(&[("sessions.count", 3)]);
        let first = lines(&gauges, &mut before, figures(&[("a", 5), ("b", 0)]));
        assert_eq!(first, ["sessions.count:3|g", "a:5|c"]);
        let second = lines(&gauges, &mut before, figures(&[("a", 7), ("b", 0)]));
        assert_eq!(second, ["sessions.count:3|g", "a:2|c"]);
    }

    #[test]
    fn datagrams_hold_whole_lines_and_are_short() {
        let lines: Vec<String> = (0..500)
            .map(|n| format!("metric.number.{n}:{n}|c"))
            .collect();
        let datagrams = datagrams(&lines);
        assert!(
            datagrams
                .iter()
                .all(|datagram| datagram.len() <= DATAGRAM_BYTES_MAX)
        );
        let back: Vec<&str> = datagrams
            .iter()
            .flat_map(|datagram| datagram.lines())
            .collect();
        assert_eq!(back, lines);
    }
}
