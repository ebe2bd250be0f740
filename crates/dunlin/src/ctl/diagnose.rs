//! `cluster diagnose`: each step is printed while it is done, and the cure last.

use dunlin_server::admin::{Admin, AdminError, Diagnosis, DiagnosisStep};
use dunlin_server::ctl::CtlOutput;

/// Width of the column of steps.
const STEP_COLUMNS: usize = 12;
/// Width of the column of times.
const TIME_COLUMNS: usize = 10;

/// Runs it; whether all is well.
pub(crate) async fn run(admin: &Admin, args: &[&str], output: &CtlOutput) -> bool {
    let json = args.contains(&"--json");
    let nodes: Vec<&str> = args
        .iter()
        .copied()
        .filter(|arg| *arg != "--json")
        .collect();
    match diagnose(admin, &nodes, json, output).await {
        Ok(ok) => ok,
        Err(error) => {
            output.out(format!("Error: {error}\n")).await;
            false
        }
    }
}

async fn diagnose(
    admin: &Admin,
    nodes: &[&str],
    json: bool,
    output: &CtlOutput,
) -> Result<bool, AdminError> {
    let nodes: Vec<String> = match nodes {
        [] => admin.other_members().await?,
        named => named.iter().map(|&node| node.to_owned()).collect(),
    };
    if nodes.is_empty() && !json {
        let text = "This node is alone; name the node to be joined: 'emqx ctl cluster diagnose \
                    <Node>'.\n";
        output.out(text).await;
    }
    let mut diagnoses = Vec::new();
    for node in &nodes {
        diagnoses.push(one(admin, node, json, output).await?);
    }
    if json {
        let text = serde_json::to_string_pretty(&diagnoses).unwrap_or_default();
        output.out(format!("{text}\n")).await;
    }
    Ok(diagnoses.iter().all(|diagnosis| diagnosis.ok))
}

async fn one(
    admin: &Admin,
    node: &str,
    quiet: bool,
    output: &CtlOutput,
) -> Result<Diagnosis, AdminError> {
    if !quiet {
        output.out(format!("{node}\n")).await;
    }
    let (live, mut steps) = Admin::diagnosis_steps();
    let shown = async {
        while let Some(step) = steps.recv().await {
            if !quiet {
                output.out(line(&step)).await;
            }
        }
    };
    let (diagnosis, ()) = tokio::join!(admin.diagnose(node, live), shown);
    let diagnosis = diagnosis?;
    if !quiet {
        let head = if diagnosis.ok { "ok" } else { "cure" };
        let text = format!("  => {head}: {}\n\n", diagnosis.conclusion);
        output.out(text).await;
    }
    Ok(diagnosis)
}

fn line(step: &DiagnosisStep) -> String {
    let mark = if step.ok { "ok" } else { "FAILED" };
    let time = step.took_us.map_or_else(String::new, |us| {
        format!("{}.{} ms", us / 1000, us % 1000 / 100)
    });
    format!(
        "  {:<STEP_COLUMNS$}  {mark:<6}  {time:>TIME_COLUMNS$}  {}\n",
        step.step, step.result
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line() {
        let step = DiagnosisStep {
            node: "x@h".to_owned(),
            step: "dial".to_owned(),
            ok: false,
            took_us: Some(1_250),
            result: "refused".to_owned(),
        };
        assert_eq!(line(&step), "  dial          FAILED      1.2 ms  refused\n");
    }
}
