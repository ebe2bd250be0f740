//! What operators ask a shard: its clients, their subscriptions, counts; and what they do to them.

use dunlin_cluster::Now;
use dunlin_mqtt::{QoS, SubscriptionOptions, TopicFilter};

use crate::effects::{
    ASK_ROWS_MAX, Answer, Ask, ClientRow, CloseReason, Counts, ShardEffects, SubscriptionRow,
    ToControl, Traffic,
};
use crate::router::{Router, SessionKey};
use crate::session::{Session, Subscription};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_ask(&mut self, now: Now, ask: u64, what: Ask, fx: &mut ShardEffects) {
        let answer = self.answer_to(now, what, fx);
        fx.tell(ToControl::Answered {
            shard: self.id,
            ask,
            answer,
        });
    }

    fn answer_to(&mut self, now: Now, what: Ask, fx: &mut ShardEffects) -> Answer {
        match what {
            Ask::Clients { after, limit } => {
                Answer::Clients(self.client_rows(after.as_deref(), limit))
            }
            Ask::Client(clientid) => {
                let row = self
                    .sessions
                    .find(&clientid)
                    .and_then(|key| self.client_row(key));
                Answer::Client(row.map(Box::new))
            }
            Ask::Subscriptions { after, limit } => {
                Answer::Subscriptions(self.subscription_rows(after.as_ref(), limit))
            }
            Ask::SubscriptionsOf(clientid) => {
                let session = self
                    .sessions
                    .find(&clientid)
                    .and_then(|k| self.sessions.get(k));
                let router = self.shared.router().read();
                let mut rows = session.map_or_else(Vec::new, |s| rows_of(&router, s));
                rows.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
                Answer::Subscriptions(rows)
            }
            Ask::Subscribe {
                clientid,
                filter,
                qos,
            } => Answer::Done(self.subscribe_client(now, &clientid, &filter, qos, fx)),
            Ask::Unsubscribe { clientid, filter } => {
                let key = self.sessions.find(&clientid);
                let done = match (key, TopicFilter::new(&filter)) {
                    (Some(key), Ok(filter)) => self.unsubscribe(key, &filter, fx),
                    _ => false,
                };
                Answer::Done(done)
            }
            Ask::Kick(clientid) => {
                Answer::Done(self.on_kick(now, &clientid, CloseReason::Kicked, None, fx))
            }
            Ask::Counts => Answer::Counts(self.counts()),
            Ask::Refuse(to) => {
                self.refusing = to.is_some();
                self.redirect = to.unwrap_or_default();
                Answer::Done(true)
            }
            Ask::Evict(wanted) => Answer::Evicted(self.evict(now, &wanted, fx)),
        }
    }

    fn subscribe_client(
        &mut self,
        now: Now,
        clientid: &str,
        filter: &str,
        qos: u8,
        fx: &mut ShardEffects,
    ) -> bool {
        let (Some(key), Ok(filter), Some(qos)) = (
            self.sessions.find(clientid),
            TopicFilter::new(filter),
            QoS::from_u8(qos),
        ) else {
            return false;
        };
        let options = SubscriptionOptions::with_qos(qos);
        let done = self.subscribe(key, &filter, options, 0, fx).is_ok();
        if let Some(conn) = self.sessions.get(key).and_then(|session| session.conn) {
            self.replay(now, conn, fx);
        }
        done
    }

    /// Clients in identifier order.
    pub fn client_rows(&self, after: Option<&str>, limit: usize) -> Vec<ClientRow> {
        let mut keys: Vec<(&str, SessionKey)> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.leaving.is_none())
            .map(|(key, session)| (session.clientid(), key))
            .filter(|(clientid, _)| after.is_none_or(|after| *clientid > after))
            .collect();
        keys.sort_unstable();
        keys.truncate(limit.min(ASK_ROWS_MAX));
        keys.into_iter()
            .filter_map(|(_, key)| self.client_row(key))
            .collect()
    }

    /// One client.
    pub(crate) fn client_row(&self, key: SessionKey) -> Option<ClientRow> {
        let session = self.sessions.get(key)?;
        let client = &session.client;
        let mqtt = &client.mqtt;
        let channel = session
            .conn
            .and_then(|conn| self.channels.get(conn.0 as usize));
        Some(ClientRow {
            clientid: session.clientid().to_owned(),
            username: session.origin.username.as_deref().map(str::to_owned),
            peer: client.peer,
            listener: client.listener.id.clone(),
            proto_name: client.version.proto_name(),
            proto_ver: client.version.level(),
            connected: channel.is_some_and(|channel| channel.is_open()),
            connected_at: client.connected_at_wall_ms,
            disconnected_at: client.disconnected_at_wall_ms,
            created_at: session.created_at_wall_ms,
            clean_start: client.clean_start,
            keepalive: client.keepalive_s,
            expiry_interval: session.expiry_s,
            is_bridge: client.bridge,
            mountpoint: client.mountpoint.as_deref().map(str::to_owned),
            subscriptions_cnt: session.subscriptions.len() as u64,
            subscriptions_max: mqtt.max_subscriptions.map(u64::from),
            inflight_cnt: session.inflight.len() as u64,
            inflight_max: u64::from(session.window),
            mqueue_len: session.queue.len() as u64,
            mqueue_max: mqtt.max_mqueue_len.map_or(0, u64::from),
            mqueue_dropped: u64::from(session.dropped),
            awaiting_rel_cnt: session.awaiting_rel.as_ref().map_or(0, |w| w.len() as u64),
            awaiting_rel_max: mqtt.max_awaiting_rel.map_or(0, u64::from),
            traffic: channel.map_or_else(Traffic::default, |channel| channel.traffic),
        })
    }

    /// Subscriptions in (client identifier, filter) order.
    pub fn subscription_rows(
        &self,
        after: Option<&(String, String)>,
        limit: usize,
    ) -> Vec<SubscriptionRow> {
        let limit = limit.min(ASK_ROWS_MAX);
        let from = after.map_or("", |(clientid, _)| clientid);
        let mut sessions: Vec<&Session> = self
            .sessions
            .iter()
            .map(|(_, session)| session)
            .filter(|session| session.leaving.is_none() && session.clientid() >= from)
            .collect();
        sessions.sort_unstable_by(|a, b| a.clientid().cmp(b.clientid()));
        let router = self.shared.router().read();
        let mut rows = Vec::new();
        for session in sessions {
            let mut own = rows_of(&router, session);
            own.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
            own.retain(|row| {
                after.is_none_or(|(clientid, topic)| {
                    (row.clientid.as_str(), row.topic.as_str()) > (clientid, topic)
                })
            });
            rows.extend(own);
            if rows.len() >= limit {
                break;
            }
        }
        rows.truncate(limit);
        rows
    }

    /// Gauges.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            live_connections: self.channels.len() as u64,
            sessions: self.sessions.len() as u64,
            ..Counts::default()
        };
        for (_, session) in self.sessions.iter() {
            counts.subscribers += u64::from(!session.subscriptions.is_empty());
            counts.subscriptions += session.subscriptions.len() as u64;
            let shared = session
                .subscriptions
                .iter()
                .filter(|sub| sub.group.is_some());
            counts.shared_subscriptions += shared.count() as u64;
            counts.queued += session.queue.len() as u64;
            counts.inflight += session.inflight.len() as u64;
        }
        counts
    }
}

fn rows_of(router: &Router, session: &Session) -> Vec<SubscriptionRow> {
    let row = |sub: &Subscription| {
        let filter = session.client.unmounted(router.filter(sub.filter));
        SubscriptionRow {
            clientid: session.clientid().to_owned(),
            topic: sub.written_as(filter),
            qos: sub.options.qos().as_u8(),
            nl: u8::from(sub.options.no_local()),
            rap: u8::from(sub.options.retain_as_published()),
            rh: sub.retain_handling,
        }
    };
    session.subscriptions.iter().map(row).collect()
}
