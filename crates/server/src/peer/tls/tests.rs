//! Handshakes over a real socket, with certificates made for each test.

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::peer::LinkOutput;

struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("it can be written");
        Self { folder, issuer }
    }

    fn pem(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name that ends with a year, in files.
    fn issue(&self, name: &str, year: i32) -> Side {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let file = |end: &str, text: String| {
            let path = self.folder.path().join(format!("{name}.{year}.{end}"));
            fs::write(&path, text).expect("it can be written");
            path
        };
        Side {
            cert: file("cert", cert.pem()),
            key: file("key", key.serialize_pem()),
            authority: Some(self.pem()),
        }
    }
}

fn with(side: Side) -> PeerTls {
    PeerTls::new(Sides::same(side)).expect("good files")
}

/// What both sides make of a connection from one to the other, dialed at `host`.
async fn meet(
    dialer: &PeerTls,
    acceptor: &PeerTls,
    host: &str,
) -> (Result<PeerStream, TlsFault>, Result<PeerStream, TlsFault>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let dial = async {
        let tcp = TcpStream::connect(address).await.expect("it listens");
        dialer.connect(tcp, host).await
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.expect("it is dialed");
        acceptor.accept(tcp).await
    };
    tokio::join!(dial, accept)
}

fn faults(
    met: (Result<PeerStream, TlsFault>, Result<PeerStream, TlsFault>),
) -> (Option<TlsFault>, Option<TlsFault>) {
    (met.0.err(), met.1.err())
}

#[tokio::test]
async fn both_sides_are_proven_and_bytes_arrive_whatever_their_number() {
    let authority = Authority::new();
    let (a, b) = (
        authority.issue("a.test", 2040),
        authority.issue("b.test", 2040),
    );
    let (dialed, accepted) = meet(&with(a), &with(b), "b.test").await;
    let mut from = dialed.expect("accepted");
    // As when a data link moves to its shard.
    let to = accepted.expect("accepted").detach().expect("a socket");
    let mut to = to.attach().expect("a socket");
    let sent: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut output = LinkOutput::default();
    sent.chunks(70_001)
        .for_each(|chunk| output.push(Bytes::copy_from_slice(chunk)));
    let mut received = BytesMut::new();
    let send = poll_fn(|cx| output.poll_write(&mut from, cx));
    let receive = async {
        while received.len() < sent.len() {
            let count = poll_fn(|cx| to.poll_read(cx, &mut received)).await;
            assert!(count.expect("a stream") > 0);
        }
    };
    let (written, ()) = tokio::join!(send, receive);
    written.expect("all is written");
    assert!(received == sent);
    drop(from);
    let end = poll_fn(|cx| to.poll_read(cx, &mut received)).await;
    assert!(matches!(end, Ok(0)), "{end:?}");
}

#[tokio::test]
async fn faults_of_certificates_are_named_alike_on_both_sides() {
    use CertificateFault as Fault;
    let (ours, others) = (Authority::new(), Authority::new());
    let good = || with(ours.issue("a.test", 2040));
    let stranger = Side {
        authority: Some(ours.pem()),
        ..others.issue("b.test", 2040)
    };
    let expired = || with(ours.issue("b.test", 2021));
    let theirs = |fault| Some(TlsFault::Theirs(fault));
    let own = |fault| Some(TlsFault::Ours(fault));
    let unknown = || Fault::UnknownAuthority;

    let met = meet(&with(stranger.clone()), &good(), "a.test").await;
    assert_eq!(faults(met), (own(unknown()), theirs(unknown())));
    let met = meet(&good(), &with(stranger), "b.test").await;
    assert_eq!(faults(met), (theirs(unknown()), own(unknown())));
    let met = meet(&expired(), &good(), "a.test").await;
    assert_eq!(faults(met), (own(Fault::Expired), theirs(Fault::Expired)));
    let met = meet(&good(), &expired(), "b.test").await;
    assert_eq!(faults(met), (theirs(Fault::Expired), own(Fault::Expired)));
    let host = "c.test".to_owned();
    let (dialer, acceptor) = faults(meet(&good(), &good(), "c.test").await);
    assert_eq!(dialer, theirs(Fault::WrongName { host }));
    let told = matches!(acceptor, Some(TlsFault::Ours(Fault::Unusable(_))));
    assert!(told, "{acceptor:?}");
}

#[tokio::test]
async fn without_an_authority_any_certificate_will_do() {
    let (a, b) = (Authority::new(), Authority::new());
    let side = |side: Side| Side {
        authority: None,
        ..side
    };
    let (a, b) = (side(a.issue("a.test", 2040)), side(b.issue("b.test", 2021)));
    let met = meet(&with(a), &with(b), "c.test").await;
    assert_eq!(faults(met), (None, None));
}

#[tokio::test]
async fn a_node_without_tls_is_recognised_in_both_directions() {
    let authority = Authority::new();
    let tls = with(authority.issue("a.test", 2040));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let plain_dialer = async {
        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        tcp.write_all(b"dnln").await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut answer).await;
        // What was sent and not read makes an end of it that is no clean one.
        assert!(read.is_ok() || !answer.is_empty());
        assert_eq!(answer, plain_refusal());
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.expect("it is dialed");
        tls.accept(tcp).await.err()
    };
    let ((), refused) = tokio::join!(plain_dialer, accept);
    assert_eq!(refused, Some(TlsFault::Plain));

    let dial = async {
        let tcp = TcpStream::connect(address).await.expect("it listens");
        tls.connect(tcp, "a.test").await.err()
    };
    let plain_acceptor = async {
        let (mut tcp, _) = listener.accept().await.expect("it is dialed");
        tcp.write_all(&plain_refusal()).await.expect("written");
        tcp
    };
    let (refused, _) = tokio::join!(dial, plain_acceptor);
    assert_eq!(refused, Some(TlsFault::Plain));
}

#[tokio::test]
async fn renewed_files_are_used_and_bad_ones_are_not() {
    let authority = Authority::new();
    let side = authority.issue("a.test", 2021);
    let acceptor = with(side.clone());
    let dialer = with(authority.issue("b.test", 2040));
    let renewed = authority.issue("a.test", 2041);
    let look_again = || {
        acceptor.state.lock().expect("not poisoned").checked -= RECHECK;
    };
    for (text, expected) in [
        (None, Some(TlsFault::Theirs(CertificateFault::Expired))),
        (Some(renewed), None),
    ] {
        if let Some(renewed) = text {
            fs::copy(renewed.key, &side.key).expect("copied");
            fs::copy(renewed.cert, &side.cert).expect("copied");
            look_again();
        }
        let (dialer, _) = faults(meet(&dialer, &acceptor, "a.test").await);
        assert_eq!(dialer, expected);
    }
    fs::write(&side.cert, "no certificate").expect("written");
    look_again();
    let met = meet(&dialer, &acceptor, "a.test").await;
    assert_eq!(faults(met), (None, None));
}
