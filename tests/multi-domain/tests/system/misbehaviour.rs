//! Domains that do what ends them: only the guilty one ends, the console says why, the others go on.

use crate::policies::{boot, probe};
use bulkhead_test::{Result, seconds};

/// What each probe does, and a word of the reason that the console must show.
const FATAL: &[(&str, &str)] = &[
    ("read-hypervisor", "page fault"),
    ("read-direct-map", "page fault"),
    ("write-hypervisor", "page fault"),
    ("read-unmapped", "page fault"),
    ("read-null", "page fault"),
    ("write-code", "page fault"),
    ("write-start-info", "page fault"),
    ("run-heap", "page fault"),
    ("run-away", "general protection"),
    ("stack-overflow", "page fault"),
    ("io-port", "general protection"),
    ("io-port-pci", "general protection"),
    ("halt", "general protection"),
    ("interrupts-off", "general protection"),
    ("page-tables", "general protection"),
    ("control-register", "general protection"),
    ("model-register", "general protection"),
    ("interrupt-table", "general protection"),
    ("show-table", "general protection"),
    ("vector", ""),
    ("floating-point", ""),
    ("soft-interrupt", "general protection"),
    ("breakpoint", ""),
    ("undefined", "invalid opcode"),
    ("division", "divide"),
    ("wild-stack", ""),
    ("panic", "crashed"),
];

/// Boots these probes together and looks at each one's end.
fn each_ends_alone(cases: &[(&str, &str)]) -> Result<()> {
    let mut domains = probe("witness", "rest", "");
    for (what, _) in cases {
        domains += &probe(&format!("p-{what}"), what, "");
    }
    let mut system = boot(&domains).start()?;
    for (what, reason) in cases {
        let line = ended(&mut system, what)?;
        assert!(line.to_lowercase().contains(reason), "{what}: {reason:?} is not the reason given: {line}");
    }
    let failed: Vec<_> = system.verdicts().into_iter().filter(|verdict| !verdict.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let domains = system.shell("domains", seconds(30))?;
    for survivor in ["policy", "xenstore", "console", "witness"] {
        assert!(domains.contains(survivor), "{survivor} is gone:\n{domains}");
    }
    system.shutdown()
}

/// The line in which the hypervisor says how that probe ended.
fn ended(system: &mut bulkhead_test::System, what: &str) -> Result<String> {
    let name = format!("(p-{what}) died");
    let limit = std::time::Instant::now() + seconds(90);
    loop {
        let found = system.log("hv").into_iter().find(|line| line.contains(&name));
        match found {
            Some(line) => return Ok(line),
            None if std::time::Instant::now() > limit => {
                return Err(bulkhead_test::error(&format!("{what} did not end:\n{}", system.text())));
            }
            None => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

#[test]
fn touching_memory_that_is_not_ones_own_ends_the_domain() -> Result<()> {
    each_ends_alone(&FATAL[..10])
}

#[test]
fn privileged_instructions_and_ports_end_the_domain() -> Result<()> {
    each_ends_alone(&FATAL[10..19])
}

#[test]
fn other_exceptions_end_the_domain() -> Result<()> {
    each_ends_alone(&FATAL[19..])
}

#[test]
fn flags_of_a_domain_do_not_reach_the_hypervisor() -> Result<()> {
    let mut system = boot(&probe("flags", "dirty-flags", "")).start()?;
    system.expect_verdict("dirty-flags-are-harmless", seconds(60))?;
    system.wait_ready()?;
    system.shutdown()
}

#[test]
fn a_domain_that_loops_for_ever_does_not_stop_the_others() -> Result<()> {
    let mut system = boot(&(probe("spin", "spin", "") + &probe("witness", "rest", ""))).start()?;
    system.wait_ready()?;
    for _ in 0..5 {
        assert!(system.shell("domains", seconds(20))?.contains("spin"));
    }
    let at = system.position();
    system.shell("destroy spin", seconds(20))?;
    system.wait_from(at, "spin", seconds(20))?;
    system.shutdown()
}

#[test]
fn every_frame_comes_back_when_domains_die() -> Result<()> {
    let domains: String = (0..6).map(|number| probe(&format!("p-{number}"), "rest", "")).collect();
    let mut system = boot(&domains).start()?;
    system.wait_ready()?;
    let mut returned = vec![];
    for number in 0..6 {
        let before = settled_free_frames(&mut system)?;
        system.shell(&format!("destroy p-{number}"), seconds(20))?;
        returned.push(settled_free_frames(&mut system)? - before);
    }
    // Each had the same: nearly 2 MiB of memory, page tables, grant table frames, shared info. What one did not give
    // back would show against the others.
    assert!(returned.iter().all(|&frames| frames == returned[0] && frames > 440), "{returned:?}");
    system.shutdown()
}

/// What a domain may still get is there for it, though nobody has it.
#[test]
fn memory_is_kept_for_whom_the_policy_gives_it_to() -> Result<()> {
    let (large, other) = (probe("large", "rest", ""), probe("other", "rest", "autostart = false\n"));
    let domains = format!("{large}{other}").replace("\"2M\"", "\"300M\"");
    assert_eq!(domains.matches("300M").count(), 2);
    let mut system = boot(&domains).start()?;
    system.wait_ready()?;
    let before = settled_free_frames(&mut system)?;
    let at = system.position();
    system.shell("restart other", seconds(20))?;
    system.wait_from(at, "the machine lacks", seconds(20))?;
    assert_eq!(settled_free_frames(&mut system)?, before, "what could not be built has cost something");
    let at = system.position();
    system.shell("destroy large", seconds(20))?;
    system.wait_from(at, "domain `large` ended", seconds(20))?;
    let after = settled_free_frames(&mut system)?;
    assert!(after > before + 70_000, "{before} frames before, {after} after");
    let at = system.position();
    system.shell("restart other", seconds(20))?;
    let domains = system.shell("domains", seconds(20))?;
    assert!(!system.text()[at..].contains("the machine lacks"), "{domains}");
    assert!(settled_free_frames(&mut system)? < after - 70_000, "{domains}");
    system.shutdown()
}

/// The number of free frames, once it stands still: who starts takes frames, and who ends gives them back in pieces.
pub fn settled_free_frames(system: &mut bulkhead_test::System) -> Result<usize> {
    let limit = std::time::Instant::now() + seconds(30);
    let mut last = free_frames(system)?;
    loop {
        std::thread::sleep(std::time::Duration::from_millis(600));
        let now = free_frames(system)?;
        if now == last {
            return Ok(now);
        }
        assert!(std::time::Instant::now() < limit, "the count of free frames does not stand still");
        last = now;
    }
}

/// The number of free frames that the shell's `domains` shows.
fn free_frames(system: &mut bulkhead_test::System) -> Result<usize> {
    let text = system.shell("domains", seconds(20))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(3)
        .find(|words| words[1] == "frames" && words[2] == "free")
        .and_then(|words| words[0].parse().ok())
        .ok_or_else(|| bulkhead_test::error(&format!("no count of free frames in:\n{text}")))
}
