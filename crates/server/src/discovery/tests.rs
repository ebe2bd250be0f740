//! What the core is told of each strategy.

use super::*;

#[test]
fn strategies_that_are_not_carried_out_look_for_nobody() {
    let seeds = vec!["emqx@s1".to_owned(), "emqx@s2".to_owned()];
    let names = ["emqx@s1", "emqx@s2"].map(|name| NodeName::parse(name).expect("valid"));
    assert_eq!(
        strategy(&settings::Strategy::Static { seeds }),
        Strategy::Static {
            seeds: names.to_vec()
        }
    );
    let etcd = settings::Strategy::Etcd {
        servers: vec!["http://127.0.0.1:2379".to_owned()],
        prefix: "emqxcl".to_owned(),
        node_ttl_ms: 60_000,
        ssl: None,
    };
    for none in [
        settings::Strategy::Manual,
        settings::Strategy::Singleton,
        etcd,
    ] {
        assert_eq!(strategy(&none), Strategy::Manual);
    }
}
