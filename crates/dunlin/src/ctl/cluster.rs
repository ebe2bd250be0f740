//! `cluster`: join, leave, force-leave, status, discovery.

use dunlin_api::term;
use dunlin_cluster::DiscoveryState;
use dunlin_server::admin::{
    Admin, AdminError, DiscoveryStatus, JoinOutcome, LeaveOutcome, Progress,
};

use super::help::Usage;
use super::{Answer, text, verbose};

pub(super) const USAGE: Usage = Usage {
    name: "cluster",
    forms: &[
        ("cluster join <Node>", "Join the cluster"),
        ("cluster leave", "Leave the cluster"),
        (
            "cluster force-leave <Node>",
            "Force the node leave from cluster",
        ),
        ("cluster status [--verbose] [--json]", "Cluster status"),
        (
            "cluster diagnose [<Node>] [--json]",
            "Walk every step to a node and say what is wrong",
        ),
        (
            "cluster discovery enable",
            "Enable and run automatic cluster discovery (if configured)",
        ),
        // Ours; EMQX's five keep their places before it.
        (
            "cluster heal",
            "Merge the sides of a split that autoheal = false keeps apart",
        ),
        (
            "cluster discovery status",
            "How this node finds others, and what is in the way",
        ),
    ],
};

pub(super) async fn run(
    admin: &Admin,
    args: &[&str],
    progress: Progress,
) -> Result<Answer, AdminError> {
    match args {
        ["join", target] => match admin.join(target, progress).await {
            Ok(JoinOutcome::Joined) => {
                successfully("Join the cluster successfully.\n", admin).await
            }
            Ok(JoinOutcome::Ignored) => Ok(Answer::done("Ignore.\n")),
            Err(error) => Ok(failed("Failed to join the cluster", &error, target)),
        },
        ["leave"] => match admin.leave(progress).await {
            Ok(LeaveOutcome::Left { discovery_disabled }) => {
                let node = admin.status().node;
                let head = if discovery_disabled {
                    discovery_is_off(&node)
                } else {
                    String::new()
                };
                successfully(&format!("{head}Leave the cluster successfully.\n"), admin).await
            }
            Ok(LeaveOutcome::Ignored) => Ok(Answer::done("Ignore.\n")),
            Err(error) => Ok(failed(
                "Failed to leave the cluster",
                &error,
                &admin.status().node,
            )),
        },
        ["force-leave", node] => match admin.force_leave(node).await {
            Ok(LeaveOutcome::Left { .. }) => {
                successfully("Remove the node from cluster successfully.\n", admin).await
            }
            Ok(LeaveOutcome::Ignored) => Ok(Answer::done("Ignore.\n")),
            Err(error) => Ok(failed(
                "Failed to remove the node from cluster",
                &error,
                node,
            )),
        },
        ["status", options @ ..] => status_of(admin, options).await,
        ["heal"] => {
            let held = admin.heal().await?;
            let head = if held.is_empty() {
                "No member is held apart.\n"
            } else {
                "Heal the cluster successfully.\n"
            };
            successfully(head, admin).await
        }
        ["discovery", "enable"] => {
            admin.enable_discovery().await?;
            Ok(Answer::done("Automatic cluster discovery enabled.\n"))
        }
        ["discovery", "status"] => {
            let status = admin.discovery_status().await?;
            Ok(Answer::done(discovery_status(&status)))
        }
        _ => Ok(Answer::usage(&USAGE)),
    }
}

fn discovery_status(status: &DiscoveryStatus) -> String {
    let state = match status.state {
        DiscoveryState::On => "on",
        DiscoveryState::Off => "off until a restart or `emqx ctl cluster discovery enable`",
        DiscoveryState::Unconfigured => "not configured; join nodes by `emqx ctl cluster join`",
    };
    let strategy = status.strategy;
    let failure = status.failure.as_deref().unwrap_or("none");
    format!("Strategy: {strategy}\nState: {state}\nFailure: {failure}\n")
}

async fn status_of(admin: &Admin, options: &[&str]) -> Result<Answer, AdminError> {
    let text = match options {
        [] => status(admin).await?,
        ["--json"] => {
            let status = admin.cluster_status().await?;
            text::cluster_status_json(&status.running, &status.stopped, &status.held_apart)
        }
        ["--verbose"] => verbose::text(&admin.cluster_view().await?),
        ["--verbose", "--json"] | ["--json", "--verbose"] => json(&admin.cluster_view().await?),
        _ => return Ok(Answer::usage(&USAGE)),
    };
    Ok(Answer::done(text))
}

/// A value as JSON for people and scripts.
fn json<T: serde::Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

async fn status(admin: &Admin) -> Result<String, AdminError> {
    let status = admin.cluster_status().await?;
    let mut text = text::cluster_status(&status.running, &status.stopped);
    text.push_str(&text::held_apart(&status.held_apart));
    Ok(text)
}

async fn successfully(head: &str, admin: &Admin) -> Result<Answer, AdminError> {
    Ok(Answer::done(format!("{head}{}", status(admin).await?)))
}

/// EMQX's line with its term, which scripts match, then why and what to do, which EMQX never said.
fn failed(what: &str, error: &AdminError, node: &str) -> Answer {
    Answer::failed(format!("{what}: {}\n{error}\n", term::of(error, node)))
}

fn discovery_is_off(node: &str) -> String {
    format!(
        "Automatic cluster discovery is disabled on this node: '{node}' to avoid re-joining the \
         same cluster again, if the node is not stopped soon. To enable it run: 'emqx ctl cluster \
         discovery enable' or restart the node.\n"
    )
}
