//! Start-up in order, from the first Rust code to the first domain.

use crate::boot::report::{Finding, fact, fail};
use crate::{acpi, apic, cpu, domain, iommu, irq, legacy, logging, mm, pci, power, serial, system, time, traps, vm};
use crate::{boot::info::BootInfo, cpu::features::Features, cpu::percpu, cpu::percpu::PerCpu};
use core::sync::atomic::Ordering;
use spin::Once;

/// ACPI's power management timer where the firmware does not say (QEMU, most PCs).
const PM_TIMER_PORT: u16 = 0x608;

static INFO: Once<BootInfo> = Once::new();
static BOOT: Once<(Features, mm::Plan)> = Once::new();

/// What the boot loader told.
pub fn boot_info() -> Option<&'static BootInfo> {
    INFO.get()
}

/// The first Rust code, on the boot stack and the boot tables. `eax` and `information` are the boot loader's EAX, EBX.
#[unsafe(no_mangle)]
pub extern "C" fn hv_main(eax: u32, information: u32) -> ! {
    time::ENTERED.store(time::tsc(), Ordering::Relaxed);
    serial::init();
    logging::init();
    let features = Features::read().unwrap_or_else(|| {
        fail("cpu", format_args!("it lacks NX, SYSCALL or SMAP"), "use a CPU made after 2017, QEMU's -cpu max for one")
    });
    let info = BootInfo::read(eax, information).unwrap_or_else(|| {
        fail("boot loader", format_args!("neither PVH nor Multiboot2"), "use QEMU -kernel, or GRUB's multiboot2")
    });
    let info = INFO.call_once(|| info);
    if let Some(level) = info.option("loglevel").and_then(|word| word.parse().ok()) {
        log::set_max_level(level);
    }
    log::info!("Bulkhead {}", env!("CARGO_PKG_VERSION"));
    fact("boot loader", Finding::Ok, format_args!("{}, command line \"{}\"", info.protocol, info.command_line));
    // Through the early tables, which show all of firmware's memory.
    acpi::init(info.rsdp);
    // NX must be on before the final tables, which use it.
    cpu::init_control(&features);
    legacy::silence();
    let plan = mm::init(info).unwrap_or_else(|bytes| {
        let what = format_args!("no {} MiB of free contiguous RAM between 1 MiB and 4 GiB", bytes >> 20);
        fail("memory", what, "give the machine more memory (-m 512M)")
    });
    BOOT.call_once(|| (features, plan));
    let stack = PerCpu::install()
        .unwrap_or_else(|why| fail("cpu", format_args!("no page tables left: {why:?}"), "report this"));
    cpu::init_syscall(traps::entry::syscall());
    traps::entry::switch_stack(stack, on_final_stack)
}

/// Start-up goes on with the final tables and stack.
extern "C" fn on_final_stack() -> ! {
    let (Some(info), Some((features, plan))) = (INFO.get(), BOOT.get()) else { power::halt() };
    let Some(facts) = acpi::facts() else { power::halt() };
    cpu::report(features);
    start_clock(features, facts.pm_timer.unwrap_or(PM_TIMER_PORT));
    system::init(info, plan);
    pci::init(facts);
    iommu::init(facts);
    irq::init(facts, apic::id());
    vm::init();
    pci::resolve(&system::system().policy);
    domain::start()
}

/// Starts the APIC and the clock.
fn start_clock(features: &Features, pm_timer: u16) {
    apic::init(features).unwrap_or_else(|why| fail("apic", format_args!("cannot map it: {why:?}"), "report this"));
    let rates = time::calibrate(pm_timer)
        .unwrap_or_else(|| fail("clock", format_args!("the ACPI timer does not count"), "enable ACPI"));
    time::set_khz(features.tsc_khz.unwrap_or(rates.tsc_khz));
    apic::enable_timer(features, rates.apic_khz);
    percpu::with(|cpu| cpu.queue.set_clock(time::scale().khz / 1000));
    let source = if features.tsc_khz.is_some() { "CPUID" } else { "the ACPI timer" };
    fact("clock", Finding::Ok, format_args!("TSC {} MHz by {source}", time::scale().khz / 1000));
}
