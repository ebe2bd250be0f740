//! Failures of cluster operations in the words EMQX has for them.
//!
//! They are Erlang terms, and scripts match them. Several of our reasons are one term there: every
//! way of not reaching a node is `{node_down,'x@h'}`. Whoever prints a term prints the reason, the
//! error's own text, beside it.

use dunlin_server::admin::{AdminError, OperationError};

/// The term for `error`, which an operation about the node `node` ended with.
pub fn of(error: &AdminError, node: &str) -> String {
    match error {
        AdminError::Cluster(error) => of_operation(error, node),
        AdminError::NodeName { .. } | AdminError::NodeSilent { .. } => node_down(node),
        AdminError::NodeNotFound { .. } => "node_not_in_cluster".to_owned(),
        AdminError::Timeout { .. } => "timeout".to_owned(),
        AdminError::Stopping => "stopping".to_owned(),
        _ => "failed".to_owned(),
    }
}

fn of_operation(error: &OperationError, named: &str) -> String {
    use OperationError as E;
    match error {
        E::AlreadyInCluster { node } => format!("{{already_in_cluster,'{node}'}}"),
        E::Unresolvable { node, .. }
        | E::Refused { node, .. }
        | E::TimedOut { node, .. }
        | E::Unreachable { node, .. }
        | E::CookieMismatch { node }
        | E::Tls { node, .. }
        | E::TlsMismatch { node, .. }
        | E::VersionMismatch { node, .. } => node_down(node.as_str()),
        E::NameMismatch { expected, .. } => node_down(expected.as_str()),
        E::NotInCluster { .. } => "node_not_in_cluster".to_owned(),
        E::Singleton { .. } => "singleton".to_owned(),
        E::SelfNode { .. } => "self".to_owned(),
        E::NameTaken { .. } => "name_taken".to_owned(),
        E::ClusterNameMismatch { .. } => "cluster_name_mismatch".to_owned(),
        E::ClockSkew { .. } => "clock_skew".to_owned(),
        E::Busy { .. } => "busy".to_owned(),
        E::TooLarge { .. } => "too_large".to_owned(),
        E::InviteFailed { node, .. } => format!("{{invite_failed,'{node}'}}"),
        E::InviteUnfinished { .. } => "timeout".to_owned(),
        E::Storage { .. } => "storage".to_owned(),
        E::Aborted { node, .. } => format!("{{aborted,'{node}'}}"),
        #[allow(unreachable_patterns, reason = "the operations' error may grow")]
        _ => format!("{{failed,'{named}'}}"),
    }
}

fn node_down(node: &str) -> String {
    format!("{{node_down,'{node}'}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_cluster::NodeName;

    fn check(error: OperationError, term: &str) {
        assert_eq!(of(&AdminError::Cluster(error), "x@h"), term);
    }

    #[test]
    fn terms_scripts_match() {
        let node = NodeName::parse("x@h").expect("a node name");
        check(
            OperationError::AlreadyInCluster { node: node.clone() },
            "{already_in_cluster,'x@h'}",
        );
        check(
            OperationError::CookieMismatch { node: node.clone() },
            "{node_down,'x@h'}",
        );
        let addr = "10.0.0.1:4370".to_owned();
        check(
            OperationError::Refused {
                node: node.clone(),
                addr,
            },
            "{node_down,'x@h'}",
        );
        check(
            OperationError::NotInCluster { node: None },
            "node_not_in_cluster",
        );
        check(OperationError::Singleton { node }, "singleton");
    }
}
