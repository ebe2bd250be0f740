//! CONNECT, CONNACK, keepalive, limits of both.

use std::sync::Arc;

use dunlin_mqtt::{Connect, Packet, QoS, Reason, TopicName, Version, Will};

use super::net::{Net, VERSIONS, drain, persistent, settings};
use crate::access::{Access, Authentication, Authenticator, Credentials, Decision, Proof};
use crate::effects::{CloseReason, ToShard};
use crate::metrics::Metric;
use crate::settings::{EnableAuthn, ListenerSettings, Mqtt};

#[track_caller]
fn check_refused(net: &mut Net, connect: Connect, reason: Reason) {
    let version = connect.version;
    let c = net.accept(version);
    net.send(c, Packet::Connect(Box::new(connect)));
    let connack = net.connack(c);
    if version.is_v5() {
        assert_eq!(connack.reason, reason);
    } else {
        assert_eq!(connack.reason.connack_v3(), reason.connack_v3());
    }
    assert!(!connack.session_present);
    net.check_closed(c, CloseReason::ConnectRefused);
}

#[test]
fn connects_in_every_version() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.client(version, "c");
        assert!(net.is_open(c));
        assert_eq!(net.metric(Metric::ClientConnected), 1);
        assert_eq!(net.metric(Metric::PacketsConnackSent), 1);
        assert_eq!(net.metric(Metric::SessionCreated), 1);
    }
}

#[test]
fn connack_of_v5_offers_what_emqx_offers() {
    let mut net = Net::new();
    let c = net.accept(Version::V5);
    let mut connect = Connect::new(Version::V5, "");
    connect.properties.set_receive_maximum(10);
    net.send(c, Packet::Connect(Box::new(connect)));
    let connack = net.connack(c);
    let p = &connack.properties;
    assert_eq!(p.retain_available(), Some(true));
    assert_eq!(p.maximum_packet_size(), Some(1 << 20));
    assert_eq!(p.topic_alias_maximum(), Some(65_535));
    assert_eq!(p.wildcard_subscription_available(), Some(true));
    assert_eq!(p.subscription_identifier_available(), Some(true));
    assert_eq!(p.shared_subscription_available(), Some(true));
    assert_eq!(p.receive_maximum(), Some(10), "the least of both windows");
    assert_eq!(p.maximum_qos(), None);
    assert_eq!(p.server_keep_alive(), None);
    assert_eq!(p.session_expiry_interval(), None);
    assert_eq!(p.assigned_client_identifier().map(str::len), Some(22));
}

#[test]
fn connack_says_what_the_settings_limit() {
    let mut net = Net::mqtt(Mqtt {
        max_qos_allowed: 1,
        retain_available: false,
        server_keepalive_s: Some(33),
        response_information: "rr/".to_owned(),
        ..Mqtt::default()
    });
    let c = net.accept(Version::V5);
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.set_request_response_information(true);
    net.send(c, Packet::Connect(Box::new(connect)));
    let connack = net.connack(c);
    let p = &connack.properties;
    assert_eq!(p.maximum_qos(), Some(1));
    assert_eq!(p.retain_available(), Some(false));
    assert_eq!(p.server_keep_alive(), Some(33));
    assert_eq!(p.receive_maximum(), Some(32));
    assert_eq!(p.response_information(), Some("rr/"));
    assert_eq!(p.assigned_client_identifier(), None);
}

#[test]
fn empty_client_identifiers() {
    let mut net = Net::new();
    for (version, clean_start, accepted) in [
        (Version::V3_1, true, false),
        (Version::V3_1, false, false),
        (Version::V3_1_1, true, true),
        (Version::V3_1_1, false, false),
        (Version::V5, true, true),
        (Version::V5, false, false),
    ] {
        let mut connect = Connect::new(version, "");
        connect.clean_start = clean_start;
        if accepted {
            let c = net.accept(version);
            assert!(!net.connect(c, connect));
        } else {
            check_refused(&mut net, connect, Reason::ClientIdentifierNotValid);
        }
    }
}

#[test]
fn long_client_identifiers_are_refused() {
    let mut net = Net::mqtt(Mqtt {
        max_clientid_len: 23,
        ..Mqtt::default()
    });
    for version in VERSIONS {
        let long = "x".repeat(24);
        check_refused(
            &mut net,
            Connect::new(version, &long),
            Reason::ClientIdentifierNotValid,
        );
        net.client(version, &"x".repeat(23));
    }
}

#[test]
fn the_user_name_may_become_the_client_identifier() {
    let mut net = Net::mqtt(Mqtt {
        use_username_as_clientid: true,
        ..Mqtt::default()
    });
    check_refused(
        &mut net,
        Connect::new(Version::V5, "c"),
        Reason::ClientIdentifierNotValid,
    );
    let c = net.accept(Version::V5);
    let mut connect = Connect::new(Version::V5, "c");
    connect.username = Some("user".into());
    net.connect(c, connect);
    assert!(net.nodes[0].shared.registry().lookup("user").is_some());
}

#[test]
fn unknown_levels_are_refused_in_words_the_client_knows() {
    let mut net = Net::new();
    let c = net.accept(Version::V3_1_1);
    net.bytes(c, b"\x10\x0d\x00\x04MQTT\x02\x02\x00\x00\x00\x01c");
    assert_eq!(net.connack(c).reason.connack_v3(), 1);
    net.check_closed(c, CloseReason::ConnectRefused);
    let c = net.accept(Version::V5);
    net.bytes(c, b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01c");
    assert_eq!(net.connack(c).reason, Reason::UnsupportedProtocolVersion);
    let c = net.accept(Version::V3_1_1);
    net.bytes(c, b"\x10\x0d\x00\x04HTTP\x04\x02\x00\x00\x00\x01c");
    assert_eq!(net.connack(c).reason.connack_v3(), 1);
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.client(version, "c");
        net.send(c, Packet::Connect(Box::new(Connect::new(version, "c"))));
        net.check_closed(c, CloseReason::ProtocolError);
        if version.is_v5() {
            net.check_disconnected(c, Reason::ProtocolError);
        } else {
            net.nothing(c);
        }
    }
}

#[test]
fn anything_before_connect_closes_without_a_word() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.accept(version);
        net.send(c, Packet::Pingreq);
        net.nothing(c);
        assert!(!net.is_open(c));
        let c = net.accept(version);
        net.bytes(c, b"GET / HTTP/1.1\r\n\r\n");
        net.nothing(c);
        net.check_closed(c, CloseReason::FrameError);
    }
}

#[test]
fn malformed_and_oversize_packets_after_connect() {
    let mut net = Net::mqtt(Mqtt {
        max_packet_bytes: 100,
        ..Mqtt::default()
    });
    let c = net.client(Version::V5, "c");
    net.bytes(c, &[0x30, 200, 1, 0, 1]);
    net.check_disconnected(c, Reason::PacketTooLarge);
    net.check_closed(c, CloseReason::FrameTooLarge);
    let c = net.client(Version::V5, "c");
    net.bytes(c, &[0x36, 5, 0, 1, b'a', 0, 1]);
    net.check_disconnected(c, Reason::MalformedPacket);
    let c = net.client(Version::V3_1_1, "c");
    net.bytes(c, &[0x36, 5, 0, 1, b'a', 0, 1]);
    net.nothing(c);
    net.check_closed(c, CloseReason::FrameError);
    // A zero length where more is needed is malformed, not waited for.
    let c = net.client(Version::V5, "c");
    net.bytes(c, &[0x82, 0]);
    net.check_disconnected(c, Reason::MalformedPacket);
}

#[test]
fn no_connect_in_time_closes() {
    let mut net = Net::new();
    let c = net.accept(Version::V5);
    net.pass(14_900);
    assert!(net.is_open(c));
    net.pass(200);
    net.check_closed(c, CloseReason::IdleTimeout);
    let c = net.client(Version::V5, "c");
    net.pass(20_000);
    assert!(net.is_open(c), "a connected client may be idle");
}

#[test]
fn keepalive_closes_after_one_and_a_half() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.accept(version);
        let mut connect = Connect::new(version, "c");
        connect.keepalive = 10;
        net.connect(c, connect);
        net.pass(14_000);
        net.send(c, Packet::Pingreq);
        assert_eq!(net.one(c), Packet::Pingresp);
        net.pass(14_900);
        assert!(net.is_open(c));
        net.pass(150);
        net.check_closed(c, CloseReason::KeepaliveTimeout);
        if version.is_v5() {
            net.check_disconnected(c, Reason::KeepAliveTimeout);
        }
    }
}

#[test]
fn keepalive_zero_never_closes_and_the_server_may_impose_one_on_v5() {
    let mut net = Net::new();
    let c = net.client(Version::V3_1_1, "c");
    net.pass(3_600_000);
    assert!(net.is_open(c));
    let mut net = Net::mqtt(Mqtt {
        server_keepalive_s: Some(10),
        ..Mqtt::default()
    });
    let five = net.client(Version::V5, "five");
    let three = net.client(Version::V3_1_1, "three");
    net.pass(15_100);
    net.check_closed(five, CloseReason::KeepaliveTimeout);
    assert!(net.is_open(three));
}

#[test]
fn wills_the_settings_forbid_refuse_the_connect() {
    let will = |topic: &str, qos, retain| {
        let mut connect = Connect::new(Version::V5, "c");
        connect.will = Some(Box::new(Will {
            topic: TopicName::new(topic).expect("valid"),
            payload: bytes::Bytes::new(),
            qos,
            retain,
            properties: dunlin_mqtt::Properties::new(),
        }));
        connect
    };
    let mut net = Net::mqtt(Mqtt {
        max_qos_allowed: 1,
        retain_available: false,
        max_topic_levels: 3,
        ..Mqtt::default()
    });
    check_refused(
        &mut net,
        will("w", QoS::ExactlyOnce, false),
        Reason::QosNotSupported,
    );
    check_refused(
        &mut net,
        will("w", QoS::AtMostOnce, true),
        Reason::RetainNotSupported,
    );
    check_refused(
        &mut net,
        will("1/2/3/4", QoS::AtMostOnce, false),
        Reason::TopicNameInvalid,
    );
    let c = net.accept(Version::V5);
    net.connect(c, will("1/2/3", QoS::AtLeastOnce, false));
}

#[test]
fn enhanced_authentication_is_not_offered() {
    let mut net = Net::new();
    let mut connect = Connect::new(Version::V5, "c");
    connect
        .properties
        .set_authentication_method("SCRAM-SHA-256");
    check_refused(&mut net, connect, Reason::BadAuthenticationMethod);
    let c = net.client(Version::V5, "c");
    let mut properties = dunlin_mqtt::Properties::new();
    properties.set_authentication_method("x");
    let auth = dunlin_mqtt::Auth {
        reason: Reason::ReAuthenticate,
        properties,
    };
    net.send(c, Packet::Auth(auth));
    net.check_disconnected(c, Reason::ProtocolError);
}

struct Gate;

impl Authenticator for Gate {
    fn authenticate(&self, wall_ms: u64, credentials: &Credentials<'_>) -> Decision {
        if let Some("slow" | "slow-wrong") = credentials.identity.username {
            let right = credentials.identity.username == Some("slow");
            return Decision::Later(Proof::new(move || {
                if right {
                    Authentication::Accept {
                        superuser: true,
                        anonymous: false,
                        expire_at_wall_ms: None,
                    }
                } else {
                    Authentication::BadCredentials
                }
            }));
        }
        Decision::Now(match credentials.identity.username {
            Some("banned") => Authentication::Banned,
            Some("down") => Authentication::Unavailable,
            Some("short") => Authentication::Accept {
                superuser: false,
                anonymous: false,
                expire_at_wall_ms: Some(wall_ms + 5_000),
            },
            Some("user") if credentials.password == Some(b"secret") => Authentication::Accept {
                superuser: true,
                anonymous: false,
                expire_at_wall_ms: None,
            },
            Some("user") => Authentication::BadCredentials,
            _ => Authentication::NotAuthorized,
        })
    }
}

#[test]
fn a_check_that_takes_its_time_holds_only_its_own_connection() {
    for version in VERSIONS {
        let mut net = gated();
        net.hold_proofs = true;
        let slow = net.accept(version);
        net.send(
            slow,
            Packet::Connect(Box::new(with_user(version, "slow", "x"))),
        );
        // Sent behind the CONNECT, before its answer.
        net.send(slow, Packet::Pingreq);
        net.nothing(slow);
        assert!(net.clients[slow.0].paused);
        let other = net.accept(version);
        let mut connect = with_user(version, "user", "secret");
        connect.client_id = "other".into();
        net.connect(other, connect);
        net.pass(20_000);
        assert!(net.is_open(slow), "there is no limit of time for us");
        net.release_proofs();
        assert_eq!(net.connack(slow).reason, Reason::Success);
        assert_eq!(net.one(slow), Packet::Pingresp);
        assert!(!net.clients[slow.0].paused);
    }
}

#[test]
fn a_slow_check_refuses_and_a_client_that_left_is_forgotten() {
    let mut net = gated();
    let wrong = with_user(Version::V5, "slow-wrong", "x");
    check_refused(&mut net, wrong, Reason::BadUserNameOrPassword);
    net.hold_proofs = true;
    let gone = net.accept(Version::V5);
    net.send(
        gone,
        Packet::Connect(Box::new(with_user(Version::V5, "slow", "x"))),
    );
    net.drop_client(gone);
    // Its place may have been taken meanwhile.
    let next = net.accept(Version::V5);
    net.release_proofs();
    net.nothing(next);
    assert_eq!(net.metric(Metric::ClientConnected), 0);
    net.hold_proofs = true;
    let stopping = net.accept(Version::V5);
    net.send(
        stopping,
        Packet::Connect(Box::new(with_user(Version::V5, "slow", "x"))),
    );
    net.tell(0, 0, drain());
    net.release_proofs();
    assert_eq!(net.metric(Metric::ClientConnected), 0);
}

fn gated() -> Net {
    let mut net = Net::new();
    let authenticator = Some(Arc::new(Gate) as Arc<dyn Authenticator>);
    net.nodes[0].shared.set_access(Access {
        authenticator,
        ..Access::default()
    });
    net.tell(0, 0, ToShard::AccessChanged);
    net
}

fn with_user(version: Version, user: &str, password: &str) -> Connect {
    let mut connect = Connect::new(version, "c");
    connect.username = Some(user.into());
    connect.password = Some(password.as_bytes().to_vec().into());
    connect
}

#[test]
fn authentication_decides_with_its_own_reasons() {
    for version in VERSIONS {
        let mut net = gated();
        check_refused(&mut net, Connect::new(version, "c"), Reason::NotAuthorized);
        let bad = with_user(version, "user", "wrong");
        check_refused(&mut net, bad, Reason::BadUserNameOrPassword);
        check_refused(&mut net, with_user(version, "banned", "x"), Reason::Banned);
        check_refused(
            &mut net,
            with_user(version, "down", "x"),
            Reason::ServerUnavailable,
        );
        let c = net.accept(version);
        net.connect(c, with_user(version, "user", "secret"));
        assert_eq!(net.metric(Metric::AuthenticationFailure), 4);
        assert_eq!(net.metric(Metric::AuthenticationSuccess), 1);
        assert_eq!(net.metric(Metric::PacketsConnackAuthError), 2);
    }
}

#[test]
fn credentials_that_end_close_the_connection() {
    let mut net = gated();
    let c = net.accept(Version::V5);
    net.connect(c, with_user(Version::V5, "short", "x"));
    net.pass(4_900);
    assert!(net.is_open(c));
    net.pass(200);
    net.check_disconnected(c, Reason::NotAuthorized);
}

#[test]
fn listeners_choose_whether_to_authenticate() {
    let mut net = gated();
    let open = ListenerSettings {
        enable_authn: EnableAuthn::No,
        ..ListenerSettings::default()
    };
    let c = net.accept_via(0, 0, Version::V5, open);
    net.connect(c, Connect::new(Version::V5, "c"));
    let quick = ListenerSettings {
        enable_authn: EnableAuthn::QuickDenyAnonymous,
        ..ListenerSettings::default()
    };
    let c = net.accept_via(0, 0, Version::V5, quick);
    net.send(c, Packet::Connect(Box::new(Connect::new(Version::V5, "d"))));
    assert_eq!(net.connack(c).reason, Reason::NotAuthorized);
    assert_eq!(net.metric(Metric::ClientAuthenticate), 0);
}

#[test]
fn a_zone_has_its_own_settings() {
    let mut settings = settings(Mqtt::default());
    let own = Mqtt {
        max_qos_allowed: 0,
        ..Mqtt::default()
    };
    settings.zones.insert("narrow".to_owned(), Arc::new(own));
    let mut net = Net::with(1, 1, settings);
    let listener = ListenerSettings {
        zone: "narrow".to_owned(),
        ..ListenerSettings::default()
    };
    let c = net.accept_via(0, 0, Version::V5, listener);
    net.send(c, Packet::Connect(Box::new(Connect::new(Version::V5, "c"))));
    assert_eq!(net.connack(c).properties.maximum_qos(), Some(0));
}

#[test]
fn packets_behind_connect_are_taken_at_once() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.accept(version);
        let mut all = net
            .encode(c, Packet::Connect(Box::new(persistent(version, "c"))))
            .to_vec();
        all.extend_from_slice(&net.encode(c, Packet::Pingreq));
        for byte in all {
            net.bytes(c, &[byte]);
        }
        let packets = net.take(c);
        assert!(matches!(
            packets[..],
            [Packet::Connack(_), Packet::Pingresp]
        ));
    }
}
