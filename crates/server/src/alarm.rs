//! The alarms of this node as the rest of the server uses them: one table for all threads, and
//! what is done when an alarm comes or goes (`alarm.actions`: a line in the log, a message).
//!
//! What an alarm is and how long it lasts is [`dunlin_broker::alarm`]'s; nothing is decided here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_broker::alarm::{Alarm, AlarmChange, Alarms as Table, Detail, Details, Limits};
use dunlin_broker::message::{Head, Message, Parts};
use dunlin_config::settings;
use dunlin_mqtt::QoS;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::control_thread::{ControlLetter, Request};
use crate::inbox::Inbox;
use crate::time::{Rfc3339, now, wall_ms};

/// The disk refuses what must be durable.
pub(crate) const STORE_FAILED: &str = "store_sync_failed";

/// An alarm as `GET /alarms` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRow {
    /// The node it is about.
    pub node: String,
    /// Its stable name.
    pub name: String,
    /// What is wrong, for people.
    pub message: String,
    /// Figures.
    pub details: Details,
    /// Since when, in milliseconds since the epoch.
    pub activated_at_ms: u64,
    /// Until when, in milliseconds since the epoch; none while it is active.
    pub deactivated_at_ms: Option<u64>,
    /// How long it has lasted, or did last, in milliseconds.
    pub duration_ms: u64,
}

impl AlarmRow {
    fn new(node: &str, alarm: &Alarm, wall_ms: u64) -> Self {
        let until_ms = alarm.deactivated_ms.unwrap_or(wall_ms);
        Self {
            node: node.to_owned(),
            name: alarm.name.clone(),
            message: alarm.message.clone(),
            details: alarm.details.clone(),
            activated_at_ms: alarm.activated_ms,
            deactivated_at_ms: alarm.deactivated_ms,
            duration_ms: until_ms.saturating_sub(alarm.activated_ms),
        }
    }

    /// The alarm in the words of EMQX's REST API and of its `$SYS` messages.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "node": self.node,
            "name": self.name,
            "message": self.message,
            "details": self.details,
            "duration": self.duration_ms,
            "activate_at": Rfc3339::millis(self.activated_at_ms).to_string(),
        });
        if let Some(at_ms) = self.deactivated_at_ms {
            object["deactivate_at"] = Rfc3339::millis(at_ms).to_string().into();
        }
        object
    }
}

/// What is done when an alarm comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actions {
    /// A line in the log.
    pub(crate) log: bool,
    /// A message on `$SYS/brokers/<node>/alarms/activate` or `deactivate`.
    pub(crate) publish: bool,
}

impl Actions {
    /// Of `alarm.actions`.
    pub(crate) fn new(names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|n| n == name);
        Self {
            log: has("log"),
            publish: has("publish"),
        }
    }
}

/// How much is remembered.
pub(crate) fn limits(settings: &settings::Alarm) -> Limits {
    Limits {
        ended_max: settings.size_limit as usize,
        kept_ms: settings.validity_period_ms,
    }
}

/// The alarms of a node.
pub(crate) struct Alarms {
    node: String,
    actions: Mutex<Actions>,
    table: Mutex<Table>,
    control: Arc<Inbox<ControlLetter>>,
    changed: Notify,
}

impl Alarms {
    /// No alarms yet.
    pub(crate) fn new(
        node: &str,
        actions: Actions,
        limits: Limits,
        control: Arc<Inbox<ControlLetter>>,
    ) -> Self {
        Self {
            node: node.to_owned(),
            actions: Mutex::new(actions),
            table: Mutex::new(Table::new(limits)),
            control,
            changed: Notify::new(),
        }
    }

    /// Other actions and limits are in force from now on.
    pub(crate) fn configure(&self, actions: Actions, limits: Limits) {
        *self.actions() = actions;
        self.lock().set_limits(limits);
    }

    /// Raises an alarm that [`Alarms::deactivate`] ends; one that is raised gets the new figures.
    pub(crate) fn activate(&self, name: &str, details: Details, message: &str) {
        self.apply(AlarmChange::activate(name, details, message.to_owned()));
    }

    /// Ends an alarm; whether it was active.
    pub(crate) fn deactivate(&self, name: &str) -> bool {
        let ended = self.lock().deactivate(wall_ms(), name);
        self.tell(ended.as_ref());
        ended.is_some()
    }

    /// Takes what a core has to say.
    pub(crate) fn apply(&self, change: AlarmChange) {
        let told = self.lock().apply(wall_ms(), change);
        self.tell(told.as_ref());
    }

    /// Ends what happened long ago. To be called now and then.
    pub(crate) fn expire(&self) {
        let over = self.lock().expire(wall_ms());
        for alarm in &over {
            self.tell(Some(alarm));
        }
    }

    /// The active alarms by name, or the ended ones, latest first.
    pub(crate) fn list(&self, activated: bool) -> Vec<AlarmRow> {
        let now_ms = wall_ms();
        let row = |alarm: &Alarm| AlarmRow::new(&self.node, alarm, now_ms);
        let table = self.lock();
        if activated {
            table.active().map(row).collect()
        } else {
            table.ended().map(row).collect()
        }
    }

    /// Forgets the ended alarms.
    pub(crate) fn clear_ended(&self) {
        self.lock().clear_ended();
    }

    fn tell(&self, alarm: Option<&Alarm>) {
        let Some(alarm) = alarm else { return };
        let (name, message) = (&alarm.name, &alarm.message);
        let details = in_words(&alarm.details);
        let actions = *self.actions();
        match (actions.log, alarm.deactivated_ms) {
            (true, None) => tracing::warn!(name, message, details, "alarm_is_activated"),
            (true, Some(_)) => tracing::warn!(name, "alarm_is_deactivated"),
            (false, _) => {}
        }
        if actions.publish {
            self.publish(alarm);
        }
        self.changed.notify_waiters();
    }

    fn publish(&self, alarm: &Alarm) {
        let step = match alarm.deactivated_ms {
            None => "activate",
            Some(_) => "deactivate",
        };
        let now = now();
        let topic = format!("$SYS/brokers/{}/alarms/{step}", self.node);
        let row = AlarmRow::new(&self.node, alarm, now.wall_ms);
        let head = Head {
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
            origin: None,
            id: 0,
            expires_wall_ms: None,
        };
        let body = row.to_json().to_string();
        let parts = Parts {
            topic: &topic,
            properties: &[],
            payload: body.as_bytes(),
            clientid: "",
        };
        let message = Message::new(parts, head);
        // Whether anybody is subscribed is of no interest.
        let (done, _) = oneshot::channel();
        self.control
            .push(ControlLetter::Ask(Request::Publish { message, done }));
    }

    /// Waits until an alarm is raised.
    #[cfg(test)]
    pub(crate) async fn raised(&self, name: &str) {
        loop {
            let changed = self.changed.notified();
            if self.lock().is_active(name) {
                return;
            }
            changed.await;
        }
    }

    fn actions(&self) -> MutexGuard<'_, Actions> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is whole when it returns, so a poisoned lock is used on.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Details as they stand in the log.
fn in_words(details: &Details) -> String {
    let pair = |(name, detail): (&String, &Detail)| match detail {
        Detail::Number(number) => format!("{name}={number}"),
        Detail::Text(text) => format!("{name}={text}"),
        Detail::List(list) => format!("{name}={}", list.join(",")),
    };
    let pairs: Vec<_> = details.iter().map(pair).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use dunlin_broker::alarm::details;

    use super::*;

    fn alarms(actions: &[&str]) -> (Alarms, Arc<Inbox<ControlLetter>>) {
        let control = Arc::new(Inbox::new());
        let names: Vec<String> = actions.iter().map(|&name| name.to_owned()).collect();
        let actions = Actions::new(&names);
        let alarms = Alarms::new("a@h", actions, Limits::default(), control.clone());
        (alarms, control)
    }

    async fn published(control: &Inbox<ControlLetter>) -> Vec<(String, String)> {
        let mut letters = Vec::new();
        std::future::poll_fn(|cx| control.poll_take(cx, &mut letters)).await;
        let told = letters.into_iter().filter_map(|letter| match letter {
            ControlLetter::Ask(Request::Publish { message, .. }) => Some((
                message.topic().to_owned(),
                String::from_utf8(message.payload().to_vec()).expect("JSON is text"),
            )),
            _ => None,
        });
        told.collect()
    }

    #[tokio::test]
    async fn what_comes_and_goes_is_published_once() {
        let (alarms, control) = alarms(&["publish"]);
        alarms.activate("x", details([("usage", 7_u64.into())]), "too much");
        alarms.activate("x", details([("usage", 8_u64.into())]), "far too much");
        assert!(alarms.deactivate("x") && !alarms.deactivate("x"));
        let told = published(&control).await;
        let topics: Vec<_> = told.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(
            topics,
            [
                "$SYS/brokers/a@h/alarms/activate",
                "$SYS/brokers/a@h/alarms/deactivate"
            ]
        );
        let body: serde_json::Value = serde_json::from_str(&told[0].1).expect("JSON");
        assert_eq!(body["name"], "x");
        assert_eq!(body["message"], "too much");
        assert_eq!(body["details"]["usage"], 7);
        assert_eq!(body["node"], "a@h");
        assert!(body.get("deactivate_at").is_none());
        let ended = alarms.list(false);
        assert_eq!(ended.len(), 1);
        assert!(ended[0].to_json()["deactivate_at"].is_string());
        alarms.clear_ended();
        assert!(alarms.list(false).is_empty() && alarms.list(true).is_empty());
    }

    #[tokio::test]
    async fn without_the_action_nothing_is_published() {
        let (alarms, control) = alarms(&["log"]);
        alarms.activate("x", Details::new(), "wrong");
        control.push(ControlLetter::Core(
            dunlin_broker::control::ControlInput::Tick,
        ));
        assert_eq!(published(&control).await, []);
    }
}
