//! Domains to do wrong to: a page of code, a page of stack, no more.

use core::time::Duration;
use runtime::hypercall::{platform, sched};
use runtime::time::{now, sleep};
use runtime::{DomId, Errno};
use xen_abi::native::{IMAGE_BASE, PAGE_SIZE, STACK_TOP};
use xen_abi::platform::{RIGHTS_EXECUTE, RIGHTS_WRITE};

/// Labels, in the order of the test's policy. `VICTIM` and `FRIEND` are linked.
pub const VICTIM: u32 = 1;
/// See [`VICTIM`].
pub const FRIEND: u32 = 2;
/// Linked to nobody.
pub const STRANGER: u32 = 3;
/// Has much memory, so that its end takes a while.
pub const LARGE: u32 = 4;
/// Drives the `edu` device.
pub const DRIVER: u32 = 5;
/// One past the last label.
pub const LABELS: u32 = 6;

/// Pages of [`VICTIM`]'s memory.
pub const VICTIM_PAGES: u64 = 1024;

/// Loops for ever.
pub const SPINS: &[u8] = &[0xeb, 0xfe];
/// `2: mov eax, 29 (sched_op); mov edi, 1 (block); xor esi, esi; syscall; jmp 2b`
pub const SLEEPS: &[u8] = &[0xb8, 29, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x31, 0xf6, 0x0f, 0x05, 0xeb, 0xf0];
/// `ud2`
pub const DIES: &[u8] = &[0x0f, 0x0b];

/// Where the code is.
pub const CODE: u64 = IMAGE_BASE;

/// A frame number of an address.
pub const fn gfn(address: u64) -> u64 {
    address / PAGE_SIZE
}

/// A new domain with nothing in it.
pub fn empty(label: u32) -> DomId {
    match platform::create_domain(label) {
        Ok(id) => id,
        Err(error) => panic!("label {label} cannot be created: {error}"),
    }
}

/// A domain with code, stack and entry point, still building.
pub fn complete(label: u32, code: &[u8]) -> DomId {
    let id = empty(label);
    let filled = platform::populate(id, gfn(CODE), 1, RIGHTS_EXECUTE)
        .and_then(|()| platform::populate(id, gfn(STACK_TOP) - 1, 1, RIGHTS_WRITE))
        .and_then(|()| platform::copy_in(id, CODE, code))
        .and_then(|()| platform::set_entry(id, CODE, STACK_TOP, 0));
    if let Err(error) = filled {
        panic!("label {label} cannot be filled: {error}");
    }
    id
}

/// A domain that runs.
pub fn running(label: u32, code: &[u8]) -> DomId {
    let id = complete(label, code);
    if let Err(error) = platform::unpause(id) {
        panic!("label {label} cannot run: {error}");
    }
    id
}

/// Destroys a domain, unless it has ended by itself, and waits until all it had is returned.
pub fn finish(id: DomId) {
    match platform::destroy(id) {
        Ok(()) | Err(Errno::EBUSY | Errno::ESRCH) => wait_gone(id),
        Err(error) => panic!("domain {id} cannot be destroyed: {error}"),
    }
}

/// Waits until nothing of a dead or dying domain is left.
pub fn wait_gone(id: DomId) {
    let limit = now() + Duration::from_secs(60);
    while platform::reaped(id) != Ok(()) {
        assert!(now() < limit, "domain {id} does not go");
        sched::give_way();
        sleep(Duration::from_micros(100));
    }
}

/// Frames that no domain has: those that the hypervisor could give to one, and its own, which its heap grows by as needed.
pub fn frames_free() -> u64 {
    platform::machine_info().map_or(0, |machine| machine.frames_free + machine.frames_hypervisor)
}

/// Frames that the hypervisor has for itself.
pub fn frames_hypervisor() -> u64 {
    platform::machine_info().map_or(0, |machine| machine.frames_hypervisor)
}

/// Pages that a domain has.
pub fn pages(id: DomId) -> u64 {
    platform::domain_info(u32::from(id.0)).map_or(0, |info| info.pages)
}
