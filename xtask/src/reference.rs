//! `docs/configuration.md`, written from the registry of configuration keys.
//!
//! The page is committed, so that it can be read without building anything, and `tidy` holds it to
//! the registry. It is never edited by hand: what a key means is said where the key is declared.

use std::fs;
use std::path::Path;

use anyhow::Context;
use dunlin_config::render;

const PAGE: &str = "docs/configuration.md";

/// Writes the page.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    fs::write(root.join(PAGE), render::reference()).with_context(|| format!("writing {PAGE}"))
}

/// Finds a page that says something else than the registry.
pub(crate) fn check(root: &Path, findings: &mut Vec<String>) {
    let page = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let reference = render::reference();
    if page == reference {
        return;
    }
    let same = page
        .lines()
        .zip(reference.lines())
        .take_while(|(found, wanted)| found == wanted)
        .count();
    findings.push(format!(
        "{PAGE}:{}: not what the registry of keys says; run `cargo xtask reference` and commit \
         the page",
        same + 1
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_current() {
        let mut findings = Vec::new();
        check(&crate::root(), &mut findings);
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn finds_a_missing_page() {
        let mut findings = Vec::new();
        check(Path::new("/nowhere"), &mut findings);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("docs/configuration.md:1: "));
    }
}
