//! `admins`: the users of the dashboard, on every node of the cluster.

use dunlin_server::admin::{Admin, AdminError};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "admins",
    forms: &[
        (
            "admins add <Username> <Password> <Description>",
            "Add dashboard user",
        ),
        (
            "admins passwd <Username> <Password>",
            "Reset dashboard user password",
        ),
        ("admins del <Username>", "Delete dashboard user"),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    match args {
        ["add", username, password] => admin.add_user(username, password, "").await.map(drop)?,
        ["add", username, password, description] => {
            admin
                .add_user(username, password, description)
                .await
                .map(drop)?;
        }
        ["passwd", username, password] => admin.set_password(username, password).await?,
        ["del", username] => admin.delete_user(username).await?,
        _ => return Ok(Answer::usage(&USAGE)),
    }
    Ok(Answer::ok())
}
