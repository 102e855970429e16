//! Any hypercall with any arguments: it is answered, the others go on, and nothing is lost.

use crate::misbehaviour::settled_free_frames;
use crate::policies::{boot, probe};
use bulkhead_test::{Result, System, seconds};

#[test]
fn random_hypercalls_of_a_domain_are_survived_and_lose_nothing() -> Result<()> {
    let domains = probe("back", "channel-back", "") + &probe("front", "channel-front", "channels = [\"back\"]");
    let domains = domains + &probe("wild", "fuzz", "") + &probe("tame", "rest", "");
    let mut system = boot(&domains).start()?;
    // Two others do what is right meanwhile.
    for domain in ["back", "front"] {
        system.wait_for(&format!("{domain}| done with"), seconds(120))?;
    }
    assert!(system.shell("domains", seconds(60))?.contains("wild"));
    system.wait_for("wild| done with", seconds(240))?;
    system.expect_verdict("m8-fuzz-is-survived", seconds(1))?;
    let failed: Vec<_> = system.verdicts().into_iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");

    // It had what a quiet domain of the same size has, less the two pages that it gave back, and perhaps page tables.
    let tame = returned_by(&mut system, "tame")?;
    let wild = returned_by(&mut system, "wild")?;
    assert!(wild + 2 >= tame, "{wild} frames came back, {tame} of a quiet domain");
    let domains = system.shell("domains", seconds(20))?;
    for survivor in ["policy", "xenstore", "console", "front", "back"] {
        assert!(domains.contains(survivor), "{survivor} is gone:\n{domains}");
    }
    system.shutdown()
}

/// Frames that come back when a domain is destroyed.
fn returned_by(system: &mut System, name: &str) -> Result<usize> {
    let before = settled_free_frames(system)?;
    system.shell(&format!("destroy {name}"), seconds(20))?;
    Ok(settled_free_frames(system)?.saturating_sub(before))
}
