//! "Did you mean …?": the closest known name.

/// Names longer than this are not compared; no key is that long.
const MAX_NAME_CHARS: usize = 64;

/// The candidate closest to `word`, if it is close enough to be a typing error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > MAX_NAME_CHARS {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= tolerance(length.max(name.chars().count())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Typing errors forgiven in a word of that many characters.
const fn tolerance(length: usize) -> usize {
    match length {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(MAX_NAME_CHARS).collect();
    let b: Vec<char> = b.chars().take(MAX_NAME_CHARS).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replace = previous[j] + usize::from(a[i] != b[j]);
            let mut cost = replace.min(previous[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        let known = ["autoheal", "autoclean", "name", "discovery_strategy"];
        let check = |word, expected| assert_eq!(nearest(word, known), expected, "{word}");
        check("autohea1", Some("autoheal"));
        check("auto_heal", Some("autoheal"));
        check("discovery_stratgey", Some("discovery_strategy"));
        check("nmae", Some("name"));
        check("bananas", None);
        check("", None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
