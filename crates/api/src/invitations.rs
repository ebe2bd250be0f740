//! Invitations of nodes that nobody waits for: what became of them.
//!
//! They are kept in memory, as in EMQX, and only so many.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::time::rfc3339;

/// Ended invitations kept of each kind.
const ENDED_MAX: usize = 100;

/// An invitation that ended.
#[derive(Debug)]
struct Ended {
    node: String,
    started_ms: u64,
    finished_ms: u64,
    /// Why it failed.
    reason: Option<String>,
}

/// All invitations of this node.
#[derive(Debug, Default)]
pub(crate) struct Invitations {
    /// Nodes being invited, and since when.
    running: BTreeMap<String, u64>,
    ended: VecDeque<Ended>,
}

impl Invitations {
    /// Notes that a node is being invited; `false` if it is already.
    pub(crate) fn begin(&mut self, node: &str, wall_ms: u64) -> bool {
        if self.running.contains_key(node) {
            return false;
        }
        // The newest result of a node is the one of interest.
        self.ended.retain(|ended| ended.node != node);
        self.running.insert(node.to_owned(), wall_ms);
        true
    }

    pub(crate) fn end(&mut self, node: &str, wall_ms: u64, reason: Option<String>) {
        let Some((node, started_ms)) = self.running.remove_entry(node) else {
            return;
        };
        while self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended {
            node,
            started_ms,
            finished_ms: wall_ms,
            reason,
        });
    }

    pub(crate) fn to_json(&self) -> Value {
        let running = self.running.iter();
        let in_progress: Vec<Value> = running
            .map(|(node, ms)| json!({ "node": node, "started_at": rfc3339(*ms) }))
            .collect();
        let (mut succeed, mut failed) = (Vec::new(), Vec::new());
        for ended in &self.ended {
            let mut item = json!({
                "node": ended.node,
                "started_at": rfc3339(ended.started_ms),
                "finished_at": rfc3339(ended.finished_ms),
            });
            match &ended.reason {
                None => succeed.push(item),
                Some(reason) => {
                    item["reason"] = reason.as_str().into();
                    failed.push(item);
                }
            }
        }
        json!({ "succeed": succeed, "in_progress": in_progress, "failed": failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_goes_from_list_to_list() {
        let mut list = Invitations::default();
        assert!(list.begin("a@h", 0) && list.begin("b@h", 0));
        assert!(!list.begin("a@h", 5), "one at a time");
        assert_eq!(
            list.to_json()["in_progress"].as_array().map(Vec::len),
            Some(2)
        );
        list.end("a@h", 1_000, None);
        list.end("b@h", 2_000, Some("it has another cookie".to_owned()));
        let body = list.to_json();
        assert_eq!(body["in_progress"], json!([]));
        assert_eq!(body["succeed"][0]["node"], "a@h");
        assert_eq!(
            body["succeed"][0]["finished_at"],
            "1970-01-01T00:00:01.000+00:00"
        );
        assert_eq!(body["failed"][0]["reason"], "it has another cookie");
        assert!(list.begin("b@h", 3_000));
        assert_eq!(list.to_json()["failed"], json!([]));
    }
}
