//! The end of a domain: everything it had goes back, a bounded slice at a time.
//!
//! Order matters. Devices first, so that nothing is written by DMA any more; then ports; then what it has mapped of
//! others, so that they see their pages unused; then its own grants: whoever still maps a page of it keeps that frame
//! alive by a pin, and only the frame; then its memory and page tables; last the shared pages and the slot.

use super::{Death, DomId, Domain, Env, Errno, Life, Machine, VcpuId};
use crate::space::{Flushed, Progress, Teardown};
use crate::{events, frames::Purpose, grant};

/// Ports closed in a slice.
const PORTS_PER_SLICE: u32 = 64;
/// Mappings undone in a slice.
const MAPPINGS_PER_SLICE: u32 = 32;
/// Page table entries looked at in a slice.
const ENTRIES_PER_SLICE: u32 = 2048;

/// How far the end of a domain has come.
pub(super) enum Stage {
    Devices,
    Ports { next: u32 },
    Mappings { next: u32 },
    Memory(Teardown),
    Gone,
}

/// Ends a domain in any state. Its vCPUs must not be scheduled from here on; then [`destroy_slice`] until it is done.
///
/// # Errors
/// `ESRCH`: no such domain. `EBUSY`: it is dying already.
pub fn begin_destroy<M: Machine>(env: &Env<'_, M>, dom: DomId, death: Death) -> Result<(), Errno> {
    env.domains.with(dom, |domain| {
        if domain.life == Life::Dying {
            return Err(Errno::EBUSY);
        }
        domain.life = Life::Dying;
        domain.sharing = (0, 0);
        domain.death = death;
        Ok(())
    })?
}

/// One slice of the end of a dying domain. [`Progress::Done`]: it is gone, and its id names nothing. `release_devices`
/// is a bounded piece of what `hv` does about its devices: to quarantine with them, their interrupts undone, the IOMMU
/// context flushed. No domain is locked then.
///
/// # Errors
/// `ESRCH`: no such domain. `EINVAL`: it is not dying.
pub fn destroy_slice<M: Machine>(
    env: &Env<'_, M>,
    dom: DomId,
    release_devices: impl FnOnce(DomId),
) -> Result<Progress, Errno> {
    let mut stage = env.domains.with(dom, |domain| {
        let dying = domain.life == Life::Dying;
        // `Gone` marks that the stage is taken out: a second caller meanwhile finds nothing to do.
        dying.then(|| core::mem::replace(&mut domain.ending, Stage::Gone)).ok_or(Errno::EINVAL)
    })??;
    let (progress, next) = match &mut stage {
        Stage::Devices => {
            release_devices(dom);
            (Progress::Done, Stage::Ports { next: 0 })
        }
        Stage::Ports { next } => {
            (events::close_slice(env, dom, next, PORTS_PER_SLICE, |_| ())?, Stage::Mappings { next: 0 })
        }
        Stage::Mappings { next } => {
            (grant::unmap_slice(env, dom, next, MAPPINGS_PER_SLICE)?, Stage::Memory(Teardown::default()))
        }
        Stage::Memory(teardown) => (env.domains.with(dom, |domain| tear_down(env, domain, teardown))?, Stage::Gone),
        Stage::Gone => return Ok(Progress::More),
    };
    if progress == Progress::Done {
        stage = next;
    }
    if matches!(stage, Stage::Gone) {
        return finish(env, dom);
    }
    env.domains.with(dom, |domain| domain.ending = stage)?;
    Ok(Progress::More)
}

fn tear_down<M: Machine>(env: &Env<'_, M>, domain: &mut Domain, teardown: &mut Teardown) -> Progress {
    for (vcpu, id) in domain.vcpus.iter_mut().zip(0..) {
        if core::mem::take(&mut vcpu.info_moved) {
            let unpinned = env.frames.unpin(domain.events.shared.vcpu_info(VcpuId(id)).mfn());
            debug_assert!(unpinned.is_ok(), "a registered vCPU info page had no pin");
        }
    }
    let slot = domain.slot;
    let account = &mut domain.account;
    let page = |flushed: Flushed| {
        // What is not its own is refused.
        if env.frames.release(flushed, slot).is_ok() {
            account.pages = account.pages.saturating_sub(1);
        }
    };
    domain.space.tear_down(env, teardown, ENTRIES_PER_SLICE, page)
}

fn finish<M: Machine>(env: &Env<'_, M>, dom: DomId) -> Result<Progress, Errno> {
    let mut domain = env.domains.withdraw(dom).ok_or(Errno::ESRCH)?;
    let freed = env.frames.free_unmapped(domain.events.shared.frame(), Purpose::Shared(domain.slot));
    debug_assert!(freed.is_ok(), "the shared info page was something else");
    domain.grants.free_frames(domain.slot, env.frames);
    domain.space.discard_empty(env.frames);
    env.domains.give_back(dom, domain.label);
    Ok(Progress::Done)
}
