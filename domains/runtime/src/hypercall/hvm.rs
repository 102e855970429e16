//! `hvm_op`: parameters of a virtual machine, set by who builds it.

use xen_abi::hvm::{HVMOP_SET_PARAM, XenHvmParam};
use xen_abi::xen::HYPERVISOR_HVM_OP;

use crate::errno::Result;
use crate::ids::DomId;

/// Sets `HVM_PARAM_*` number `index` of a virtual machine that is being built.
pub fn set_param(domain: DomId, index: u32, value: u64) -> Result<()> {
    let mut structure = XenHvmParam { domid: domain.0, pad: 0, index, value };
    // SAFETY: touches the structure only.
    unsafe { super::with(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut structure) }.map(drop)
}
