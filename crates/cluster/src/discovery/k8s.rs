//! The strategy `k8s`: which service of Kubernetes is asked for, and what its end points mean.
//!
//! The names are made here, so that they are the same however the end points were read. Pods that
//! are not ready count: were they left out, pods whose readiness waits for their cluster would
//! never find each other.

use std::net::IpAddr;

/// A service of Kubernetes whose end points are nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K8sService {
    /// URL of the API server.
    pub apiserver: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_name: String,
    /// What of an end point is the host of a node name.
    pub address_type: K8sAddress,
    /// Last part of hosts that are DNS names; may be empty.
    pub suffix: String,
}

/// What of an end point is the host of a node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum K8sAddress {
    /// The address.
    Ip,
    /// The DNS name that Kubernetes gives every pod.
    Dns,
    /// The DNS name of a pod of a stateful set.
    Hostname,
}

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K8sEndpoint {
    /// The address, or a DNS name where somebody wrote one into a slice by hand.
    pub address: String,
    /// The pod's host name, if it has one of its own.
    pub hostname: Option<String>,
}

impl K8sService {
    /// The host of the node at an end point; `None` if the end point does not have what it takes.
    pub fn host(&self, endpoint: &K8sEndpoint) -> Option<String> {
        let (namespace, suffix) = (&self.namespace, &self.suffix);
        let address = &endpoint.address;
        Some(match self.address_type {
            K8sAddress::Ip => address.clone(),
            // As in EMQX: without a suffix there is no DNS name to make.
            K8sAddress::Dns if suffix.is_empty() => address.clone(),
            K8sAddress::Dns => {
                let dashed = address.replace(['.', ':'], "-");
                format!("{dashed}.{namespace}.{suffix}")
            }
            K8sAddress::Hostname => {
                let hostname = endpoint.hostname.as_ref()?;
                if suffix.is_empty() {
                    hostname.clone()
                } else {
                    format!("{hostname}.{}.{namespace}.{suffix}", self.service_name)
                }
            }
        })
    }
}

/// Whether `host` is an address of another family than this node's own: in a cluster with two
/// families every pod has both, and is called by one.
pub(crate) fn is_other_family(host: &str, own_host: &str) -> bool {
    match (host.parse::<IpAddr>(), own_host.parse::<IpAddr>()) {
        (Ok(host), Ok(own)) => host.is_ipv4() != own.is_ipv4(),
        _ => false,
    }
}

/// What the account lacks: a line of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum K8sRule {
    /// To read end point slices.
    EndpointSlices,
    /// To read end points.
    Endpoints,
}

impl std::fmt::Display for K8sRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (group, resource) = match self {
            Self::EndpointSlices => ("discovery.k8s.io", "endpointslices"),
            Self::Endpoints => ("", "endpoints"),
        };
        write!(
            f,
            "{{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [get, list, watch]}}"
        )
    }
}

/// Why Kubernetes named no nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum K8sError {
    /// `cluster.k8s.apiserver` is not a URL.
    #[error("'{url}' is not a URL ({error}); set cluster.k8s.apiserver to http(s)://HOST:PORT")]
    Url {
        /// What is configured.
        url: String,
        /// What is wrong with it.
        error: String,
    },
    /// The pod has no token, and the API server says nothing without one.
    #[error(
        "the API server answers nobody without a token, and '{path}' cannot be read ({error}); \
         let the pod have one (automountServiceAccountToken: true)"
    )]
    Token {
        /// Where it should be.
        path: String,
        /// Why it is not.
        error: String,
    },
    /// The certificate of the authority cannot be used.
    #[error(
        "the certificate authority in '{path}' cannot be used ({error}); let the pod have a \
         service account (automountServiceAccountToken: true)"
    )]
    Authority {
        /// Where it should be.
        path: String,
        /// Why it is not.
        error: String,
    },
    /// There is no connection to the API server.
    #[error(
        "no connection to the API server {url}: {error}; check cluster.k8s.apiserver and the \
         network policies of this namespace"
    )]
    Unreachable {
        /// Its URL.
        url: String,
        /// What happened.
        error: String,
    },
    /// It does not know the token.
    #[error(
        "the API server {url} answers 401 Unauthorized to this pod's token; check that the service \
         account still exists and that cluster.k8s.apiserver is the cluster of this pod"
    )]
    Unauthorized {
        /// Its URL.
        url: String,
    },
    /// The account may not look.
    #[error(
        "the API server answers 403 Forbidden ({message}); add this rule to a Role in namespace \
         '{namespace}' that is bound to the pod's service account: {rule}"
    )]
    Forbidden {
        /// The server's own words, with the account in them.
        message: String,
        /// The namespace looked into.
        namespace: String,
        /// What is missing.
        rule: K8sRule,
    },
    /// The service does not exist, or no pod is selected by it.
    #[error(
        "service '{service_name}' in namespace '{namespace}' has no end points; check \
         cluster.k8s.service_name, cluster.k8s.namespace and the selector of the service"
    )]
    NoEndpoints {
        /// The service.
        service_name: String,
        /// The namespace.
        namespace: String,
    },
    /// Pods have no host names of their own.
    #[error(
        "none of the {count} end points of service '{service_name}' has a hostname; make it the \
         serviceName of a StatefulSet, or set cluster.k8s.address_type = ip"
    )]
    NoHostnames {
        /// The service.
        service_name: String,
        /// How many there are.
        count: usize,
    },
    /// Any other refusal.
    #[error("the API server {url} answers {code} ({message}); it is asked again, check its state")]
    Refused {
        /// Its URL.
        url: String,
        /// The HTTP status.
        code: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the answer of {url} is not one of Kubernetes ({error}); check cluster.k8s.apiserver")]
    Senseless {
        /// Its URL.
        url: String,
        /// Why not.
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address_type: K8sAddress, suffix: &str, hostname: Option<&str>) -> Option<String> {
        let service = K8sService {
            apiserver: "http://10.110.111.204:8080".to_owned(),
            namespace: "default".to_owned(),
            service_name: "emqx".to_owned(),
            address_type,
            suffix: suffix.to_owned(),
        };
        service.host(&K8sEndpoint {
            address: "10.244.0.5".to_owned(),
            hostname: hostname.map(str::to_owned),
        })
    }

    #[test]
    fn d15_hosts_are_made_as_by_emqx() {
        for (address_type, suffix, expected) in [
            (K8sAddress::Ip, "pod.local", "10.244.0.5"),
            (K8sAddress::Ip, "", "10.244.0.5"),
            (K8sAddress::Dns, "pod.local", "10-244-0-5.default.pod.local"),
            (K8sAddress::Dns, "", "10.244.0.5"),
            (
                K8sAddress::Hostname,
                "svc.cluster.local",
                "emqx-0.emqx.default.svc.cluster.local",
            ),
            (K8sAddress::Hostname, "", "emqx-0"),
        ] {
            let made = host(address_type, suffix, Some("emqx-0"));
            assert_eq!(
                made.as_deref(),
                Some(expected),
                "{address_type:?} '{suffix}'"
            );
        }
        assert_eq!(host(K8sAddress::Hostname, "pod.local", None), None);
    }

    #[test]
    fn a_pods_other_family_is_left_out() {
        assert!(is_other_family("fd00::5", "10.244.0.5"));
        assert!(is_other_family("10.244.0.5", "fd00::5"));
        assert!(!is_other_family("10.244.0.6", "10.244.0.5"));
        assert!(!is_other_family(
            "fd00::5",
            "emqx-0.emqx.default.svc.cluster.local"
        ));
    }

    #[test]
    fn a_missing_rule_is_shown_as_it_is_to_be_written() {
        assert_eq!(
            K8sRule::EndpointSlices.to_string(),
            "{apiGroups: [\"discovery.k8s.io\"], resources: [\"endpointslices\"], \
             verbs: [get, list, watch]}"
        );
    }
}
