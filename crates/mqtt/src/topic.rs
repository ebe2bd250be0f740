//! Topic names and topic filters: valid by construction, split into levels, matched, and read for
//! the prefixes `$share`, `$queue`, `$exclusive` and `$delayed`.
//!
//! A filter that breaks the rules is a value, [`FilterError`], so that one bad filter in a
//! SUBSCRIBE costs one 0x8F and not the connection.

use std::fmt;
use std::sync::Arc;

/// Longest topic name or filter in bytes: what a two-byte length can say [MQTT-4.7.3-3].
pub const TOPIC_LEN_MAX: usize = 65_535;

/// The group a `$queue/<filter>` subscription belongs to.
pub const QUEUE_GROUP: &str = "$queue";

const SHARE: &str = "$share/";
const QUEUE: &str = "$queue/";
const EXCLUSIVE: &str = "$exclusive/";
const DELAYED: &str = "$delayed/";

/// Why a string is not a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A topic name has at least one character [MQTT-4.7.3-1].
    #[error("the topic name is empty")]
    Empty,
    /// A topic name is at most 65,535 bytes long.
    #[error("the topic name is {len} bytes long, more than {TOPIC_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// U+0000 is not allowed [MQTT-4.7.3-2].
    #[error("the topic name contains U+0000")]
    Nul,
    /// `+` and `#` are for filters [MQTT-4.7.1-1].
    #[error("the topic name contains a wildcard")]
    Wildcard,
}

/// What is wrong with a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterFault {
    /// A filter has at least one character [MQTT-4.7.3-1].
    #[error("it is empty")]
    Empty,
    /// A filter is at most 65,535 bytes long.
    #[error("it is longer than {TOPIC_LEN_MAX} bytes")]
    TooLong,
    /// U+0000 is not allowed [MQTT-4.7.3-2].
    #[error("it contains U+0000")]
    Nul,
    /// `#` is the last level [MQTT-4.7.1-1].
    #[error("`#` is not its last level")]
    MultiLevelNotLast,
    /// `+` and `#` fill a whole level [MQTT-4.7.1-2].
    #[error("a wildcard shares its level with other characters")]
    WildcardNotAlone,
    /// A share name is not empty and has no wildcard [MQTT-4.8.2-1].
    #[error("its share name is missing, empty or has a wildcard")]
    ShareName,
    /// `$share`, `$queue` and `$exclusive` do not nest.
    #[error("its prefixes are nested")]
    Nested,
}

/// A string that is not a topic filter, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic filter {filter:?} is invalid: {fault}")]
pub struct FilterError {
    /// The string as it was received.
    pub filter: Box<str>,
    /// What is wrong with it.
    pub fault: FilterFault,
}

/// Checks that `topic` is a topic name: not empty, not too long, no wildcard, no U+0000.
pub fn check_name(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > TOPIC_LEN_MAX {
        return Err(TopicError::TooLong { len: topic.len() });
    }
    if topic.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    if has_wildcard(topic) {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

/// Checks a bare filter, one without `$share`, `$queue` or `$exclusive` prefix.
pub fn check_filter(filter: &str) -> Result<(), FilterFault> {
    if filter.is_empty() {
        return Err(FilterFault::Empty);
    }
    if filter.len() > TOPIC_LEN_MAX {
        return Err(FilterFault::TooLong);
    }
    if filter.as_bytes().contains(&0) {
        return Err(FilterFault::Nul);
    }
    if !has_wildcard(filter) {
        return Ok(());
    }
    let mut rest = levels(filter).peekable();
    while let Some(level) = rest.next() {
        if level == "#" {
            if rest.peek().is_some() {
                return Err(FilterFault::MultiLevelNotLast);
            }
        } else if level != "+" && has_wildcard(level) {
            return Err(FilterFault::WildcardNotAlone);
        }
    }
    Ok(())
}

/// Whether `text` contains `+` or `#`.
pub fn has_wildcard(text: &str) -> bool {
    text.bytes().any(|b| b == b'+' || b == b'#')
}

/// The levels of a topic name or bare filter; empty levels count.
pub fn levels(text: &str) -> std::str::Split<'_, char> {
    text.split('/')
}

/// How many levels a topic name or bare filter has; at least 1.
pub fn level_count(text: &str) -> usize {
    1 + text.bytes().filter(|b| *b == b'/').count()
}

/// Whether a bare filter matches a topic name.
///
/// A filter that starts with a wildcard matches no name that starts with `$` [MQTT-4.7.2-1].
/// Both sides are taken as valid; a name or filter that is not gives an answer, not a fault.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = levels(topic);
    for level in levels(filter) {
        if level == "#" {
            return true;
        }
        let Some(name) = names.next() else {
            return false;
        };
        if level != "+" && level != name {
            return false;
        }
    }
    names.next().is_none()
}

/// A topic name that keeps the rules; cloning it copies no bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `topic` with [`check_name`] and keeps it.
    pub fn new(topic: &str) -> Result<Self, TopicError> {
        check_name(topic)?;
        Ok(Self(topic.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its levels.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        levels(&self.0)
    }
}

/// The prefix a filter was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Prefix {
    Plain,
    Share,
    Queue,
    Exclusive,
}

/// A topic filter that keeps the rules, with its prefix read; cloning it copies no bytes.
///
/// ```
/// use dunlin_mqtt::TopicFilter;
/// let filter = TopicFilter::new("$share/workers/jobs/+").unwrap();
/// assert_eq!(filter.share(), Some("workers"));
/// assert_eq!(filter.filter(), "jobs/+");
/// assert_eq!(filter.as_str(), "$share/workers/jobs/+");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicFilter {
    text: Arc<str>,
    /// Where the bare filter begins in `text`.
    filter_at: u32,
    prefix: Prefix,
}

impl TopicFilter {
    /// Reads the prefix of `text` and checks the group and the bare filter behind it.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        match Self::split(text) {
            Ok((prefix, filter_at)) => Ok(Self {
                text: text.into(),
                filter_at: filter_at as u32,
                prefix,
            }),
            Err(fault) => Err(FilterError {
                filter: text.into(),
                fault,
            }),
        }
    }

    fn split(text: &str) -> Result<(Prefix, usize), FilterFault> {
        if text.len() > TOPIC_LEN_MAX {
            return Err(FilterFault::TooLong);
        }
        let (prefix, at) = if let Some(rest) = text.strip_prefix(SHARE) {
            let group = rest.find('/').ok_or(FilterFault::ShareName)?;
            if group == 0 || has_wildcard(&rest[..group]) || rest[..group].contains('\0') {
                return Err(FilterFault::ShareName);
            }
            (Prefix::Share, SHARE.len() + group + 1)
        } else if text.starts_with(QUEUE) {
            (Prefix::Queue, QUEUE.len())
        } else if text.starts_with(EXCLUSIVE) {
            (Prefix::Exclusive, EXCLUSIVE.len())
        } else if text == "$share" {
            return Err(FilterFault::ShareName);
        } else {
            (Prefix::Plain, 0)
        };
        let filter = &text[at..];
        check_filter(filter)?;
        if at > 0
            && [SHARE, QUEUE, EXCLUSIVE]
                .iter()
                .any(|p| filter.starts_with(p))
        {
            return Err(FilterFault::Nested);
        }
        Ok((prefix, at))
    }

    /// The whole text as the client wrote it, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The group of a shared subscription; [`QUEUE_GROUP`] for `$queue/`.
    pub fn share(&self) -> Option<&str> {
        match self.prefix {
            Prefix::Share => Some(&self.text[SHARE.len()..self.filter_at as usize - 1]),
            Prefix::Queue => Some(QUEUE_GROUP),
            Prefix::Plain | Prefix::Exclusive => None,
        }
    }

    /// The bare filter behind the prefix: what is matched against topic names.
    pub fn filter(&self) -> &str {
        &self.text[self.filter_at as usize..]
    }

    /// Whether it is a shared subscription (`$share/` or `$queue/`).
    pub fn is_shared(&self) -> bool {
        matches!(self.prefix, Prefix::Share | Prefix::Queue)
    }

    /// Whether it is an exclusive subscription (`$exclusive/`).
    pub fn is_exclusive(&self) -> bool {
        self.prefix == Prefix::Exclusive
    }

    /// Whether the bare filter contains a wildcard.
    pub fn has_wildcard(&self) -> bool {
        has_wildcard(self.filter())
    }

    /// The levels of the bare filter.
    pub fn levels(&self) -> std::str::Split<'_, char> {
        levels(self.filter())
    }

    /// Whether the bare filter matches a topic name; see [`matches()`].
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.filter(), topic)
    }
}

/// By the text alone, from which the rest follows: `Borrow<str>` wants the hash of the text.
impl std::hash::Hash for TopicFilter {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// Lets maps keyed by it be asked with `&str`.
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}
as_text!(TopicName);
as_text!(TopicFilter);

impl std::str::FromStr for TopicName {
    type Err = TopicError;

    fn from_str(topic: &str) -> Result<Self, TopicError> {
        Self::new(topic)
    }
}

impl std::str::FromStr for TopicFilter {
    type Err = FilterError;

    fn from_str(filter: &str) -> Result<Self, FilterError> {
        Self::new(filter)
    }
}

/// A publish to `$delayed/<seconds>/<topic>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delayed<'a> {
    /// How long to hold the message, in seconds.
    pub delay_s: u32,
    /// The topic to publish to afterwards.
    pub topic: &'a str,
}

/// Why a `$delayed/` topic cannot be obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelayedError {
    /// The level behind `$delayed/` is not a number of seconds in `u32`.
    #[error("the delay is not a number of seconds")]
    Delay,
    /// There is no topic behind the delay.
    #[error("no topic behind the delay")]
    Topic,
}

/// Reads `$delayed/<seconds>/<topic>`; `None` for any other topic.
pub fn delayed(topic: &str) -> Option<Result<Delayed<'_>, DelayedError>> {
    let rest = topic.strip_prefix(DELAYED)?;
    Some(read_delayed(rest))
}

fn read_delayed(rest: &str) -> Result<Delayed<'_>, DelayedError> {
    let (delay, topic) = rest.split_once('/').ok_or(DelayedError::Topic)?;
    // `u32::from_str` would take a leading `+`.
    if !delay.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DelayedError::Delay);
    }
    let delay_s = delay.parse().map_err(|_| DelayedError::Delay)?;
    if topic.is_empty() {
        return Err(DelayedError::Topic);
    }
    Ok(Delayed { delay_s, topic })
}

#[cfg(test)]
mod tests;
