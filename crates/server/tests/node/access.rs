//! Who may connect and what clients may do, with the files and passwords of a real node.

use std::sync::Arc;

use super::client::{Client, packet, publish, tcp};
use super::harness::{Node, free_name};

const BUILT_IN: &str = "password_based:built_in_database";

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// CONNECT of MQTT 5 with user name and password; the reason code of the answer.
async fn login(port: u16, username: &str, password: &str) -> (u8, Client<tokio::net::TcpStream>) {
    let head = [&string("MQTT")[..], &[5, 0b1100_0010, 0, 60, 0]].concat();
    let body = [head, string(username), string(username), string(password)].concat();
    let mut client = Client {
        stream: tcp(port).await,
    };
    client.send(&packet(0x10, &body)).await;
    let (first, body) = client.packet().await;
    assert_eq!(first, 0x20, "CONNACK");
    (body[1], client)
}

/// The reason code of a SUBSCRIBE.
async fn subscribe(client: &mut Client<tokio::net::TcpStream>, filter: &str) -> u8 {
    let body = [&[0, 1, 0][..], &string(filter), &[0]].concat();
    client.send(&packet(0x82, &body)).await;
    let (first, body) = client.packet().await;
    assert_eq!(first, 0x90, "SUBACK");
    *body.last().expect("a reason code")
}

const OK: u8 = 0;
const BAD_CREDENTIALS: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;

#[tokio::test]
async fn users_of_the_built_in_database_connect_whatever_their_passwords_cost() {
    for algorithm in [
        "{name = sha256, salt_position = suffix}",
        "{name = bcrypt, salt_rounds = 5}",
        "{name = pbkdf2, mac_fun = sha256, iterations = 1000}",
    ] {
        let node = Node::start(&format!(
            "authentication = {{mechanism = password_based, backend = built_in_database, \
             password_hash_algorithm = {algorithm}}}"
        ))
        .await;
        let (admin, port) = (node.admin.clone(), node.port("tcp:default"));
        assert_eq!(login(port, "ann", "secret").await.0, NOT_AUTHORIZED);
        let added = admin.add_mqtt_user(BUILT_IN, "ann", "secret", false).await;
        added.expect("a new user");
        assert_eq!(login(port, "ann", "wrong").await.0, BAD_CREDENTIALS);
        let (reason, mut ann) = login(port, "ann", "secret").await;
        assert_eq!(reason, OK, "{algorithm}");
        assert_eq!(subscribe(&mut ann, "a").await, OK);
        ann.send(&publish("a", b"x")).await;
        assert_eq!(ann.packet().await.0, 0x30);
        let changed = admin
            .update_mqtt_user(BUILT_IN, "ann", Some("other"), None)
            .await;
        changed.expect("she is there");
        assert_eq!(login(port, "ann", "secret").await.0, BAD_CREDENTIALS);
        assert_eq!(login(port, "ann", "other").await.0, OK);
        let deleted = admin.delete_mqtt_user(BUILT_IN, "ann").await;
        deleted.expect("she is there");
        assert_eq!(login(port, "ann", "other").await.0, NOT_AUTHORIZED);
        node.stop().await.expect("it started");
    }
}

#[tokio::test]
async fn first_users_and_rules_come_from_files_and_a_superuser_is_above_them() {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let etc = dir.path().join("etc");
    std::fs::create_dir(&etc).expect("just made");
    let users = "user_id,password,is_superuser\nann,a-secret,false\nroot,r-secret,true\n";
    std::fs::write(etc.join("users.csv"), users).expect("just made");
    let rules = "{allow, all, all, [\"own/${username}/#\"]}.\n{deny, all}.\n";
    std::fs::write(etc.join("rules.conf"), rules).expect("just made");
    let text = "authentication = [{mechanism = password_based, backend = built_in_database, \
                bootstrap_file = \"${EMQX_ETC_DIR}/users.csv\"}]\n\
                authorization.sources = [{type = file, path = \"${EMQX_ETC_DIR}/rules.conf\"}]\n\
                authorization.no_match = deny";
    let name = free_name();
    let node = Node::start_in(dir.clone(), &name, text).await;
    let node = node.unwrap_or_else(|exit| panic!("{exit:?}"));
    let port = node.port("tcp:default");
    let (_, mut ann) = login(port, "ann", "a-secret").await;
    assert_eq!(subscribe(&mut ann, "own/ann/#").await, OK);
    assert_eq!(subscribe(&mut ann, "own/+/x").await, NOT_AUTHORIZED);
    let (reason, mut root) = login(port, "root", "r-secret").await;
    assert_eq!((reason, subscribe(&mut root, "#").await), (OK, OK));
    let admin = node.admin.clone();
    let changed = admin
        .update_mqtt_user(BUILT_IN, "ann", Some("b-secret"), None)
        .await;
    changed.expect("she is there");
    node.stop().await.expect("it started");
    // A file of first users does not bring old passwords back.
    let node = Node::start_in(dir, &name, text).await;
    let node = node.unwrap_or_else(|exit| panic!("{exit:?}"));
    let port = node.port("tcp:default");
    assert_eq!(login(port, "ann", "a-secret").await.0, BAD_CREDENTIALS);
    assert_eq!(login(port, "ann", "b-secret").await.0, OK);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn what_is_asked_for_and_not_there_lets_nobody_through() {
    let node = Node::start("authentication = [{mechanism = jwt, secret = x}]").await;
    let port = node.port("tcp:default");
    assert_eq!(login(port, "ann", "secret").await.0, NOT_AUTHORIZED);
    node.stop().await.expect("it started");
    let node = Node::start("authorization.sources = [{type = http, url = \"http://a\"}]").await;
    let (reason, mut ann) = login(node.port("tcp:default"), "ann", "secret").await;
    assert_eq!(reason, OK);
    assert_eq!(subscribe(&mut ann, "a").await, NOT_AUTHORIZED);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn rules_that_cannot_be_used_stop_the_start_with_the_place_and_the_cure() {
    let dir = || Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let with_rules = dir();
    let etc = with_rules.path().join("etc");
    std::fs::create_dir(&etc).expect("just made");
    std::fs::write(etc.join("acl.conf"), "{allow, all}.\n\n{deny all}.\n").expect("just made");
    let file = "authorization.sources = [{type = file, path = \"${EMQX_ETC_DIR}/acl.conf\"}]";
    for (dir, text, says) in [
        (with_rules, file, "line 3"),
        (dir(), file, "restore the file"),
        (dir(), "authentication = [{backend = x}]", "no mechanism"),
    ] {
        let Err(exit) = Node::start_in(dir, &free_name(), text).await else {
            panic!("it started with {text}");
        };
        let error = exit.expect_err("no exit of a node that ran").to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
