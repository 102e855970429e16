//! The catalogue of flaws in `docs/advisories.md` names tests: they exist, and every row has one or a reason.

use bulkhead_test::Result;
use std::fs;
use std::path::Path;

/// All Rust source below a folder.
fn source(folder: &Path, into: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            source(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn every_row_names_tests_that_exist_or_says_why_not() -> Result<()> {
    let root = xtask::root();
    let mut all = String::new();
    for folder in ["hv", "ipc", "domains", "driver-domains", "policy", "tests/domains", "tests/multi-domain"] {
        source(&root.join(folder), &mut all)?;
    }
    let page = fs::read_to_string(root.join("docs/advisories.md"))?;
    let is_id = |cell: &str| cell.chars().nth(1).is_some_and(|second| second.is_ascii_digit());
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| is_id(cells[0]))
        .collect();
    assert!(rows.len() > 80, "only {} rows", rows.len());
    for cells in rows {
        assert_eq!(cells.len(), 4, "{cells:?}");
        assert!(cells[3].len() > 10, "{}: neither test nor reason", cells[0]);
        for name in cells[3].split('`').skip(1).step_by(2).filter(|name| *name != "must_use") {
            let exists = all.contains(&format!("fn {name}(")) || all.contains(&format!("\"{name}\""));
            assert!(exists, "{}: no test and no verdict is called {name}", cells[0]);
        }
    }
    Ok(())
}
