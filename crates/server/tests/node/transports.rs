//! One MQTT conversation over each transport, and what each transport refuses.

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;

use super::client::{Client, Ws, connect, packet, publish, tcp, tls};
use super::harness::{Node, eventually};

const BINARY: u8 = 2;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

#[tokio::test]
async fn tcp_carries_packets_whole_in_pieces_and_many_at_once() {
    let node = Node::start("").await;
    let mut client = Client::connect(tcp(node.port("tcp:default")).await, "c1").await;
    client.subscribe("a/#").await;
    client.echo("a/b", b"payload").await;

    let large = vec![b'x'; 300_000];
    client.echo("a/large", &large).await;

    for byte in publish("a/slow", b"in pieces") {
        client.send(&[byte]).await;
    }
    assert_eq!(client.packet().await.0, 0x30);

    let many: Vec<u8> = (0..1000)
        .flat_map(|n| publish("a/many", &[n as u8]))
        .collect();
    client.send(&many).await;
    for n in 0..1000 {
        assert_eq!(client.packet().await.1.last(), Some(&(n as u8)));
    }
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn clients_of_all_shards_reach_each_other() {
    let node = Node::start("").await;
    let port = node.port("tcp:default");
    let mut clients = Vec::new();
    for n in 0..16 {
        let mut client = Client::connect(tcp(port).await, &format!("c{n}")).await;
        client.subscribe("all").await;
        clients.push(client);
    }
    for n in 0..16u8 {
        clients[usize::from(n)].send(&publish("all", &[n])).await;
    }
    for client in &mut clients {
        let mut got: Vec<u8> = Vec::new();
        for _ in 0..16 {
            got.push(*client.packet().await.1.last().expect("a payload"));
        }
        got.sort_unstable();
        assert_eq!(got, (0..16).collect::<Vec<u8>>());
    }
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn tls_with_the_certificate_made_at_first_start() {
    let node = Node::start(
        "listeners.ssl.default { enable = true, bind = \"127.0.0.1:0\" }\n\
         listeners.wss.default { enable = true, bind = \"127.0.0.1:0\" }",
    )
    .await;
    let cacert = node.dir.path().join("etc/certs/cacert.pem");
    let stream = tls(node.port("ssl:default"), &cacert, None)
        .await
        .expect("it is trusted");
    let mut client = Client::connect(stream, "c1").await;
    client.subscribe("t").await;
    client.echo("t", &vec![b'x'; 100_000]).await;

    let stream = tls(node.port("wss:default"), &cacert, None)
        .await
        .expect("it is trusted");
    let (mut ws, head) = Ws::upgrade(stream, "/mqtt", PROTOCOL).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    ws.frame(BINARY, true, &connect("c2")).await;
    assert_eq!(ws.next().await.1[0], 0x20);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn verify_peer_wants_a_certificate_of_the_authority() {
    let dir = std::sync::Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "clients' authority");
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let clients_ca = dir.path().join("clients-ca.pem");
    std::fs::write(&clients_ca, ca_certificate.pem()).expect("writable");
    let issuer = Issuer::new(ca, ca_key);
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params
        .distinguished_name
        .push(DnType::CommonName, "meter-7");
    let key = KeyPair::generate().expect("a key");
    let own = params.signed_by(&key, &issuer).expect("a certificate");

    let text = format!(
        "listeners.ssl.default {{ enable = true, bind = \"127.0.0.1:0\", ssl_options {{ \
         verify = verify_peer, fail_if_no_peer_cert = true, cacertfile = \"{}\" }} }}",
        clients_ca.display()
    );
    let name = super::harness::free_name();
    let node = Node::start_in(dir, &name, &text)
        .await
        .unwrap_or_else(|exit| panic!("{exit:?}"));
    let cacert = node.dir.path().join("etc/certs/cacert.pem");
    let port = node.port("ssl:default");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let stream = tls(port, &cacert, Some((vec![own.der().clone()], key)))
        .await
        .expect("trusted");
    Client::connect(stream, "c1").await;

    // With TLS 1.3 the refusal comes after the client believes to be connected.
    if let Ok(mut stream) = tls(port, &cacert, None).await {
        let _ = stream.write_all(&connect("c2")).await;
        assert_eq!(Client { stream }.rest().await, b"");
    }
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn websocket_packets_may_share_a_frame_or_span_several() {
    let node = Node::start("listeners.ws.default { enable = true, bind = \"127.0.0.1:0\" }").await;
    let stream = tcp(node.port("ws:default")).await;
    let (mut ws, head) = Ws::upgrade(stream, "/mqtt", PROTOCOL).await;
    assert!(head.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{head}");
    let subscribe = packet(0x82, &[0, 1, 0, 0, 1, b't', 0]);
    let both = [connect("c1"), subscribe].concat();
    ws.frame(BINARY, true, &both).await;
    let mut answers = Vec::new();
    while answers.len() < 2 || !answers.windows(3).any(|w| w[0] == 0x90) {
        let (opcode, payload) = ws.next().await;
        assert_eq!(opcode, BINARY);
        answers.extend(payload);
    }
    let message = publish("t", b"in two messages and a fragmented one");
    let (first, rest) = message.split_at(10);
    let (second, third) = rest.split_at(10);
    ws.frame(BINARY, true, first).await;
    ws.frame(BINARY, false, second).await;
    ws.frame(CONTINUATION, true, third).await;
    let (opcode, payload) = ws.next().await;
    assert_eq!((opcode, payload), (BINARY, message));
    ws.frame(9, true, b"ping").await;
    assert_eq!(ws.next().await, (10, b"ping".to_vec()));
    ws.frame(BINARY, true, &packet(0xe0, &[])).await;
    assert_eq!(ws.next().await.0, CLOSE);
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn websocket_refusals_are_http_answers() {
    let node = Node::start("listeners.ws.default { enable = true, bind = \"127.0.0.1:0\" }").await;
    let port = node.port("ws:default");
    let (_, head) = Ws::upgrade(tcp(port).await, "/other", PROTOCOL).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (_, head) = Ws::upgrade(tcp(port).await, "/mqtt", "").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let mut stream = tcp(port).await;
    stream
        .write_all(b"GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .expect("the node reads");
    let answer = String::from_utf8(Client { stream }.rest().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let (mut ws, _) = Ws::upgrade(tcp(port).await, "/mqtt", PROTOCOL).await;
    ws.frame(1, true, b"text is not MQTT").await;
    Client { stream: ws.inner }.rest().await;
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn a_proxy_tells_the_clients_address_and_rules_apply_to_it() {
    let node = Node::start(
        "listeners.tcp.default { proxy_protocol = true, proxy_protocol_timeout = 200ms, \
         access_rules = [\"deny 203.0.113.0/24\", \"allow all\"] }",
    )
    .await;
    let port = node.port("tcp:default");
    let mut stream = tcp(port).await;
    stream
        .write_all(b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 1883\r\n")
        .await
        .expect("the node reads");
    let _client = Client::connect(stream, "c1").await;
    let row = node
        .admin
        .client(dunlin_server::admin::Scope::Local, "c1")
        .await
        .expect("connected");
    assert_eq!((row.ip_address.as_str(), row.port), ("192.0.2.9", 4711));

    let mut stream = tcp(port).await;
    let denied = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 1883\r\n";
    stream.write_all(denied).await.expect("the node reads");
    assert_eq!(Client { stream }.rest().await, b"");
    let silent = tcp(port).await;
    assert_eq!(
        Client { stream: silent }.rest().await,
        b"",
        "no header in time"
    );
    node.stop().await.expect("it started");
}

#[tokio::test]
async fn limits_of_a_listener_hold() {
    let node = Node::start("listeners.tcp.default { max_connections = 2 }").await;
    let port = node.port("tcp:default");
    let first = Client::connect(tcp(port).await, "c1").await;
    let _second = Client::connect(tcp(port).await, "c2").await;
    let mut third = Client {
        stream: tcp(port).await,
    };
    assert_eq!(third.rest().await, b"");
    drop(first);
    let count = || {
        node.admin
            .listener("tcp:default")
            .expect("it is there")
            .current_connections
    };
    eventually(|| async { (count() == 1).then_some(()) }).await;
    let _fourth = Client::connect(tcp(port).await, "c4").await;
    let ended = node
        .admin
        .listener("tcp:default")
        .expect("it is there")
        .shutdown_count;
    assert_eq!(ended.get("tcp_closed"), Some(&1), "{ended:?}");
    node.stop().await.expect("it started");

    let node = Node::start("listeners.tcp.default.access_rules = [\"deny all\"]").await;
    let mut denied = Client {
        stream: tcp(node.port("tcp:default")).await,
    };
    assert_eq!(denied.rest().await, b"");
    node.stop().await.expect("it started");
}
