//! Creating domains and filling them: only labels of the policy, only within the label's memory, only what can be mapped.

use crate::child::{CODE, FRIEND, LABELS, LARGE, SLEEPS, STRANGER, VICTIM, VICTIM_PAGES};
use crate::child::{complete, empty, finish, frames_free, gfn, pages, running};
use crate::raw;
use runtime::hypercall::{event_channel, platform};
use runtime::info::bundle;
use runtime::verdict::equal;
use runtime::{Access, DomId, Errno, GrantRef, Port, verdict};
use xen_abi::native::{ADDRESS_LIMIT, BUNDLE_BASE, PAGE_SIZE, STACK_TOP, START_INFO};
use xen_abi::platform as abi;
use xen_abi::platform::{RIGHTS_EXECUTE, RIGHTS_READ, RIGHTS_WRITE};

/// No domain has this id.
const NOBODY: DomId = DomId(0x6fff);
/// An address of the hypervisor.
const UPPER_HALF: u64 = 0xffff_8000_0010_0000;

/// All of it.
pub fn all() {
    creating();
    populating();
    page_tables();
    copying();
    lending();
    seeding();
    ports();
    entries();
    after_the_start();
}

fn creating() {
    for label in [LABELS, LABELS + 1, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        equal("c1-create-no-such-label", platform::create_domain(label), Err(Errno::EINVAL));
    }
    equal("c1-create-label-0-again", platform::create_domain(0), Err(Errno::EEXIST));
    let id = empty(VICTIM);
    equal("c1-create-twice", platform::create_domain(VICTIM), Err(Errno::EEXIST));
    finish(id);
    let next = empty(VICTIM);
    verdict!("c1-create-has-a-new-id", next != id, "{next} again");
    finish(next);
    equal("c1-create-for-another-label", platform::create_successor(FRIEND, next), Err(Errno::EINVAL));
    equal("c1-create-as-nobody", platform::create_successor(VICTIM, DomId(next.0 + 1)), Err(Errno::EINVAL));
    equal("c1-create-successor", platform::create_successor(VICTIM, next), Ok(next));
    equal("c1-create-successor-twice", platform::create_successor(VICTIM, next), Err(Errno::EEXIST));
    finish(next);
}

/// One call; how it ended and how many pages it did.
fn populate(id: DomId, gfn: u64, count: u64, rights: u32) -> (Result<u64, Errno>, u64) {
    let mut op = abi::Populate { domid: u32::from(id.0), rights, gfn, count, done: u64::MAX };
    let result = raw::platform(abi::POPULATE, &mut op);
    (result, op.done)
}

fn populating() {
    let id = empty(VICTIM);
    for rights in [RIGHTS_WRITE | RIGHTS_EXECUTE, 4, 0x8000_0000, u32::MAX] {
        let (result, _) = populate(id, 0x1000, 1, rights);
        equal("c1-populate-write-and-execute", result, Err(Errno::EINVAL));
    }
    equal("c1-populate-nothing", populate(id, 0x1000, 0, RIGHTS_WRITE), (Ok(0), 0));
    let limit = gfn(ADDRESS_LIMIT);
    for first in [limit, limit + 1, gfn(UPPER_HALF), gfn(u64::MAX), 1 << 52, u64::MAX] {
        equal("c1-populate-beyond-the-limit", populate(id, first, 1, RIGHTS_WRITE), (Err(Errno::EINVAL), 0));
        equal("c1-populate-beyond-the-limit", populate(id, first, u64::MAX, RIGHTS_WRITE), (Err(Errno::EINVAL), 0));
    }
    equal("c1-populate-across-the-limit", populate(id, limit - 1, 2, RIGHTS_WRITE), (Err(Errno::EINVAL), 1));
    equal("c1-populate-again", populate(id, limit - 1, 1, RIGHTS_READ), (Err(Errno::EEXIST), 0));
    equal("c1-populate-up-to-an-occupied-page", populate(id, limit - 3, 3, RIGHTS_READ), (Err(Errno::EEXIST), 2));
    equal("c1-populate-count-is-kept", pages(id), 3);

    // A call does a bounded amount and says how much; the label's memory is the end.
    let mut done = 0;
    let last = loop {
        let (result, now) = populate(id, 0x1000 + done, u64::MAX, RIGHTS_WRITE);
        done += now;
        match result {
            Err(Errno::EAGAIN) if now > 0 && now <= 4096 => {}
            other => break other,
        }
    };
    equal("m2-populate-ends-with-the-labels-memory", (last, done), (Err(Errno::ENOMEM), VICTIM_PAGES - 3));
    equal("m2-populate-no-page-too-many", pages(id), VICTIM_PAGES);
    equal("m2-populate-nothing-more", populate(id, 0x10_0000, 1, RIGHTS_READ), (Err(Errno::ENOMEM), 0));
    finish(id);

    equal("c1-populate-nobody", populate(NOBODY, 0x1000, 1, RIGHTS_WRITE).0, Err(Errno::ESRCH));
    equal("c1-populate-oneself", populate(DomId::POLICY, 0x1000_0000, 1, RIGHTS_WRITE).0, Err(Errno::EPERM));
    equal("c1-populate-self-by-alias", populate(DomId::SELF, 0x1000_0000, 1, RIGHTS_WRITE).0, Err(Errno::ESRCH));
}

/// Page tables are paid from the domain's own budget: pages far apart end it early.
fn page_tables() {
    let before = frames_free();
    let id = empty(VICTIM);
    let far_apart = |number: u64| populate(id, number << 27 | number << 18 | number << 9, 1, RIGHTS_WRITE).0;
    let refused = (1..255).find_map(|number| far_apart(number).err());
    let used = before - frames_free();
    equal("m7-scattered-pages-run-out", refused, Some(Errno::ENOMEM));
    verdict!("m7-scattered-pages-are-bounded", used < 256, "{used} frames for {} pages", pages(id));
    equal("m7-dense-pages-still-fit", populate(id, 1 << 27 | 1 << 18 | 1 << 9 | 1, 1, RIGHTS_WRITE).0, Ok(0));
    finish(id);
    equal("m7-all-tables-come-back", frames_free(), before);
}

fn copy(id: DomId, gpa: u64, source: u64, bytes: u64) -> Result<u64, Errno> {
    raw::platform(abi::COPY_IN, &mut abi::CopyIn { domid: u32::from(id.0), reserved: 0, gpa, source, bytes })
}

fn copying() {
    let id = complete(VICTIM, SLEEPS);
    let good = core::ptr::from_ref(SLEEPS).cast::<u8>() as u64;
    for gpa in [0, CODE - 4, CODE + 0xffe, CODE + 0x1000, ADDRESS_LIMIT, UPPER_HALF, u64::MAX - 3, u64::MAX] {
        equal("c1-copy-to-unpopulated", copy(id, gpa, good, 8), Err(Errno::EFAULT));
    }
    for source in [0, 0x18_0000_0000, ADDRESS_LIMIT - 4, 0x8000_0000_0000, UPPER_HALF, u64::MAX - 3, u64::MAX] {
        equal("m1-copy-from-bad-source", copy(id, CODE, source, 8), Err(Errno::EFAULT));
    }
    equal("c1-copy-too-large", copy(id, CODE, good, abi::COPY_IN_MAX + 1), Err(Errno::E2BIG));
    equal("c1-copy-too-large", copy(id, CODE, good, u64::MAX), Err(Errno::E2BIG));
    equal("c1-copy-nothing", copy(id, u64::MAX, u64::MAX, 0), Ok(0));
    equal("c1-copy-from-the-bundle", copy(id, CODE, BUNDLE_BASE, 16), Ok(0));
    let mut reserved = abi::CopyIn { domid: u32::from(id.0), reserved: 1, gpa: CODE, source: good, bytes: 1 };
    equal("c1-copy-reserved", raw::platform(abi::COPY_IN, &mut reserved), Err(Errno::EINVAL));
    equal("c1-copy-into-oneself", copy(DomId::POLICY, START_INFO, good, 8), Err(Errno::EPERM));
    equal("c1-copy-into-self-by-alias", copy(DomId::SELF, START_INFO, good, 8), Err(Errno::ESRCH));
    equal("c1-copy-into-nobody", copy(NOBODY, CODE, good, 8), Err(Errno::ESRCH));
    for domid in [0x1_0000 | u32::from(id.0), u32::MAX] {
        let mut wide = abi::CopyIn { domid, reserved: 0, gpa: CODE, source: good, bytes: 1 };
        equal("m3-wide-domain-id", raw::platform(abi::COPY_IN, &mut wide), Err(Errno::ESRCH));
    }
    finish(id);
}

fn lend(id: DomId, gfn: u64, page: u64, count: u64, rights: u32) -> Result<u64, Errno> {
    raw::platform(abi::LEND, &mut abi::Lend { domid: u32::from(id.0), rights, gfn, page, count })
}

/// The bundle is lent to be read and run, in whole pages that are the bundle's, and stays what it is.
fn lending() {
    let before = frames_free();
    let id = complete(VICTIM, SLEEPS);
    let (taken, whole) = (pages(id), bundle().len() as u64 / PAGE_SIZE);
    for rights in [RIGHTS_WRITE, abi::RIGHTS_ALL, 4, u32::MAX] {
        equal("c1-lend-to-be-written", lend(id, 0x1000, 0, 1, rights), Err(Errno::EINVAL));
    }
    for (page, count) in [(whole, 1), (whole - 1, 2), (u64::MAX, 1), (u64::MAX, 512), (1 << 52, 1)] {
        equal("c1-lend-beyond-the-bundle", lend(id, 0x1000, page, count, RIGHTS_READ), Err(Errno::EINVAL));
    }
    for count in [abi::LEND_MAX + 1, u64::MAX] {
        equal("m2-lend-too-much", lend(id, 0x1000, 0, count, RIGHTS_READ), Err(Errno::E2BIG));
    }
    for first in [gfn(ADDRESS_LIMIT), gfn(UPPER_HALF), 1 << 52, u64::MAX] {
        equal("c1-lend-beyond-the-limit", lend(id, first, 0, 1, RIGHTS_READ), Err(Errno::EINVAL));
    }
    equal("c1-lend-over-memory", lend(id, gfn(CODE), 0, 1, RIGHTS_EXECUTE), Err(Errno::EEXIST));
    equal("c1-lend", lend(id, 0x1000, 1, 3, RIGHTS_EXECUTE), Ok(0));
    equal("c1-lend-again", lend(id, 0x1002, 0, 1, RIGHTS_READ), Err(Errno::EEXIST));
    equal("c1-lend-counts-against-nobody", pages(id), taken);
    let good = core::ptr::from_ref(SLEEPS).cast::<u8>() as u64;
    equal("c1-copy-into-what-is-lent", copy(id, 0x1000 << 12, good, 8), Err(Errno::EFAULT));
    equal("c1-seed-of-what-is-lent", seed(id, 1, 0x1000, id), Err(Errno::ENOENT));
    equal("c1-populate-what-is-lent", populate(id, 0x1000, 1, RIGHTS_WRITE).0, Err(Errno::EEXIST));
    equal("c1-lend-to-oneself", lend(DomId::POLICY, 0x1000, 0, 1, RIGHTS_EXECUTE), Err(Errno::EPERM));
    equal("c1-lend-to-self-by-alias", lend(DomId::SELF, 0x1000, 0, 1, RIGHTS_READ), Err(Errno::ESRCH));
    equal("c1-lend-to-nobody", lend(NOBODY, 0x1000, 0, 1, RIGHTS_READ), Err(Errno::ESRCH));
    finish(id);
    equal("c1-lent-pages-are-freed-with-nobody", frames_free(), before);
}

fn seed(id: DomId, gref: u32, page: u64, peer: DomId) -> Result<(), Errno> {
    platform::seed_grant(id, GrantRef(gref), page, peer, Access::ReadWrite)
}

fn seeding() {
    let (id, friend, stranger) = (complete(VICTIM, SLEEPS), empty(FRIEND), empty(STRANGER));
    let page = gfn(STACK_TOP) - 1;
    equal("c1-seed-to-a-linked-peer", seed(id, 0, page, friend), Ok(()));
    equal("c1-seed-to-an-unlinked-peer", seed(id, 1, page, stranger), Err(Errno::EPERM));
    equal("c1-seed-to-the-policy-domain", seed(id, 1, page, DomId::POLICY), Err(Errno::EPERM));
    equal("c1-seed-to-nobody", seed(id, 1, page, NOBODY), Err(Errno::ESRCH));
    equal("c1-seed-to-self-by-alias", seed(id, 1, page, DomId::SELF), Err(Errno::ESRCH));
    for gref in [64 * 512, 1 << 20, u32::MAX] {
        equal("c1-seed-beyond-the-table", seed(id, gref, page, friend), Err(Errno::EINVAL));
    }
    for page in [0, page - 1, gfn(ADDRESS_LIMIT), 1 << 32 | page, u64::MAX] {
        equal("c1-seed-of-no-page", seed(id, 1, page, friend), Err(Errno::ENOENT));
    }
    let mut odd =
        abi::SeedGrant { domid: u32::from(id.0), gref: 1, gfn: page, peer: u32::from(friend.0), read_only: 2 };
    equal("c1-seed-odd-access", raw::platform(abi::SEED_GRANT, &mut odd), Err(Errno::EINVAL));
    equal("c1-seed-of-oneself", seed(DomId::POLICY, 1, page, DomId::POLICY), Err(Errno::EPERM));
    let grants = platform::grants(id).count();
    equal("c1-seed-refusals-leave-nothing", grants, 1);
    [id, friend, stranger].into_iter().for_each(finish);
}

fn ports() {
    let (id, friend, stranger) = (empty(VICTIM), empty(FRIEND), empty(STRANGER));
    let port = event_channel::alloc_unbound(id, friend);
    verdict!("c1-port-for-a-linked-peer", port.is_ok(), "{port:?}");
    equal("c1-port-for-an-unlinked-peer", event_channel::alloc_unbound(id, stranger), Err(Errno::EPERM));
    equal("c1-port-for-the-policy-domain", event_channel::alloc_unbound(id, DomId::SELF), Err(Errno::EPERM));
    equal("c1-port-for-nobody", event_channel::alloc_unbound(id, NOBODY), Err(Errno::ESRCH));
    equal("c1-port-of-nobody", event_channel::alloc_unbound(NOBODY, friend), Err(Errno::ESRCH));
    let taken = port.unwrap_or(Port(1));
    equal("c1-port-of-others-cannot-be-bound", event_channel::bind_interdomain(id, taken), Err(Errno::EINVAL));
    let last = loop {
        if let Err(error) = event_channel::alloc_unbound(id, friend) {
            break error;
        }
    };
    equal("e4-ports-of-another-run-out", last, Errno::ENOSPC);
    [id, friend, stranger].into_iter().for_each(finish);
}

fn entries() {
    let id = empty(VICTIM);
    let set = |rip, rsp| platform::set_entry(id, rip, rsp, 0);
    for rip in [0, ADDRESS_LIMIT, 0x7fff_ffff_ffff, 0x8000_0000_0000, UPPER_HALF, u64::MAX] {
        equal("m10-entry-too-high", set(rip, STACK_TOP), Err(Errno::EINVAL));
    }
    for rsp in [ADDRESS_LIMIT + 1, 0x8000_0000_0000, UPPER_HALF, u64::MAX] {
        equal("m10-stack-too-high", set(CODE, rsp), Err(Errno::EINVAL));
    }
    equal("c1-unpause-without-an-entry", platform::unpause(id), Err(Errno::EINVAL));
    equal("c1-entry-at-the-last-byte", set(ADDRESS_LIMIT - 1, ADDRESS_LIMIT), Ok(()));
    let mut reserved = abi::SetEntry { domid: u32::from(id.0), reserved: 1, rip: CODE, rsp: STACK_TOP, argument: 0 };
    equal("c1-entry-reserved", raw::platform(abi::SET_ENTRY, &mut reserved), Err(Errno::EINVAL));
    equal("c1-entry-of-oneself", platform::set_entry(DomId::POLICY, CODE, STACK_TOP, 0), Err(Errno::EPERM));
    equal("c1-entry-of-nobody", platform::set_entry(NOBODY, CODE, STACK_TOP, 0), Err(Errno::ESRCH));
    finish(id);
}

/// From the first unpause on nobody reaches into a domain.
fn after_the_start() {
    let (id, friend) = (running(LARGE, SLEEPS), empty(FRIEND));
    let good = core::ptr::from_ref(SLEEPS).cast::<u8>() as u64;
    let page = gfn(STACK_TOP) - 1;
    for paused in [false, true] {
        equal("c1-running-populate", populate(id, 0x1_0000, 1, RIGHTS_WRITE), (Err(Errno::EPERM), 0));
        equal("c1-running-copy-in", copy(id, CODE, good, 8), Err(Errno::EPERM));
        equal("c1-running-lend", lend(id, 0x1_0000, 0, 1, RIGHTS_READ), Err(Errno::EPERM));
        equal("c1-running-seed-grant", seed(id, 0, page, id), Err(Errno::EPERM));
        equal("c1-running-set-entry", platform::set_entry(id, CODE, STACK_TOP, 0), Err(Errno::EPERM));
        equal("c1-running-alloc-unbound", event_channel::alloc_unbound(id, id), Err(Errno::EPERM));
        if !paused {
            equal("c1-pause", platform::pause(id), Ok(()));
        }
    }
    equal("c1-resume", platform::unpause(id), Ok(()));
    [id, friend].into_iter().for_each(finish);
}
