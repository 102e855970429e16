//! Event channels, the 2-level interface: 4096 ports a domain, pending and mask bits in its shared info page.
//!
//! [`EventChannels`] is one domain's ports and knows no other domain. `ops.rs` has the sub-operations, which involve
//! up to two domains. What a port is bound to decides who hears of it; how a bit in shared
//! info becomes a running vCPU is [`Signal`] here and `domain::vcpu` there.

mod handover;
mod ops;
mod pending;

use alloc::vec::Vec;
use core::hint::cold_path;

pub use handover::hand_over;
pub use ops::{
    alloc_unbound, bind_interdomain, bind_ipi, bind_pirq, bind_vcpu, bind_virq, close, close_slice, raise_pirq,
    raise_virq, send, status, unmask,
};
pub use pending::{SharedInfoPage, Signal};
use xen_abi::xen::{EVTCHN_2L_NR_CHANNELS, NR_VIRQS};

use crate::ids::{DomId, Port, VcpuId};
use crate::{error::Errno, fallible, machine::MachineMemory};

/// Ports of a domain at most, the reserved port 0 included.
pub const PORTS_MAX: u32 = EVTCHN_2L_NR_CHANNELS;
/// Physical interrupts of a domain at most.
pub const PIRQS_MAX: usize = 64;
const VIRQS: usize = NR_VIRQS as usize;

/// What a port is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// Nothing: it may be allocated.
    Free,
    /// Never allocated: port 0.
    Reserved,
    /// It waits for this domain to connect.
    Unbound {
        /// Who may.
        remote: DomId,
    },
    /// The other end is a port of another (or the same) domain.
    Interdomain {
        /// Whose.
        remote: DomId,
        /// Which; below 4096.
        port: u16,
    },
    /// A physical interrupt.
    Pirq(u16),
    /// A virtual interrupt.
    Virq(u8),
    /// Interrupts between own vCPUs.
    Ipi,
}

/// A port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel {
    /// What it is bound to.
    pub binding: Binding,
    /// The vCPU it notifies.
    pub vcpu: VcpuId,
}

const FREE: Channel = Channel { binding: Binding::Free, vcpu: VcpuId(0) };

/// The ports of a domain.
pub struct EventChannels {
    channels: Vec<Channel>,
    /// The port of each vCPU's virtual interrupts, 0 for none.
    virqs: [[u16; VIRQS]; crate::domain::VCPUS_MAX],
    /// The port of each physical interrupt, 0 for none.
    pirqs: [u16; PIRQS_MAX],
    /// Where pending and mask bits are.
    pub shared: SharedInfoPage,
}

impl EventChannels {
    /// A domain's ports, `ports_max` of them (port 0 included), all free.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(ports_max: u32, shared: SharedInfoPage) -> Result<Self, fallible::OutOfMemory> {
        let count = ports_max.clamp(1, PORTS_MAX) as usize;
        let mut channels = fallible::filled(count, FREE)?;
        if let Some(first) = channels.first_mut() {
            first.binding = Binding::Reserved;
        }
        Ok(Self { channels, virqs: [[0; VIRQS]; crate::domain::VCPUS_MAX], pirqs: [0; PIRQS_MAX], shared })
    }

    /// Ports in use. Looks at each port.
    pub fn in_use(&self) -> u32 {
        let used = |channel: &&Channel| !matches!(channel.binding, Binding::Free | Binding::Reserved);
        self.channels.iter().filter(used).count() as u32
    }

    /// What a port is bound to.
    ///
    /// # Errors
    /// `EINVAL`: no such port. (A free port is one.)
    pub fn binding(&self, port: Port) -> Result<Binding, Errno> {
        Ok(self.channel(port)?.binding)
    }

    /// Whether the other end of a port is that port of that domain.
    #[inline(always)] // in the way of each event
    fn leads_to(&self, port: Port, remote: DomId, far: Port) -> bool {
        if let Ok(Binding::Interdomain { remote: other, port }) = self.binding(port) {
            if other == remote {
                return u32::from(port) == far.0;
            }
            cold_path();
        }
        cold_path();
        false
    }

    /// The vCPU that a port notifies.
    #[inline(always)] // in the way of each event
    pub(crate) fn vcpu_of(&self, port: Port) -> VcpuId {
        self.channels.get(port.0 as usize).map_or(VcpuId(0), |channel| channel.vcpu)
    }

    pub(crate) fn channel(&self, port: Port) -> Result<Channel, Errno> {
        self.channels.get(port.0 as usize).copied().ok_or_else(|| {
            cold_path();
            Errno::EINVAL
        })
    }

    fn channel_mut(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        self.channels.get_mut(port.0 as usize).ok_or(Errno::EINVAL)
    }

    /// Takes the lowest free port into use. Looks at each one before it: binding a port is rare.
    fn allocate(&mut self, binding: Binding, vcpu: VcpuId) -> Result<Port, Errno> {
        let mut ports = self.channels.iter_mut().zip(0..);
        let free = ports.find(|(channel, _)| channel.binding == Binding::Free);
        let (channel, port) = free.ok_or(Errno::ENOSPC)?;
        *channel = Channel { binding, vcpu };
        Ok(Port(port))
    }

    /// Takes a port into use for an interrupt that has none.
    fn bind_interrupt(&mut self, interrupt: Binding, vcpu: VcpuId) -> Result<Port, Errno> {
        if self.interrupt_port(interrupt, vcpu).is_some() {
            return Err(Errno::EEXIST);
        }
        let port = self.allocate(interrupt, vcpu)?;
        if let Some(slot) = self.interrupt(interrupt, vcpu) {
            *slot = port.0 as u16;
        }
        Ok(port)
    }

    /// Frees a port in use and what pointed to it.
    fn vacate(&mut self, port: Port, memory: &impl MachineMemory) {
        let Ok(channel) = self.channel_mut(port) else { return };
        let Channel { binding, vcpu } = core::mem::replace(channel, FREE);
        if let Some(slot) = self.interrupt(binding, vcpu) {
            *slot = 0;
        }
        self.shared.clear_pending(port, memory);
    }

    /// Where the port of a virtual or physical interrupt is noted. Global ones are in row 0.
    #[inline(always)]
    fn interrupt(&mut self, interrupt: Binding, vcpu: VcpuId) -> Option<&mut u16> {
        match interrupt {
            Binding::Virq(virq) => {
                let row = if is_global_virq(virq) { 0 } else { usize::from(vcpu.0) };
                self.virqs.get_mut(row)?.get_mut(usize::from(virq))
            }
            Binding::Pirq(pirq) => self.pirqs.get_mut(usize::from(pirq)),
            _ => None,
        }
    }

    #[inline(always)]
    fn interrupt_port(&mut self, interrupt: Binding, vcpu: VcpuId) -> Option<Port> {
        self.interrupt(interrupt, vcpu).filter(|port| **port != 0).map(|port| Port(u32::from(*port)))
    }
}

/// Whether a virtual interrupt concerns the whole machine (and goes to vCPU 0) rather than a vCPU.
fn is_global_virq(virq: u8) -> bool {
    use xen_abi::xen::{VIRQ_ARCH_0, VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU};
    let virq = u32::from(virq);
    !(matches!(virq, VIRQ_TIMER | VIRQ_DEBUG | VIRQ_XENOPROF | VIRQ_XENPMU) || virq >= VIRQ_ARCH_0)
}

#[cfg(test)]
mod tests;
