//! Virtual machines: a kernel made for tests, which does what guests must not, and Linux as Debian ships it.

use crate::misbehaviour::settled_free_frames;
use bulkhead_test::{Boot, Result, System, seconds};
use xtask::images;

/// A system with one virtual machine, which runs the kernel for tests.
fn boot(task: &str, vcpus: u32) -> Result<System> {
    let kernel = images::build(&["guest"])?.join("guest");
    let policy = format!(
        "[domain.policy]\nrole = \"policy\"\nmemory = \"8M\"\n[domain.xenstore]\nrole = \"xenstore\"\nmemory = \"8M\"\n\
         [domain.console]\nrole = \"console\"\nmemory = \"8M\"\nio-ports = [\"0x3f8-0x3ff\"]\nirqs = [4]\n\
         [domain.guest]\nkind = \"pvh\"\nkernel = \"{}\"\nmemory = \"64M\"\nvcpus = {vcpus}\ncmdline = \"do={task}\"\n",
        kernel.display()
    );
    Boot::policy(&policy).start()
}

/// Runs a task of the kernel for tests to its good end.
fn run(task: &str) -> Result<System> {
    let mut system = boot(task, 1)?;
    let name = task.split(' ').next().unwrap_or_default();
    system.wait_for(&format!("GUEST-OK {name}"), seconds(300))?;
    system.wait_for("(guest) ended", seconds(20))?;
    system.wait_ready()?;
    Ok(system)
}

/// Runs a task that ends the guest, with these words in the log.
fn ends(task: &str, words: &str) -> Result<()> {
    let mut system = boot(task, 1)?;
    system.wait_for(&format!("(guest) died: {words}"), seconds(60))?;
    system.wait_ready()?;
    system.shutdown()
}

#[test]
fn a_guest_finds_xen_by_cpuid_and_calls_it_both_ways() -> Result<()> {
    run("hello")?.shutdown()
}

#[test]
fn events_timers_and_apic_interrupts_reach_a_guest() -> Result<()> {
    run("events")?.shutdown()
}

#[test]
fn a_triple_fault_ends_the_guest_and_says_so() -> Result<()> {
    ends("triple-fault", "triple fault at rip 0x1")
}

#[test]
fn memory_that_is_not_there_ends_the_guest_and_says_where() -> Result<()> {
    ends("nowhere", "read of guest-physical 0x3ffff000, where it has nothing")
}

#[test]
fn halting_with_interrupts_off_is_powering_off() -> Result<()> {
    let mut system = boot("halt", 1)?;
    system.wait_for("(guest) ended: halted", seconds(60))?;
    system.wait_ready()?;
    system.shutdown()
}

#[test]
fn nonsense_of_a_guest_hurts_nobody_else_and_loses_nothing() -> Result<()> {
    let mut quiet = run("hello")?;
    let all = settled_free_frames(&mut quiet)?;
    quiet.shutdown()?;
    for seed in 1..=3 {
        let mut system = boot(&format!("silly seed={seed} count=350000"), 1)?;
        system.wait_for("(guest) GUEST round 0", seconds(60))?;
        system.wait_for("GUEST-OK silly", seconds(400))?;
        system.wait_for("(guest) ended", seconds(20))?;
        system.wait_ready()?;
        let free = settled_free_frames(&mut system)?;
        let domains = system.shell("domains", seconds(20))?;
        for survivor in ["policy", "xenstore", "console"] {
            assert!(domains.contains(survivor), "{survivor} is gone:\n{domains}");
        }
        // The hypervisor's own heap may have grown by a few.
        assert!(free + 4 >= all, "{free} frames are free; {all} after a guest that did nothing");
        system.shutdown()?;
    }
    Ok(())
}
