//! `xen_version`.

use xen_abi::version as abi;
use xen_abi::xen::HYPERVISOR_XEN_VERSION;

use crate::errno::Result;

/// Major and minor number of the interface.
pub fn version() -> Result<(u16, u16)> {
    // SAFETY: no memory is involved.
    let version = unsafe { super::call(HYPERVISOR_XEN_VERSION, [abi::XENVER_VERSION, 0, 0, 0, 0]) }?;
    Ok(((version >> 16) as u16, version as u16))
}
