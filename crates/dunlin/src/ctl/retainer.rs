//! `retainer`: the retained messages of the cluster.

use dunlin_server::admin::{Admin, AdminError};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "retainer",
    forms: &[
        ("retainer info", "Show the count of retained messages"),
        ("retainer topics", "Show all topics of retained messages"),
        (
            "retainer topics <Start> <Limit>",
            "Show topics of retained messages by the specified range",
        ),
        ("retainer clean", "Clean all retained messages"),
        (
            "retainer clean <Topic>",
            "Clean retained messages by the specified topic filter",
        ),
    ],
};

/// Topics taken from the table at once, so that a long listing never holds its lock for long.
const PAGE_ROWS: usize = 1000;

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    match args {
        ["info"] => {
            let count = admin.retained_count();
            Ok(Answer::done(format!(
                "Number of retained messages: {count}\n"
            )))
        }
        ["topics"] => topics(admin, 1, usize::MAX),
        ["topics", start, limit] => match (start.parse(), limit.parse()) {
            (Ok(start), Ok(limit)) => topics(admin, start, limit),
            _ => Ok(Answer::usage(&USAGE)),
        },
        ["clean"] => clean(admin, "#").await,
        ["clean", filter] => clean(admin, filter).await,
        _ => Ok(Answer::usage(&USAGE)),
    }
}

/// Topics number `start` (from 1) to `start + limit`.
fn topics(admin: &Admin, start: usize, limit: usize) -> Result<Answer, AdminError> {
    let mut text = String::new();
    let (mut after, mut number, mut left) = (None::<String>, 0_usize, limit);
    loop {
        let rows = admin.retained(None, after.as_deref(), PAGE_ROWS)?;
        for row in &rows {
            number += 1;
            if number >= start && left > 0 {
                text.push_str(&row.topic);
                text.push('\n');
                left -= 1;
            }
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE_ROWS && left > 0 => after = Some(last.topic.clone()),
            _ => return Ok(Answer::done(text)),
        }
    }
}

async fn clean(admin: &Admin, filter: &str) -> Result<Answer, AdminError> {
    admin.clean_retained(filter).await?;
    Ok(Answer::done(""))
}
