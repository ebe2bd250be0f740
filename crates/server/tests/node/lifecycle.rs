//! Start, stop, and what an operator can do in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use dunlin_server::admin::{AdminError, ClientFilter, Publication, Scope};
use dunlin_server::{ExitReason, StartError};

use super::client::{Client, connect, tcp};
use super::harness::{Node, eventually, free_name};

#[tokio::test]
async fn a_graceful_stop_tells_clients_and_keeps_users() {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let name = free_name();
    let node = Node::start_in(dir.clone(), &name, "")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    node.admin
        .add_user("ada", "enchantress1", "")
        .await
        .expect("a new user");
    let mut client = Client::connect(tcp(node.port("tcp:default")).await, "c1").await;
    let stopping = tokio::spawn(node.stop());
    let (first, body) = client.packet().await;
    assert_eq!(
        (first, body[0]),
        (0xe0, 0x8b),
        "DISCONNECT, server shutting down"
    );
    assert_eq!(client.rest().await, b"");
    drop(client);
    let exit = stopping.await.expect("no panic").expect("it started");
    assert_eq!(exit, ExitReason::Stopped);
    assert_eq!(exit.code(), 0);

    let node = Node::start_in(dir, &name, "")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    node.admin
        .login("ada", "enchantress1")
        .await
        .expect("the user is still there");
    let wrong = node.admin.login("ada", "enchantress2").await;
    assert!(matches!(wrong, Err(AdminError::Credentials)));
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn a_port_in_use_stops_the_start_with_name_address_and_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let text = format!("listeners.tcp.default.bind = \"{address}\"");
    let exit = Node::start_in(dir.clone(), &free_name(), &text)
        .await
        .err()
        .expect("no start");
    let error = exit.expect_err("no start").to_string();
    let first = format!("Failed to start listener tcp:default on {address}: eaddrinuse.");
    assert!(error.starts_with(&first), "{error}");
    assert!(error.contains("listeners.tcp.default.bind"), "{error}");

    // Everything that was opened is closed again: the same directory starts with a free port.
    let name = free_name();
    let other = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let exit = Node::start_in(other.clone(), &name, &text)
        .await
        .err()
        .expect("no start");
    exit.expect_err("no start");
    let node = Node::start_in(other, &name, "")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn one_directory_is_one_node() {
    let node = Node::start("").await;
    let exit = Node::start_in(node.dir.clone(), &free_name(), "")
        .await
        .err()
        .expect("no start");
    assert!(matches!(exit, Err(StartError::Store(_))), "{exit:?}");
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let exit = Node::start_in(dir, &node.name, "")
        .await
        .err()
        .expect("no start");
    let error = exit.expect_err("the inter-node port is taken").to_string();
    assert!(
        error.starts_with("port ") && error.contains("is in use"),
        "{error}"
    );
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn an_unreadable_certificate_stops_the_start() {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let text = "listeners.ssl.default { enable = true, bind = \"127.0.0.1:0\", \
                ssl_options { certfile = \"no/such.pem\", keyfile = \"no/such.key\" } }";
    let exit = Node::start_in(dir, &free_name(), text)
        .await
        .err()
        .expect("no start");
    let error = exit.expect_err("no start").to_string();
    assert!(
        error.starts_with("Failed to start listener ssl:default on 127.0.0.1:0: "),
        "{error}"
    );
    assert!(
        error.contains("no/such.pem") && error.contains("ssl_options.certfile"),
        "{error}"
    );
}

#[tokio::test]
async fn listeners_stop_and_start_while_the_node_runs() {
    let node = Node::start("listeners.tcp.other { bind = \"127.0.0.1:0\" }").await;
    let port = node.port("tcp:other");
    let mut client = Client::connect(tcp(port).await, "c1").await;
    node.admin
        .stop_listener("tcp:other")
        .await
        .expect("it runs");
    client.rest().await;
    assert!(
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
        "it is closed"
    );
    let again = node.admin.stop_listener("tcp:other").await;
    assert!(
        matches!(again, Err(AdminError::ListenerStopped { .. })),
        "{again:?}"
    );
    let unknown = node.admin.stop_listener("tcp:unknown").await;
    assert!(
        matches!(unknown, Err(AdminError::ListenerNotFound { .. })),
        "{unknown:?}"
    );
    node.admin
        .start_listener("tcp:other")
        .await
        .expect("it was stopped");
    Client::connect(tcp(node.port("tcp:other")).await, "c2").await;
    Client::connect(tcp(node.port("tcp:default")).await, "c3").await;
    node.admin
        .restart_listener("tcp:other")
        .await
        .expect("it can always be done");
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn operators_see_and_act_on_clients() {
    let node = Node::start("").await;
    let admin = node.admin.clone();
    let mut client = Client::connect(tcp(node.port("tcp:default")).await, "c1").await;
    client.subscribe("a/+").await;
    let rows = admin
        .clients(Scope::Local, ClientFilter::default())
        .await
        .expect("an answer");
    assert_eq!(
        (rows.len(), rows[0].clientid.as_str(), rows[0].proto_ver),
        (1, "c1", 5)
    );
    let rows = admin.subscriptions(Scope::Local).await.expect("an answer");
    assert_eq!((rows.len(), rows[0].topic.as_str()), (1, "a/+"));
    let topics = admin.topics().await.expect("an answer");
    assert_eq!(
        (topics.len(), topics[0].node.as_str()),
        (1, node.name.as_str())
    );

    let publication = Publication {
        topic: "a/b".to_owned(),
        payload: b"from outside".to_vec(),
        ..Publication::default()
    };
    let published = admin
        .publish(publication.clone())
        .await
        .expect("it is right");
    assert!(published.matched);
    assert!(client.packet().await.1.ends_with(b"from outside"));
    let nobody = Publication {
        topic: "nobody".to_owned(),
        ..publication
    };
    assert!(!admin.publish(nobody).await.expect("it is right").matched);

    let stats = admin.stats(Scope::Local).await.expect("an answer");
    assert_eq!(stats[0].values["live_connections.count"], 1);
    let metrics = admin.metrics(Scope::Local).await.expect("an answer");
    assert_eq!(metrics[0].values["packets.connect.received"], 1);

    admin.kick("c1").await.expect("it is connected");
    client.rest().await;
    let gone = || async {
        matches!(
            admin.kick("c1").await,
            Err(AdminError::ClientNotFound { .. })
        )
        .then_some(())
    };
    eventually(gone).await;
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn retained_messages_are_counted_listed_and_cleaned() {
    let node = Node::start("").await;
    let admin = node.admin.clone();
    for topic in ["r/1", "r/2", "s/1"] {
        let publication = Publication {
            topic: topic.to_owned(),
            payload: b"kept".to_vec(),
            retain: true,
            ..Publication::default()
        };
        admin.publish(publication).await.expect("it is right");
    }
    assert_eq!(admin.retained_count(), 3);
    let rows = admin.retained(Some("r/#"), None, 1).expect("a filter");
    assert_eq!(rows[0].topic, "r/1");
    let rows = admin
        .retained(Some("r/#"), Some("r/1"), 10)
        .expect("a filter");
    assert_eq!((rows.len(), rows[0].topic.as_str()), (1, "r/2"));
    let one = admin
        .retained_message("s/1")
        .expect("a topic")
        .expect("it is there");
    assert_eq!(one.payload, b"kept");
    assert_eq!(admin.clean_retained("r/#").await.expect("a filter"), 2);
    assert_eq!(admin.retained_count(), 1);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn users_and_api_keys_follow_the_rules() {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    std::fs::write(dir.path().join("keys"), "k1:s1\nk2:s2:viewer\n").expect("writable");
    let text = "api_key.bootstrap_file = keys";
    let name = free_name();
    let node = Node::start_in(dir, &name, text)
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    let admin = node.admin.clone();
    eventually(|| async { (admin.users().len() == 1).then_some(()) }).await;
    assert!(
        admin
            .login("admin", "public")
            .await
            .expect("the first user")
            .default_password
    );
    let weak = admin.add_user("bob", "short", "").await;
    assert!(matches!(weak, Err(AdminError::Password(_))), "{weak:?}");
    let twice = admin.add_user("admin", "password1", "").await;
    assert!(
        matches!(twice, Err(AdminError::UserExists { .. })),
        "{twice:?}"
    );
    admin
        .set_password("admin", "password1")
        .await
        .expect("the user exists");
    assert!(
        !admin
            .login("admin", "password1")
            .await
            .expect("new password")
            .default_password
    );

    assert!(admin.check_api_key("k1", "s1").is_some());
    assert!(admin.check_api_key("k1", "s2").is_none());
    let (row, secret) = admin
        .create_api_key("mine", "", None)
        .await
        .expect("a new name");
    assert!(admin.check_api_key(&row.api_key, &secret).is_some());
    admin
        .update_api_key("mine", None, Some(false), None)
        .await
        .expect("it exists");
    assert!(admin.check_api_key(&row.api_key, &secret).is_none());
    assert_eq!(admin.api_keys().len(), 3);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn the_control_socket_is_private_and_answers() {
    let node = Node::start("").await;
    let path = dunlin_server::ctl::path_of(&node.dir.path().join("run"), &node.name);
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600);
    let name = node.name.clone();
    let answers = tokio::task::spawn_blocking(move || {
        let mut socket = UnixStream::connect(path).expect("it is open");
        socket
            .write_all(b"{\"args\":[\"cluster\",\"status\"],\"columns\":80}\n")
            .expect("it reads");
        BufReader::new(socket)
            .lines()
            .map(|line| line.expect("text"))
            .collect::<Vec<_>>()
    });
    let expected = [
        format!("{{\"out\":\"{name} [\\\"cluster\\\", \\\"status\\\"]\\n\"}}"),
        "{\"err\":\"and a word aside\\n\"}".to_owned(),
        "{\"exit\":7}".to_owned(),
    ];
    assert_eq!(answers.await.expect("no panic"), expected);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let node = Node::start("mqtt.idle_timeout = 1s").await;
    let mut silent = Client {
        stream: tcp(node.port("tcp:default")).await,
    };
    assert_eq!(silent.rest().await, b"");
    let mut garbage = Client {
        stream: tcp(node.port("tcp:default")).await,
    };
    garbage.send(b"GET / HTTP/1.1\r\n\r\n").await;
    garbage.rest().await;
    let mut cut = Client {
        stream: tcp(node.port("tcp:default")).await,
    };
    cut.send(&connect("c1")[..5]).await;
    drop(cut);
    node.stop().await.expect("it started");
}
