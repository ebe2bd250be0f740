//! `log`: levels of the log handlers of this node, until its next start.

use dunlin_config::settings::LogLevel;
use dunlin_server::admin::Admin;

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "log",
    forms: &[
        ("log set-level <Level>", "Set the overall log level"),
        ("log primary-level", "Show the primary log level now"),
        ("log primary-level <Level>", "Set the primary log level"),
        ("log handlers list", "Show log handlers"),
        (
            "log handlers set-level <HandlerId> <Level>",
            "Set log level of a log handler",
        ),
    ],
};

pub(super) fn run(admin: &Admin, args: &[&str]) -> Answer {
    match args {
        ["set-level" | "primary-level", level] => set(admin, None, level),
        ["primary-level"] => {
            // The lowest level any handler shows is the one that decides what is looked at.
            let levels = admin
                .log()
                .handlers()
                .into_iter()
                .map(|handler| handler.level);
            let lowest = levels
                .min_by_key(|level| rank(*level))
                .map_or("none", LogLevel::as_str);
            Answer::done(format!("{lowest}\n"))
        }
        ["handlers", "list"] => Answer::done(
            admin
                .log()
                .handlers()
                .iter()
                .map(|handler| line(&handler.name, handler.level))
                .collect::<String>(),
        ),
        ["handlers", "set-level", name, level] => set(admin, Some(name), level),
        _ => Answer::usage(&USAGE),
    }
}

fn set(admin: &Admin, handler: Option<&str>, word: &str) -> Answer {
    let Some(level) = LEVELS.iter().copied().find(|level| level.as_str() == word) else {
        let words: Vec<&str> = LEVELS.iter().map(|level| level.as_str()).collect();
        return Answer::failed(format!(
            "Invalid level: '{word}'; one of {}\n",
            words.join(", ")
        ));
    };
    if admin.log().set_level(handler, level) {
        Answer::done(format!("{word}\n"))
    } else {
        Answer::failed(format!(
            "[error] no log handler '{}'\n",
            handler.unwrap_or_default()
        ))
    }
}

/// All levels, from the one that shows most.
const LEVELS: &[LogLevel] = &[
    LogLevel::All,
    LogLevel::Debug,
    LogLevel::Info,
    LogLevel::Notice,
    LogLevel::Warning,
    LogLevel::Error,
    LogLevel::Critical,
    LogLevel::Alert,
    LogLevel::Emergency,
];

fn rank(level: LogLevel) -> usize {
    LEVELS
        .iter()
        .position(|known| *known == level)
        .unwrap_or(LEVELS.len())
}

fn line(name: &str, level: LogLevel) -> String {
    let destination = if name == "console" { "console" } else { "file" };
    format!(
        "LogHandler(id={name}, level={}, destination={destination}, status=started)\n",
        level.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emqx_s_line() {
        assert_eq!(
            line("console", LogLevel::Warning),
            "LogHandler(id=console, level=warning, destination=console, status=started)\n"
        );
    }

    #[test]
    fn levels_are_in_order() {
        assert!(rank(LogLevel::Debug) < rank(LogLevel::Warning));
        assert!(rank(LogLevel::Warning) < rank(LogLevel::Critical));
    }
}
