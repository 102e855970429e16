//! What domains see of PCI: the policy domain the list of functions, a driver domain its own devices.

use super::{BARS, Bdf, DomId, Function, Member, Ordering, Owner, SILENCED, State, denied, find, functions};
use hv_core::pci::config::{Field, judge_write};
use hv_core::{error::Errno, pci::bar::overlap};
use xen_abi::platform::{
    BAR_HAS_MSIX, BAR_MEMORY, Bar, ConfigAccess, DeviceDescribe, DeviceInfo, LABEL_NONE, OWNER_HYPERVISOR,
    OWNER_QUARANTINE,
};

/// Facts of function number `info.index` of the machine. For the policy domain.
pub fn info(info: &mut DeviceInfo) -> Result<(), Errno> {
    let function = functions().get(info.index as usize).ok_or(Errno::ENOENT)?;
    let Member { bdf: Bdf(bdf), vendor, device, class, .. } = function.found;
    let State { owner, faults, .. } = *function.state.lock();
    let owner = match owner {
        Owner::Domain(domain) => domain.0.into(),
        Owner::Quarantine | Owner::Broken => OWNER_QUARANTINE,
        Owner::Hypervisor => OWNER_HYPERVISOR,
    };
    let (label, selector) =
        function.driver.get().map_or((LABEL_NONE, u32::MAX), |(label, selector)| (label.0.into(), *selector));
    let (index, bdf) = (info.index, bdf.into());
    *info = DeviceInfo { index, bdf, vendor, device, class, owner, label, selector, faults };
    Ok(())
}

/// Facts of device number `info.index` of `domain`.
pub fn describe(domain: DomId, info: &mut DeviceDescribe) -> Result<(), Errno> {
    let mut own = functions().iter().filter(|function| function.state.lock().owner == Owner::Domain(domain));
    let function = own.nth(info.index as usize).ok_or(Errno::ENOENT)?;
    let mut bars = [Bar::default(); BARS];
    for ((bar, gpa), out) in function.bars.iter().zip(function.addresses).zip(&mut bars) {
        let Some(bar) = bar else { continue };
        let holds_msix = function.holes().iter().any(|hole| overlap(hole, &bar.pages()));
        let flags = BAR_MEMORY | if holds_msix { BAR_HAS_MSIX } else { 0 };
        *out = Bar { gpa, bytes: bar.bytes, flags, reserved: 0 };
    }
    let Member { bdf: Bdf(bdf), vendor, device, class, .. } = function.found;
    let (index, bdf, msix_vectors) = (info.index, bdf.into(), function.messages.count().into());
    let selector = function.driver.get().map_or(u32::MAX, |(_, selector)| *selector);
    *info = DeviceDescribe { index, bdf, vendor, device, class, msix_vectors, selector, bars };
    Ok(())
}

/// Calls `act` for a function of `domain`, under its lock. `EPERM` when the domain does not have it: no different for
/// functions that there are and that there are not.
pub(super) fn with_owned<T>(
    domain: DomId,
    bdf: Bdf,
    act: impl FnOnce(&Function, &mut State) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let function = find(bdf).ok_or(Errno::EPERM)?;
    let mut state = function.state.lock();
    if state.owner != Owner::Domain(domain) {
        return Err(Errno::EPERM);
    }
    act(function, &mut state)
}

fn field(access: &ConfigAccess) -> Result<(Bdf, Field), Errno> {
    let bdf = Bdf::from_abi(access.bdf).ok_or(Errno::EINVAL)?;
    let field = Field::new(access.offset, access.width).ok_or(Errno::EINVAL)?;
    Ok((bdf, field))
}

/// Reads configuration space of an own device.
pub fn config_read(domain: DomId, access: &mut ConfigAccess) -> Result<(), Errno> {
    let (bdf, field) = field(access)?;
    with_owned(domain, bdf, |function, _| {
        access.value = field.extract(function.config.read(field.dword()));
        Ok(())
    })
}

/// Writes configuration space of an own device: see `hv_core::pci::config` for what is let through.
pub fn config_write(domain: DomId, access: &ConfigAccess) -> Result<(), Errno> {
    let (bdf, field) = field(access)?;
    with_owned(domain, bdf, |function, state| {
        let current = function.config.read(field.dword());
        if let Some(dword) = judge_write(field, access.value, current, denied(function, state))? {
            function.config.write(field.dword(), dword);
            // Another CPU may have silenced it since it was judged.
            if SILENCED.load(Ordering::SeqCst) {
                function.silence();
            }
        }
        Ok(())
    })
}
