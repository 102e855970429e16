//! Sub-operation numbers. What is not here is not provided, the whole FIFO interface first of all.

use xen_abi::event_channel as abi;

crate::operation::operations! {
    /// A sub-operation of `HYPERVISOR_EVENT_CHANNEL_OP`.
    EvtchnOp {
        /// `EvtchnBindInterdomain`.
        BindInterdomain = abi::EVTCHNOP_BIND_INTERDOMAIN,
        /// `EvtchnBindVirq`.
        BindVirq = abi::EVTCHNOP_BIND_VIRQ,
        /// `EvtchnBindPirq`.
        BindPirq = abi::EVTCHNOP_BIND_PIRQ,
        /// `EvtchnClose`.
        Close = abi::EVTCHNOP_CLOSE,
        /// `EvtchnSend`.
        Send = abi::EVTCHNOP_SEND,
        /// `EvtchnStatus`.
        Status = abi::EVTCHNOP_STATUS,
        /// `EvtchnAllocUnbound`.
        AllocUnbound = abi::EVTCHNOP_ALLOC_UNBOUND,
        /// `EvtchnBindIpi`.
        BindIpi = abi::EVTCHNOP_BIND_IPI,
        /// `EvtchnBindVcpu`.
        BindVcpu = abi::EVTCHNOP_BIND_VCPU,
        /// `EvtchnUnmask`.
        Unmask = abi::EVTCHNOP_UNMASK,
        /// `EvtchnReset`.
        Reset = abi::EVTCHNOP_RESET,
    }
}
