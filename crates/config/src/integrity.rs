//! Rules that look at more than one value.

use std::net::IpAddr;

use crate::check::Checked;
use crate::error::{ConfigError, LayerKind, Place, Rule, Warning};
use crate::hocon::Value;
use crate::settings::{Bind, DnsRecordType, Settings, Strategy};
use crate::unit;

/// Largest packet that MQTT can express, in bytes.
const MQTT_PACKET_BYTES_MAX: u64 = 268_435_455;
/// The cookie of EMQX's packages, which everybody knows.
const DEFAULT_COOKIE: &str = "emqxsecretcookie";

/// Checks a configuration as a whole.
pub(crate) fn check(settings: &Settings, root: &Checked) -> Vec<ConfigError> {
    let mut rules = Rules {
        root,
        errors: Vec::new(),
    };
    rules.node(settings);
    rules.strategy(settings);
    rules.intervals(settings);
    rules.packets(settings);
    rules.log(settings);
    rules.keepalives(settings);
    rules.binds(settings);
    rules.errors
}

/// What is worth a warning.
pub(crate) fn warnings(settings: &Settings, root: &Checked) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if settings.node.cookie.expose() == DEFAULT_COOKIE {
        warnings.push(Warning::DefaultCookie);
    }
    if let Strategy::Mcast { .. } = settings.cluster.strategy {
        let path = "cluster.discovery_strategy".to_owned();
        let place = place(root, &path);
        let instead = "use static, dns, etcd or k8s instead of mcast".to_owned();
        warnings.push(Warning::Deprecated {
            path,
            place,
            instead,
        });
    }
    warnings
}

fn place(root: &Checked, path: &str) -> Place {
    root.get(path)
        .map_or_else(Place::default_value, |checked| checked.place.clone())
}

struct Rules<'a> {
    root: &'a Checked,
    errors: Vec<ConfigError>,
}

impl Rules<'_> {
    fn broken(&mut self, path: &str, rule: Rule) {
        let place = place(self.root, path);
        self.errors.push(ConfigError::Integrity {
            path: path.to_owned(),
            place,
            rule,
        });
    }

    fn node(&mut self, settings: &Settings) {
        if let Err(rule) = node_name(&settings.node.name) {
            self.broken("node.name", rule);
        }
        if settings.node.cookie.is_empty() {
            self.broken("node.cookie", Rule::EmptyCookie);
        }
    }

    fn strategy(&mut self, settings: &Settings) {
        match &settings.cluster.strategy {
            Strategy::Static { seeds } => {
                for seed in seeds {
                    if node_name(seed).is_err() {
                        self.broken("cluster.static.seeds", Rule::Seed { seed: seed.clone() });
                    }
                }
            }
            Strategy::Etcd { servers, .. } if servers.is_empty() => {
                self.broken("cluster.etcd.server", Rule::EtcdServer);
            }
            Strategy::Dns { record_type, .. } => self.dns(settings, *record_type),
            Strategy::K8s {
                apiserver,
                app_name,
                ..
            } => {
                if !["http://", "https://"]
                    .iter()
                    .any(|scheme| apiserver.starts_with(scheme))
                {
                    self.broken("cluster.k8s.apiserver", Rule::K8sUrl);
                }
                if app_name.as_deref().is_some_and(|name| !is_short(name)) {
                    self.broken("cluster.k8s.app_name", Rule::K8sAppName);
                }
            }
            _ => {}
        }
    }

    fn dns(&mut self, settings: &Settings, record_type: DnsRecordType) {
        let wants_ipv4 = match record_type {
            DnsRecordType::A => true,
            DnsRecordType::Aaaa => false,
            DnsRecordType::Srv => return,
        };
        let record_type = record_type.to_string();
        let host = settings.node.host().unwrap_or_default();
        match host.parse::<IpAddr>() {
            Err(_) => self.broken("node.name", Rule::DnsNeedsAddress { record_type }),
            Ok(ip) if ip.is_ipv4() != wants_ipv4 => {
                let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned();
                self.broken(
                    "node.name",
                    Rule::DnsFamily {
                        record_type,
                        family,
                    },
                );
            }
            Ok(_) => {}
        }
    }

    fn intervals(&mut self, settings: &Settings) {
        let statsd = &settings.statsd;
        if statsd.sample_time_interval_ms > statsd.flush_time_interval_ms {
            self.broken("statsd.sample_time_interval", Rule::StatsdIntervals);
        }
        let ms = settings.dashboard.sample_interval_ms;
        let seconds = ms / 1000;
        let fine = ms.is_multiple_of(1000) && (1..=60).contains(&seconds) && 60 % seconds == 0;
        if !fine {
            self.broken("dashboard.sample_interval", Rule::SampleInterval);
        }
        if settings.sysmon.cpu_low_watermark > settings.sysmon.cpu_high_watermark {
            self.broken("sysmon.os.cpu_low_watermark", Rule::Watermarks);
        }
    }

    fn packets(&mut self, settings: &Settings) {
        for (zone, parts) in &settings.zones {
            let own = format!("zones.{zone}.mqtt.max_packet_size");
            let path = match self.root.get(&own) {
                Some(checked) if checked.is_given() => own,
                _ if zone == "default" => "mqtt.max_packet_size".to_owned(),
                _ => continue,
            };
            if !(1..=MQTT_PACKET_BYTES_MAX).contains(&parts.mqtt.max_packet_bytes) {
                let checked = self.root.get(&path);
                self.errors.push(ConfigError::Range {
                    place: place(self.root, &path),
                    value: checked.map_or(Value::Null, |checked| checked.shown.clone()),
                    path,
                    min: 1,
                    max: MQTT_PACKET_BYTES_MAX as i64,
                });
            }
        }
    }

    fn log(&mut self, settings: &Settings) {
        let files = settings
            .log
            .files
            .keys()
            .map(|name| format!("log.file.{name}"));
        for handler in std::iter::once("log.console".to_owned()).chain(files) {
            let path = format!("{handler}.time_offset");
            let text = self
                .root
                .get(&path)
                .and_then(|checked| checked.shown.text());
            if text.is_some_and(|text| crate::section::log::time_offset(&text).is_none()) {
                self.broken(&path, Rule::TimeOffset);
            }
        }
    }

    fn keepalives(&mut self, settings: &Settings) {
        for listener in &settings.listeners {
            let path = format!(
                "listeners.{}.{}.tcp_options.keepalive",
                listener.kind, listener.name
            );
            let text = self
                .root
                .get(&path)
                .and_then(|checked| checked.shown.text());
            let text = text.unwrap_or_default();
            if text != "none" && unit::tcp_keepalive(&text).is_none() {
                self.broken(&path, Rule::TcpKeepalive);
            }
        }
    }

    /// Two sockets cannot listen on overlapping addresses.
    fn binds(&mut self, settings: &Settings) {
        let mut binds: Vec<(String, Bind)> = settings
            .listeners
            .iter()
            .filter(|listener| listener.enable)
            .map(|l| (format!("listeners.{}.{}.bind", l.kind, l.name), l.bind))
            .collect();
        if let Some(http) = &settings.dashboard.http {
            binds.push(("dashboard.listeners.http.bind".to_owned(), http.bind));
        }
        if let Some(https) = &settings.dashboard.https {
            binds.push(("dashboard.listeners.https.bind".to_owned(), https.http.bind));
        }
        // What the operator wrote is at fault, not the default it collides with.
        binds.sort_by_key(|(path, _)| place(self.root, path).layer != LayerKind::Default);
        for (index, (path, bind)) in binds.iter().enumerate() {
            let taken = binds[..index]
                .iter()
                .find(|(_, other)| other.overlaps(*bind));
            if let Some((other, _)) = taken {
                let (bind, other) = (bind.to_string(), other.clone());
                self.broken(path, Rule::DuplicateBind { bind, other });
            }
        }
    }
}

/// `^[0-9A-Za-z_-]+$`, `@`, and an address or host name.
fn node_name(name: &str) -> Result<(), Rule> {
    let Some((short, host)) = name.split_once('@') else {
        return Err(if is_short(name) {
            Rule::NodeHost
        } else {
            Rule::NodeName
        });
    };
    if !is_short(short) {
        return Err(Rule::NodeName);
    }
    let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_ip = host.parse::<IpAddr>().is_ok();
    let is_host = !host.is_empty() && host.chars().all(in_host);
    if is_ip || is_host {
        Ok(())
    } else {
        Err(Rule::NodeHost)
    }
}

fn is_short(short: &str) -> bool {
    let in_short = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !short.is_empty() && short.chars().all(in_short)
}
