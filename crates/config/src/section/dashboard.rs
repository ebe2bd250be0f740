//! `dashboard`: the management interface over HTTP.

use super::{COUNT, POSITIVE, tls};
use crate::check::{Checked, Typed};
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{Dashboard, HttpListener, HttpsListener, Secret};
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    group(
        "listeners",
        LISTENERS,
        "Where the dashboard and the API are served.",
    ),
    field(
        "default_username",
        Kind::String,
        "admin",
        "User that is made when there is none, at the first start.",
    ),
    field(
        "default_password",
        Kind::Secret,
        "public",
        "Password of that user at the first start. A later change here has no effect; use \
         `emqx ctl admins passwd`.",
    ),
    field(
        "token_expired_time",
        Kind::Duration,
        "60m",
        "Life of a login.",
    ),
    field(
        "cors",
        Kind::Bool,
        "false",
        "Whether pages from other origins may call the API.",
    )
    .inert(),
    field(
        "swagger_support",
        Kind::Bool,
        "true",
        "Whether the API describes itself.",
    )
    .inert(),
    field(
        "sample_interval",
        Kind::Duration,
        "10s",
        "Time between two samples of the charts: 1 to 60 seconds, a divisor of 60.",
    )
    .inert(),
    optional(
        "i18n_lang",
        Kind::Enum(&["en", "zh"]),
        "Language of descriptions.",
    )
    .inert()
    .hidden(),
    optional(
        "bootstrap_users_file",
        Kind::Path,
        "File with API keys of EMQX 5.0.",
    )
    .deprecated("use api_key.bootstrap_file")
    .inert()
    .hidden(),
    optional(
        "password_expired_time",
        Kind::Duration,
        "Life of a password.",
    )
    .inert()
    .hidden(),
    optional(
        "unsuccessful_login_max_attempts",
        POSITIVE,
        "Failed logins before a lock.",
    )
    .unguarded("passwords may be tried without limit")
    .hidden(),
    open("sso", "Login through other services.").hidden(),
    open("mfa", "Second factor of logins.").hidden(),
];

static LISTENERS: &[Field] = &[
    group("http", HTTP, "Plain HTTP."),
    group("https", HTTPS, "HTTP over TLS."),
];

const HTTP: &[Field] = &[
    field(
        "bind",
        Kind::Bind,
        "0",
        "Port, or address and port; 0 switches the listener off.",
    ),
    optional("enable", Kind::Bool, "Whether it is served.")
        .deprecated("set bind = 0 to switch it off")
        .hidden(),
    optional("num_acceptors", POSITIVE, "Tasks that accept connections.").inert(),
    field("max_connections", COUNT, "512", "Most connections at once."),
    field(
        "backlog",
        POSITIVE,
        "1024",
        "Connections waiting to be accepted.",
    ),
    field(
        "send_timeout",
        Kind::Duration,
        "10s",
        "Time to hand bytes to the network.",
    )
    .inert(),
    field(
        "inet6",
        Kind::Bool,
        "false",
        "Whether IPv6 is used when no host is given.",
    )
    .inert(),
    field(
        "ipv6_v6only",
        Kind::Bool,
        "false",
        "Whether an IPv6 socket refuses IPv4.",
    )
    .inert(),
    field(
        "proxy_header",
        Kind::Bool,
        "false",
        "Whether connections come from a proxy that sends a PROXY header.",
    )
    .inert(),
];

const HTTPS_OPTIONS: Field = group("ssl_options", tls::SERVER, "Certificates and protocol.");
const HTTPS_COUNT: usize = HTTP.len() + 1 + tls::SERVER.len();

static HTTPS: &[Field] = &https_fields();

/// What HTTP has, `ssl_options`, and the keys of it that EMQX 5.0 had beside it.
const fn https_fields() -> [Field; HTTPS_COUNT] {
    let mut fields = [HTTPS_OPTIONS; HTTPS_COUNT];
    let mut index = 0;
    while index < HTTP.len() {
        fields[index] = HTTP[index];
        index += 1;
    }
    index += 1;
    while index < HTTPS_COUNT {
        let mut loose = tls::SERVER[index - HTTP.len() - 1];
        loose.default = None;
        loose.deprecated = Some("move it into ssl_options");
        loose.hidden = true;
        fields[index] = loose;
        index += 1;
    }
    fields
}

/// Moves TLS keys that stand beside `ssl_options` to where it does not set them, so that all
/// that looks at the configuration sees them where they act.
pub(crate) fn settle(dashboard: &mut Checked) {
    let https = ["listeners", "https"]
        .iter()
        .try_fold(dashboard, |node, key| node.fields_mut()?.get_mut(*key))
        .and_then(Checked::fields_mut);
    let Some(https) = https else {
        return;
    };
    let mut loose = Vec::new();
    for name in tls::SERVER.iter().map(|field| field.name) {
        match https.get_mut(name) {
            Some(value) if value.typed != Typed::Unset => {
                loose.push((name, std::mem::replace(value, Checked::unset())));
            }
            _ => {}
        }
    }
    let Some(options) = https.get_mut("ssl_options").and_then(Checked::fields_mut) else {
        return;
    };
    for (name, value) in loose {
        if !options.get(name).is_some_and(Checked::is_given) {
            options.insert(name.to_owned(), value);
        }
    }
}

pub(crate) fn build(v: View<'_>) -> Dashboard {
    let listeners = v.view("listeners");
    let https = listeners.view("https");
    Dashboard {
        http: http(listeners.view("http")),
        https: http(https).map(|http| HttpsListener {
            http,
            ssl_options: tls::server(https.view("ssl_options")),
        }),
        default_username: v.text("default_username"),
        default_password: Secret::new(v.text("default_password")),
        token_expired_time_ms: v.ms("token_expired_time"),
        cors: v.bool("cors"),
        swagger_support: v.bool("swagger_support"),
        sample_interval_ms: v.ms("sample_interval"),
    }
}

fn http(v: View<'_>) -> Option<HttpListener> {
    let bind = v.bind("bind");
    let on = bind.port != 0 && v.opt_bool("enable") != Some(false);
    on.then(|| HttpListener {
        bind,
        max_connections: v.int("max_connections"),
        backlog: v.int("backlog"),
        send_timeout_ms: v.ms("send_timeout"),
        inet6: v.bool("inet6"),
        ipv6_v6only: v.bool("ipv6_v6only"),
        proxy_header: v.bool("proxy_header"),
    })
}
