//! Devices: given out by the policy domain, described to and configured by their drivers.

use super::{Call, OK, Outcome, domid, in_out, input, output};
use crate::pci::{self, DeviceSpace, Recipient};
use crate::system::system;
use hv_core::error::Errno;
use hv_core::ids::{Gfn, Mfn};
use hv_core::pci::Bdf;
use hv_core::space::{AddressSpace, Page, PageKind, Rights};
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

/// Where a device's registers are mapped.
struct Registers<'a>(&'a mut AddressSpace);

impl DeviceSpace for Registers<'_> {
    fn map(&mut self, gfn: Gfn, mfn: Mfn) -> Result<(), Errno> {
        let page = Page { mfn, rights: Rights::ReadWrite, kind: PageKind::Device };
        self.0.map(gfn, page, &system().frames, &system().machine)?;
        Ok(())
    }

    fn unmap(&mut self, gfn: Gfn) {
        if let Ok(unmapped) = self.0.unmap(gfn, &system().machine) {
            let _no_frame_behind_it = unmapped.flush(&system().machine);
        }
    }
}

pub fn assign(call: &Call) -> Outcome {
    let op: abi::AssignDevice = input(call)?;
    let bdf = Bdf::from_abi(op.bdf).ok_or(Errno::ENODEV)?;
    let system = system();
    let id = domid(op.domid)?;
    system.domains.with(id, |domain| {
        if !domain.is_building() {
            return Err(Errno::EPERM);
        }
        let recipient = Recipient {
            domain: id,
            label: domain.label(),
            io_root: domain.space.iommu_root().map(Mfn::base),
            accepts_unprotected: system.policy.accepts_unprotected_dma(),
        };
        pci::assign(bdf, &recipient, &mut Registers(&mut domain.space))?;
        domain.account.devices += 1;
        Ok(())
    })??;
    OK
}
