//! Everything that can be wrong with a configuration, as data.
//!
//! `Display` is for people: place, path, reason, cure. `emqx_map` is the line EMQX
//! prints, for scripts that read it. All errors of a load are collected; the first
//! never hides the second.

use std::fmt;
use std::sync::Arc;

use crate::hocon::Value;

/// Which layer of the configuration a value came from, lowest precedence first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerKind {
    /// The default of the field.
    Default,
    /// `etc/base.hocon`: defaults of the operator.
    Base,
    /// `data/configs/cluster.hocon`: changes made at runtime.
    Cluster,
    /// `etc/emqx.conf`.
    Etc,
    /// An `EMQX_…` variable.
    Env,
    /// `cluster-override.conf` or `local-override.conf` of EMQX 5.0, above the environment.
    LegacyOverride,
    /// What an operator wants to change, before it is anywhere.
    Change,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The layer.
    pub layer: LayerKind,
    /// File path as given, or the name of the variable.
    pub file: Arc<str>,
    /// Line from 1; 0 where there are no lines (variables, defaults).
    pub line: u32,
    /// Column from 1, in characters; 0 where there are no lines.
    pub column: u32,
}

impl Place {
    /// The place of values nobody wrote.
    pub fn default_value() -> Self {
        Self {
            layer: LayerKind::Default,
            file: Arc::from("default"),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 && self.layer != LayerKind::Default {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// What is wrong with the text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syntax {
    /// A character that cannot stand here.
    IllegalCharacter(char),
    /// A quoted string without its closing quote.
    UnterminatedString,
    /// `"""` without its closing `"""`.
    UnterminatedTripleQuote,
    /// `${` that is not a path in braces.
    BadSubstitution,
    /// A key with nothing after `=` or `:`.
    MissingValue {
        /// The key.
        key: String,
    },
    /// A word where `=`, `:` or `{` should follow.
    MissingSeparator {
        /// The word.
        key: String,
    },
    /// Two values that cannot stand side by side, for example `1 2`.
    Adjacent {
        /// What was found second.
        found: String,
    },
    /// A value of another type cannot be joined with the one before it.
    CannotConcat,
    /// A token that does not fit.
    Unexpected {
        /// The token.
        found: String,
    },
    /// `{` or `[` without its partner.
    Unclosed(char),
    /// `}` or `]` without its partner.
    Unopened(char),
    /// Nesting deeper than `MAX_DEPTH`.
    TooDeep,
    /// Text longer than `MAX_TEXT_BYTES`, or more values than `MAX_VALUES`.
    TooLarge,
    /// An empty key.
    EmptyKey,
    /// `include` without a file name.
    BadInclude,
    /// `+=` does not exist in this dialect.
    PlusEquals,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IllegalCharacter(c) => {
                write!(f, "illegal character {c:?}; put the value in double quotes")
            }
            Self::UnterminatedString => f.write_str("this string has no closing \" on its line"),
            Self::UnterminatedTripleQuote => f.write_str("this string has no closing \"\"\""),
            Self::BadSubstitution => {
                f.write_str("not a substitution; write ${path.to.key}, or quote the text")
            }
            Self::MissingValue { key } => {
                write!(
                    f,
                    "no value for `{key}`; write `{key} = \"\"` for an empty one, and put \
                           values with `:` in double quotes"
                )
            }
            Self::MissingSeparator { key } => {
                write!(f, "expected `=`, `:` or `{{` after `{key}`")
            }
            Self::Adjacent { found } => {
                write!(
                    f,
                    "unexpected {found} after a value; separate entries with a comma or \
                           quote the whole value"
                )
            }
            Self::CannotConcat => f.write_str(
                "values of different types stand side by side; put a comma between them",
            ),
            Self::Unexpected { found } => write!(f, "unexpected {found}"),
            Self::Unclosed(c) => write!(f, "`{c}` is never closed"),
            Self::Unopened(c) => write!(f, "`{c}` was never opened"),
            Self::TooDeep => {
                write!(f, "nested deeper than {} levels", crate::hocon::MAX_DEPTH)
            }
            Self::TooLarge => f.write_str("the configuration is too large"),
            Self::EmptyKey => f.write_str("a key must not be empty"),
            Self::BadInclude => {
                f.write_str("write `include \"file\"` or `include required(\"file\")`")
            }
            Self::PlusEquals => {
                f.write_str("`+=` is not supported; write the whole list, or `list.3 = …`")
            }
        }
    }
}

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigError {
    /// The text cannot be read.
    Syntax {
        /// Where.
        place: Place,
        /// Why.
        what: Syntax,
    },
    /// `${path}` names nothing.
    Unresolved {
        /// Where.
        place: Place,
        /// The path between the braces.
        reference: String,
    },
    /// `include required("file")` and there is no such file, or it cannot be read.
    Include {
        /// Where.
        place: Place,
        /// The file as written.
        file: String,
        /// Why.
        reason: IncludeError,
    },
    /// A key no field has.
    UnknownKey {
        /// Path of the object.
        parent: String,
        /// The key.
        key: String,
        /// Where it was written.
        place: Place,
        /// The closest known name, if one is close.
        nearest: Option<String>,
        /// All names that would have been known.
        siblings: Vec<String>,
    },
    /// A required field is missing.
    Required {
        /// Its path.
        path: String,
        /// What to write.
        example: String,
    },
    /// A value that cannot be converted.
    Type {
        /// Its path.
        path: String,
        /// Where it was written.
        place: Place,
        /// What was expected, for example "a duration such as 15s".
        expected: String,
        /// The text EMQX has for it, for example "Not a valid bytesize".
        reason: String,
        /// The value; masked when secret.
        value: Value,
    },
    /// A word that is not allowed.
    Enum {
        /// Its path.
        path: String,
        /// Where it was written.
        place: Place,
        /// The word.
        value: Value,
        /// The allowed ones.
        allowed: Vec<String>,
        /// The closest allowed one, if one is close.
        nearest: Option<String>,
    },
    /// A number outside its range.
    Range {
        /// Its path.
        path: String,
        /// Where it was written.
        place: Place,
        /// The number.
        value: Value,
        /// Lowest allowed.
        min: i64,
        /// Highest allowed.
        max: i64,
    },
    /// `list.N = …` with an impossible N.
    ArrayIndex {
        /// Path of the list.
        path: String,
        /// Where it was written.
        place: Place,
        /// The index.
        index: i64,
        /// Highest possible index.
        max: usize,
    },
    /// Values that are fine alone but not together.
    Integrity {
        /// Path of the culprit.
        path: String,
        /// Where it was written.
        place: Place,
        /// Which rule.
        rule: Rule,
    },
}

/// Why an include failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncludeError {
    /// No such file.
    Missing,
    /// It includes itself, directly or through others.
    Cycle,
    /// Included from more than `MAX_INCLUDE_DEPTH` files.
    TooDeep,
    /// The system's reason.
    Unreadable(String),
}

/// The rules that look at more than one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The short part of a node name.
    NodeName,
    /// The host part of a node name.
    NodeHost,
    /// DNS discovery by address needs an address as host.
    DnsNeedsAddress {
        /// `a` or `aaaa`.
        record_type: String,
    },
    /// DNS discovery by address and the other family.
    DnsFamily {
        /// `a` or `aaaa`.
        record_type: String,
        /// `ipv4` or `ipv6`.
        family: String,
    },
    /// `etcd` without servers.
    EtcdServer,
    /// `k8s` with an API server that is no URL.
    K8sUrl,
    /// `k8s` with an `app_name` that cannot be the short part of a node name.
    K8sAppName,
    /// `statsd`: samples must not be rarer than datagrams.
    StatsdIntervals,
    /// `dashboard.sample_interval`.
    SampleInterval,
    /// Two enabled listeners on the same address.
    DuplicateBind {
        /// The address.
        bind: String,
        /// Path of the other listener.
        other: String,
    },
    /// A seed that is not a node name.
    Seed {
        /// The seed.
        seed: String,
    },
    /// The empty cookie.
    EmptyCookie,
    /// A CPU low watermark above the high one.
    Watermarks,
    /// `time_offset` of a log handler.
    TimeOffset,
    /// `tcp_options.keepalive`.
    TcpKeepalive,
}

impl Rule {
    /// The text of rules that have no data.
    const fn fixed_text(&self) -> &'static str {
        match self {
            Self::NodeName => {
                "Invalid node name, should be of format '^[0-9A-Za-z_-]+$' before the @, for \
                 example emqx@127.0.0.1."
            }
            Self::NodeHost => {
                "The part after @ must be an IP address or a host name, for example \
                 emqx@127.0.0.1."
            }
            Self::K8sUrl => {
                "must be a URL that begins with http:// or https://, for example \
                 \"https://kubernetes.default.svc:443\""
            }
            Self::K8sAppName => {
                "is the part of all node names before the @ and must be of format \
                 '^[0-9A-Za-z_-]+$', for example emqx"
            }
            Self::EtcdServer => {
                "cluster.etcd.server is required when discovery_strategy is etcd, for example \
                 \"http://127.0.0.1:2379\""
            }
            Self::StatsdIntervals => {
                "sample_time_interval must not be greater than flush_time_interval"
            }
            Self::SampleInterval => "must be between 1 and 60 and be a divisor of 60.",
            Self::EmptyCookie => "the cookie must not be empty; all nodes of a cluster share it",
            Self::Watermarks => "cpu_low_watermark must not be above cpu_high_watermark",
            Self::TimeOffset => {
                "Invalid time offset, should be of format: +[hh]:[mm], i.e. +08:00 or -02:00"
            }
            Self::TcpKeepalive => {
                "must be none, or idle seconds, interval seconds and probes such as \"240,30,5\""
            }
            Self::DnsNeedsAddress { .. }
            | Self::DnsFamily { .. }
            | Self::DuplicateBind { .. }
            | Self::Seed { .. } => "",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DnsNeedsAddress { record_type } => write!(
                f,
                "Node name must be of name@IP format for DNS cluster discovery strategy with \
                 '{record_type}' record type."
            ),
            Self::DnsFamily {
                record_type,
                family,
            } => write!(
                f,
                "Node name address {family} is incompatible with DNS record type {record_type}"
            ),
            Self::DuplicateBind { bind, other } => write!(
                f,
                "{bind} is already taken by {other}; give one of them another port or set \
                 enable = false"
            ),
            Self::Seed { seed } => write!(f, "`{seed}` is not a node name; write name@host"),
            fixed => f.write_str(fixed.fixed_text()),
        }
    }
}

impl ConfigError {
    /// Where the fault is, if it is somewhere.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Required { .. } => None,
            Self::Syntax { place, .. }
            | Self::Unresolved { place, .. }
            | Self::Include { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::Type { place, .. }
            | Self::Enum { place, .. }
            | Self::Range { place, .. }
            | Self::ArrayIndex { place, .. }
            | Self::Integrity { place, .. } => Some(place),
        }
    }

    /// The configuration path the fault is about; empty for syntax.
    pub fn path(&self) -> String {
        match self {
            Self::Syntax { .. } | Self::Unresolved { .. } | Self::Include { .. } => String::new(),
            Self::UnknownKey { parent, key, .. } => join(parent, key),
            Self::Required { path, .. }
            | Self::Type { path, .. }
            | Self::Enum { path, .. }
            | Self::Range { path, .. }
            | Self::ArrayIndex { path, .. }
            | Self::Integrity { path, .. } => path.clone(),
        }
    }

    /// The one-line map EMQX prints for this fault.
    pub fn emqx_map(&self) -> String {
        match self {
            Self::Syntax { place, what } => scan_error(place, &what.to_string()),
            Self::Unresolved { place, reference } => format!(
                "{{resolve_error,<<\"failed_to_resolve <<\\\"{reference}\\\">> at_line {} \
                 in_file {}\">>}}",
                place.line, place.file
            ),
            Self::Include { file, .. } => format!("{{enoent,<<\"{file}\">>}}"),
            Self::UnknownKey {
                parent,
                key,
                siblings,
                ..
            } => format!(
                "#{{kind => validation_error,path => \"{parent}\",reason => unknown_fields,\
                 unknown => \"{key}\",unmatched => \"{}\"}}",
                siblings.join(",")
            ),
            Self::Required { path, .. } => validation(path, "required_field", None),
            Self::Type {
                path,
                reason,
                value,
                ..
            } => validation(path, &format!("{reason:?}"), Some(value)),
            Self::Enum { path, value, .. } => {
                validation(path, "unable_to_convert_to_enum_symbol", Some(value))
            }
            Self::Range {
                path,
                value,
                min,
                max,
                ..
            } => validation(
                path,
                &format!("\"must be in range {min}..{max}\""),
                Some(value),
            ),
            Self::ArrayIndex { index, max, .. } => {
                let why = if *index < 1 {
                    "index starts from 1".to_owned()
                } else {
                    format!("should not be greater than {max}.")
                };
                format!("{{bad_array_index,\"{why}\"}}")
            }
            Self::Integrity { path, rule, .. } => format!(
                "#{{kind => validation_error,path => \"{path}\",reason => \
                 integrity_validation_failure,result => {:?}}}",
                rule.to_string()
            ),
        }
    }
}

fn scan_error(place: &Place, reason: &str) -> String {
    format!(
        "{{parse_error,#{{file => {:?},line => {},reason => {reason:?}}}}}",
        &*place.file, place.line
    )
}

fn validation(path: &str, reason: &str, value: Option<&Value>) -> String {
    let value = value
        .map(|v| format!(",value => {}", v.erlang()))
        .unwrap_or_default();
    format!("#{{kind => validation_error,path => \"{path}\",reason => {reason}{value}}}")
}

pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(f, "{place}: ")?;
        }
        match self {
            Self::Syntax { what, .. } => write!(f, "{what}"),
            Self::Unresolved { reference, .. } => write!(
                f,
                "${{{reference}}} names no value; environment variables are not looked up here, \
                 write ${{?{reference}}} if it may be missing"
            ),
            Self::Include { file, reason, .. } => write_include(f, file, reason),
            Self::UnknownKey {
                parent,
                key,
                nearest,
                siblings,
                ..
            } => {
                write!(f, "{}: unknown key", join(parent, key))?;
                write_known(f, nearest.as_deref(), siblings)
            }
            Self::Required { path, example } => write!(
                f,
                "{path}: is required; write for example `{example}` in etc/emqx.conf"
            ),
            Self::Type {
                path,
                expected,
                value,
                ..
            } => write!(f, "{path}: {} is not {expected}", value.shown()),
            Self::Enum {
                path,
                value,
                allowed,
                nearest,
                ..
            } => {
                write!(
                    f,
                    "{path}: {} is not one of {}",
                    value.shown(),
                    allowed.join(", ")
                )?;
                write_nearest(f, nearest.as_deref())
            }
            Self::Range {
                path,
                value,
                min,
                max,
                ..
            } => write!(
                f,
                "{path}: {} is out of range, allowed is {min} to {max}",
                value.shown()
            ),
            Self::ArrayIndex {
                path, index, max, ..
            } => write!(
                f,
                "{path}: there is no element {index} to set; elements count from 1, and here \
                 only 1 to {max} can be set"
            ),
            Self::Integrity { path, rule, .. } => write!(f, "{path}: {rule}"),
        }
    }
}

fn write_nearest(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    match nearest {
        Some(name) => write!(f, "; did you mean `{name}`?"),
        None => Ok(()),
    }
}

fn write_known(
    f: &mut fmt::Formatter<'_>,
    nearest: Option<&str>,
    siblings: &[String],
) -> fmt::Result {
    if nearest.is_some() || siblings.is_empty() {
        return write_nearest(f, nearest);
    }
    write!(f, "; known here: {}", siblings.join(", "))
}

fn write_include(f: &mut fmt::Formatter<'_>, file: &str, why: &IncludeError) -> fmt::Result {
    match why {
        IncludeError::Missing => write!(f, "the required file `{file}` does not exist"),
        IncludeError::Cycle => write!(f, "`{file}` includes itself"),
        IncludeError::TooDeep => write!(
            f,
            "`{file}` is included through more than {} files",
            crate::hocon::MAX_INCLUDE_DEPTH
        ),
        IncludeError::Unreadable(why) => write!(f, "`{file}` cannot be read: {why}"),
    }
}

impl std::error::Error for ConfigError {}

/// Something an operator should know although the configuration is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The value of a variable is not what it seems: HOCON reads it differently.
    EnvValueChanged {
        /// The variable.
        variable: String,
        /// Its text; masked when secret.
        given: String,
        /// What HOCON makes of it; masked when secret.
        read: String,
        /// How to write it so that it stays.
        cure: String,
    },
    /// Variables under a known root that name no field.
    UnknownEnv {
        /// All of them, sorted.
        variables: Vec<String>,
    },
    /// A root that no version of EMQX has; it is dropped.
    UnknownRoot {
        /// The key.
        key: String,
        /// Where it was written.
        place: Place,
        /// The closest known root, if one is close.
        nearest: Option<String>,
    },
    /// A key that EMQX has given up, or that we only accept.
    Deprecated {
        /// Its path.
        path: String,
        /// Where it was written.
        place: Place,
        /// What to do instead.
        instead: String,
    },
    /// A key asks for something that matters and that this node does not do.
    WithoutEffect {
        /// Its path.
        path: String,
        /// Where it was written.
        place: Place,
        /// What that leaves open.
        leaves_open: &'static str,
    },
    /// `#` or `//` directly behind a word cut it short.
    CutByComment {
        /// Where.
        place: Place,
        /// What is left.
        word: String,
    },
    /// `${VARIABLE}` at the start of a path, and it has no value.
    UnresolvedPathVariable {
        /// Path of the field.
        path: String,
        /// The variable.
        variable: String,
    },
    /// A listener that only the defaults name does not start: a written one has its address.
    BuiltInYields {
        /// The listener that does not start.
        built_in: String,
        /// The one that has its address.
        to: String,
        /// Where that one was written.
        place: Place,
    },
    /// The packaged cookie is in use.
    DefaultCookie,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnvValueChanged {
                variable,
                given,
                read,
                cure,
            } => write!(
                f,
                "{variable}: the value {given} is read as {read}, because values are HOCON; \
                 write {cure} to keep it"
            ),
            Self::UnknownEnv { variables } => {
                let quoted: Vec<_> = variables.iter().map(|v| format!("{v:?}")).collect();
                write!(f, "unknown_env_vars: [{}]", quoted.join(","))
            }
            Self::UnknownRoot {
                key,
                place,
                nearest,
            } => {
                write!(f, "{place}: {key}: unknown root key, ignored")?;
                write_nearest(f, nearest.as_deref())
            }
            Self::Deprecated {
                path,
                place,
                instead,
            } => write!(f, "{place}: {path}: deprecated; {instead}"),
            Self::WithoutEffect {
                path,
                place,
                leaves_open,
            } => write!(f, "{place}: {path}: accepted without effect; {leaves_open}"),
            Self::CutByComment { place, word } => write!(
                f,
                "{place}: a comment starts directly behind `{word}`; if it belongs to the value, \
                 put the value in double quotes"
            ),
            Self::UnresolvedPathVariable { path, variable } => {
                write!(
                    f,
                    "cannot_resolve_env_variable: {variable} in {path} has no value"
                )
            }
            Self::BuiltInYields {
                built_in,
                to,
                place,
            } => write!(
                f,
                "{place}: {built_in} does not start, because {to} has its address; configure it \
                 with another `bind` to have both"
            ),
            Self::DefaultCookie => f.write_str("Default (insecure) Erlang cookie is in use."),
        }
    }
}
