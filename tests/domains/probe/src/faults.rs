//! What must end the domain that does it, at once, and nobody else.

use crate::raw;
use alloc::boxed::Box;

/// The direct map of the hypervisor begins in the upper half, wherever exactly.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;
/// The last 2 GiB: where the hypervisor's code is linked.
const LAST: u64 = 0xffff_ffff_8000_0000;
/// In the gap between heap and bundle.
const UNMAPPED: u64 = 0x18_0000_0000;

/// What `do=NAME` names.
pub fn find(name: &str) -> Option<fn()> {
    FAULTS.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
}

const FAULTS: &[(&str, fn())] = &[
    ("read-hypervisor", || {
        raw::read(LAST + 0x20_0000);
    }),
    ("read-direct-map", || {
        raw::read(UPPER_HALF + 0x10_0000);
    }),
    ("write-hypervisor", || raw::write(LAST + 0x20_0000, 1)),
    ("read-unmapped", || {
        raw::read(UNMAPPED);
    }),
    ("read-null", || {
        raw::read(0);
    }),
    ("write-code", || raw::write(find as fn(&str) -> Option<fn()> as usize as u64, 0x90)),
    ("write-start-info", || raw::write(xen_abi::native::START_INFO, 0)),
    ("run-heap", || raw::jump(Box::into_raw(Box::new([0xc3_u8; 16])) as u64)),
    ("run-away", raw::far_away),
    ("stack-overflow", raw::overflow_stack),
    ("io-port", || {
        raw::port_in(0x3f8);
    }),
    ("io-port-pci", || {
        raw::port_in(0xcfc);
    }),
    ("halt", raw::halt),
    ("interrupts-off", raw::interrupts_off),
    ("page-tables", raw::page_tables),
    ("control-register", raw::control_register),
    ("model-register", raw::model_register),
    ("interrupt-table", raw::interrupt_table),
    ("show-table", raw::show_table),
    ("vector", raw::vector),
    ("floating-point", raw::floating_point),
    ("soft-interrupt", raw::soft_interrupt),
    ("breakpoint", raw::breakpoint),
    ("undefined", raw::undefined),
    ("division", raw::division),
    ("wild-stack", raw::wild_stack),
    ("dirty-flags", || {
        raw::dirty_flags();
        // Flags are no fault: the hypervisor takes them away. That it still answers is the test.
        runtime::verdict::pass("dirty-flags-are-harmless");
        runtime::crash()
    }),
    ("spin", || raw::spin()),
    ("panic", || panic!("on purpose")),
];
