//! What the core is told of each strategy.

use std::net::SocketAddr;

use super::*;

impl Services {
    /// Only a name server of the test's own.
    pub(super) fn of_dns(server: SocketAddr) -> Self {
        Self {
            names: NameServers::Only(server),
            #[cfg(feature = "etcd")]
            etcd: None,
            #[cfg(feature = "k8s")]
            k8s: k8s::Kubernetes::new(Rc::new(|_| {})),
            mcast: None,
        }
    }
}

/// What the core is told under `cluster.name = mine`.
fn strategy_of(configured: &settings::Strategy) -> Strategy {
    strategy(configured, "mine")
}

#[test]
fn strategies_of_the_configuration_are_those_of_the_core() {
    let seeds = vec!["emqx@s1".to_owned(), "emqx@s2".to_owned()];
    let names = ["emqx@s1", "emqx@s2"].map(|name| NodeName::parse(name).expect("valid"));
    assert_eq!(
        strategy_of(&settings::Strategy::Static { seeds }),
        Strategy::Static {
            seeds: names.to_vec()
        }
    );
    let etcd = settings::Strategy::Etcd {
        servers: vec!["http://127.0.0.1:2379".to_owned()],
        prefix: "emqxcl".to_owned(),
        node_ttl_ms: 60_000,
        user: None,
        ssl: None,
    };
    let directory = "/emqxcl/mine/nodes/".to_owned();
    assert_eq!(
        strategy_of(&etcd),
        Strategy::LookUp(Lookup::Etcd { directory })
    );
    for none in [settings::Strategy::Manual, settings::Strategy::Singleton] {
        assert_eq!(strategy_of(&none), Strategy::Manual);
    }
}
