//! Event channels, the 2-level interface: 4096 ports a domain, pending and mask bits in its shared info page.
//!
//! [`EventChannels`] is one domain's ports and knows no other domain. `ops.rs` has the sub-operations, which involve
//! up to two domains; `number.rs` their numbers. What a port is bound to decides who hears of it; how a bit in shared
//! info becomes a running vCPU is [`Signal`] here and `domain::vcpu` there.

mod number;
mod ops;
mod pending;

use alloc::vec::Vec;

pub use number::EvtchnOp;
pub use ops::{
    Status, alloc_unbound, bind_interdomain, bind_ipi, bind_pirq, bind_vcpu, bind_virq, close, close_slice, raise_pirq,
    raise_virq, send, status, unmask,
};
pub use pending::{SharedInfoPage, Signal};
use xen_abi::xen::{EVTCHN_2L_NR_CHANNELS, NR_VIRQS};

use crate::error::Errno;
use crate::fallible;
use crate::ids::{DomId, Pirq, Port, VcpuId};

/// Ports of a domain at most, the reserved port 0 included.
pub const PORTS_MAX: u32 = EVTCHN_2L_NR_CHANNELS;
/// Physical interrupts of a domain at most.
pub const PIRQS_MAX: usize = 64;
const VIRQS: usize = NR_VIRQS as usize;
const WORDS: usize = PORTS_MAX as usize / 64;

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
#[derive(Clone, Copy, Debug)]
struct Channel {
    binding: Binding,
    vcpu: VcpuId,
}

const FREE: Channel = Channel { binding: Binding::Free, vcpu: VcpuId(0) };

/// The ports of a domain.
#[derive(Debug)]
pub struct EventChannels {
    channels: Vec<Channel>,
    /// One bit a port in use.
    used: [u64; WORDS],
    in_use: u32,
    /// The port of each virtual interrupt, 0 for none. Global ones are in row 0.
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
        let mut used = [0; WORDS];
        for (word, bits) in used.iter_mut().enumerate() {
            // Ports that the domain cannot have count as used.
            let first = word.saturating_mul(64);
            let own = count.saturating_sub(first).min(64) as u32;
            *bits = if own == 64 { 0 } else { u64::MAX.wrapping_shl(own) };
        }
        if let Some(first) = used.first_mut() {
            *first |= 1;
        }
        Ok(Self {
            channels,
            used,
            in_use: 0,
            virqs: [[0; VIRQS]; crate::domain::VCPUS_MAX],
            pirqs: [0; PIRQS_MAX],
            shared,
        })
    }

    /// Ports in use.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Ports there can be, port 0 included.
    pub fn limit(&self) -> u32 {
        self.channels.len() as u32
    }

    /// What a port is bound to.
    ///
    /// # Errors
    /// `EINVAL`: no such port. (A free port is one.)
    #[inline]
    pub fn binding(&self, port: Port) -> Result<Binding, Errno> {
        Ok(self.channel(port)?.binding)
    }

    #[inline]
    fn channel(&self, port: Port) -> Result<Channel, Errno> {
        self.channels.get(port.0 as usize).copied().ok_or(Errno::EINVAL)
    }

    fn channel_mut(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        self.channels.get_mut(port.0 as usize).ok_or(Errno::EINVAL)
    }

    /// The vCPU that a port notifies.
    #[inline]
    pub(crate) fn target(&self, port: Port) -> VcpuId {
        self.channels.get(port.0 as usize).map_or(VcpuId(0), |channel| channel.vcpu)
    }

    /// The lowest free port.
    fn free_port(&self) -> Result<Port, Errno> {
        let word = self.used.iter().position(|&bits| bits != u64::MAX).ok_or(Errno::ENOSPC)?;
        let bit = self.used.get(word).copied().unwrap_or(0).trailing_ones();
        Ok(Port((word as u32).wrapping_mul(64).wrapping_add(bit)))
    }

    /// Takes a free port into use. The port must come from [`Self::free_port`].
    fn occupy(&mut self, port: Port, binding: Binding, vcpu: VcpuId) {
        if let Ok(channel) = self.channel_mut(port) {
            *channel = Channel { binding, vcpu };
            self.mark_used(port);
        }
    }

    fn mark_used(&mut self, port: Port) {
        if let Some(word) = self.used.get_mut((port.0 / 64) as usize) {
            *word |= 1u64.wrapping_shl(port.0);
            self.in_use = self.in_use.wrapping_add(1);
        }
    }

    /// Frees a port in use and what pointed to it.
    fn vacate(&mut self, port: Port) {
        let Ok(channel) = self.channel(port) else { return };
        match channel.binding {
            Binding::Free | Binding::Reserved => return,
            Binding::Virq(virq) => self.set_virq_port(virq, channel.vcpu, Port(0)),
            Binding::Pirq(pirq) => self.set_pirq_port(Pirq(u32::from(pirq)), Port(0)),
            Binding::Unbound { .. } | Binding::Interdomain { .. } | Binding::Ipi => {}
        }
        if let Ok(slot) = self.channel_mut(port) {
            *slot = FREE;
        }
        if let Some(word) = self.used.get_mut((port.0 / 64) as usize) {
            *word &= !1u64.wrapping_shl(port.0);
            self.in_use = self.in_use.wrapping_sub(1);
        }
    }

    /// The port of a virtual interrupt, if bound.
    pub fn virq_port(&self, virq: u8, vcpu: VcpuId) -> Option<Port> {
        let port = *self.virqs.get(usize::from(vcpu.0))?.get(usize::from(virq))?;
        (port != 0).then_some(Port(u32::from(port)))
    }

    fn set_virq_port(&mut self, virq: u8, vcpu: VcpuId, port: Port) {
        let row = if is_global_virq(virq) { 0 } else { usize::from(vcpu.0) };
        if let Some(slot) = self.virqs.get_mut(row).and_then(|row| row.get_mut(usize::from(virq))) {
            *slot = port.0 as u16;
        }
    }

    /// The port of a physical interrupt, if bound.
    #[inline]
    pub fn pirq_port(&self, pirq: Pirq) -> Option<Port> {
        let port = *self.pirqs.get(pirq.0 as usize)?;
        (port != 0).then_some(Port(u32::from(port)))
    }

    fn set_pirq_port(&mut self, pirq: Pirq, port: Port) {
        if let Some(slot) = self.pirqs.get_mut(pirq.0 as usize) {
            *slot = port.0 as u16;
        }
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
