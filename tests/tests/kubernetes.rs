//! Nodes that find each other by the strategy `k8s`, as pods of a cluster do.
//!
//! The API server is our own, the wire is the recorded one; hosts of a lab are the pods, and the
//! service account lies where every pod has it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunlin_tests::certificates::Authority;
use dunlin_tests::kubernetes::{ApiServer, Pod, write_account};
use dunlin_tests::node::status_line;
use dunlin_tests::{Host, Installation, Lab, Node, in_lab, until};

use crate::discovery::{on_hosts, see_each_other, start_at_once};

/// In a lab, `/run` is its own.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";
/// Where the API server is when nobody says otherwise.
const KUBERNETES: &str = "kubernetes.default.svc";
/// Two rounds of a node that is alone, and the time a look-up may take.
const TWO_ROUNDS: Duration = Duration::from_secs(14);
/// Far less than a round.
const AT_ONCE: Duration = Duration::from_secs(3);

pub(crate) const BY_IP: &str = "cluster { discovery_strategy = k8s
  k8s { namespace = mq, service_name = emqx-headless }
}
";

pub(crate) fn ip_name(host: &Host) -> String {
    format!("emqx@{}", host.ip)
}

fn host_of(node: &Node) -> &str {
    node.name.split_once('@').map_or("", |(_, host)| host)
}

pub(crate) fn pods_of(nodes: &[Node]) -> Vec<Pod> {
    nodes
        .iter()
        .map(|node| Pod::not_ready(host_of(node)))
        .collect()
}

/// A cluster of Kubernetes around hosts: its API server, its names, its service account.
pub(crate) struct Kubernetes {
    pub(crate) api: ApiServer,
    authority: Authority,
}

impl Kubernetes {
    pub(crate) fn around(lab: &Lab, nodes: &[Node]) -> Result<Self> {
        let authority = Authority::new("kubernetes")?;
        write_account(Path::new(ACCOUNT), Some(&authority.pem()), "token-1")?;
        let api = Self::server(lab, &authority)?;
        Self::is_known_to(lab, nodes)?;
        Ok(Self { api, authority })
    }

    fn server(lab: &Lab, authority: &Authority) -> Result<ApiServer> {
        let ip = IpAddr::V4(lab.address());
        let issued = authority.issue(&[KUBERNETES, &ip.to_string()])?;
        ApiServer::start((ip, 443), Some(&issued))
    }

    /// Every pod knows the API server's name, and the names of the others.
    fn is_known_to(lab: &Lab, nodes: &[Node]) -> Result<()> {
        let mut known = vec![(KUBERNETES, lab.address())];
        for node in nodes {
            let host = node.host().expect("on a host");
            known.push((host_of(node), host.ip));
        }
        for node in nodes {
            node.host().expect("on a host").knows(&known)?;
        }
        Ok(())
    }
}

/// Waits until `cluster discovery status` shows a failure with these words.
fn says(node: &Node, words: &[&str]) -> Result<()> {
    until(
        TWO_ROUNDS,
        &format!("{words:?} in the status of discovery"),
        || {
            let status = node.ctl(&["cluster", "discovery", "status"])?.ok()?;
            let said = words.iter().all(|word| status.stdout.contains(word));
            ensure!(said, "{status}");
            Ok(true)
        },
    )
    .map(drop)
}

fn is_alone(node: &Node) -> Result<()> {
    let status = node.status()?;
    ensure!(status == status_line(&[&node.name], &[]), "{status}");
    Ok(())
}

#[test]
fn d17_three_pods_that_are_not_ready_are_one_cluster_and_none_is_removed() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 3, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        // Small pages, a version that is forgotten on the way, events cut anywhere.
        k8s.api.set(|knobs| {
            knobs.per_slice = 1;
            knobs.page = 1;
            knobs.stale_continues = 1;
            knobs.cuts_chunks = true;
        });
        k8s.api.pods(&pods_of(&nodes));
        start_at_once(&nodes)?;
        see_each_other(&nodes)?;

        nodes[2].kill9()?;
        k8s.api.requests();
        k8s.api.pods(&pods_of(&nodes[..1]));
        // Somebody hears of it, and looks.
        until(AT_ONCE * 2, "a look-up after the change", || {
            Ok(k8s.api.requests().iter().any(|r| r.contains("limit=")))
        })?;
        let rest = [&nodes[0], &nodes[1]];
        nodes[0].sees(&rest, &[&nodes[2]], TWO_ROUNDS)?;
        nodes[1].sees(&rest, &[&nodes[2]], TWO_ROUNDS)?;
        nodes[2].start()?;
        see_each_other(&nodes)
    })
}

/// The manual's block, word for word.
const PAGE: &str = "cluster {
    discovery_strategy = K8s
    K8s {
        apiserver = \"http://10.110.111.204:8080\"
        service_name = emqx
        address_type = ip
        app_name = emqx
        suffix = \"pod.local\"
        namespace = default
    }
}
";

#[test]
fn d15_the_manuals_block_finds_pods_without_tls_and_token() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, ip_name, PAGE)?;
        let address = Ipv4Addr::new(10, 110, 111, 204);
        let hosts: Vec<Host> = nodes.iter().filter_map(|n| n.host().cloned()).collect();
        lab.add_own_ip(address, &hosts)?;
        let api = ApiServer::start((address.into(), 8080), None)?;
        api.set(|knobs| {
            knobs.namespace = "default".to_owned();
            knobs.service = "emqx".to_owned();
            knobs.token = None;
        });
        api.pods(&pods_of(&nodes));
        start_at_once(&nodes)?;
        see_each_other(&nodes)
    })
}

fn by(address_type: &str, suffix: &str) -> String {
    format!(
        "cluster {{ discovery_strategy = k8s\n k8s {{ namespace = mq\n service_name = \
         emqx-headless\n address_type = {address_type}\n suffix = \"{suffix}\" }} }}\n"
    )
}

#[test]
fn d15_pods_of_a_stateful_set_are_found_by_host_name() -> Result<()> {
    in_lab!(|lab| {
        let name =
            |host: &Host| format!("emqx@emqx-{}.emqx-headless.mq.svc.cluster.local", host.name);
        let (_, nodes) = on_hosts(lab, 2, name, &by("hostname", "svc.cluster.local"))?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        let ips = || nodes.iter().filter_map(Node::host).map(|host| host.ip);
        k8s.api.pods(
            &ips()
                .map(|ip| Pod::not_ready(ip.to_string()))
                .collect::<Vec<_>>(),
        );
        nodes[0].start()?;
        says(
            &nodes[0],
            &["has a hostname", "cluster.k8s.address_type = ip"],
        )?;
        let called = ips().zip(["emqx-s1", "emqx-s2"]);
        let pods: Vec<_> = called
            .map(|(ip, name)| Pod::not_ready(ip.to_string()).called(name))
            .collect();
        k8s.api.pods(&pods);
        nodes[1].start()?;
        see_each_other(&nodes)
    })
}

#[test]
fn d15_pods_are_found_by_their_dns_names() -> Result<()> {
    in_lab!(|lab| {
        let name = |host: &Host| {
            let dashed = host.ip.to_string().replace('.', "-");
            format!("emqx@{dashed}.mq.pod.cluster.local")
        };
        let (_, nodes) = on_hosts(lab, 2, name, &by("dns", "pod.cluster.local"))?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        let ips = nodes.iter().filter_map(Node::host).map(|host| host.ip);
        k8s.api.pods(
            &ips.map(|ip| Pod::not_ready(ip.to_string()))
                .collect::<Vec<_>>(),
        );
        start_at_once(&nodes)?;
        see_each_other(&nodes)
    })
}

#[test]
fn a_token_that_is_replaced_is_used_from_the_next_look_up_on() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        k8s.api.pods(&pods_of(&nodes[..1]));
        nodes[0].start()?;
        k8s.api
            .set(|knobs| knobs.token = Some("token-2".to_owned()));
        says(&nodes[0], &["401 Unauthorized", "service account"])?;
        write_account(Path::new(ACCOUNT), Some(&k8s.authority.pem()), "token-2")?;
        says(&nodes[0], &["Failure: none"])?;
        // And without a token at all it is said where it should be.
        std::fs::remove_file(Path::new(ACCOUNT).join("token"))?;
        says(
            &nodes[0],
            &["serviceaccount/token", "automountServiceAccountToken"],
        )?;
        write_account(Path::new(ACCOUNT), Some(&k8s.authority.pem()), "token-2")?;
        k8s.api.pods(&pods_of(&nodes));
        nodes[1].start()?;
        see_each_other(&nodes)
    })
}

#[test]
fn d16_a_role_that_is_missing_is_named_and_that_of_emqx_is_enough() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        k8s.api.pods(&pods_of(&nodes));
        k8s.api
            .set(|knobs| (knobs.may_slices, knobs.may_endpoints) = (false, false));
        nodes[0].start()?;
        let rule = "{apiGroups: [\"discovery.k8s.io\"], resources: [\"endpointslices\"], \
                    verbs: [get, list, watch]}";
        let account = "User \"system:serviceaccount:mq:emqx\" cannot list";
        says(
            &nodes[0],
            &["403 Forbidden", account, "Role in namespace 'mq'", rule],
        )?;
        let log = nodes[0].log_tail();
        ensure!(
            log.contains("discovery_failed") && log.contains("endpointslices"),
            "{log}"
        );

        // Roles made for EMQX: end points only; and not even the right to watch them.
        k8s.api
            .set(|knobs| (knobs.may_endpoints, knobs.may_watch) = (true, false));
        nodes[1].start()?;
        see_each_other(&nodes)
    })
}

#[test]
fn an_api_server_that_is_down_holds_nobody_up_and_is_used_when_it_is_back() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        let Kubernetes { api, authority } = k8s;
        drop(api);
        start_at_once(&nodes)?;
        says(&nodes[0], &["no connection to the API server", "refused"])?;
        is_alone(&nodes[0])?;
        // One with a certificate of somebody else is not believed.
        let liar = Kubernetes::server(lab, &Authority::new("somebody else")?)?;
        liar.pods(&pods_of(&nodes));
        says(
            &nodes[0],
            &["no connection to the API server", "certificate"],
        )?;
        is_alone(&nodes[0])?;
        drop(liar);
        let api = Kubernetes::server(lab, &authority)?;
        api.pods(&pods_of(&nodes));
        see_each_other(&nodes)
    })
}

#[test]
fn d16_an_api_server_in_trouble_is_named_with_its_answer() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 1, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        nodes[0].start()?;
        says(
            &nodes[0],
            &["service 'emqx-headless' in namespace 'mq' has no end points"],
        )?;
        for (code, words) in [
            (429, "429 (too many requests"),
            (500, "500 (Internal error"),
        ] {
            k8s.api.set(|knobs| knobs.fails_with = Some(code));
            says(&nodes[0], &[words])?;
        }
        k8s.api
            .set(|knobs| (knobs.fails_with, knobs.hangs) = (None, true));
        says(
            &nodes[0],
            &["no answer within 3000 ms", "cluster.k8s.apiserver"],
        )?;
        k8s.api.set(|knobs| knobs.hangs = false);
        k8s.api.pods(&pods_of(&nodes));
        says(&nodes[0], &["Strategy: k8s\nState: on\nFailure: none\n"])
    })
}

#[test]
fn a_pod_that_comes_is_looked_for_at_once() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 1, ip_name, BY_IP)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        k8s.api.pods(&pods_of(&nodes));
        nodes[0].start()?;
        let look_ups = |count: usize| {
            let mut seen = 0;
            until(AT_ONCE, "look-ups", || {
                let requests = k8s.api.requests();
                seen += requests.iter().filter(|r| r.contains("limit=")).count();
                Ok(seen >= count)
            })
        };
        for _ in 0..3 {
            // A watch stands, so the next look-up by itself is seconds away.
            until(TWO_ROUNDS, "a watch", || {
                Ok(k8s.api.requests().iter().any(|r| r.contains("watch=true")))
            })?;
            k8s.api.pods(&pods_of(&nodes));
            look_ups(1)?;
        }
        // A version that is gone when it is to be watched from: look again.
        k8s.api.set(|knobs| knobs.oldest = u64::MAX);
        k8s.api.pods(&pods_of(&nodes));
        look_ups(2)?;
        Ok(())
    })
}

#[test]
fn the_manifests_say_what_a_node_understands() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    let set = std::fs::read_to_string(folder.join("statefulset.yaml"))?;
    let lines: Vec<&str> = set.lines().map(str::trim).collect();
    let variables: Vec<(String, String)> = lines
        .windows(2)
        .filter_map(|pair| {
            let name = pair[0].strip_prefix("- name: EMQX_")?;
            let value = pair[1].strip_prefix("value: ")?;
            let value = value.replace("$(POD_NAME)", "dunlin-0");
            Some((
                format!("EMQX_{name}"),
                value.replace("$(POD_NAMESPACE)", "mq"),
            ))
        })
        .collect();
    ensure!(variables.len() >= 6, "{variables:?}");
    let env: Vec<_> = variables
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let checked = Installation::new()?
        .run("emqx", &["check_config"], &env)?
        .ok()?;
    ensure!(!checked.stderr.contains("unknown_env_vars"), "{checked}");
    // The name of a pod is the one that the strategy makes for it.
    let of = |name: &str| {
        env.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| *value)
    };
    let service = of("EMQX_CLUSTER__K8S__SERVICE_NAME").unwrap_or_default();
    let suffix = of("EMQX_CLUSTER__K8S__SUFFIX").unwrap_or_default();
    let name = format!("emqx@dunlin-0.{service}.mq.{suffix}");
    ensure!(of("EMQX_NODE__NAME") == Some(name.as_str()), "{env:?}");
    ensure!(
        set.contains(&format!("serviceName: {service}")),
        "{service}"
    );
    // The role is the one that is asked for where it is missing.
    let role = std::fs::read_to_string(folder.join("rbac.yaml"))?;
    for word in [
        "discovery.k8s.io",
        "endpointslices",
        "\"get\", \"list\", \"watch\"",
    ] {
        ensure!(role.contains(word), "{word}");
    }
    let services = std::fs::read_to_string(folder.join("services.yaml"))?;
    ensure!(
        services.contains("publishNotReadyAddresses: true"),
        "{services}"
    );
    Ok(())
}
