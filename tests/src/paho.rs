//! Scripts for Eclipse Paho's Python client: another independent MQTT implementation, the one with
//! WebSocket and all of MQTT 5.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::installation::target_dir;
use crate::{missing, process};

/// Runs `tests/paho/SCRIPT` with these arguments. It prints one JSON object: what it saw. `None`
/// when Paho is not there and cannot be installed, which is said aloud.
pub fn run(script: &str, args: &[&str]) -> Result<Option<Value>> {
    let python = match python() {
        Ok(python) => python,
        Err(error) => {
            missing::not_tested(&format!("paho/{script}"), &format!("{error:#}"));
            return Ok(None);
        }
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("paho")
        .join(script);
    let output = process::run(Command::new(python).arg("-u").arg(path).args(args))?.ok()?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("no JSON: {output}"))
        .map(Some)
}

/// A Python that has Paho: the one on the path, or one of a virtual environment made once.
fn python() -> Result<PathBuf> {
    let on_path = PathBuf::from("python3");
    if has_paho(&on_path) {
        return Ok(on_path);
    }
    let target = target_dir()?;
    // Tests run side by side; one of them makes it.
    let lock = File::create(target.join("paho-venv.lock"))?;
    lock.lock()?;
    let folder = target.join("paho-venv");
    let python = folder.join("bin/python3");
    if !has_paho(&python) {
        let make = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&folder)
            .output();
        ensure!(
            make.is_ok_and(|output| output.status.success()),
            "python3 -m venv fails (Debian: python3-venv)"
        );
        let install = Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "paho-mqtt",
            ])
            .output()?;
        ensure!(
            install.status.success(),
            "pip install paho-mqtt fails: {}",
            String::from_utf8_lossy(&install.stderr)
        );
    }
    Ok(python)
}

fn has_paho(python: &Path) -> bool {
    let import = Command::new(python)
        .args(["-c", "import paho.mqtt.properties"])
        .output();
    import.is_ok_and(|output| output.status.success())
}
