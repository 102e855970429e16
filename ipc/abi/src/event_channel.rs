//! `event_channel.h`: the 2-level interface. Sub-operations of `HYPERVISOR_EVENT_CHANNEL_OP` (RDI = command,
//! RSI = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ports of the 2-level interface: 64 words of 64 bits.
pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;

/// [`EvtchnBindInterdomain`]: connect to another domain's unbound port.
pub const EVTCHNOP_BIND_INTERDOMAIN: u64 = 0;
/// [`EvtchnBindVirq`]: a port for a virtual interrupt.
pub const EVTCHNOP_BIND_VIRQ: u64 = 1;
/// [`EvtchnBindPirq`]: a port for a physical interrupt.
pub const EVTCHNOP_BIND_PIRQ: u64 = 2;
/// [`EvtchnClose`]: free a port.
pub const EVTCHNOP_CLOSE: u64 = 3;
/// [`EvtchnSend`]: notify the other end.
pub const EVTCHNOP_SEND: u64 = 4;
/// [`EvtchnStatus`]: what a port is.
pub const EVTCHNOP_STATUS: u64 = 5;
/// [`EvtchnAllocUnbound`]: a port that a named domain may connect to.
pub const EVTCHNOP_ALLOC_UNBOUND: u64 = 6;
/// [`EvtchnBindIpi`]: a port for interrupts between own vCPUs.
pub const EVTCHNOP_BIND_IPI: u64 = 7;
/// [`EvtchnBindVcpu`]: which vCPU a port notifies.
pub const EVTCHNOP_BIND_VCPU: u64 = 8;
/// [`EvtchnUnmask`]: unmask a port, notifying if it is pending.
pub const EVTCHNOP_UNMASK: u64 = 9;
/// [`EvtchnReset`]: close all ports.
pub const EVTCHNOP_RESET: u64 = 10;
/// FIFO interface, not provided.
pub const EVTCHNOP_INIT_CONTROL: u64 = 11;
/// FIFO interface, not provided.
pub const EVTCHNOP_EXPAND_ARRAY: u64 = 12;
/// FIFO interface, not provided.
pub const EVTCHNOP_SET_PRIORITY: u64 = 13;

/// `struct evtchn_alloc_unbound`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnAllocUnbound {
    /// In: domain that gets the port (`DOMID_SELF`).
    pub dom: u16,
    /// In: domain that may connect.
    pub remote_dom: u16,
    /// Out: the port.
    pub port: u32,
}
layout!(EvtchnAllocUnbound, 8, remote_dom @ 2, port @ 4);

/// `struct evtchn_bind_interdomain`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnBindInterdomain {
    /// In: the other domain.
    pub remote_dom: u16,
    /// Zero.
    pub pad: u16,
    /// In: its unbound port.
    pub remote_port: u32,
    /// Out: the caller's port.
    pub local_port: u32,
}
layout!(EvtchnBindInterdomain, 12, remote_port @ 4, local_port @ 8);

/// `struct evtchn_bind_virq`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnBindVirq {
    /// In: `VIRQ_*`.
    pub virq: u32,
    /// In: vCPU.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}
layout!(EvtchnBindVirq, 12, vcpu @ 4, port @ 8);

/// [`EvtchnBindPirq::flags`]: the interrupt line may be shared.
pub const BIND_PIRQ_WILL_SHARE: u32 = 1;

/// `struct evtchn_bind_pirq`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnBindPirq {
    /// In: number from `PHYSDEVOP_map_pirq`.
    pub pirq: u32,
    /// In: [`BIND_PIRQ_WILL_SHARE`].
    pub flags: u32,
    /// Out: the port.
    pub port: u32,
}
layout!(EvtchnBindPirq, 12, flags @ 4, port @ 8);

/// `struct evtchn_bind_ipi`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnBindIpi {
    /// In: vCPU.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}
layout!(EvtchnBindIpi, 8, port @ 4);

/// `struct evtchn_close`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnClose {
    /// In: the port.
    pub port: u32,
}
layout!(EvtchnClose, 4);

/// `struct evtchn_send`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnSend {
    /// In: the caller's port.
    pub port: u32,
}
layout!(EvtchnSend, 4);

/// [`EvtchnStatus::status`]: free.
pub const EVTCHNSTAT_CLOSED: u32 = 0;
/// [`EvtchnStatus::status`]: waits for `detail.dom`.
pub const EVTCHNSTAT_UNBOUND: u32 = 1;
/// [`EvtchnStatus::status`]: connected to `detail.port` of `detail.dom`.
pub const EVTCHNSTAT_INTERDOMAIN: u32 = 2;
/// [`EvtchnStatus::status`]: bound to the physical interrupt `detail.number()`.
pub const EVTCHNSTAT_PIRQ: u32 = 3;
/// [`EvtchnStatus::status`]: bound to the virtual interrupt `detail.number()`.
pub const EVTCHNSTAT_VIRQ: u32 = 4;
/// [`EvtchnStatus::status`]: notifies an own vCPU.
pub const EVTCHNSTAT_IPI: u32 = 5;

/// The union in `struct evtchn_status`: a domain (and port) or a number, by the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnStatusDetail {
    /// `u.unbound.dom`, `u.interdomain.dom`; low half of `u.pirq`, `u.virq`.
    pub dom: u16,
    /// High half of `u.pirq`, `u.virq`.
    pub high: u16,
    /// `u.interdomain.port`.
    pub port: u32,
}
layout!(EvtchnStatusDetail, 8, port @ 4);

impl EvtchnStatusDetail {
    /// `u.pirq`, `u.virq`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.dom as u32 | (self.high as u32) << 16
    }

    /// The detail of a pirq or virq.
    #[must_use]
    pub const fn of_number(number: u32) -> Self {
        Self { dom: number as u16, high: (number >> 16) as u16, port: 0 }
    }

    /// The detail of an unbound (port 0) or connected port.
    #[must_use]
    pub const fn of_peer(dom: u16, port: u32) -> Self {
        Self { dom, high: 0, port }
    }
}

/// `struct evtchn_status`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnStatus {
    /// In: domain that has the port (`DOMID_SELF`).
    pub dom: u16,
    /// Zero.
    pub pad: u16,
    /// In: the port.
    pub port: u32,
    /// Out: `EVTCHNSTAT_*`.
    pub status: u32,
    /// Out: vCPU that it notifies.
    pub vcpu: u32,
    /// Out: by `status`.
    pub detail: EvtchnStatusDetail,
}
layout!(EvtchnStatus, 24, port @ 4, status @ 8, vcpu @ 12, detail @ 16);

/// `struct evtchn_bind_vcpu`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnBindVcpu {
    /// In: the port.
    pub port: u32,
    /// In: vCPU to notify.
    pub vcpu: u32,
}
layout!(EvtchnBindVcpu, 8, vcpu @ 4);

/// `struct evtchn_unmask`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnUnmask {
    /// In: the port.
    pub port: u32,
}
layout!(EvtchnUnmask, 4);

/// `struct evtchn_reset`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnReset {
    /// In: domain whose ports are closed (`DOMID_SELF`).
    pub dom: u16,
}
layout!(EvtchnReset, 2);

/// `struct evtchn_init_control`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnInitControl {
    /// In: frame of the control block.
    pub control_gfn: u64,
    /// In: its offset there.
    pub offset: u32,
    /// In: vCPU.
    pub vcpu: u32,
    /// Out: bits of a link.
    pub link_bits: u8,
    /// Unused.
    pub pad: [u8; 7],
}
layout!(EvtchnInitControl, 24, offset @ 8, vcpu @ 12, link_bits @ 16);

/// `struct evtchn_expand_array`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnExpandArray {
    /// In: frame of event words.
    pub array_gfn: u64,
}
layout!(EvtchnExpandArray, 8);

/// `struct evtchn_set_priority`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnSetPriority {
    /// In: the port.
    pub port: u32,
    /// In: 0 (highest) to 15.
    pub priority: u32,
}
layout!(EvtchnSetPriority, 8, priority @ 4);
