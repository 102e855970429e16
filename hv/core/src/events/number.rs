//! Sub-operation numbers. What is not here is not provided, the whole FIFO interface first of all.

use xen_abi::event_channel as abi;

use crate::error::Errno;

/// A sub-operation of `HYPERVISOR_EVENT_CHANNEL_OP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvtchnOp {
    /// `EvtchnBindInterdomain`.
    BindInterdomain,
    /// `EvtchnBindVirq`.
    BindVirq,
    /// `EvtchnBindPirq`.
    BindPirq,
    /// `EvtchnClose`.
    Close,
    /// `EvtchnSend`.
    Send,
    /// `EvtchnStatus`.
    Status,
    /// `EvtchnAllocUnbound`.
    AllocUnbound,
    /// `EvtchnBindIpi`.
    BindIpi,
    /// `EvtchnBindVcpu`.
    BindVcpu,
    /// `EvtchnUnmask`.
    Unmask,
    /// `EvtchnReset`.
    Reset,
}

impl TryFrom<u64> for EvtchnOp {
    type Error = Errno;

    #[inline]
    fn try_from(command: u64) -> Result<Self, Errno> {
        Ok(match command {
            abi::EVTCHNOP_BIND_INTERDOMAIN => Self::BindInterdomain,
            abi::EVTCHNOP_BIND_VIRQ => Self::BindVirq,
            abi::EVTCHNOP_BIND_PIRQ => Self::BindPirq,
            abi::EVTCHNOP_CLOSE => Self::Close,
            abi::EVTCHNOP_SEND => Self::Send,
            abi::EVTCHNOP_STATUS => Self::Status,
            abi::EVTCHNOP_ALLOC_UNBOUND => Self::AllocUnbound,
            abi::EVTCHNOP_BIND_IPI => Self::BindIpi,
            abi::EVTCHNOP_BIND_VCPU => Self::BindVcpu,
            abi::EVTCHNOP_UNMASK => Self::Unmask,
            abi::EVTCHNOP_RESET => Self::Reset,
            _ => return Err(Errno::ENOSYS),
        })
    }
}
