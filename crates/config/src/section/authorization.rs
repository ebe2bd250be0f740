//! `authorization`: what clients may do.

use super::authentication;
use crate::schema::{Field, Kind, field, group, open};
use crate::settings::{Authorization, AuthorizationCache, DenyAction, NoMatch};
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "no_match",
        Kind::Enum(NoMatch::WORDS),
        "allow",
        "Verdict when no source has one. Production systems set `deny`.",
    )
    .fixed(),
    field(
        "deny_action",
        Kind::Enum(DenyAction::WORDS),
        "ignore",
        "Whether a refused operation only fails or also ends the connection.",
    )
    .fixed(),
    group(
        "cache",
        CACHE,
        "Cache of verdicts, per connection. Here each is computed, in less time.",
    )
    .inert(),
    field(
        "sources",
        Kind::ListOrOne(&Kind::Raw),
        "[{type = file, enable = true, path = \"${EMQX_ETC_DIR}/acl.conf\"}]",
        "Sources of rules, asked in order; the first verdict counts. Type `file` is there; where \
         another is asked for, what the files do not decide is denied.",
    )
    .fixed(),
    open("node_cache", "Cache of answers per node.").hidden(),
];

static CACHE: &[Field] = &[
    field("enable", Kind::Bool, "true", "Whether verdicts are cached."),
    field(
        "max_size",
        Kind::Int {
            min: 1,
            max: 1_048_576,
        },
        "32",
        "Verdicts per connection.",
    ),
    field("ttl", Kind::Duration, "1m", "Life of a verdict."),
    field(
        "excludes",
        Kind::List(&Kind::String),
        "[]",
        "Filters of topics that are not cached.",
    ),
];

pub(crate) fn build(v: View<'_>, variable: &dyn Fn(&str) -> Option<String>) -> Authorization {
    let cache = v.view("cache");
    Authorization {
        no_match: v.word("no_match", NoMatch::parse),
        deny_action: v.word("deny_action", DenyAction::parse),
        cache: AuthorizationCache {
            enable: cache.bool("enable"),
            max_size: cache.int("max_size"),
            ttl_ms: cache.ms("ttl"),
            excludes: cache.texts("excludes"),
        },
        sources: authentication::chain(v, "sources", variable),
    }
}
