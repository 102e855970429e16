//! A hostile policy domain (`tests/domains/rogue`): the sealed table binds it too, and what runs is out of its reach.

use bulkhead_test::{Boot, Ending, Result, System, seconds};

/// What `rogue` leaves QEMU with, as `isa-debug-exit` reports it.
const DONE: Ending = Ending::Code(21 << 1 | 1);

/// Its system: no services, domains to do wrong to, a device for one of them. `rogue` knows the labels by their order.
fn rogue(what: &str) -> Result<System> {
    let policy = format!(
        r#"
[system]
without = ["xenstore", "console"]
[domain.policy]
role = "policy"
image = "rogue"
memory = "16M"
arguments = "do={what}"
[domain.victim]
image = "rogue"
memory = "4M"
channels = ["friend"]
[domain.friend]
image = "rogue"
memory = "4M"
[domain.stranger]
image = "rogue"
memory = "4M"
[domain.large]
image = "rogue"
memory = "64M"
[domain.driver]
image = "rogue"
memory = "4M"
devices = ["edu"]
[device.edu]
vendor = 0x1234
device = 0x11e8
"#
    );
    Boot::policy(&policy).image("rogue").network()?.machine(|machine| machine.edu = true).start()
}

/// Waits for its end, and looks at what it found.
fn all_pass(mut system: System, at_least: usize) -> Result<()> {
    system.wait_for("rogue is done", seconds(240))?;
    let verdicts = system.verdicts();
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(verdicts.len() >= at_least, "only {} verdicts:\n{}", verdicts.len(), system.text());
    assert_eq!(system.wait_end(seconds(30))?, DONE);
    Ok(())
}

#[test]
fn a_hostile_policy_domain_gets_nothing_beyond_its_authority() -> Result<()> {
    all_pass(rogue("all")?, 300)
}

#[test]
fn random_commands_of_the_policy_domain_lose_nothing() -> Result<()> {
    all_pass(rogue("fuzz")?, 3)
}
