//! `clients`: the clients of this node; `kick` works for any node's.

use std::fmt::Write;

use dunlin_server::admin::{Admin, AdminError, ClientFilter, ClientRow, Scope};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "clients",
    forms: &[
        ("clients list", "List all clients of this node"),
        ("clients show <ClientId>", "Show a client of this node"),
        (
            "clients kick <ClientId>",
            "Kick out a client, on whatever node it is",
        ),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    Ok(match args {
        ["list"] => list(&admin.clients(Scope::Local, ClientFilter::default()).await?),
        ["show", clientid] => match admin.client(Scope::Local, clientid).await {
            Ok(row) => Answer::done(line(&row)),
            Err(AdminError::ClientNotFound { .. }) => Answer::failed("Not Found.\n"),
            Err(error) => return Err(error),
        },
        // EMQX answers ok to a kick of nobody; what was asked holds afterwards.
        ["kick", clientid] => match admin.kick(clientid).await {
            Ok(()) | Err(AdminError::ClientNotFound { .. }) => Answer::ok(),
            Err(error) => return Err(error),
        },
        _ => Answer::usage(&USAGE),
    })
}

fn list(rows: &[ClientRow]) -> Answer {
    if rows.is_empty() {
        return Answer::done("No clients.\n");
    }
    Answer::done(rows.iter().map(line).collect::<String>())
}

fn line(row: &ClientRow) -> String {
    let mut text = format!(
        "Client({}, username={}, peername={}:{}, clean_start={}, keepalive={}, \
         session_expiry_interval={}, subscriptions={}, inflight={}, awaiting_rel={}, \
         delivered_msgs={}, enqueued_msgs={}, dropped_msgs={}, connected={}, created_at={}, \
         connected_at={}",
        row.clientid,
        row.username.as_deref().unwrap_or("undefined"),
        row.ip_address,
        row.port,
        row.clean_start,
        row.keepalive,
        row.expiry_interval,
        row.subscriptions_cnt,
        row.inflight_cnt,
        row.awaiting_rel_cnt,
        row.send_msg,
        row.mqueue_len,
        row.mqueue_dropped,
        row.connected,
        row.created_at_ms,
        row.connected_at_ms,
    );
    if let Some(ms) = row.disconnected_at_ms {
        let _ = write!(text, ", disconnected_at={ms}");
    }
    text.push_str(")\n");
    text
}
