//! What becomes of an exit: answered here, or handed on as [`Next`].

use super::hardware::{Event, Exit, Hardware, PortAccess, State};
use super::{Next, Vcpu, Vm, cpuid, extra};
use hv_core::{domain::Death, error::Errno, ids::DomId, ids::VcpuId};
use xen_abi::pvh;
use xen_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT};

const UNDEFINED: Event = Event { vector: 6, error: None };
const PROTECTION: Event = Event { vector: 13, error: Some(0) };

impl Vm {
    /// Deals with an exit of a vCPU that is not a kernel's hypercall.
    pub(super) fn exit(&mut self, domain: DomId, number: VcpuId) -> Next {
        let vcpus = self.vcpus.len() as u32;
        let Some(vcpu) = self.vcpus.get_mut(usize::from(number.0)) else { return Next::Again };
        match vcpu.hardware.exit() {
            Exit::Interrupt => Next::Interrupt,
            Exit::Window => Next::Again,
            Exit::Hypercall => {
                let error = if vcpu.hardware.state().long { Errno::EPERM } else { Errno::ENOSYS };
                vcpu.registers.rax = error.to_result() as u64;
                vcpu.go_on()
            }
            Exit::Halt => {
                vcpu.hardware.advance();
                if vcpu.hardware.state().interrupts { Next::Halt } else { Next::Stop }
            }
            Exit::Cpuid => {
                let asker = cpuid::Asker { domain, vcpu: number, vcpus, xsave: vcpu.hardware.state().xsave };
                let registers = &mut vcpu.registers;
                let told = cpuid::answer(&asker, registers.rax as u32, registers.rcx as u32);
                (registers.rax, registers.rbx) = (told.eax.into(), told.ebx.into());
                (registers.rcx, registers.rdx) = (told.ecx.into(), told.edx.into());
                vcpu.go_on()
            }
            Exit::ReadMsr => match vcpu.read_msr(number, vcpu.registers.rcx as u32) {
                Some(value) => {
                    (vcpu.registers.rax, vcpu.registers.rdx) = (value & u64::from(u32::MAX), value >> 32);
                    vcpu.go_on()
                }
                None => vcpu.raise(PROTECTION),
            },
            Exit::WriteMsr => {
                let value = vcpu.registers.rdx << 32 | vcpu.registers.rax & u64::from(u32::MAX);
                match vcpu.write_msr(number, vcpu.registers.rcx as u32, value) {
                    Some(next) => {
                        vcpu.hardware.advance();
                        next
                    }
                    None => vcpu.raise(PROTECTION),
                }
            }
            Exit::SetXcr => {
                let registers = &vcpu.registers;
                let value = registers.rdx << 32 | registers.rax & u64::from(u32::MAX);
                let ring = vcpu.hardware.state().ring;
                if ring == 0 && extra::set_guest_xcr0(registers.rcx as u32, value) {
                    vcpu.go_on()
                } else {
                    vcpu.raise(PROTECTION)
                }
            }
            Exit::Port(access) => vcpu.port(&access),
            Exit::Exception(event) => vcpu.raise(event),
            Exit::NotThere => vcpu.raise(UNDEFINED),
            Exit::WriteBack => vcpu.go_on(),
            Exit::Shutdown => vcpu.crash(format_args!("triple fault")),
            Exit::Page { gpa, error } => {
                let what = if error & 2 != 0 { "write to" } else { "read of" };
                vcpu.crash(format_args!("{what} guest-physical {gpa:#x}, where it has nothing, error {error:#x},"))
            }
            Exit::Other(code) => vcpu.crash(format_args!("exit {code:#x}, which has no meaning,")),
        }
    }
}

impl Vcpu {
    fn go_on(&mut self) -> Next {
        self.hardware.advance();
        Next::Again
    }

    fn raise(&mut self, event: Event) -> Next {
        self.hardware.inject(event);
        Next::Again
    }

    #[cold]
    fn crash(&mut self, why: core::fmt::Arguments) -> Next {
        let State { rip, rsp, .. } = self.hardware.state();
        Next::End(Death::new(SHUTDOWN_CRASH, format_args!("{why} at rip {rip:#x}, rsp {rsp:#x}")))
    }

    /// All ports but those of `pvh` read as ones and ignore writes; a timer that stands still is seen to be none at once.
    fn port(&mut self, access: &PortAccess) -> Next {
        if access.string {
            return self.crash(format_args!("string I/O, which is not emulated,"));
        }
        let mask = u64::MAX >> (64 - 8 * u32::from(access.bytes.clamp(1, 4)));
        let value = self.registers.rax & mask;
        match (access.port, access.reads) {
            (pvh::SLEEP_CONTROL_PORT, false) if value as u8 & 0x3c == pvh::SLEEP_POWER_OFF => {
                return Next::End(Death::new(SHUTDOWN_POWEROFF, format_args!("power off")));
            }
            (pvh::RESET_PORT, false) if value as u8 & pvh::RESET_VALUE == pvh::RESET_VALUE => {
                return Next::End(Death::new(SHUTDOWN_REBOOT, format_args!("restart")));
            }
            (_, false) => {}
            (port, true) => {
                let quiet = matches!(port, pvh::SLEEP_CONTROL_PORT | pvh::SLEEP_STATUS_PORT | 0x40..=0x43);
                let read = if quiet { 0 } else { mask };
                // A 32-bit result clears the upper half, shorter ones keep it.
                let kept = if access.bytes == 4 { 0 } else { self.registers.rax & !mask };
                self.registers.rax = kept | read;
            }
        }
        self.go_on()
    }
}
