//! Certificates as files: made, read, replaced.

use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use super::certificate::DefaultCertificate;
use rustls::CipherSuite as Suite;

use super::*;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    fn etc(&self) -> PathBuf {
        self.dir.path().join("etc/certs")
    }

    /// The directory that the default certificate is made in, if it is.
    fn make_default(&self) -> Option<PathBuf> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (etc, data) = (self.etc(), self.dir.path().join("data/certs"));
        let default = DefaultCertificate {
            etc: &etc,
            data: &data,
            names: &names,
        };
        let made = default.make(&etc.join("cert.pem"), &etc.join("key.pem"));
        made.expect("a directory is writable").map(Path::to_owned)
    }

    fn make(&self) {
        assert_eq!(self.make_default(), Some(self.etc()));
        assert_eq!(self.make_default(), None);
    }

    fn files(&self) -> Files {
        let file = |name: &str| self.etc().join(name);
        Files {
            cacert: Some(file("cacert.pem")),
            cert: file("cert.pem"),
            key: file("key.pem"),
        }
    }
}

pub(crate) fn options() -> SslOptions {
    SslOptions {
        cacertfile: String::new(),
        certfile: String::new(),
        keyfile: String::new(),
        password: dunlin_config::settings::Secret::default(),
        verify: Verify::VerifyNone,
        fail_if_no_peer_cert: false,
        depth: 10,
        versions: ["tlsv1.3", "tlsv1.2"].map(str::to_owned).to_vec(),
        ciphers: Vec::new(),
        honor_cipher_order: true,
        reuse_sessions: true,
        handshake_timeout_ms: 15_000,
    }
}

#[test]
fn the_default_certificate_is_whole_private_and_never_overwritten() {
    let world = World::new();
    world.make();
    let files = world.files();
    let mode = |path: &Path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&files.key), 0o600);
    for verify in [Verify::VerifyNone, Verify::VerifyPeer] {
        let options = SslOptions {
            verify,
            ..options()
        };
        ServerTls::with_alpn(options, files.clone(), Vec::new()).expect("it is whole");
    }
    // What the operator has is never touched, be it half of a pair or an authority.
    fs::remove_file(&files.cert).expect("it is there");
    assert_eq!(world.make_default(), None);
    fs::remove_file(&files.key).expect("it is there");
    let cacert = world.etc().join("cacert.pem");
    fs::write(&cacert, "an operator's").expect("writable");
    let data = world.dir.path().join("data/certs");
    assert_eq!(world.make_default(), Some(data));
    assert_eq!(fs::read(&cacert).expect("it is there"), b"an operator's");
}

#[test]
fn nodes_that_start_at_once_from_one_installation_use_one_certificate() {
    for _ in 0..10 {
        let world = World::new();
        let start = std::sync::Barrier::new(4);
        let node = || {
            start.wait();
            let made = world.make_default();
            ServerTls::with_alpn(options(), world.files(), Vec::new()).expect("it is whole");
            made
        };
        let made: Vec<_> = thread::scope(|scope| {
            let nodes: Vec<_> = (0..4).map(|_| scope.spawn(node)).collect();
            nodes
                .into_iter()
                .filter_map(|node| node.join().expect("it starts"))
                .collect()
        });
        assert_eq!(made, [world.etc()]);
    }
}

#[test]
fn with_a_read_only_etc_the_certificate_is_in_data() {
    let world = World::new();
    fs::write(world.dir.path().join("etc"), "not a directory").expect("writable");
    let (etc, data) = (world.etc(), world.dir.path().join("data/certs"));
    assert_eq!(world.make_default(), Some(data.clone()));
    assert_eq!(world.make_default(), None);
    let default = DefaultCertificate {
        etc: &etc,
        data: &data,
        names: &[],
    };
    assert_eq!(default.locate(&etc.join("cert.pem")), data.join("cert.pem"));
}

#[test]
fn changed_files_are_taken_up_and_bad_ones_are_not() {
    let world = World::new();
    world.make();
    let tls = ServerTls::with_alpn(options(), world.files(), Vec::new()).expect("it is whole");
    let first = tls.config("ssl:default");
    let later = |n: u32| Instant::now() + RECHECK * n;
    assert!(
        Arc::ptr_eq(&first, &tls.config_at(later(1), "ssl:default")),
        "nothing changed"
    );

    let key = fs::read(world.files().key).expect("it is there");
    fs::write(world.files().key, "no key").expect("writable");
    assert!(
        Arc::ptr_eq(&first, &tls.config_at(later(2), "ssl:default")),
        "the new key is bad"
    );

    fs::write(world.files().key, [key.as_slice(), b"\n"].concat()).expect("writable");
    assert!(
        Arc::ptr_eq(&first, &tls.config("ssl:default")),
        "too early to look"
    );
    let second = tls.config_at(later(3), "ssl:default");
    assert!(!Arc::ptr_eq(&first, &second), "the good key is taken up");
}

#[test]
fn each_fault_names_its_file_or_option() {
    let world = World::new();
    let refused = |options: SslOptions, files: Files| {
        let error = ServerTls::with_alpn(options, files, Vec::new()).err();
        error.expect("it cannot work").to_string()
    };
    let missing = refused(options(), world.files());
    assert!(
        missing.contains("cert.pem") && missing.contains("ssl_options.certfile"),
        "{missing}"
    );
    world.make();
    let no_ca = Files {
        cacert: None,
        ..world.files()
    };
    let verify = SslOptions {
        verify: Verify::VerifyPeer,
        ..options()
    };
    assert!(refused(verify, no_ca).contains("cacertfile"));
    let old = SslOptions {
        versions: vec!["tlsv1.1".to_owned()],
        ..options()
    };
    assert!(refused(old, world.files()).contains("tlsv1.1"));
    let weak = SslOptions {
        ciphers: vec!["RC4-MD5".to_owned()],
        ..options()
    };
    assert!(refused(weak, world.files()).contains("ciphers"));
    let swapped = Files {
        key: world.files().cert,
        ..world.files()
    };
    assert!(refused(options(), swapped).contains("no private key"));
    fs::write(world.files().key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").expect("writable");
    assert!(refused(options(), world.files()).contains("openssl pkey"));
}

#[test]
fn openssls_names_of_suites_are_known() {
    let chosen = |name: &str| {
        let options = SslOptions {
            ciphers: vec![name.to_owned()],
            ..options()
        };
        provider(&options)
            .expect("the suite is known")
            .cipher_suites[0]
            .suite()
    };
    assert_eq!(
        chosen("TLS_AES_256_GCM_SHA384"),
        Suite::TLS13_AES_256_GCM_SHA384
    );
    assert_eq!(
        chosen("ECDHE-RSA-AES128-GCM-SHA256"),
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    );
    assert_eq!(
        chosen("ECDHE-ECDSA-CHACHA20-POLY1305"),
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
}

#[test]
fn a_certificates_subject_is_read() {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "meter 7");
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "Ünïted Meters");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let read = peer_cert(certificate.der());
    assert_eq!(read.cn, "meter 7");
    assert_eq!(read.dn, "CN=meter 7,O=Ünïted Meters");
    assert_eq!(peer_cert(b"no certificate").cn, "");
}
