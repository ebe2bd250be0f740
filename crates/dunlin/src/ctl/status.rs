//! `status`: is the node started?

use dunlin_server::admin::{Admin, NodeStatus};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "status",
    forms: &[("status", "Show broker status")],
};

pub(super) fn run(admin: &Admin) -> Answer {
    answer(&admin.status())
}

fn answer(status: &NodeStatus) -> Answer {
    let NodeStatus {
        node,
        version,
        started,
    } = status;
    if *started {
        Answer::done(format!("Node '{node}' {version} is started\n"))
    } else {
        Answer::failed(format!("Node '{node}' {version} is stopped\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emqx_s_line() {
        let mut status = NodeStatus {
            node: "emqx@127.0.0.1".to_owned(),
            version: "0.1.0".to_owned(),
            started: true,
        };
        assert_eq!(
            answer(&status),
            Answer::done("Node 'emqx@127.0.0.1' 0.1.0 is started\n")
        );
        status.started = false;
        assert_eq!(
            answer(&status),
            Answer::failed("Node 'emqx@127.0.0.1' 0.1.0 is stopped\n")
        );
    }
}
