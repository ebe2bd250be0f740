//! Automation of this repository: `cargo xtask tidy`, `ci`, `gate`, `figures`, `reference`, `sim`.
//!
//! Everything a contributor or the build server runs goes through here, so that both run the same.

#![allow(clippy::print_stdout, reason = "a command line tool talks on stdout")]

mod ci;
mod figures;
mod gate;
mod plot;
mod reference;
mod sim;
mod tables;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["tidy"] => tidy::check(&root()),
        ["ci"] => ci::run(&root()),
        ["figures"] => figures::write(&root()),
        ["gate"] => gate::check(&root()),
        ["gate", "--record"] => gate::record(&root()),
        ["reference"] => reference::write(&root()),
        ["sim", ..] => sim::run(&root(), &words[1..]),
        _ => Err(anyhow::anyhow!(
            "usage: cargo xtask tidy | ci | gate [--record] | figures | reference | sim"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: the parent of this package's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
        .to_path_buf()
}
