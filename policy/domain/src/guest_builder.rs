//! One virtual machine from its kernel: memory, kernel, initrd, tables, rings, first instruction.
//!
//! `guest::layout` says where everything lies, `xen_abi::pvh` what the hypervisor makes of it.

use alloc::string::ToString;

use image::kernel::Kernel;
use policy::table::Domain;
use policy_domain::guest::layout::Needs;
use policy_domain::guest::{acpi, layout, start};
use policy_domain::nodes::{Ports, RingPages};
use runtime::DomId;
use runtime::errno::Result;
use runtime::hypercall::{hvm, platform};
use xen_abi::hvm::{HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN};
use xen_abi::native::PAGE_SIZE;
use xen_abi::platform::RIGHTS_ALL;

use crate::builder::{Reason, Site, step};

impl Site {
    /// Builds the virtual machine of an entry.
    pub fn fill_guest(&self, entry: &Domain, id: DomId) -> core::result::Result<Ports, Reason> {
        let kernel = Kernel::parse(self.file(&entry.image)?);
        let kernel = kernel.map_err(|error| alloc::format!("its kernel `{}`: {error}", entry.image))?;
        let initrd = if entry.initrd.is_empty() { &[] } else { self.file(&entry.initrd)? };
        let needs = Needs {
            kernel: kernel.addresses(),
            start_bytes: start::block_bytes(&entry.arguments),
            initrd_bytes: initrd.len() as u64,
        };
        // What it places itself counts too: shared info, and the frames of its grant table.
        let held_back = 1 + u64::from(entry.grant_frames_max);
        let layout = layout::plan(&needs, entry.memory_pages.saturating_sub(held_back));
        let layout = layout.map_err(|error| error.to_string())?;

        for range in layout.memory() {
            let (gfn, pages) = (range.start / PAGE_SIZE, (range.end - range.start) / PAGE_SIZE);
            platform::populate(id, gfn, pages, RIGHTS_ALL).map_err(step("its memory"))?;
        }
        for load in &kernel.loads {
            platform::copy_in(id, load.gpa, load.bytes).map_err(step("its kernel"))?;
        }
        if let Some(place) = &layout.initrd {
            platform::copy_in(id, place.start, initrd).map_err(step("its initrd"))?;
        }
        let tables = acpi::tables(layout.acpi, entry.vcpus);
        platform::copy_in(id, layout.acpi, &tables).map_err(step("its ACPI tables"))?;
        let start = start::block(&layout, &entry.arguments);
        platform::copy_in(id, layout.start, &start).map_err(step("its start info"))?;

        let pages = RingPages { store: layout.store / PAGE_SIZE, console: layout.console / PAGE_SIZE };
        let ports = self.rings(id, pages).map_err(step("its rings"))?;
        parameters(id, &ports).map_err(step("its parameters"))?;
        platform::set_entry(id, kernel.entry.into(), 0, layout.start).map_err(step("its entry point"))?;
        Ok(ports)
    }
}

/// Tells it where its rings are.
fn parameters(id: DomId, ports: &Ports) -> Result<()> {
    let rings = [
        (ports.store, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, ports.pages.store),
        (ports.console, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, ports.pages.console),
    ];
    for (port, port_parameter, page_parameter, page) in rings {
        let Some(port) = port else { continue };
        hvm::set_param(id, port_parameter, port.into())?;
        hvm::set_param(id, page_parameter, page)?;
    }
    Ok(())
}
