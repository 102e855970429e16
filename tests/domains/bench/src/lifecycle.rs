//! Making and ending domains, in place of the policy domain, with nobody else there.

use crate::samples::{Report, Samples, forever};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::DomId;
use runtime::hypercall::{platform, sched};
use runtime::time::ticks;
use xen_abi::native::{IMAGE_BASE, PAGE_SIZE, STACK_TOP};
use xen_abi::platform::RIGHTS_WRITE;

/// Times that each is done.
const SAMPLES: usize = 20;
/// Where the memory begins that is filled: apart from where anything else is.
const FILLED: u64 = 0x2000_0000;
/// Labels, in the order of the policy that `cargo xtask bench` has for this, and pages of their memory.
const SMALL: (u32, u64) = (1, 4 << 8);
const LARGE: (u32, u64) = (2, 64 << 8);

/// Measures them all.
pub fn all() -> Result<Vec<Report>, String> {
    let mut reports = Vec::new();
    for (names, size) in
        [(["domain_create_4m", "domain_destroy_4m"], SMALL), (["domain_create_64m", "domain_destroy_64m"], LARGE)]
    {
        reports.extend(measure(names, size).map_err(|error| error.to_string())?);
    }
    Ok(reports)
}

fn measure([create, destroy]: [&'static str; 2], size: (u32, u64)) -> Result<[Report; 2], runtime::Errno> {
    let (mut creating, mut destroying) = (Samples::with_room(SAMPLES), Samples::with_room(SAMPLES));
    // The first takes what the hypervisor keeps.
    end(make(size)?)?;
    while forever(create, 1) || forever(destroy, 1) {
        end(make(size)?)?;
    }
    for _ in 0..SAMPLES {
        let start = ticks();
        let domain = make(size)?;
        let made = ticks();
        end(domain)?;
        creating.add(made.wrapping_sub(start), 1);
        destroying.add(ticks().wrapping_sub(made), 1);
    }
    Ok([creating.report(create), destroying.report(destroy)])
}

/// A domain with all its memory, ready to run: what the hypervisor does of building one. (Copying an image comes on top.)
fn make((label, pages): (u32, u64)) -> runtime::errno::Result<DomId> {
    let domain = platform::create_domain(label)?;
    platform::populate(domain, STACK_TOP / PAGE_SIZE - 1, 1, RIGHTS_WRITE)?;
    platform::populate(domain, FILLED / PAGE_SIZE, pages - 1, RIGHTS_WRITE)?;
    platform::set_entry(domain, IMAGE_BASE, STACK_TOP, 0)?;
    Ok(domain)
}

/// Ends it, and waits until all it had is returned.
fn end(domain: DomId) -> runtime::errno::Result<()> {
    platform::destroy(domain)?;
    while platform::reaped(domain).is_err() {
        sched::give_way();
    }
    Ok(())
}
