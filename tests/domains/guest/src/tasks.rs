//! What the kernel can be told to do.

use crate::cpu::{self, LAST_UPCALL, OTHER_UPCALL, UPCALL, UPCALLS};
use crate::hypercall::{call, with};
use crate::{println, silly};
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use xen_abi::event_channel::{EVTCHNOP_BIND_IPI, EVTCHNOP_SEND, EvtchnBindIpi, EvtchnSend};
use xen_abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR, HVMOP_SET_PARAM, XEN_CPUID_FIRST_LEAF,
    XEN_CPUID_SIGNATURE_EBX, XenHvmParam,
};
use xen_abi::memory::{XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP, XenAddToPhysmap};
use xen_abi::vcpu::{VCPUOP_SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer};
use xen_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_HVM_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_VCPU_OP,
    HYPERVISOR_XEN_VERSION, VIRQ_TIMER,
};
use xen_abi::{event_channel, version};

/// Why a task failed.
pub type Failure = &'static str;

/// The shared info page: the first words are vCPU 0's, and pending bits and masks come behind the 32 places for vCPUs.
#[repr(C, align(4096))]
pub struct Shared(pub [AtomicU64; 512]);

pub static SHARED: Shared = Shared([const { AtomicU64::new(0) }; 512]);
const SELECTOR: usize = 1;
const PENDING: usize = 32 * 8;

/// Runs a task.
pub fn run(what: &str, command_line: &str) -> Result<(), Failure> {
    match what {
        "hello" => hello(),
        "events" => events(),
        "silly" => silly::run(command_line),
        "rings" => crate::rings::run(command_line),
        "halt" => {
            // Lives for a while first: the policy domain is told of ends, but not how, if it looks too late.
            for _ in 0..100_000 {
                call(HYPERVISOR_XEN_VERSION, [version::XENVER_VERSION, 0, 0, 0, 0]);
            }
            // With interrupts off: for good.
            // SAFETY: nothing comes after it.
            unsafe { core::arch::asm!("cli", "hlt") };
            Err("it went on")
        }
        "triple-fault" => {
            // SAFETY: no exception can be delivered any more, which is the point.
            unsafe {
                let none = [0u64; 2];
                core::arch::asm!("lidt [{}]", "ud2", in(reg) &raw const none);
            }
            Err("it went on")
        }
        "nowhere" => {
            // SAFETY: a guest-physical address where nothing is; the domain ends here.
            unsafe { core::ptr::with_exposed_provenance::<u64>(0x3fff_f000).read_volatile() };
            Err("it went on")
        }
        "bench" => crate::bench::run(command_line),
        "echo" => crate::bench::echo(command_line),
        _ => Err("nothing is called so"),
    }
}

pub fn check(condition: bool, otherwise: Failure) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(otherwise) }
}

fn hello() -> Result<(), Failure> {
    let leaf = __cpuid(XEN_CPUID_FIRST_LEAF);
    check(leaf.ebx == XEN_CPUID_SIGNATURE_EBX, "CPUID does not say Xen")?;
    check(call(HYPERVISOR_XEN_VERSION, [version::XENVER_VERSION, 0, 0, 0, 0]) == 4 << 16 | 17, "xen_version")?;
    // By the hypercall page: `mov eax, NUMBER; vmmcall; ret`.
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);
    static mut PAGE: Page = Page([0; 4096]);
    let page = (&raw mut PAGE).addr();
    cpu::write_msr(__cpuid(XEN_CPUID_FIRST_LEAF + 2).ebx, page as u64);
    let result: u64;
    // SAFETY: the hypervisor has filled the page.
    unsafe {
        core::arch::asm!("call {}", in(reg) page + 32 * HYPERVISOR_XEN_VERSION as usize, lateout("rax") result,
            in("rdi") 0u64, in("rsi") 0u64);
    }
    check(result == 4 << 16 | 17, "xen_version by the hypercall page")?;
    check(__cpuid(1).ecx & 1 << 31 != 0 && __cpuid(1).ecx & 1 << 21 != 0, "no hypervisor or no x2APIC in CPUID")?;
    check(__cpuid(0x8000_0001).ecx & 1 << 2 == 0, "SVM is shown")?;
    check(cpu::expecting(|| _ = cpu::read_msr(0xc001_0114)) == Some(13), "an MSR of the host can be read")?;
    check(cpu::input(0x3f8, 0) & 0xff == 0xff, "a port answers")?;
    println!("hello from a virtual machine");
    Ok(())
}

/// Maps shared info and asks for upcalls.
pub fn connect() -> Result<(), Failure> {
    let gpfn = (&raw const SHARED).addr() as u64 >> 12;
    let mut op = XenAddToPhysmap { domid: DOMID_SELF, space: XENMAPSPACE_SHARED_INFO, gpfn, ..Default::default() };
    check(with(HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut op) == 0, "shared info cannot be mapped")?;
    ask_for_upcalls(UPCALL)
}

fn ask_for_upcalls(vector: u8) -> Result<(), Failure> {
    let value = HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | u64::from(vector);
    let mut op = XenHvmParam { domid: DOMID_SELF, index: HVM_PARAM_CALLBACK_IRQ, value, ..Default::default() };
    check(with(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut op) == 0, "no upcalls")
}

/// Looks at what an upcall is about, and forgets it.
pub fn upcall() {
    // SAFETY: the flag is the first byte of the first word; all accesses to it are atomic.
    unsafe { AtomicU8::from_ptr(SHARED.0[0].as_ptr().cast()) }.store(0, Ordering::SeqCst);
    let mut words = SHARED.0[SELECTOR].swap(0, Ordering::SeqCst);
    while words != 0 {
        SHARED.0[PENDING + words.trailing_zeros() as usize].store(0, Ordering::SeqCst);
        words &= words - 1;
    }
}

fn events() -> Result<(), Failure> {
    connect()?;
    let mut bind = EvtchnBindIpi::default();
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut bind) == 0, "no port to oneself")?;
    let before = UPCALLS.load(Ordering::Relaxed);
    let mut send = EvtchnSend { port: bind.port };
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send) == 0, "it cannot be sent to")?;
    check(UPCALLS.load(Ordering::Relaxed) == before, "an upcall although interrupts are off")?;
    cpu::let_interrupts_in();
    check(UPCALLS.load(Ordering::Relaxed) == before + 1, "no upcall, or several")?;
    // One that waits already comes by the vector that was asked for last.
    for vector in [OTHER_UPCALL, UPCALL] {
        let before = UPCALLS.load(Ordering::Relaxed);
        check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send) == 0, "it cannot be sent to again")?;
        ask_for_upcalls(vector)?;
        cpu::let_interrupts_in();
        check(UPCALLS.load(Ordering::Relaxed) == before + 1, "no upcall with the new vector, or several")?;
        check(LAST_UPCALL.load(Ordering::Relaxed) == vector.into(), "an upcall with the old vector")?;
    }
    // An event that the kernel has seen and forgotten by itself interrupts nobody.
    let before = UPCALLS.load(Ordering::Relaxed);
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send) == 0, "it cannot be sent to at last")?;
    upcall();
    check(call(HYPERVISOR_XEN_VERSION, [version::XENVER_VERSION, 0, 0, 0, 0]) > 0, "xen_version")?;
    cpu::let_interrupts_in();
    check(UPCALLS.load(Ordering::Relaxed) == before, "an upcall for nothing")?;
    // A timer ends HLT.
    let mut bind = event_channel::EvtchnBindVirq { virq: VIRQ_TIMER, ..Default::default() };
    check(with(HYPERVISOR_EVENT_CHANNEL_OP, event_channel::EVTCHNOP_BIND_VIRQ, &mut bind) == 0, "no timer")?;
    let mut timer = VcpuSetSingleshotTimer { timeout_abs_ns: 1, ..Default::default() };
    let at = (&raw mut timer).addr() as u64;
    check(call(HYPERVISOR_VCPU_OP, [VCPUOP_SET_SINGLESHOT_TIMER, 0, at, 0, 0]) == 0, "the timer cannot be set")?;
    while UPCALLS.load(Ordering::Relaxed) == before {
        cpu::wait();
    }
    // The APIC: an interrupt to oneself.
    cpu::write_msr(0x80f, 0x1ff);
    cpu::write_msr(0x83f, 0x41);
    cpu::let_interrupts_in();
    check(cpu::INTERRUPTS.load(Ordering::Relaxed) == 1, "the APIC does not deliver")
}
