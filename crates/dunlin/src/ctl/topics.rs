//! `topics`: the routes of the whole cluster.

use dunlin_server::admin::{Admin, AdminError, TopicRow};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "topics",
    forms: &[
        ("topics list", "List all topics"),
        ("topics show <Topic>", "Show a topic"),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    Ok(match args {
        ["list"] => match admin.topics().await?.as_slice() {
            [] => Answer::done("No topics.\n"),
            rows => Answer::done(lines(rows)),
        },
        ["show", topic] => match admin.topics_of(topic).await?.as_slice() {
            [] => Answer::failed("No topics.\n"),
            rows => Answer::done(lines(rows)),
        },
        _ => Answer::usage(&USAGE),
    })
}

/// A shared subscription appears as its plain filter, and so possibly twice; once is enough.
fn lines(rows: &[TopicRow]) -> String {
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| format!("{} -> {}\n", plain(&row.topic), row.node))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines.concat()
}

fn plain(filter: &str) -> &str {
    let rest = filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'));
    let queue = filter.strip_prefix("$queue/");
    rest.map(|(_, plain)| plain).or(queue).unwrap_or(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topic: &str, node: &str) -> TopicRow {
        TopicRow {
            topic: topic.to_owned(),
            node: node.to_owned(),
        }
    }

    #[test]
    fn shared_filters_lose_their_prefix_and_repeat_no_line() {
        let rows = [
            row("$share/g/t/1", "b@h"),
            row("$share/h/t/1", "b@h"),
            row("t/1", "a@h"),
        ];
        assert_eq!(lines(&rows), "t/1 -> a@h\nt/1 -> b@h\n");
    }
}
