//! Grants and events between real domains, with every error that a domain can be told.

use crate::policies::{boot, probe};
use bulkhead_test::{Result, System, seconds};
use xtask::machine::Clock;

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
fn a_send_that_waits_wakes_the_peer_and_is_woken_by_it_and_by_nothing_less() -> Result<()> {
    let domains = probe("back", "pair-back", "") + &probe("front", "pair-front", "channels = [\"back\"]");
    let mut system = boot(&domains).start()?;
    system.wait_for("(back) died", seconds(90))?;
    all_pass(system, &["front"], 14)
}

#[test]
fn a_pair_that_takes_turns_leaves_a_third_domain_its_share() -> Result<()> {
    let domains = probe("back", "pair-back", "")
        + &probe("front", "pair-for-ever", "channels = [\"back\"]")
        + &probe("other", "third", "");
    // Shares are counted in executed instructions: the host's clock goes on while QEMU waits for a CPU.
    let mut system = boot(&domains).machine(|machine| machine.clock = Clock::Instructions).start()?;
    system.expect_verdict("send-and-block-takes-turns", seconds(90))?;
    for name in ["third-has-its-share", "third-waits-for-a-slice-or-two", "third-shares-with-the-pair"] {
        system.expect_verdict(name, seconds(200))?;
    }
    Ok(())
}

#[test]
fn domains_that_take_turns_reach_their_own_io_ports_and_no_other() -> Result<()> {
    let domains = probe("clock", "ports-clock", "io-ports = [\"0x70-0x71\"]")
        + &probe("gate", "ports-gate", "io-ports = [\"0x61-0x61\"]")
        + &probe("witness", "rest", "");
    let mut system = boot(&domains).start()?;
    for (name, verdict) in [("clock", "clock-port-reached"), ("gate", "gate-port-reached")] {
        system.expect_verdict(verdict, seconds(90))?;
        system.wait_for(&format!("({name}) died: general protection"), seconds(90))?;
    }
    let failed: Vec<_> = system.verdicts().into_iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(system.shell("domains", seconds(30))?.contains("witness"));
    system.shutdown()
}

#[test]
fn a_million_events_do_not_stop_the_others() -> Result<()> {
    let domains = probe("calm", "calm", "") + &probe("storm", "storm", "channels = [\"calm\"]");
    let mut system = boot(&domains).start()?;
    system.expect_verdict("calm-connects", seconds(60))?;
    assert!(system.shell("domains", seconds(60))?.contains("storm"));
    all_pass(system, &["storm", "calm"], 3)
}
