//! `zones`: settings that the clients of some listeners have for themselves.

use std::collections::BTreeMap;

use super::{flapping_detect, force_shutdown, mqtt};
use crate::schema::{Field, Kind, open, optional};
use crate::settings::Zone;
use crate::view::View;

const fn inherits(name: &'static str, fields: &'static [Field], doc: &'static str) -> Field {
    optional(name, Kind::Partial(fields), doc)
}

static ZONE_KIND: Kind = Kind::Partial(ZONE);

/// Zones by name.
pub(crate) const ROOT: Field = optional(
    "zones",
    Kind::Map(&ZONE_KIND),
    "Named sets of settings; a listener names its zone. What a zone does not set is inherited.",
)
.at_connect();

static ZONE: &[Field] = &[
    inherits("mqtt", mqtt::FIELDS, "As the root `mqtt`."),
    inherits(
        "flapping_detect",
        flapping_detect::FIELDS,
        "As the root `flapping_detect`.",
    )
    .inert(),
    inherits(
        "force_shutdown",
        force_shutdown::FIELDS,
        "As the root `force_shutdown`.",
    )
    .inert(),
    open("force_gc", "As the root `force_gc`."),
    open("conn_congestion", "As the root `conn_congestion`."),
    open("durable_sessions", "As the root `durable_sessions`."),
    open("overload_protection", "As the root `overload_protection`.").hidden(),
    open("stats", "Statistics of clients.").hidden(),
];

pub(crate) fn build(root: View<'_>) -> BTreeMap<String, Zone> {
    let global = Zone {
        mqtt: mqtt::build(root.view("mqtt")),
        flapping_detect: flapping_detect::build(root.view("flapping_detect")),
        force_shutdown: force_shutdown::build(root.view("force_shutdown")),
    };
    let mut zones = BTreeMap::from([("default".to_owned(), global)]);
    for (name, checked) in root.entries("zones") {
        let zone = View::of(checked);
        let part = |key: &str| {
            let own = zone.get(key);
            match own.fields() {
                Some(_) => View::of(own).over(root.view(key)),
                None => root.view(key),
            }
        };
        zones.insert(
            name.clone(),
            Zone {
                mqtt: mqtt::build(part("mqtt")),
                flapping_detect: flapping_detect::build(part("flapping_detect")),
                force_shutdown: force_shutdown::build(part("force_shutdown")),
            },
        );
    }
    zones
}
