//! What a rule's topic filter says about a topic, and about another filter.
//!
//! A subscription is allowed if everything it can bring is allowed ([`covers`]), and denied if
//! anything it can bring is denied ([`meets`]). EMQX compares filters as if they were topics, so
//! that a rule for `t/+` lets `t/#` pass and one against `t/secret` does not stop it; here a rule
//! means what it says.

/// Whether `topic` (a topic name, or a filter taken literally) is among what `filter` matches.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    covers(filter, topic)
}

/// Whether `filter` matches every topic that `other` matches.
pub(crate) fn covers(filter: &str, other: &str) -> bool {
    let (mut ours, mut theirs) = (filter.split('/'), other.split('/'));
    let mut first = true;
    loop {
        let hidden = std::mem::take(&mut first) && other.starts_with('$');
        match (ours.next(), theirs.next()) {
            (Some("#"), _) => return !hidden,
            (Some("+"), Some("#")) => return false,
            (Some("+"), Some(_)) if !hidden => {}
            (Some(level), Some(their)) if level == their => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether there is a topic that both match.
pub(crate) fn meets(filter: &str, other: &str) -> bool {
    let (mut ours, mut theirs) = (filter.split('/'), other.split('/'));
    let mut first = true;
    loop {
        let top = std::mem::take(&mut first);
        let hidden = |level: &str| top && level.starts_with('$');
        match (ours.next(), theirs.next()) {
            (Some("#"), level) | (level, Some("#")) => {
                return level.is_none_or(|level| !hidden(level));
            }
            (Some("+"), Some(level)) | (Some(level), Some("+")) if !hidden(level) => {}
            (Some(level), Some(their)) if level == their => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [&str; 22] = [
        "#", "+", "a", "b", "a/#", "a/+", "a/b", "+/b", "+/#", "+/+", "a/+/#", "a/b/#", "a/b/c",
        "a/+/c", "", "/", "/+", "/#", "$s/#", "$s/a", "$s/+", "+/a",
    ];
    const TOPICS: [&str; 14] = [
        "a", "b", "a/b", "a/c", "a/b/c", "a/x/c", "", "/", "/a", "$s", "$s/a", "$s/b", "x/a",
        "q/r/s",
    ];

    /// Straight from the standard.
    fn naive(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let (filter, topic): (Vec<_>, Vec<_>) =
            (filter.split('/').collect(), topic.split('/').collect());
        for (at, level) in filter.iter().enumerate() {
            match (*level, topic.get(at)) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(there)) if level == *there => {}
                _ => return false,
            }
        }
        filter.len() == topic.len()
    }

    #[test]
    fn a_filter_matches_topics_as_the_standard_says() {
        for filter in FILTERS {
            for topic in TOPICS {
                assert_eq!(
                    matches(filter, topic),
                    naive(filter, topic),
                    "{filter} {topic}"
                );
            }
        }
    }

    #[test]
    fn what_covers_matches_all_of_it_and_what_does_not_meet_none() {
        for filter in FILTERS {
            assert!(covers(filter, filter) && meets(filter, filter), "{filter}");
            for other in FILTERS {
                assert_eq!(
                    meets(filter, other),
                    meets(other, filter),
                    "{filter} {other}"
                );
                for topic in TOPICS.into_iter().filter(|topic| naive(other, topic)) {
                    if covers(filter, other) {
                        assert!(
                            naive(filter, topic),
                            "{filter} covers {other} but not {topic}"
                        );
                    }
                    if naive(filter, topic) {
                        assert!(meets(filter, other), "{filter} meets {other} at {topic}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_emqx_lets_pass_is_told_apart() {
        assert!(!covers("t/+", "t/#") && meets("t/+", "t/#"));
        assert!(!covers("+", "#") && !covers("t/+/+", "t/a/#"));
        assert!(meets("t/secret", "t/#") && !covers("t/secret", "t/#"));
        assert!(covers("t/#", "t") && covers("t/#", "t/+/x") && covers("#", "+/+"));
        assert!(!meets("$SYS/#", "#") && !covers("#", "$SYS/#"));
    }
}
