//! `broker`: what the node is, and its gauges and counters.

use dunlin_api::time;
use dunlin_server::admin::{Admin, AdminError, BrokerDescription, Figures, Scope};

use super::help::Usage;
use super::{Answer, text};

pub(super) const USAGE: Usage = Usage {
    name: "broker",
    forms: &[
        ("broker", "Show broker version, uptime and description"),
        (
            "broker stats",
            "Show broker statistics of clients, topics, subscribers",
        ),
        ("broker metrics", "Show broker metrics"),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    Ok(match args {
        [] => description(&admin.broker()),
        ["stats"] => figures(&admin.stats(Scope::Local).await?),
        ["metrics"] => figures(&admin.metrics(Scope::Local).await?),
        _ => Answer::usage(&USAGE),
    })
}

fn description(broker: &BrokerDescription) -> Answer {
    Answer::done(format!(
        "sysdescr  : {}\nversion   : {}\ndatetime  : {}\nuptime    : {}\n",
        broker.sysdescr,
        broker.version,
        time::rfc3339(broker.datetime_ms),
        text::uptime(broker.uptime_ms),
    ))
}

fn figures(nodes: &[Figures]) -> Answer {
    let rows = nodes.iter().flat_map(|node| &node.values);
    Answer::done(
        rows.map(|(name, value)| text::counter(name, *value))
            .collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_lines() {
        let answer = description(&BrokerDescription {
            sysdescr: "Dunlin".to_owned(),
            version: "0.1.0".to_owned(),
            datetime_ms: 0,
            uptime_ms: 61_000,
        });
        assert_eq!(
            answer.text,
            "sysdescr  : Dunlin\nversion   : 0.1.0\n\
             datetime  : 1970-01-01T00:00:00.000+00:00\nuptime    : 1 minutes, 1 seconds\n"
        );
    }
}
