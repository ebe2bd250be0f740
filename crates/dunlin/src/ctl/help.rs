//! Usage of the control commands: what `emqx ctl` prints without a command, and what a command
//! prints when it does not understand its arguments.

use std::fmt::Write;

/// Width of the line between two commands in the full usage.
const SEPARATOR_COLUMNS: usize = 110;

/// Name of a command and its usage as (form, what it does).
pub(crate) struct Usage {
    pub(crate) name: &'static str,
    pub(crate) forms: &'static [(&'static str, &'static str)],
}

impl Usage {
    /// The block of one command: forms padded to the longest of them.
    pub(crate) fn block(&self) -> String {
        let width = self
            .forms
            .iter()
            .map(|(form, _)| form.len())
            .max()
            .unwrap_or(0);
        self.forms
            .iter()
            .fold(String::new(), |mut text, (form, what)| {
                let _ = writeln!(text, "{form:<width$} # {what}");
                text
            })
    }
}

/// The usage of all commands.
pub(crate) fn all(usages: &[&Usage]) -> String {
    let mut text = "Usage: emqx ctl\n".to_owned();
    for usage in usages {
        text.push_str(&"-".repeat(SEPARATOR_COLUMNS));
        text.push('\n');
        text.push_str(&usage.block());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cluster;
    use super::*;

    #[test]
    fn the_cluster_block_is_emqx_s_and_more() {
        assert_eq!(
            cluster::USAGE.block(),
            "\
cluster join <Node>                 # Join the cluster
cluster leave                       # Leave the cluster
cluster force-leave <Node>          # Force the node leave from cluster
cluster status [--verbose] [--json] # Cluster status
cluster diagnose [<Node>] [--json]  # Walk every step to a node and say what is wrong
cluster discovery enable            # Enable and run automatic cluster discovery (if configured)
cluster heal                        # Merge the sides of a split that autoheal = false keeps apart
cluster discovery status            # How this node finds others, and what is in the way
"
        );
    }

    #[test]
    fn blocks_are_separated_by_110_dashes() {
        let text = all(&[&cluster::USAGE]);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("Usage: emqx ctl"));
        assert_eq!(lines.next(), Some("-".repeat(110).as_str()));
        assert_eq!(
            lines.next().map(|l| l.starts_with("cluster join <Node> ")),
            Some(true)
        );
    }
}
