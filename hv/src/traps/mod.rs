//! Every way into the hypervisor, and the way back out.
//!
//! There is one stack per CPU and none per domain: a domain's registers are saved in its own [`Frame`], the handler
//! runs to its end on the CPU's stack, and what it answers is the frame to go on with. Interrupts are off throughout.

pub mod crash;
pub mod entry;
mod frame;
pub mod reason;

pub use frame::{Frame, VECTOR_GUEST, VECTOR_SYSCALL};

use crate::{apic, cpu::percpu, domain, iommu, irq, mm::user, system::system};
use hv_core::domain::Wake;
use x86_64::registers::control::Cr2;

/// First vector that is an interrupt.
pub const FIRST_INTERRUPT: u64 = 32;
const PAGE_FAULT: u64 = 14;

/// An exception or interrupt while a domain ran. Answers the frame to go on with.
extern "C" fn trap_from_domain(frame: &mut Frame) -> *mut Frame {
    match frame.vector as u8 {
        vector @ irq::FIRST_VECTOR..irq::END_VECTOR => {
            domain::wake_at_last(device_interrupt(vector));
            domain::resume()
        }
        _ => other_trap_from_domain(frame),
    }
}

#[inline(never)]
fn other_trap_from_domain(frame: &mut Frame) -> *mut Frame {
    if frame.vector < FIRST_INTERRUPT {
        domain::end_current(reason::exception(frame, Cr2::read_raw()));
    } else {
        interrupt(frame.vector);
    }
    domain::resume()
}

/// An exception or interrupt while the hypervisor ran: fine in the idle loop and where it touches a domain's memory,
/// the end everywhere else.
extern "C" fn trap_from_hypervisor(frame: &mut Frame) {
    if frame.vector >= FIRST_INTERRUPT && percpu::with(|cpu| cpu.idle) != 0 {
        interrupt(frame.vector);
    } else if frame.vector == PAGE_FAULT
        && let Some(behind) = user::fixup(frame.rip)
    {
        (frame.rip, frame.rax) = (behind, 1);
    } else {
        crash::exception(frame);
    }
}

fn interrupt(vector: u64) {
    match vector as u8 {
        apic::SPURIOUS_VECTOR => {}
        apic::TIMER_VECTOR => {
            apic::end_of_interrupt();
            domain::timer();
        }
        irq::FAULT_VECTOR => {
            iommu::poll_faults();
            apic::end_of_interrupt();
        }
        vector => domain::wake(device_interrupt(vector)),
    }
}

#[inline(always)]
fn device_interrupt(vector: u8) -> Option<Wake> {
    let raise = |(domain, pirq)| hv_core::events::raise_pirq(&system().env(), domain, pirq);
    let woken = irq::handle(vector).and_then(raise);
    apic::end_of_interrupt();
    woken
}
