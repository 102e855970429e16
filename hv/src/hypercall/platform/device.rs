//! Devices: given out by the policy domain, described to and configured by their drivers.

use super::{Call, OK, Outcome, domid, in_out, input, output};
use crate::pci;
use crate::system::system;
use hv_core::error::Errno;
use hv_core::pci::Bdf;
use xen_abi::platform as abi;

pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::DEVICE_DESCRIBE => {
            let op: abi::DeviceDescribe = in_out(call)?;
            output(call, &pci::describe(call.caller, op.index)?)
        }
        abi::CONFIG_READ => {
            let mut op: abi::ConfigAccess = in_out(call)?;
            op.value = pci::config_read(call.caller, &op)?;
            output(call, &op)
        }
        abi::CONFIG_WRITE => {
            pci::config_write(call.caller, &input(call)?)?;
            OK
        }
        _ => Err(Errno::ENOSYS),
    }
}

pub fn assign(call: &Call) -> Outcome {
    let op: abi::AssignDevice = input(call)?;
    let bdf = Bdf::from_abi(op.bdf).ok_or(Errno::ENODEV)?;
    system().domains.with(domid(op.domid)?, |domain| {
        if !domain.is_building() {
            return Err(Errno::EPERM);
        }
        pci::assign(bdf, domain)?;
        domain.account.devices += 1;
        Ok(())
    })??;
    OK
}
