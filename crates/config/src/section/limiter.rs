//! `limiter`: limits of the whole node.

use super::INFINITY;
use crate::schema::{Field, Kind, open, optional};
use crate::settings::Limits;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    optional(
        "max_conn_rate",
        Kind::Words(INFINITY, &Kind::Rate),
        "New connections.",
    ),
    optional(
        "messages_rate",
        Kind::Words(INFINITY, &Kind::Rate),
        "Messages of all clients.",
    ),
    optional(
        "bytes_rate",
        Kind::Words(INFINITY, &Kind::Rate),
        "Bytes of all clients.",
    ),
    open("connection", "Limiter of EMQX 5.0.").hidden(),
    open("messages", "Limiter of EMQX 5.0.").hidden(),
    open("bytes", "Limiter of EMQX 5.0.").hidden(),
    open("message_routing", "Limiter of EMQX 5.0.").hidden(),
    open("message_in", "Limiter of EMQX 5.0.").hidden(),
    open("bytes_in", "Limiter of EMQX 5.0.").hidden(),
    open("internal", "Limiter of EMQX 5.0.").hidden(),
    open("client", "Limiter of EMQX 5.0.").hidden(),
];

pub(crate) fn build(v: View<'_>) -> Limits {
    Limits {
        max_conn_rate: v.opt_rate("max_conn_rate"),
        messages_rate: v.opt_rate("messages_rate"),
        bytes_rate: v.opt_rate("bytes_rate"),
    }
}
