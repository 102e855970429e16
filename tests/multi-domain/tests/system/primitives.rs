//! Grants and events between real domains, with every error that a domain can be told.

use crate::policies::{boot, probe};
use bulkhead_test::{Result, System, seconds};

/// Waits until these domains say that they are done, and fails on the first verdict that does.
fn all_pass(mut system: System, domains: &[&str], at_least: usize) -> Result<()> {
    for domain in domains {
        system.wait_for(&format!("{domain}| done with"), seconds(90))?;
    }
    let verdicts = system.verdicts();
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(verdicts.len() >= at_least, "only {} verdicts:\n{}", verdicts.len(), system.text());
    system.wait_ready()?;
    system.shutdown()
}

#[test]
fn grants_and_events_work_between_two_domains_and_every_misuse_has_its_error() -> Result<()> {
    let domains = probe("back", "channel-back", "") + &probe("front", "channel-front", "channels = [\"back\"]");
    all_pass(boot(&domains).start()?, &["back", "front"], 35)
}

#[test]
fn what_does_not_exist_or_is_not_ours_is_refused_and_changes_nothing() -> Result<()> {
    all_pass(boot(&probe("nosy", "refusals", "")).start()?, &["nosy"], 50)
}

/// What the key gives; that a domain without it is told nothing is one of the refusals above (`c1-domain-info` and the
/// like).
#[test]
fn who_may_observe_sees_facts_and_gets_no_authority() -> Result<()> {
    all_pass(boot(&probe("watcher", "observer", "observe = true")).start()?, &["watcher"], 6)
}

#[test]
fn a_page_outlives_its_owner_until_the_peer_lets_go() -> Result<()> {
    let domains = probe("keeper", "keep-mapped", "") + &probe("doomed", "die-while-mapped", "channels = [\"keeper\"]");
    all_pass(boot(&domains).start()?, &["keeper"], 4)
}

#[test]
fn a_million_events_do_not_stop_the_others() -> Result<()> {
    let domains = probe("calm", "calm", "") + &probe("storm", "storm", "channels = [\"calm\"]");
    let mut system = boot(&domains).start()?;
    system.expect_verdict("calm-connects", seconds(60))?;
    assert!(system.shell("domains", seconds(60))?.contains("storm"));
    all_pass(system, &["storm", "calm"], 3)
}
