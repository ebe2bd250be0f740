//! TLS options, which several roots share.

use super::SIZE_T;
use crate::schema::{Field, Kind, field, open, optional};
use crate::settings::{ClientTls, Secret, SslOptions, Verify};
use crate::view::View;

const VERSIONS: &[&str] = &[
    "tlsv1.3", "tlsv1.2", "tlsv1.1", "tlsv1", "dtlsv1.2", "dtlsv1",
];

/// Options of a listener.
pub(crate) const SERVER: &[Field] = &[
    field(
        "cacertfile",
        Kind::Path,
        "\"${EMQX_ETC_DIR}/certs/cacert.pem\"",
        "PEM file with the authorities that sign client certificates.",
    ),
    field(
        "certfile",
        Kind::Path,
        "\"${EMQX_ETC_DIR}/certs/cert.pem\"",
        "PEM file with the server's certificate, followed by the intermediate ones.",
    ),
    field(
        "keyfile",
        Kind::Path,
        "\"${EMQX_ETC_DIR}/certs/key.pem\"",
        "PEM file with the key of the certificate.",
    ),
    field(
        "verify",
        Kind::Enum(Verify::WORDS),
        "verify_none",
        "Whether clients are asked for a certificate.",
    ),
    field(
        "fail_if_no_peer_cert",
        Kind::Bool,
        "false",
        "Whether a client without a certificate is refused; needs verify_peer.",
    ),
    field("depth", SIZE_T, "10", "Most intermediate certificates.").inert(),
    field("password", Kind::Secret, "\"\"", "Password of the key.").inert(),
    field(
        "versions",
        Kind::CommaList(&Kind::Enum(VERSIONS)),
        "[\"tlsv1.3\", \"tlsv1.2\"]",
        "Allowed protocol versions; those before 1.2 are accepted and never offered.",
    ),
    field(
        "ciphers",
        Kind::CommaList(&Kind::String),
        "[]",
        "Allowed cipher suites; empty leaves the choice to the library.",
    ),
    field(
        "handshake_timeout",
        Kind::Duration,
        "15s",
        "Time for the handshake.",
    ),
    field(
        "honor_cipher_order",
        Kind::Bool,
        "true",
        "Whether the server's order of suites wins.",
    ),
    field(
        "reuse_sessions",
        Kind::Bool,
        "true",
        "Whether sessions can be resumed.",
    ),
    field(
        "secure_renegotiate",
        Kind::Bool,
        "true",
        "Whether only safe renegotiation is allowed.",
    )
    .inert(),
    field(
        "client_renegotiation",
        Kind::Bool,
        "true",
        "Whether clients may renegotiate.",
    )
    .inert(),
    field(
        "hibernate_after",
        Kind::Duration,
        "5s",
        "Idle time before memory is given back.",
    )
    .inert(),
    optional("dhfile", Kind::Path, "File with Diffie-Hellman parameters.").inert(),
    field(
        "gc_after_handshake",
        Kind::Bool,
        "false",
        "Whether memory is cleaned after a handshake.",
    )
    .inert(),
    field(
        "log_level",
        Kind::String,
        "notice",
        "Log level of the TLS library.",
    )
    .inert(),
    optional(
        "user_lookup_fun",
        Kind::String,
        "How pre-shared keys are found.",
    )
    .inert()
    .hidden(),
    field(
        "enable_crl_check",
        Kind::Bool,
        "false",
        "Whether revocation lists are checked.",
    )
    .unguarded("revoked certificates are accepted"),
    optional(
        "partial_chain",
        Kind::Raw,
        "Whether a chain may end at an intermediate.",
    )
    .inert()
    .hidden(),
    optional(
        "verify_peer_ext_key_usage",
        Kind::String,
        "Required key usages of clients.",
    )
    .unguarded("certificates made for other uses are accepted")
    .hidden(),
    open("ocsp", "Stapling of revocation status."),
    optional(
        "cacerts",
        Kind::Raw,
        "Whether the system's authorities are trusted.",
    )
    .inert()
    .hidden(),
];

/// Options of a client.
pub(crate) static CLIENT: &[Field] = &[
    field("enable", Kind::Bool, "false", "Whether TLS is used."),
    field(
        "cacertfile",
        Kind::Path,
        "\"\"",
        "PEM file with trusted authorities; empty means the system's.",
    ),
    field(
        "certfile",
        Kind::Path,
        "\"\"",
        "PEM file with the client's certificate.",
    ),
    field(
        "keyfile",
        Kind::Path,
        "\"\"",
        "PEM file with the key of the certificate.",
    ),
    field("password", Kind::Secret, "\"\"", "Password of the key.").inert(),
    field(
        "verify",
        Kind::Enum(Verify::WORDS),
        "verify_none",
        "Whether the server is verified.",
    ),
    optional(
        "server_name_indication",
        Kind::String,
        "Name the server must have, if not that of the URL; `disable` checks none.",
    ),
    field("depth", SIZE_T, "10", "Most intermediate certificates.").inert(),
    field(
        "versions",
        Kind::CommaList(&Kind::Enum(VERSIONS)),
        "[\"tlsv1.3\", \"tlsv1.2\"]",
        "Allowed protocol versions.",
    )
    .inert(),
    field(
        "ciphers",
        Kind::CommaList(&Kind::String),
        "[]",
        "Allowed cipher suites.",
    )
    .inert(),
    field(
        "secure_renegotiate",
        Kind::Bool,
        "true",
        "Whether only safe renegotiation is allowed.",
    )
    .inert(),
    field(
        "reuse_sessions",
        Kind::Bool,
        "true",
        "Whether sessions are resumed.",
    )
    .inert(),
    field(
        "log_level",
        Kind::String,
        "notice",
        "Log level of the TLS library.",
    )
    .inert(),
    field(
        "hibernate_after",
        Kind::Duration,
        "5s",
        "Idle time before memory is given back.",
    )
    .inert(),
    optional(
        "user_lookup_fun",
        Kind::String,
        "How pre-shared keys are found.",
    )
    .inert()
    .hidden(),
    optional(
        "partial_chain",
        Kind::Raw,
        "Whether a chain may end at an intermediate.",
    )
    .inert()
    .hidden(),
    optional(
        "cacerts",
        Kind::Raw,
        "Whether the system's authorities are trusted.",
    )
    .inert()
    .hidden(),
    optional(
        "middlebox_comp_mode",
        Kind::Bool,
        "TLS 1.3 compatibility mode.",
    )
    .inert()
    .hidden(),
];

pub(crate) fn server(v: View<'_>) -> SslOptions {
    SslOptions {
        cacertfile: v.text("cacertfile"),
        certfile: v.text("certfile"),
        keyfile: v.text("keyfile"),
        password: Secret::new(v.text("password")),
        verify: v.word("verify", Verify::parse),
        fail_if_no_peer_cert: v.bool("fail_if_no_peer_cert"),
        depth: v.int("depth"),
        versions: v.texts("versions"),
        ciphers: v.texts("ciphers"),
        honor_cipher_order: v.bool("honor_cipher_order"),
        reuse_sessions: v.bool("reuse_sessions"),
        handshake_timeout_ms: v.ms("handshake_timeout"),
    }
}

pub(crate) fn client(v: View<'_>) -> ClientTls {
    ClientTls {
        cacertfile: v.text("cacertfile"),
        certfile: v.text("certfile"),
        keyfile: v.text("keyfile"),
        password: Secret::new(v.text("password")),
        verify: v.word("verify", Verify::parse),
        server_name_indication: v.opt_text("server_name_indication"),
    }
}
