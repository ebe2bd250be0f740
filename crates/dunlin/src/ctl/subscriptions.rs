//! `subscriptions`: those of this node's clients.

use dunlin_server::admin::{Admin, AdminError, Scope, SubscriptionRow};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "subscriptions",
    forms: &[
        ("subscriptions list", "List all subscriptions of this node"),
        (
            "subscriptions show <ClientId>",
            "Show subscriptions of a client",
        ),
        (
            "subscriptions add <ClientId> <Topic> <QoS>",
            "Add a subscription of a client",
        ),
        (
            "subscriptions del <ClientId> <Topic>",
            "Delete a subscription of a client",
        ),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    match args {
        ["list"] => Ok(list(&admin.subscriptions(Scope::Local).await?)),
        ["show", clientid] => show(admin, clientid).await,
        ["add", clientid, topic, qos] => {
            let Some(qos) = qos.parse().ok().filter(|qos| *qos <= 2) else {
                return Ok(Answer::failed("QoS should be 0, 1, 2\n"));
            };
            changed(admin.subscribe(clientid, topic, qos).await)
        }
        ["del", clientid, topic] => changed(admin.unsubscribe(clientid, topic).await),
        _ => Ok(Answer::usage(&USAGE)),
    }
}

async fn show(admin: &Admin, clientid: &str) -> Result<Answer, AdminError> {
    match admin.subscriptions_of(Scope::Local, clientid).await {
        Ok(rows) if rows.is_empty() => Ok(Answer::failed("Not Found.\n")),
        Ok(rows) => Ok(list(&rows)),
        Err(AdminError::ClientNotFound { .. }) => Ok(Answer::failed("Not Found.\n")),
        Err(error) => Err(error),
    }
}

fn changed(result: Result<(), AdminError>) -> Result<Answer, AdminError> {
    match result {
        Ok(()) => Ok(Answer::ok()),
        // Without a newline, as EMQX prints it.
        Err(AdminError::ClientNotFound { .. }) => Ok(Answer::failed("Error: Channel not found!")),
        Err(error) => Err(error),
    }
}

fn list(rows: &[SubscriptionRow]) -> Answer {
    if rows.is_empty() {
        return Answer::done("No subscriptions.\n");
    }
    Answer::done(rows.iter().map(line).collect::<String>())
}

fn line(row: &SubscriptionRow) -> String {
    let SubscriptionRow {
        clientid,
        topic,
        qos,
        nl,
        rh,
        rap,
        ..
    } = row;
    format!("{clientid} -> topic:{topic} qos:{qos} nl:{nl} rh:{rh} rap:{rap}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emqx_s_line() {
        let row = SubscriptionRow {
            node: "a@h".to_owned(),
            clientid: "c1".to_owned(),
            topic: "$share/g/t/1".to_owned(),
            qos: 1,
            nl: 0,
            rap: 1,
            rh: 2,
        };
        assert_eq!(
            line(&row),
            "c1 -> topic:$share/g/t/1 qos:1 nl:0 rh:2 rap:1\n"
        );
        assert_eq!(list(&[]), Answer::done("No subscriptions.\n"));
    }
}
