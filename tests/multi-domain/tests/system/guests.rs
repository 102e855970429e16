//! Virtual machines: a kernel made for tests, which does what guests must not, and Linux as Debian ships it.

use crate::drivers::{self, BLOCK, NET, nic_client};
use crate::misbehaviour::settled_free_frames;
use bulkhead_test::{Boot, Result, System, seconds};
use std::fs;
use xtask::images;

/// The tables of a system's own domains, and of one virtual machine, which runs the kernel for tests.
fn with_guest(task: &str, more: &str) -> Result<String> {
    let kernel = images::build(&["guest"])?.join("guest");
    Ok(format!(
        "[domain.policy]\nrole = \"policy\"\nmemory = \"8M\"\n[domain.xenstore]\nrole = \"xenstore\"\nmemory = \"8M\"\n\
         [domain.console]\nrole = \"console\"\nmemory = \"8M\"\nio-ports = [\"0x3f8-0x3ff\"]\nirqs = [4]\n\
         [domain.guest]\nkind = \"pvh\"\nkernel = \"{}\"\nmemory = \"64M\"\ncmdline = \"do={task}\"\n{more}\n",
        kernel.display()
    ))
}

/// A system with one virtual machine.
fn boot(task: &str, vcpus: u32) -> Result<System> {
    Boot::policy(&with_guest(task, &format!("vcpus = {vcpus}"))?).start()
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
fn a_guest_that_triple_faults_is_started_again_as_often_as_the_policy_allows() -> Result<()> {
    let restart = "restart = { max = 2, within = \"10m\", backoff = \"10ms\" }";
    let mut system = Boot::policy(&with_guest("triple-fault", restart)?).start()?;
    let mut position = 0;
    for told in ["it is started again\n", "it is started again in 10 ms\n", "all that the policy allows\n"] {
        system.wait_from(position, "(guest) died: triple fault at rip 0x1", seconds(60))?;
        system.wait_from(position, told, seconds(20))?;
        position = system.position();
    }
    let domains = system.shell("domains", seconds(20))?;
    assert!(domains.contains("guest was started again 2 times"), "{domains}");
    system.shutdown()
}

/// As under Xen, whose default is to destroy what powers off.
#[test]
fn a_guest_that_powers_off_stays_down_until_the_administrator_wants_it() -> Result<()> {
    let mut system = Boot::policy(&with_guest("halt", "restart = \"always\"")?).start()?;
    system.wait_for("domain `guest` ended: halted\n", seconds(60))?;
    for _ in 0..2 {
        let position = system.position();
        system.shell("restart guest", seconds(20))?;
        system.wait_from(position, "domain `guest` runs again", seconds(60))?;
        system.wait_from(position, "domain `guest` ended: halted\n", seconds(60))?;
    }
    let domains = system.shell("domains", seconds(20))?;
    assert!(domains.contains("guest was started again 2 times"), "{domains}");
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

/// Waits for a hostile front end's end; meanwhile and afterwards `honest` is served as ever. Frames that are free then.
fn survive(system: &mut System, honest: &str, connections: u32) -> Result<usize> {
    system.wait_for("GUEST connected", seconds(120))?;
    system.wait_for("GUEST-OK rings", seconds(300))?;
    system.wait_for("(guest) ended", seconds(20))?;
    system.expect_verdict(honest, seconds(120))?;
    let text = system.text();
    let count = text.lines().find_map(|line| line.split_once("GUEST ")?.1.strip_suffix(" connections")?.parse().ok());
    assert!(count.is_some_and(|count: u32| count >= connections), "{count:?} connections, {connections} expected");
    assert_eq!(text.lines().filter(|line| line.contains("died")).count(), 0, "somebody else has died:\n{text}");
    system.shell(&format!("restart {honest}"), seconds(20))?;
    let verdicts = |system: &System| system.verdicts().iter().filter(|verdict| verdict.passed).count();
    let end = std::time::Instant::now() + seconds(120);
    while verdicts(system) < 2 {
        assert!(std::time::Instant::now() < end, "{honest} is not served any more:\n{}", system.text());
        system.shell("domains", seconds(30))?;
    }
    settled_free_frames(system)
}

#[test]
fn a_hostile_front_end_of_a_disk_hurts_nobody_else() -> Result<()> {
    let mut quiet = None;
    let block = BLOCK.split("[domain.block.export").next().unwrap_or_default();
    let exports = ["one", "two"].map(|name| {
        let number = if name == "one" { 1 } else { 2 };
        format!("[domain.block.export.{name}]\ndisk = \"disk\"\npartition = {number}\n")
    });
    let honest = "[domain.disk-read]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=disk-read\"\n\
                  disks = [{ from = \"block\", export = \"one\", device = \"xvda\", read-only = true }]\n";
    for (seed, count) in [(1, 10), (2, 60_000), (3, 60_000), (4, 60_000)] {
        let image = drivers::disk(&format!("rings-{seed}"))?;
        let first = drivers::partitioned(&image)? * 512;
        let before = fs::read(&image)?;
        let task = format!("rings device=vbd seed={seed} count={count}");
        let disk = "disks = [{ from = \"block\", export = \"two\", device = \"xvda\", read-only = false }]\n";
        let policy = with_guest(&task, disk)? + block + &exports.concat() + honest;
        let mut system = Boot::policy(&policy).image("client").disk(&image, true).start()?;
        let free = survive(&mut system, "disk-read", if count > 10 { 3 } else { 1 })?;
        system.shutdown()?;
        let after = fs::read(&image)?;
        fs::remove_file(&image)?;
        let around = |bytes: &[u8]| [bytes[..first].to_vec(), bytes[first + (4 << 20)..].to_vec()];
        assert!(around(&before) == around(&after), "something outside the partition was written");
        assert!(count == 10 || before != after, "nothing was written at all");
        let quiet = *quiet.get_or_insert(free);
        // The hypervisor's own heap may have grown by a few.
        assert!(free + 4 >= quiet, "{free} frames are free; {quiet} after a guest that did next to nothing");
    }
    Ok(())
}

#[test]
fn a_hostile_front_end_of_a_network_hurts_nobody_else() -> Result<()> {
    let mut quiet = None;
    for (seed, count) in [(1, 10), (2, 60_000), (3, 60_000)] {
        let task = format!("rings device=vif seed={seed} count={count}");
        let nic = "nics = [{ from = \"net\", mac = \"52:54:00:00:01:21\", ip = \"10.0.2.33\" }]\n";
        let policy = with_guest(&task, nic)? + NET + &nic_client("nic-fragments", 15);
        let mut system = Boot::policy(&policy).image("client").network()?.start()?;
        let free = survive(&mut system, "nic-fragments", if count > 10 { 3 } else { 1 })?;
        system.shutdown()?;
        let quiet = *quiet.get_or_insert(free);
        assert!(free + 4 >= quiet, "{free} frames are free; {quiet} after a guest that did next to nothing");
    }
    Ok(())
}
