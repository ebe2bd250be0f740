//! The configuration in force: what the node's own files say, and the changes of the cluster.
//!
//! The changes are rows of a cluster-state table; what they mean here is decided by
//! `dunlin_config::change`. This is the shell around it: it reads the rows when they have changed,
//! puts what comes of them in force, and writes `data/configs/cluster.hocon` for people. What is
//! read at start only stays as it was at the start, until the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_broker::alarm::details;
use dunlin_broker::control::ControlInput;
use dunlin_cluster::Merged;
use dunlin_config::change::{self, Change, Difference, Plan, Refusal, Rows};
use dunlin_config::schema::InForce;
use dunlin_config::settings::{LogHandler, Settings};
use dunlin_config::{ConfigError, Layers, Loaded};
use tokio::sync::Notify;

use crate::alarm::{Actions, Alarms};
use crate::broker_settings;
use crate::control_thread::ControlLetter;
use crate::inbox::Inbox;
use crate::log::LogHandle;
use crate::time::wall_ms;

/// Former versions of `cluster.hocon` kept, as EMQX does.
const FORMER_MAX: usize = 10;

/// The alarm about a row that is not in force here, with its key after a `/`.
const NOT_IN_FORCE: &str = "configuration_not_in_force";

/// See the module.
pub(crate) struct Configuration {
    table: Arc<Merged>,
    /// `data/configs/cluster.hocon`.
    path: PathBuf,
    log: LogHandle,
    alarms: Arc<Alarms>,
    control: Arc<Inbox<ControlLetter>>,
    now: Mutex<State>,
    /// Rows have changed on their own: another node wrote them.
    changed: Notify,
    /// One change of an operator at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct State {
    loaded: Arc<Loaded>,
    /// The rows behind it.
    rows: Rows,
    /// What a `cluster.hocon` of EMQX says, until it is written into the table.
    to_import: Rows,
    /// Rows that are read at start only, as they were then.
    at_start: Rows,
    /// Rows it has been said of that they are not in force here, and why.
    said: BTreeSet<(String, String)>,
    /// Rows that were passed over, by key: the value, and why.
    refused: BTreeMap<String, (String, String)>,
    /// Keys there is an alarm about.
    alarmed: BTreeSet<String>,
}

/// What the rest of the server has that follows the configuration.
pub(crate) struct Followers {
    pub(crate) log: LogHandle,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) control: Arc<Inbox<ControlLetter>>,
}

/// What a `cluster.hocon` says that was not written from a table, if there are no rows yet.
fn rows_of_emqx(loaded: &Loaded, table: &Merged) -> Result<Option<Rows>, Vec<ConfigError>> {
    let text = loaded.cluster_hocon.as_deref();
    let foreign = text.filter(|text| table.is_empty() && !change::is_written_from_rows(text));
    foreign.map(change::rows_of).transpose()
}

fn rows_of_table(table: &Merged) -> Rows {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let read = table.read();
    let rows = read.range(&[]);
    rows.map(|(key, value)| (text(key), text(&value))).collect()
}

fn is_read_at_start(key: &str) -> bool {
    change::in_force_when(key) == InForce::AfterRestart
}

impl Configuration {
    /// The configuration of a node whose files, the last `cluster.hocon` among them, say `loaded`.
    pub(crate) fn new(
        loaded: Loaded,
        table: Arc<Merged>,
        data: &Path,
        followers: Followers,
    ) -> Result<Self, Vec<ConfigError>> {
        let to_import = rows_of_emqx(&loaded, &table)?;
        let rows = to_import.clone().unwrap_or_else(|| rows_of_table(&table));
        let at_start = rows.iter().filter(|(key, _)| is_read_at_start(key));
        let applied = change::in_force(&loaded.layers, &rows)?;
        let mut state = State {
            at_start: at_start.map(|(k, v)| (k.clone(), v.clone())).collect(),
            rows,
            to_import: to_import.unwrap_or_default(),
            loaded: Arc::new(loaded),
            said: BTreeSet::new(),
            refused: BTreeMap::new(),
            alarmed: BTreeSet::new(),
        };
        let configuration = Self {
            table,
            path: data.join("configs").join("cluster.hocon"),
            log: followers.log,
            alarms: followers.alarms,
            control: followers.control,
            now: Mutex::new(state.clone()),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        };
        // The file is as old as the last change; the table may have seen another since.
        configuration.take(&mut state, applied.loaded, &applied.refused);
        let rows = state.rows.clone();
        configuration.alarm(&mut state, &rows);
        *configuration.lock() = state;
        Ok(configuration)
    }

    /// The configuration in force.
    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.lock().loaded.clone()
    }

    /// Rows to be written at first; none if the node has joined a cluster that has its own.
    pub(crate) fn to_import(&self) -> Rows {
        let rows = std::mem::take(&mut self.lock().to_import);
        if self.table.is_empty() {
            rows
        } else {
            Rows::new()
        }
    }

    /// What a change would write, or why it is refused.
    pub(crate) fn plan(&self, change: &Change) -> Result<Plan, Refusal> {
        let layers = self.loaded().layers.clone();
        change::plan(&layers, &rows_of_table(&self.table), change)
    }

    /// Another node has changed rows.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Follows what other nodes change, until dropped.
    pub(crate) async fn follow(&self) {
        loop {
            self.changed.notified().await;
            self.apply();
        }
    }

    /// Puts in force what the rows say now.
    pub(crate) fn apply(&self) {
        let mut state = self.lock();
        let rows = self.rows_here(&mut state);
        if rows != state.rows {
            let layers = state.loaded.layers.clone();
            state.rows = rows;
            match change::in_force(&layers, &state.rows) {
                Ok(applied) => self.take(&mut state, applied.loaded, &applied.refused),
                // They were valid at the start, and rows can be passed over.
                Err(errors) => tracing::error!(reason = %lines(&errors), "configuration_kept"),
            }
        }
        self.alarm(&mut state, &rows_of_table(&self.table));
        self.write_file();
    }

    /// Takes up what this node's own files say now; the keys that have changed. If one of them
    /// needs a restart, nothing is changed.
    pub(crate) fn reload(&self, layers: &Layers) -> Result<Vec<String>, Refusal> {
        let mut state = self.lock();
        let applied = change::in_force(layers, &state.rows).map_err(Refusal::Invalid)?;
        let differs = change::diff(&state.loaded.raw, &applied.loaded.raw).into_iter();
        let at_start = |differs: &Difference| differs.in_force == InForce::AfterRestart;
        let (restart, changed): (Vec<_>, Vec<_>) = differs.partition(at_start);
        let paths = |differs: Vec<Difference>| differs.into_iter().map(|d| d.path).collect();
        if !restart.is_empty() {
            return Err(Refusal::Restart(paths(restart)));
        }
        self.take(&mut state, applied.loaded, &applied.refused);
        self.alarm(&mut state, &rows_of_table(&self.table));
        Ok(paths(changed))
    }

    /// The rows as this run of the node may follow them.
    fn rows_here(&self, state: &mut State) -> Rows {
        let mut rows = rows_of_table(&self.table);
        for (key, value) in rows.iter().filter(|(key, _)| is_read_at_start(key)) {
            let waits = state.at_start.get(key) != Some(value);
            if waits && state.said.insert((key.clone(), value.clone())) {
                tracing::warn!(key, "configuration_change_waits_for_restart");
            }
        }
        rows.retain(|key, _| !is_read_at_start(key));
        rows.extend(state.at_start.clone());
        rows
    }

    fn take(&self, state: &mut State, loaded: Loaded, refused: &[(String, String)]) {
        for (key, reason) in refused {
            if state.said.insert((key.clone(), reason.clone())) {
                tracing::error!(key, reason, "configuration_change_not_in_force");
            }
        }
        let value = |key: &String| state.rows.get(key).cloned().unwrap_or_default();
        let refused = refused.iter();
        let refused = refused.map(|(key, reason)| (key.clone(), (value(key), reason.clone())));
        state.refused = refused.collect();
        let before = state.loaded.clone();
        for differs in change::diff(&before.raw, &loaded.raw) {
            tracing::info!(key = differs.path, "configuration_changed");
        }
        state.loaded = Arc::new(loaded);
        self.tell(&before.settings, &state.loaded.settings);
    }

    /// Has an alarm for each row that was passed over, until the row is another one: then it is in
    /// force, or will be after a restart.
    fn alarm(&self, state: &mut State, rows: &Rows) {
        let mut now = BTreeSet::new();
        for (key, (value, reason)) in &state.refused {
            if rows.get(key) != Some(value) {
                continue;
            }
            let message = format!(
                "the cluster's value of {key} is not in force on this node: {reason}; update this \
                 node, or change the value with `emqx_ctl conf load`"
            );
            let figures = details([
                ("key", key.as_str().into()),
                ("reason", reason.as_str().into()),
            ]);
            let name = format!("{NOT_IN_FORCE}/{key}");
            self.alarms.activate(&name, figures, &message);
            now.insert(key.clone());
        }
        for key in state.alarmed.difference(&now) {
            self.alarms.deactivate(&format!("{NOT_IN_FORCE}/{key}"));
        }
        state.alarmed = now;
    }

    /// Tells everybody who follows settings while they run.
    fn tell(&self, before: &Settings, now: &Settings) {
        let settings = broker_settings::settings(now);
        if settings != broker_settings::settings(before) {
            let settings = ControlInput::Settings(Box::new(settings));
            self.control.push(ControlLetter::Core(settings));
        }
        if before.alarm != now.alarm {
            let actions = Actions::new(&now.alarm.actions);
            self.alarms
                .configure(actions, crate::alarm::limits(&now.alarm));
        }
        for handler in self.log.handlers() {
            let (before, now) = (
                log_handler(before, &handler.name),
                log_handler(now, &handler.name),
            );
            // A level set with `log set-level` stays until somebody changes it here.
            if let (Some(before), Some(now)) = (before, now)
                && before.level != now.level
            {
                self.log.set_level(Some(&handler.name), now.level);
            }
        }
    }

    /// Brings `cluster.hocon` to what the table says, and keeps what it was.
    fn write_file(&self) {
        if self.table.is_empty() && !self.path.exists() {
            return;
        }
        let text = change::text(&rows_of_table(&self.table));
        if let Err(error) = write(&self.path, &text) {
            let path = self.path.display();
            tracing::error!(%path, reason = %error, "cluster_hocon_not_written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state that was not changed to its end is still a valid one.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_handler<'a>(settings: &'a Settings, name: &str) -> Option<&'a LogHandler> {
    match name {
        "console" => Some(&settings.log.console),
        name => settings.log.files.get(name).map(|file| &file.handler),
    }
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// Replaces a file if its text is another one; the former is kept beside it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let there = match fs::read_to_string(path) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if there.as_deref() == Some(text) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir)?;
    if there.is_some() {
        fs::copy(
            path,
            dir.join(format!("cluster.hocon.{}.bak", stamp(wall_ms()))),
        )?;
        forget_former(dir)?;
    }
    let new = path.with_extension("hocon.new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// `2026.11.29.14.59.07.123`, in UTC.
fn stamp(wall_ms: u64) -> String {
    let text = crate::time::Rfc3339::millis(wall_ms).to_string();
    let digits = |c: char| if c.is_ascii_digit() { c } else { '.' };
    text.chars().take(23).map(digits).collect()
}

fn forget_former(dir: &Path) -> io::Result<()> {
    let mut former = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stamp = name.strip_prefix("cluster.hocon.");
        if stamp.is_some_and(|stamp| stamp.strip_suffix(".bak").is_some()) {
            former.push(name);
        }
    }
    former.sort_unstable();
    let over = former.len().saturating_sub(FORMER_MAX);
    former
        .iter()
        .take(over)
        .try_for_each(|name| fs::remove_file(dir.join(name)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dunlin_broker::alarm::Limits;
    use dunlin_broker::control::CONFIGURATION;
    use dunlin_cluster::{Hlc, SiteId, Stamp, TableSpec, Wins};
    use dunlin_config::hocon::NoFiles;
    use dunlin_config::{Layer, LayerKind, Sources};

    use super::*;
    use crate::log::{self, StartedIn};

    struct World {
        table: Arc<Merged>,
        alarms: Arc<Alarms>,
        configuration: Configuration,
        writes: u64,
        _data: tempfile::TempDir,
    }

    fn loaded(directory: &Path) -> Loaded {
        let text = "node { name = \"a@127.0.0.1\", cookie = hidden, data_dir = data }";
        let directory = directory.display().to_string();
        let sources = Sources {
            files: vec![Layer {
                kind: LayerKind::Etc,
                path: "etc/emqx.conf".to_owned(),
                text: text.to_owned(),
            }],
            env: Vec::new(),
            etc_dir: directory.clone(),
            log_dir: directory.clone(),
            data_dir: directory,
            include: &NoFiles,
        };
        dunlin_config::load(&sources).expect("valid")
    }

    fn put(table: &Merged, write: u64, key: &str, value: Option<&str>) {
        let stamp = Stamp {
            hlc: Hlc(write),
            site: SiteId([1; 16]),
        };
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        table.put(key.as_bytes(), value, stamp);
    }

    impl World {
        /// A node that starts with these rows.
        fn new(rows: &[(&str, &str)]) -> Self {
            let data = tempfile::tempdir().expect("a directory");
            let table = Arc::new(Merged::new(TableSpec {
                id: CONFIGURATION,
                name: "configuration",
                rows_max: change::ROWS_MAX,
                value_bytes_max: change::VALUE_BYTES_MAX,
                keep_on_leave: true,
                wins: Wins::Later,
            }));
            for (key, value) in rows {
                put(&table, 1, key, Some(value));
            }
            let loaded = loaded(data.path());
            let control = Arc::new(Inbox::new());
            let actions = Actions::new(&[]);
            let alarms = Alarms::new("a@h", actions, Limits::default(), control.clone());
            let alarms = Arc::new(alarms);
            let log = log::prepare(&loaded.settings.log, StartedIn::Background);
            let followers = Followers {
                log: log.expect("a log").install().expect("it starts"),
                alarms: alarms.clone(),
                control,
            };
            let made = Configuration::new(loaded, table.clone(), data.path(), followers);
            Self {
                table,
                alarms,
                configuration: made.expect("valid without the rows"),
                writes: 1,
                _data: data,
            }
        }

        /// Another node writes a row.
        fn put(&mut self, key: &str, value: Option<&str>) {
            self.writes += 1;
            put(&self.table, self.writes, key, value);
            self.configuration.apply();
        }

        fn alarms(&self) -> Vec<String> {
            let active = self.alarms.list(true).into_iter();
            active.map(|alarm| alarm.name).collect()
        }
    }

    #[test]
    fn a_row_that_is_not_in_force_has_an_alarm_until_it_is_another_one() {
        let mut node = World::new(&[
            ("mqtt.max_inflight", "7"),
            ("mqtt.max_qos_allowed", "9"),
            ("mqtt.of_a_later_release", "true"),
        ]);
        let (qos, later) = (
            "configuration_not_in_force/mqtt.max_qos_allowed",
            "configuration_not_in_force/mqtt.of_a_later_release",
        );
        assert_eq!(node.alarms(), [qos, later]);
        node.put("mqtt.max_inflight", Some("8"));
        assert_eq!(node.alarms(), [qos, later]);
        node.put("mqtt.max_qos_allowed", Some("1"));
        assert_eq!(node.alarms(), [later]);
        node.put("mqtt.of_a_later_release", None);
        assert_eq!(node.alarms(), [""; 0]);
        node.put("mqtt.max_qos_allowed", Some("\"many\""));
        assert_eq!(node.alarms(), [qos]);
        let row = node.alarms.list(true).remove(0);
        assert!(row.message.contains("mqtt.max_qos_allowed"), "{row:?}");
        // Another value that does not fit either is the same trouble.
        node.put("mqtt.max_qos_allowed", Some("10"));
        assert_eq!(node.alarms(), [qos]);
        assert!(node.alarms.list(false).len() == 2, "what ended, ended once");
    }

    #[test]
    fn a_row_that_is_read_at_start_only_has_one_until_it_is_replaced() {
        let key = "listeners.tcp.default.bind";
        let mut node = World::new(&[(key, "\"nowhere\"")]);
        let alarm = format!("configuration_not_in_force/{key}");
        assert_eq!(node.alarms(), [alarm.as_str()]);
        node.put("mqtt.max_inflight", Some("8"));
        assert_eq!(node.alarms(), [alarm.as_str()]);
        node.put(key, Some("1884"));
        assert_eq!(node.alarms(), [""; 0]);
        node.put(key, Some("\"nowhere\""));
        assert_eq!(node.alarms(), [alarm.as_str()]);
    }
}
