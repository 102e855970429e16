//! Domains: what one is, how it lives, and how it ends.
//!
//! A domain is building (paused; its builder may map and fill it), then running or paused (sealed: nobody else reads
//! or writes its memory), then dying (everything it had is returned in bounded slices, `destroy.rs`), then gone.
//! [`DomainTable`] finds domains and locks one or two of them at a time, in slot order. [`Env`] is what every operation
//! needs beside its caller.

mod create;
mod destroy;
mod memory;
mod table;
mod vcpu;

pub use create::create;
pub use destroy::{begin_destroy, destroy_slice};
pub use memory::{add_grant_frame, add_shared_info, lend, populate, remove_page};
pub use table::{DomainTable, Pair};
pub use vcpu::{Vcpu, Wait, Wake};

use crate::ids::{DomId, Gfn, Label, PAGE_BYTES, Port, Slot, VcpuId};
use crate::space::{Access, AddressSpace};
use crate::{authority::SealedPolicy, error::Errno, frames::FrameTable, grant::GrantTable};
use crate::{events::EventChannels, events::Signal, machine::Machine, machine::MachineMemory};
use xen_abi::platform::{STATE_BUILDING, STATE_DYING, STATE_PAUSED, STATE_RUNNING};

/// vCPUs a domain can have.
pub const VCPUS_MAX: usize = 4;
/// Bytes of the text that says why a domain died.
pub const WHY_BYTES: usize = 128;

/// What operations work on.
pub struct Env<'a, M> {
    /// Memory and translation caches.
    pub machine: &'a M,
    /// All frames.
    pub frames: &'a FrameTable,
    /// All domains.
    pub domains: &'a DomainTable,
    /// What is allowed.
    pub policy: &'a SealedPolicy,
}

/// Where a domain is in its life, by the numbers of `platform_op` DOMAIN_INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Life {
    /// Made, being filled by its builder, has not run.
    Building = STATE_BUILDING,
    /// Sealed; its vCPUs are scheduled.
    Running = STATE_RUNNING,
    /// Sealed; its vCPUs are not scheduled.
    Paused = STATE_PAUSED,
    /// Ended; its resources are being returned.
    Dying = STATE_DYING,
}

/// Why a domain ends: `SHUTDOWN_*` of `sched_op` and words for a person.
#[derive(Clone, Debug, Default)]
pub struct Death {
    /// `SHUTDOWN_*`.
    pub reason: u32,
    /// Details; cut to fit.
    pub why: heapless::String<WHY_BYTES>,
}

impl Death {
    /// A reason with words for a person.
    pub fn new(reason: u32, why: core::fmt::Arguments<'_>) -> Self {
        let mut death = Self { reason, ..Self::default() };
        let _cut_if_too_long = core::fmt::write(&mut death, why);
        death
    }
}

/// More words; keeps what fits.
impl core::fmt::Write for Death {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.chars().try_for_each(|char| self.why.push(char).map_err(|_| core::fmt::Error))
    }
}

/// What a domain used, and may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Frames of memory it owns.
    pub pages: u64,
    /// Frames of memory it may own.
    pub pages_max: u64,
    /// Events it has sent.
    pub events_sent: u64,
    /// Devices assigned to it.
    pub devices: u32,
}

/// A domain.
pub struct Domain {
    pub(crate) id: DomId,
    pub(crate) slot: Slot,
    /// Tells this domain from a later one of the same id.
    pub(crate) serial: u32,
    /// Whose grants it may use, by the policy: a bit a label; and which bit it is to others. None when it is dying.
    sharing: (u128, u128),
    label: Label,
    kind: u32,
    life: Life,
    death: Death,
    /// What it can reach.
    pub space: AddressSpace,
    /// Its ports.
    pub events: EventChannels,
    /// What it grants, and what it has mapped of others' grants.
    pub grants: GrantTable,
    /// Its virtual CPUs.
    pub(crate) vcpus: heapless::Vec<Vcpu, VCPUS_MAX>,
    /// What it used.
    pub account: Account,
    ending: destroy::Stage,
}

impl Domain {
    /// Its id.
    pub fn id(&self) -> DomId {
        self.id
    }

    /// Its slot: frames say by it whose they are.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Its entry in the policy.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Whether it is of the native kind (else `pvh`).
    pub fn is_native(&self) -> bool {
        self.kind == crate::authority::table::KIND_NATIVE
    }

    /// Where it is in its life.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether its builder still has access to it.
    pub fn is_building(&self) -> bool {
        self.life == Life::Building
    }

    /// Whether it has ended.
    pub fn is_dying(&self) -> bool {
        self.life == Life::Dying
    }

    /// Why it ended; the default while it has not.
    pub fn death(&self) -> &Death {
        &self.death
    }

    /// Whether it may use another domain's grants, and neither is dying.
    #[inline(always)]
    pub(crate) fn may_use(&self, grantor: &Domain) -> bool {
        self.sharing.0 & grantor.sharing.1 != 0
    }

    /// Seals a domain that is being built, or resumes a paused one.
    ///
    /// # Errors
    /// `EINVAL`: running or dying.
    pub fn unpause(&mut self) -> Result<(), Errno> {
        if !matches!(self.life, Life::Building | Life::Paused) {
            return Err(Errno::EINVAL);
        }
        self.life = Life::Running;
        Ok(())
    }

    /// Pauses a running domain.
    ///
    /// # Errors
    /// `EINVAL`: not running.
    pub fn pause(&mut self) -> Result<(), Errno> {
        if self.life != Life::Running {
            return Err(Errno::EINVAL);
        }
        self.life = Life::Paused;
        Ok(())
    }

    /// Its vCPUs.
    pub fn vcpu_ids(&self) -> impl Iterator<Item = VcpuId> + use<> {
        (0..self.vcpus.len() as u8).map(VcpuId)
    }

    /// The vCPU of this number, if there is one.
    pub fn vcpu_id(&self, number: u32) -> Option<VcpuId> {
        let exists = (number as usize) < self.vcpus.len();
        exists.then_some(VcpuId(number as u8))
    }

    /// A vCPU.
    pub fn vcpu(&mut self, vcpu: VcpuId) -> Option<&mut Vcpu> {
        self.vcpus.get_mut(usize::from(vcpu.0))
    }

    /// Makes one of its own ports pending.
    #[inline(always)]
    pub(crate) fn deliver(&mut self, port: Port, memory: &impl MachineMemory) -> Option<Wake> {
        let vcpu = self.events.vcpu_of(port);
        let signal = self.events.shared.set_pending(port, vcpu, memory);
        self.wake_for(vcpu, signal, port)
    }

    /// Ends the wait of the vCPU that a signal is for.
    #[inline(always)]
    pub(crate) fn wake_for(&mut self, vcpu: VcpuId, signal: Signal, port: Port) -> Option<Wake> {
        if signal == Signal::Nothing {
            return None;
        }
        let vcpu = self.vcpu(vcpu)?;
        let ends = signal == Signal::Unmasked && vcpu.wait == Wait::Blocked || vcpu.wait.polls(port);
        if ends { Some(vcpu.wake()) } else { None }
    }

    /// `SCHEDOP_block`: lets a vCPU wait for an event. `false`: it has been told of one already, and goes on.
    #[inline(always)] // in the way of each wait
    pub fn block(&mut self, vcpu: VcpuId, memory: &impl MachineMemory) -> bool {
        if self.events.shared.upcall_pending(vcpu, memory) {
            return false;
        }
        self.wait(vcpu, Wait::Blocked)
    }

    /// `SCHEDOP_poll`: lets a vCPU wait for one of some ports, masked or not. `false`: one is pending already, it goes
    /// on. Times are the caller's business.
    ///
    /// # Errors
    /// `EINVAL`: no such port.
    pub fn poll(&mut self, vcpu: VcpuId, ports: &[Port], memory: &impl MachineMemory) -> Result<bool, Errno> {
        ports.iter().try_for_each(|&port| self.events.binding(port).map(drop))?;
        if ports.iter().any(|&port| self.events.shared.is_pending(port, memory)) {
            return Ok(false);
        }
        let wait = match ports {
            [] => Wait::Timeout,
            [port] => Wait::Polling(*port),
            _ => Wait::PollingSeveral,
        };
        Ok(self.wait(vcpu, wait))
    }

    /// A vCPU does not run until it is started.
    pub fn stop_vcpu(&mut self, vcpu: VcpuId) {
        self.wait(vcpu, Wait::Stopped);
    }

    /// Whether a vCPU is stopped, or not there.
    pub fn is_stopped(&mut self, vcpu: VcpuId) -> bool {
        self.vcpu(vcpu).is_none_or(|vcpu| vcpu.wait == Wait::Stopped)
    }

    /// Whether all vCPUs are stopped.
    pub fn all_stopped(&self) -> bool {
        self.vcpus.iter().all(|vcpu| vcpu.wait == Wait::Stopped)
    }

    /// Starts a stopped vCPU.
    pub fn start_vcpu(&mut self, vcpu: VcpuId) -> Option<Wake> {
        self.end_wait(vcpu, |wait| wait == Wait::Stopped)
    }

    /// An interrupt that is no event ends a vCPU's `SCHEDOP_block`.
    pub fn kick(&mut self, vcpu: VcpuId) -> Option<Wake> {
        self.end_wait(vcpu, |wait| wait == Wait::Blocked)
    }

    fn end_wait(&mut self, vcpu: VcpuId, which: impl FnOnce(Wait) -> bool) -> Option<Wake> {
        self.vcpu(vcpu).filter(|vcpu| which(vcpu.wait)).map(Vcpu::wake)
    }

    fn wait(&mut self, vcpu: VcpuId, wait: Wait) -> bool {
        self.vcpu(vcpu).map(|vcpu| vcpu.wait = wait).is_some()
    }

    /// Ends a vCPU's `SCHEDOP_poll` because its time has come. Another wait goes on.
    pub fn end_poll(&mut self, vcpu: VcpuId) -> Option<Wake> {
        self.end_wait(vcpu, |wait| !matches!(wait, Wait::No | Wait::Blocked | Wait::Stopped))
    }
}

/// `VCPUOP_register_vcpu_info`: moves a vCPU's part of shared info into the domain's own memory, once.
///
/// # Errors
/// `ENOENT`: no such vCPU. `EINVAL`: moved before; misaligned; across the page's end; not own writable memory.
pub fn register_vcpu_info<M: Machine>(
    env: &Env<'_, M>,
    caller: DomId,
    vcpu: u32,
    gfn: Gfn,
    offset: u32,
) -> Result<(), Errno> {
    let bytes = size_of::<xen_abi::xen::VcpuInfo>() as u64;
    let offset = u64::from(offset);
    env.domains.with(caller, |domain| {
        let id = domain.vcpu_id(vcpu).ok_or(Errno::ENOENT)?;
        let vcpu = domain.vcpus.get_mut(usize::from(id.0)).ok_or(Errno::ENOENT)?;
        if vcpu.info_moved || offset % 8 != 0 || offset > PAGE_BYTES.wrapping_sub(bytes) {
            return Err(Errno::EINVAL);
        }
        let mfn = domain.space.private(gfn, Access::Write, env.machine).ok_or(Errno::EINVAL)?;
        env.frames.pin(mfn, domain.slot).map_err(|_| Errno::EINVAL)?;
        domain.events.shared.move_vcpu_info(id, mfn.at(offset), env.machine);
        vcpu.info_moved = true;
        Ok(())
    })?
}

#[cfg(test)]
mod tests;
