//! The log as a whole: events in, lines out.

use std::collections::BTreeMap;
use std::fs;

use dunlin_config::settings::{LogFile, LogFormatter, PayloadEncode, TimeOffset, TimestampFormat};

use super::*;

fn handler(level: LogLevel, formatter: LogFormatter) -> LogHandler {
    LogHandler {
        enable: Some(true),
        level,
        formatter,
        timestamp_format: TimestampFormat::Auto,
        time_offset: TimeOffset::Utc,
        payload_encode: PayloadEncode::Text,
    }
}

struct World {
    dir: tempfile::TempDir,
    handle: LogHandle,
    shared: Arc<Shared>,
}

fn world(level: LogLevel, formatter: LogFormatter) -> World {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = LogFile {
        handler: handler(level, formatter),
        path: dir.path().join("emqx.log").display().to_string(),
        rotation_count: 10,
        rotation_bytes: None,
    };
    let mut console = handler(level, formatter);
    console.enable = Some(false);
    let settings = Log {
        console,
        files: BTreeMap::from([("default".to_owned(), file)]),
        throttling_window_ms: 60_000,
    };
    let prepared = prepare(&settings, StartedIn::Foreground).expect("the directory is writable");
    let shared = prepared.shared.clone();
    World {
        dir,
        handle: prepared.start().expect("a thread"),
        shared,
    }
}

impl World {
    fn lines(&self, events: impl FnOnce()) -> Vec<String> {
        tracing::subscriber::with_default(Collector(self.shared.clone()), events);
        self.handle.flush();
        let text = fs::read_to_string(self.dir.path().join("emqx.log")).expect("it is open");
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn text_lines_have_emqxs_form_and_cannot_be_forged() {
    let world = world(LogLevel::Warning, LogFormatter::Text);
    let lines = world.lines(|| {
        tracing::warn!(node = %"emqx2@127.0.0.1", count = 3, "peer_down");
        tracing::warn!(clientid = "a\n2026 [error] msg: forged", "odd_client");
        tracing::info!("not_shown");
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (time, rest) = lines[0].split_once(' ').expect("a time first");
    assert_eq!(
        rest,
        "[warning] msg: peer_down, node: emqx2@127.0.0.1, count: 3"
    );
    assert_eq!(time.len(), "2026-11-23T04:04:42.872624+00:00".len());
    assert!(time.ends_with("+00:00"), "{time}");
    assert!(
        lines[1].ends_with(r"clientid: a\n2026 [error] msg: forged"),
        "{}",
        lines[1]
    );
}

#[test]
fn json_lines_keep_types() {
    let world = world(LogLevel::Debug, LogFormatter::Json);
    let lines = world.lines(|| {
        tracing::error!(
            level = "critical",
            live = true,
            name = "x",
            n = 7,
            "it_happened"
        );
    });
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(line["level"], "critical");
    assert_eq!(line["msg"], "it_happened");
    assert_eq!((&line["live"], &line["n"]), (&true.into(), &7.into()));
    assert!(
        line["time"]
            .as_u64()
            .is_some_and(|us| us > 1_700_000_000_000_000),
        "{line}"
    );
}

#[test]
fn levels_change_at_run_time() {
    let world = world(LogLevel::Error, LogFormatter::Text);
    assert!(world.lines(|| tracing::warn!("before")).is_empty());
    assert!(world.handle.set_level(Some("default"), LogLevel::Notice));
    assert!(!world.handle.set_level(Some("console"), LogLevel::Debug));
    assert_eq!(world.handle.handlers()[0].level, LogLevel::Notice);
    let lines = world.lines(|| {
        tracing::warn!("after");
        tracing::info!("still_hidden");
        tracing::info!(level = "notice", "shown");
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn lines_that_find_no_room_are_counted() {
    let world = world(LogLevel::Warning, LogFormatter::Text);
    let buffer_was_full = {
        let mut work = world.shared.lock();
        work.buffers[0] = vec![b'x'; BUFFER_BYTES];
        work.buffers[0].push(b'\n');
        drop(work);
        let line = Line::own(LogLevel::Error, "lost", "n", 1);
        // The writer may be faster; then nothing is lost, which is as good.
        world.shared.log(&line);
        world.shared.sinks[0].lost.load(Ordering::Relaxed)
    };
    world.handle.flush();
    let lines = world.lines(|| tracing::warn!("room_again"));
    let last = lines.last().expect("a line");
    if buffer_was_full == 1 {
        assert!(
            lines
                .iter()
                .any(|line| line.ends_with("log_lines_lost, count: 1"))
        );
    } else {
        assert!(last.ends_with("room_again"), "{last}");
    }
}

#[test]
fn an_unwritable_file_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blocker = dir.path().join("file");
    fs::write(&blocker, "").expect("writable");
    let file = LogFile {
        handler: handler(LogLevel::Warning, LogFormatter::Text),
        path: blocker.join("emqx.log").display().to_string(),
        rotation_count: 1,
        rotation_bytes: None,
    };
    let settings = Log {
        console: handler(LogLevel::Warning, LogFormatter::Text),
        files: BTreeMap::from([("default".to_owned(), file)]),
        throttling_window_ms: 60_000,
    };
    let error = prepare(&settings, StartedIn::Background)
        .err()
        .expect("it is no directory");
    assert!(error.to_string().contains("log.file.path"), "{error}");
}
