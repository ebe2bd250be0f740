//! Look-ups against a name server of the test's own, which notes what it is asked.

use std::sync::{Arc, Mutex};

use dunlin_cluster::Lookup;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Record as Answer;
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use tokio::net::UdpSocket;

use super::*;
use crate::discovery::Services;

/// What the name server does with a question.
#[derive(Clone)]
enum Behaviour {
    Answer(Vec<RData>),
    Code(ResponseCode),
    Silence,
}

struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    async fn start(behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(Self::serve(socket, behaviour, asked.clone()));
        Self { address, asked }
    }

    async fn serve(socket: UdpSocket, behaviour: Behaviour, asked: Arc<Mutex<Vec<String>>>) {
        let mut buf = [0; 1_500];
        while let Ok((count, from)) = socket.recv_from(&mut buf).await {
            let request = Message::from_vec(&buf[..count]).expect("a DNS message");
            let question = request.queries[0].clone();
            let noted = format!("{} {}", question.name(), question.query_type());
            asked.lock().expect("no panic while locked").push(noted);
            let mut response = Message::response(request.metadata.id, request.metadata.op_code);
            response.add_query(question.clone());
            match &behaviour {
                Behaviour::Silence => continue,
                Behaviour::Code(code) => response.metadata.response_code = *code,
                Behaviour::Answer(data) => {
                    for data in data {
                        let name = question.name().clone();
                        response.add_answer(Answer::from_rdata(name, 60, data.clone()));
                    }
                }
            }
            let bytes = response.to_vec().expect("it can be encoded");
            socket.send_to(&bytes, from).await.expect("it can be sent");
        }
    }

    async fn look_up(&self, name: &str, record: Record) -> Result<Vec<String>, DiscoveryError> {
        let name = name.to_owned();
        let lookup = Lookup::Dns { name, record };
        Services::of_dns(self.address).look_up(&lookup).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic while locked").clone()
    }
}

fn srv(port: u16, target: &str) -> RData {
    let target = Name::from_str(target).expect("a name");
    RData::SRV(SRV::new(0, 0, port, target))
}

#[tokio::test]
async fn d05_addresses_of_exactly_the_configured_name() {
    let data = vec![
        RData::A(A::new(10, 0, 0, 2)),
        RData::A(A::new(10, 0, 0, 1)),
        RData::A(A::new(10, 0, 0, 2)),
    ];
    let server = NameServer::start(Behaviour::Answer(data)).await;
    let hosts = server.look_up("nodes.example.test", Record::A).await;
    assert_eq!(
        hosts,
        Ok(vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()])
    );
    assert_eq!(server.asked(), ["nodes.example.test. A"]);
    // A short name is not completed either.
    server.look_up("nodes", Record::A).await.expect("an answer");
    assert_eq!(server.asked()[1], "nodes. A");
}

#[tokio::test]
async fn d06_ipv6_addresses() {
    let data = vec![RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 7))];
    let server = NameServer::start(Behaviour::Answer(data)).await;
    let hosts = server.look_up("nodes.test", Record::Aaaa).await;
    assert_eq!(hosts, Ok(vec!["fd00::7".to_owned()]));
    assert_eq!(server.asked(), ["nodes.test. AAAA"]);
}

#[tokio::test]
async fn d07_srv_targets_without_ports_each_once() {
    let data = vec![srv(1, "s2.test."), srv(2, "s1.test."), srv(3, "s2.test.")];
    let server = NameServer::start(Behaviour::Answer(data)).await;
    let hosts = server.look_up("nodes.test", Record::Srv).await;
    assert_eq!(hosts, Ok(vec!["s1.test".to_owned(), "s2.test".to_owned()]));
    assert_eq!(server.asked(), ["nodes.test. SRV"]);
}

#[tokio::test]
async fn answers_without_hosts_are_told_apart() {
    let name = || "nodes.test".to_owned();
    let no_records = DiscoveryError::NoRecords {
        name: name(),
        record: Record::Srv,
    };
    let refused = |code: ResponseCode| DiscoveryError::Refused {
        name: name(),
        code: code.to_string(),
    };
    for (behaviour, expected) in [
        (
            Behaviour::Code(ResponseCode::NXDomain),
            DiscoveryError::NoSuchName { name: name() },
        ),
        (Behaviour::Answer(Vec::new()), no_records.clone()),
        (Behaviour::Answer(vec![srv(0, ".")]), no_records),
        (
            Behaviour::Code(ResponseCode::ServFail),
            refused(ResponseCode::ServFail),
        ),
        (
            Behaviour::Code(ResponseCode::Refused),
            refused(ResponseCode::Refused),
        ),
    ] {
        let server = NameServer::start(behaviour).await;
        let error = server.look_up("nodes.test", Record::Srv).await;
        assert_eq!(error, Err(expected));
    }
}

#[tokio::test]
async fn d08_a_server_that_does_not_answer_is_given_up() {
    let server = NameServer::start(Behaviour::Silence).await;
    let error = server.look_up("nodes.test", Record::A).await;
    assert!(
        matches!(error, Err(DiscoveryError::TimedOut { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_name_that_is_none_is_said() {
    let server = NameServer::start(Behaviour::Silence).await;
    let error = server.look_up(&"long.".repeat(100), Record::A).await;
    assert!(
        matches!(error, Err(DiscoveryError::Unusable { .. })),
        "{error:?}"
    );
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_hosts_file_counts_where_the_dns_has_no_answer() {
    let hosts = ask_system("localhost", Record::A).await;
    assert_eq!(hosts, ["127.0.0.1"]);
    assert!(
        ask_system("no-such-host.invalid", Record::A)
            .await
            .is_empty()
    );
}
