//! `dunlin bench` without the broker around it: quicker to build, for measuring others.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program: Vec<String> = words.by_ref().take(1).collect();
    dunlin_bench::run(&program, &words.collect::<Vec<_>>())
}
