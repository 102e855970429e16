//! What domains had comes back to the last frame, however they end and however often.

use crate::child::{DIES, FRIEND, LARGE, SLEEPS, SPINS, STRANGER, VICTIM};
use crate::child::{complete, empty, finish, frames_free, frames_hypervisor, gfn};
use core::time::Duration;
use runtime::hypercall::{event_channel, platform};
use runtime::time::sleep;
use runtime::verdict::equal;
use runtime::{Access, DomId, GrantRef, verdict};
use xen_abi::native::STACK_TOP;
use xen_abi::platform as abi;

/// Builds and destroys of each kind.
const CYCLES: u64 = 20;

/// All of it.
pub fn all() {
    let before = frames_free();
    finish(empty(VICTIM));
    equal("frames-of-an-empty-domain", frames_free(), before);
    let id = full(VICTIM, SLEEPS);
    verdict!("frames-are-taken", frames_free() + 900 < before);
    finish(id);
    equal("frames-of-a-domain-being-built", frames_free(), before);
    let mut own = 0;
    for cycle in 0..CYCLES {
        let code = [SLEEPS, SPINS, DIES][(cycle % 3) as usize];
        let (victim, friend) = (full(VICTIM, code), full(FRIEND, SLEEPS));
        let started = platform::unpause(victim).and_then(|()| platform::unpause(friend));
        verdict!("cycle-starts", started.is_ok(), "{started:?}");
        sleep(Duration::from_millis(2));
        if cycle % 2 == 0 {
            [victim, friend].into_iter().for_each(finish);
        } else {
            [friend, victim].into_iter().for_each(finish);
        }
        let after = frames_free();
        verdict!("frames-after-a-life", after == before, "{after} instead of {before} after {cycle} cycles");
        if cycle == 0 {
            own = frames_hypervisor();
        }
    }
    equal("the-hypervisor-needs-no-more-for-the-last-than-for-the-first", frames_hypervisor(), own);
    frames_are_zero();
    for label in [VICTIM, FRIEND, STRANGER, LARGE] {
        finish(empty(label));
    }
    equal("frames-at-the-end", frames_free(), before);
}

/// A domain with memory in several places, grants and ports.
fn full(label: u32, code: &[u8]) -> DomId {
    let id = complete(label, code);
    let mut filled = platform::populate(id, 0x2_0000, 600, abi::RIGHTS_WRITE);
    for place in 1..6 {
        filled = filled.and_then(|()| platform::populate(id, place << 27, 60, abi::RIGHTS_READ));
    }
    for gref in 0..8 {
        let page = gfn(STACK_TOP) - 1;
        filled = filled.and_then(|()| platform::seed_grant(id, GrantRef(gref * 100), page, id, Access::ReadWrite));
        filled = filled.and_then(|()| event_channel::alloc_unbound(id, id).map(drop));
    }
    verdict!("domain-is-filled", filled.is_ok(), "{filled:?}");
    id
}

/// A page of a dead domain shows nothing of it: its next owner would die of what the first left there.
fn frames_are_zero() {
    let pattern = [0xa5_u8; 4096];
    let id = empty(LARGE);
    let mut filled = platform::populate(id, 0x2_0000, 256, abi::RIGHTS_WRITE);
    for page in 0..256 {
        filled = filled.and_then(|()| platform::copy_in(id, (0x2_0000 + page) << 12, &pattern));
    }
    verdict!("m6-frames-are-written", filled.is_ok(), "{filled:?}");
    finish(id);
    // `repe scasb` over 256 pages at 0x20000000, then `ud2` if a byte is not zero, else block for ever.
    let code: &[u8] = &[
        0xbf, 0, 0, 0, 0x20, 0xb9, 0, 0, 0x10, 0, 0x31, 0xc0, 0xfc, 0x39, 0xc0, 0xf3, 0xae, 0x74, 0x02, 0x0f, 0x0b,
        0xb8, 29, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x31, 0xf6, 0x0f, 0x05, 0xeb, 0xf0,
    ];
    let id = complete(LARGE, code);
    let ready = platform::populate(id, 0x2_0000, 256, abi::RIGHTS_WRITE).and_then(|()| platform::unpause(id));
    verdict!("m6-reader-starts", ready.is_ok(), "{ready:?}");
    let mut blocked = false;
    for _ in 0..200 {
        sleep(Duration::from_millis(10));
        let info = platform::domain_info(id.0.into()).ok().filter(|info| info.domid == u32::from(id.0));
        match info {
            Some(info) if info.state == abi::STATE_RUNNING && info.hypercalls > 0 => {
                blocked = true;
                break;
            }
            Some(info) if info.state == abi::STATE_RUNNING => {}
            _ => break,
        }
    }
    verdict!("m6-a-new-domain-sees-zeros", blocked);
    finish(id);
}
