//! CONNECT: who it is, whether it may, which session it gets, and what CONNACK says.

use std::sync::Arc;

use bytes::BytesMut;
use dunlin_cluster::Now;
use dunlin_mqtt::{Connack, Connect, DecodeError, Packet, Properties, Reason, Version};
use rand::Rng;

use crate::access::{Authentication, Credentials, Decision, Identity, Proof};
use crate::banned::Suspect;
use crate::channel::{Paused, Phase};
use crate::effects::{Accepted, ClientEvent, CloseReason, Conn, ShardEffects, ToControl};
use crate::message::{Head, Message, Origin, Parts};
use crate::metrics::Metric;
use crate::session::{Client, Session};
use crate::settings::{EnableAuthn, Mqtt};
use crate::shard::{Shard, Timer};
use crate::will::Will;

/// Characters of an assigned client identifier.
const ASSIGNED: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Length of its random part: 62^22 is more than 128 bits.
const ASSIGNED_LEN: usize = 22;

/// A CONNECT that was read and is to be answered.
pub(crate) struct Welcome {
    pub(crate) client: Client,
    pub(crate) origin: Arc<Origin>,
    pub(crate) will: Option<Arc<Will>>,
    pub(crate) expiry_s: u32,
    /// The client's window for what we send.
    pub(crate) receive_maximum: u16,
    pub(crate) clean_start: bool,
}

/// CONNECTs of one shard whose credentials are being checked; more are refused as "busy". At a
/// stretched password's 50 ms and two threads, what they wait for takes minutes already.
const PROVING_MAX: usize = 2_000;

/// A CONNECT that may be welcome.
#[derive(Debug)]
pub(crate) struct Known {
    conn: Conn,
    connect: Box<Connect>,
    accepted: Box<Accepted>,
    clientid: String,
    assigned: bool,
}

/// A CONNECT whose credentials are being checked.
#[derive(Debug)]
pub(crate) struct Proving {
    known: Known,
    /// Of its connection.
    generation: u32,
}

impl Shard {
    pub(crate) fn on_connect(
        &mut self,
        now: Now,
        conn: Conn,
        connect: Box<Connect>,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsConnectReceived);
        self.metrics.count(Metric::ClientConnect);
        let channel = &mut self.channels[conn.0 as usize];
        channel.version = connect.version;
        let Some(accepted) = channel.accepted.take() else {
            return;
        };
        let mqtt = Arc::clone(&channel.mqtt);
        let named = self.check(now, &connect, &accepted, &mqtt);
        let asked = named.and_then(|(clientid, assigned)| {
            let decision = self.ask_authenticator(now, (&clientid, &connect), &accepted)?;
            Ok((clientid, assigned, decision))
        });
        match asked {
            Ok((clientid, assigned, decision)) => {
                let known = Known {
                    conn,
                    connect,
                    accepted,
                    clientid,
                    assigned,
                };
                match decision {
                    None => self.welcome(now, known, fx),
                    Some(Decision::Now(answer)) => self.answered(now, known, answer, fx),
                    Some(Decision::Later(proof)) => self.prove(now, known, proof, fx),
                }
            }
            Err(reason) => {
                self.channels[conn.0 as usize].accepted = Some(accepted);
                self.refuse(now, conn, reason, fx);
            }
        }
    }

    /// Everything that can refuse a CONNECT before its credentials are looked at, in EMQX's order.
    /// The client identifier in force, and whether it was assigned.
    fn check(
        &mut self,
        now: Now,
        connect: &Connect,
        accepted: &Accepted,
        mqtt: &Mqtt,
    ) -> Result<(String, bool), Reason> {
        if self.draining {
            return Err(Reason::ServerUnavailable);
        }
        if self.refusing {
            return Err(Reason::UseAnotherServer);
        }
        let named = self.clientid(connect, mqtt)?;
        check_will(connect, mqtt)?;
        if connect.properties.authentication_method().is_some() {
            return Err(Reason::BadAuthenticationMethod);
        }
        let suspect = Suspect {
            clientid: &named.0,
            username: connect.username.as_deref(),
            address: accepted.peer.ip(),
        };
        if self.shared.banned().is_banned(now, &suspect) {
            return Err(Reason::Banned);
        }
        Ok(named)
    }

    /// The credentials are checked on another thread; the socket is not read meanwhile.
    fn prove(&mut self, now: Now, known: Known, proof: Proof, fx: &mut ShardEffects) {
        let conn = known.conn;
        if self.proving.len() >= PROVING_MAX {
            tracing::warn!(waiting = PROVING_MAX, "authentication_overloaded");
            self.metrics.count(Metric::AuthenticationFailure);
            self.refuse(now, conn, Reason::ServerBusy, fx);
            return;
        }
        let channel = &mut self.channels[conn.0 as usize];
        channel.phase = Phase::Proving;
        if channel.paused.set(Paused::HELD) {
            fx.pause.push(conn);
        }
        let generation = channel.generation;
        let token = self.token();
        self.proving.insert(token, Proving { known, generation });
        fx.prove.push((token, proof));
    }

    /// The credentials are checked.
    pub(crate) fn on_proven(
        &mut self,
        now: Now,
        token: u64,
        answer: Authentication,
        fx: &mut ShardEffects,
    ) {
        let Some(Proving { known, generation }) = self.proving.remove(&token) else {
            return;
        };
        // The client may have left meanwhile.
        let waits = self.is_current(known.conn, generation)
            && self.channels[known.conn.0 as usize].phase == Phase::Proving;
        if !waits {
            return;
        }
        if self.draining {
            self.refuse(now, known.conn, Reason::ServerUnavailable, fx);
        } else {
            self.answered(now, known, answer, fx);
        }
    }

    /// What an authenticator has said.
    fn answered(&mut self, now: Now, known: Known, answer: Authentication, fx: &mut ShardEffects) {
        let conn = known.conn;
        match self.authenticated(now, conn, answer) {
            Ok(()) => self.welcome(now, known, fx),
            Err(reason) => {
                self.channels[conn.0 as usize].accepted = Some(known.accepted);
                self.refuse(now, conn, reason, fx);
            }
        }
    }

    /// The client may connect.
    fn welcome(&mut self, now: Now, known: Known, fx: &mut ShardEffects) {
        let Known {
            conn,
            connect,
            accepted,
            clientid,
            assigned,
        } = known;
        let mqtt = Arc::clone(&self.channels[conn.0 as usize].mqtt);
        let origin = Arc::new(Origin {
            clientid: clientid.into(),
            username: connect.username.clone(),
        });
        let mut client = new_client(now, &connect, &accepted, &mqtt, (&origin, assigned));
        client.superuser = self.channels[conn.0 as usize].superuser;
        let will = new_will(&connect, &client, &origin);
        let window = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        let welcome = Welcome {
            client,
            origin,
            will,
            expiry_s: expiry_s(&connect, &mqtt),
            receive_maximum: window.min(mqtt.max_inflight),
            clean_start: connect.clean_start,
        };
        self.set_up(conn, &connect, &welcome, &mqtt);
        self.claim_session(now, conn, welcome, fx);
    }

    /// The client identifier in force, and whether it was assigned.
    fn clientid(&mut self, connect: &Connect, mqtt: &Mqtt) -> Result<(String, bool), Reason> {
        const INVALID: Reason = Reason::ClientIdentifierNotValid;
        if mqtt.use_username_as_clientid {
            let name = connect.username.as_deref().filter(|name| !name.is_empty());
            return Ok((name.ok_or(INVALID)?.to_owned(), false));
        }
        if !connect.client_id.is_empty() {
            let fits = connect.client_id.len() <= mqtt.max_clientid_len as usize;
            return if fits {
                Ok((connect.client_id.to_string(), false))
            } else {
                Err(INVALID)
            };
        }
        match connect.version {
            Version::V3_1 => Err(INVALID),
            // [MQTT-3.1.3-8]; MQTT 5 would allow it, but nobody could ever resume the session.
            _ if !connect.clean_start => Err(INVALID),
            _ => Ok((self.assigned_clientid(), true)),
        }
    }

    fn assigned_clientid(&mut self) -> String {
        let random = &mut self.random;
        (0..ASSIGNED_LEN)
            .map(|_| char::from(ASSIGNED[random.random_range(0..62)]))
            .collect()
    }

    /// Asks the authenticator, if the listener wants that.
    fn ask_authenticator(
        &mut self,
        now: Now,
        (clientid, connect): (&str, &Connect),
        accepted: &Accepted,
    ) -> Result<Option<Decision>, Reason> {
        match accepted.listener.enable_authn {
            EnableAuthn::No => return Ok(None),
            EnableAuthn::QuickDenyAnonymous if connect.username.is_none() => {
                return Err(Reason::NotAuthorized);
            }
            _ => {}
        }
        self.metrics.count(Metric::ClientAuthenticate);
        let identity = Identity {
            clientid,
            username: connect.username.as_deref(),
            peer: accepted.peer,
            listener: &accepted.listener.id,
            cert: accepted.peer_cert.as_deref(),
        };
        let credentials = Credentials {
            identity,
            password: connect.password.as_deref(),
        };
        Ok(Some(self.access.authenticate(now.wall_ms, &credentials)))
    }

    /// Takes an authenticator's answer down.
    fn authenticated(
        &mut self,
        now: Now,
        conn: Conn,
        answer: Authentication,
    ) -> Result<(), Reason> {
        let reason = match answer {
            Authentication::Accept {
                superuser,
                anonymous,
                expire_at_wall_ms,
            } => {
                self.metrics.count(Metric::AuthenticationSuccess);
                if anonymous {
                    self.metrics.count(Metric::AuthenticationSuccessAnonymous);
                    self.metrics.count(Metric::ClientAuthAnonymous);
                }
                let channel = &mut self.channels[conn.0 as usize];
                channel.superuser = superuser;
                if let Some(at) = expire_at_wall_ms {
                    let left_ms = at.saturating_sub(now.wall_ms);
                    let timer = Timer::AuthExpiry(conn, channel.generation);
                    self.wheel.arm(now.mono_ms.saturating_add(left_ms), timer);
                }
                return Ok(());
            }
            Authentication::BadCredentials => Reason::BadUserNameOrPassword,
            Authentication::NotAuthorized => Reason::NotAuthorized,
            Authentication::Banned => Reason::Banned,
            Authentication::Unavailable => Reason::ServerUnavailable,
        };
        self.metrics.count(Metric::AuthenticationFailure);
        Err(reason)
    }

    fn set_up(&mut self, conn: Conn, connect: &Connect, welcome: &Welcome, mqtt: &Mqtt) {
        debug_assert!(welcome.receive_maximum <= mqtt.max_inflight);
        let properties = &connect.properties;
        let channel = &mut self.channels[conn.0 as usize];
        channel.packet_bytes_max = properties.maximum_packet_size().unwrap_or(u32::MAX);
        if let Some(max) = properties.topic_alias_maximum().filter(|max| *max > 0) {
            channel.rare().aliases_out = Some(super::alias::AliasOut::new(max));
        }
        channel.wants_response_information =
            properties.request_response_information().unwrap_or(false);
        channel.keepalive_s = welcome.client.keepalive_s;
        channel.receive_maximum = if channel.version.is_v5() {
            welcome.receive_maximum
        } else {
            u16::MAX
        };
    }

    /// The session is here: CONNACK, then everything the session has for its client.
    pub(crate) fn open(
        &mut self,
        now: Now,
        conn: Conn,
        session_present: bool,
        fx: &mut ShardEffects,
    ) {
        let channel = &mut self.channels[conn.0 as usize];
        let was_held = matches!(channel.phase, Phase::Held | Phase::Proving);
        channel.phase = Phase::Open;
        channel.heard_ms = now.mono_ms;
        let key = channel.session;
        let (generation, silence_ms) = (channel.generation, channel.silence_ms());
        if was_held && channel.paused.clear(Paused::HELD) {
            fx.resume.push(conn);
        }
        if let Some(silence_ms) = silence_ms {
            self.wheel
                .arm(now.mono_ms + silence_ms, Timer::Keepalive(conn, generation));
        }
        self.connack(conn, session_present, fx);
        self.metrics.count(Metric::ClientConnected);
        let (created, resumed) = (Metric::SessionCreated, Metric::SessionResumed);
        self.metrics
            .count(if session_present { resumed } else { created });
        self.announce(key, fx);
        self.list_will(key, None, fx);
        if session_present {
            self.allow_for_forgotten(conn, key);
            self.resend(now, key, fx);
        }
        self.pump(now, key, fx);
    }

    /// A client that comes back after a split may not know the `QoS` 2 exchanges this session has
    /// open. They count beside what it may send, or it could send nothing until they time out.
    fn allow_for_forgotten(&mut self, conn: Conn, key: crate::router::SessionKey) {
        let session = self.sessions.get(key);
        let open = session.and_then(|session| session.awaiting_rel.as_ref());
        let open = open.map_or(0, |waiting| waiting.len() as u16);
        let channel = &mut self.channels[conn.0 as usize];
        channel.receive_maximum = channel.receive_maximum.saturating_add(open);
    }

    fn announce(&mut self, key: crate::router::SessionKey, fx: &mut ShardEffects) {
        let Some(row) = self.client_row(key) else {
            return;
        };
        tracing::debug!(clientid = %row.clientid, peer = %row.peer, "client_connected");
        fx.tell(ToControl::Client(Box::new(ClientEvent::Connected(row))));
    }

    fn connack(&mut self, conn: Conn, session_present: bool, fx: &mut ShardEffects) {
        let channel = &self.channels[conn.0 as usize];
        let mut properties = Properties::new();
        if channel.version.is_v5() {
            self.offer(conn, &mut properties);
        }
        let packet = Connack {
            session_present,
            reason: Reason::Success,
            properties,
        };
        self.metrics.count(Metric::ClientConnack);
        self.send(
            conn,
            &Packet::Connack(packet),
            Metric::PacketsConnackSent,
            fx,
        );
    }

    /// What a v5 CONNACK always carries, as EMQX does.
    fn offer(&self, conn: Conn, properties: &mut Properties) {
        let channel = &self.channels[conn.0 as usize];
        let mqtt = &channel.mqtt;
        let Some(session) = self.sessions.get(channel.session) else {
            return;
        };
        properties
            .set_retain_available(mqtt.retain_available)
            .set_maximum_packet_size(u32::try_from(mqtt.max_packet_bytes).unwrap_or(u32::MAX))
            .set_topic_alias_maximum(mqtt.max_topic_alias)
            .set_wildcard_subscription_available(mqtt.wildcard_subscription)
            .set_subscription_identifier_available(true)
            .set_shared_subscription_available(mqtt.shared_subscription)
            .set_receive_maximum(channel.receive_maximum.max(1));
        if mqtt.max_qos_allowed < 2 {
            properties.set_maximum_qos(mqtt.max_qos_allowed);
        }
        if let Some(seconds) = mqtt.server_keepalive_s {
            properties.set_server_keep_alive(seconds);
        }
        if session.client.assigned {
            properties.set_assigned_client_identifier(session.clientid());
        }
        if channel.wants_response_information && !mqtt.response_information.is_empty() {
            properties.set_response_information(&mqtt.response_information);
        }
    }

    /// CONNACK with an error, then the end.
    pub(crate) fn refuse(&mut self, now: Now, conn: Conn, reason: Reason, fx: &mut ShardEffects) {
        self.metrics.count(Metric::PacketsConnackError);
        if matches!(
            reason,
            Reason::NotAuthorized | Reason::BadUserNameOrPassword
        ) {
            self.metrics.count(Metric::PacketsConnackAuthError);
        }
        self.metrics.count(Metric::ClientConnack);
        let mut properties = Properties::new();
        let accepted = self.channels[conn.0 as usize].accepted.as_ref();
        if let (Reason::UseAnotherServer, Some(accepted)) = (reason, accepted)
            && let Some(address) = self.redirect.of(&accepted.listener.id, conn.0 as usize)
        {
            properties.set_server_reference(address);
        }
        let packet = Connack {
            session_present: false,
            reason,
            properties,
        };
        self.send(
            conn,
            &Packet::Connack(packet),
            Metric::PacketsConnackSent,
            fx,
        );
        self.hang_up(now, conn, CloseReason::ConnectRefused, None, fx);
    }

    /// Bytes that are no packet. A CONNECT that could be recognised is answered in its version.
    pub(crate) fn malformed(
        &mut self,
        now: Now,
        conn: Conn,
        buf: &BytesMut,
        error: DecodeError,
        fx: &mut ShardEffects,
    ) {
        let reason = error.reason();
        let close = match error {
            DecodeError::TooLarge { .. } => CloseReason::FrameTooLarge,
            _ => CloseReason::FrameError,
        };
        tracing::debug!(conn = conn.0, %error, "frame_error");
        let channel = &mut self.channels[conn.0 as usize];
        if channel.phase != Phase::New {
            self.hang_up(now, conn, close, Some(reason), fx);
            return;
        }
        if let DecodeError::UnsupportedVersion { level } = error {
            // A level we do not know is answered as MQTT 5 only from 5 on; v3 clients read code 1.
            channel.version = if level > 5 {
                Version::V5
            } else {
                Version::V3_1_1
            };
            self.refuse(now, conn, reason, fx);
        } else if let Some(version) = dunlin_mqtt::connect_version(buf) {
            channel.version = version;
            self.refuse(now, conn, reason, fx);
        } else {
            self.hang_up(now, conn, close, None, fx);
        }
    }
}

fn check_will(connect: &Connect, mqtt: &Mqtt) -> Result<(), Reason> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    if will.qos.as_u8() > mqtt.max_qos_allowed {
        return Err(Reason::QosNotSupported);
    }
    if will.retain && !mqtt.retain_available {
        return Err(Reason::RetainNotSupported);
    }
    if dunlin_mqtt::topic::level_count(will.topic.as_str()) > mqtt.max_topic_levels as usize {
        return Err(Reason::TopicNameInvalid);
    }
    Ok(())
}

/// How long the session outlives the connection, seconds.
fn expiry_s(connect: &Connect, mqtt: &Mqtt) -> u32 {
    if connect.version.is_v5() {
        return connect.properties.session_expiry_interval().unwrap_or(0);
    }
    if connect.clean_start {
        return 0;
    }
    u32::try_from(mqtt.session_expiry_interval_ms / 1_000).unwrap_or(u32::MAX)
}

fn new_client(
    now: Now,
    connect: &Connect,
    accepted: &Accepted,
    mqtt: &Arc<Mqtt>,
    (origin, assigned): (&Origin, bool),
) -> Client {
    let server_keepalive = mqtt.server_keepalive_s.filter(|_| connect.version.is_v5());
    Client {
        peer: accepted.peer,
        listener: Arc::clone(&accepted.listener),
        cert: accepted.peer_cert.clone(),
        mountpoint: mountpoint(&accepted.listener.mountpoint, origin),
        mqtt: Arc::clone(mqtt),
        connected_at_wall_ms: now.wall_ms,
        disconnected_at_wall_ms: None,
        version: connect.version,
        keepalive_s: server_keepalive.unwrap_or(connect.keepalive),
        clean_start: connect.clean_start,
        bridge: connect.bridge,
        assigned,
        superuser: false,
    }
}

fn new_will(connect: &Connect, client: &Client, origin: &Arc<Origin>) -> Option<Arc<Will>> {
    let will = connect.will.as_deref()?;
    let topic = match &client.mountpoint {
        Some(mountpoint) => format!("{mountpoint}{}", will.topic.as_str()),
        None => will.topic.as_str().to_owned(),
    };
    let forwarded = will.properties.raw_forwardable();
    let parts = Parts {
        topic: &topic,
        properties: &forwarded,
        payload: &will.payload,
        clientid: "",
    };
    let head = Head {
        qos: will.qos,
        retain: will.retain,
        dup: false,
        origin: Some(Arc::clone(origin)),
        id: 0,
        expires_wall_ms: None,
    };
    Some(Arc::new(Will {
        message: Message::new(parts, head),
        delay_s: will.properties.will_delay_interval().unwrap_or(0),
        expiry_s: will.properties.message_expiry_interval(),
    }))
}

/// The listener's mountpoint for this client; `None` if it has none.
fn mountpoint(template: &str, origin: &Origin) -> Option<Box<str>> {
    if template.is_empty() {
        return None;
    }
    let username = origin.username.as_deref().unwrap_or("");
    let text = template
        .replace("${clientid}", &origin.clientid)
        .replace("${username}", username);
    Some(text.into())
}

/// A session for a fresh CONNECT.
pub(crate) fn new_session(now: Now, welcome: Welcome) -> Session {
    let window = welcome.receive_maximum;
    let mut session = Session::new(welcome.origin, welcome.client, now.wall_ms, window);
    session.expiry_s = welcome.expiry_s;
    session.will = welcome.will;
    session
}
