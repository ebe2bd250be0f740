//! What is made of names, keys and answers; the rest is tested with a real etcd, from outside.

use super::*;

#[test]
fn servers_are_named_as_urls_or_bare() {
    for (server, host, port) in [
        ("http://127.0.0.1:2379", "127.0.0.1", 2379),
        ("https://etcd.test:2380/", "etcd.test", 2380),
        ("etcd.test", "etcd.test", 2379),
        ("etcd.test:4001", "etcd.test", 4001),
        ("http://[::1]:4001", "::1", 4001),
        ("[::1]", "::1", 2379),
    ] {
        assert_eq!(address(server), (host, port), "{server}");
    }
}

#[test]
fn only_keys_right_below_the_directory_are_nodes() {
    let name = |key: &str| below("/p/c/nodes/", key.as_bytes());
    assert_eq!(name("/p/c/nodes/emqx@s1").as_deref(), Some("emqx@s1"));
    for other in [
        "/p/c/nodes/",
        "/p/c/nodes/a/b",
        "/p/d/nodes/emqx@s1",
        "/p/c/lock",
    ] {
        assert_eq!(name(other), None, "{other}");
    }
    assert_eq!(below("/p/", b"/p/\xff"), None);
}

#[test]
fn answers_are_told_apart_by_their_cure() {
    let told = |code, text: &str| fault("s", &Error::GRpcStatus(tonic::Status::new(code, text)));
    for (code, text) in [
        (Code::PermissionDenied, "etcdserver: permission denied"),
        (
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        (Code::InvalidArgument, "etcdserver: user name is empty"),
        (
            Code::FailedPrecondition,
            "etcdserver: authentication is not enabled",
        ),
    ] {
        let error = told(code, text);
        assert!(
            matches!(error, DiscoveryError::EtcdDenied { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("cluster.etcd.username"),
            "{error}"
        );
    }
    let error = told(Code::Unavailable, "etcdserver: no leader");
    assert!(
        matches!(error, DiscoveryError::EtcdFailed { .. }),
        "{error}"
    );
    let error = told(
        Code::Unknown,
        "io: received fatal alert: CertificateRequired",
    );
    assert!(matches!(error, DiscoveryError::EtcdTls { .. }), "{error}");
}
