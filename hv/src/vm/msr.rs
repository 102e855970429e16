//! Model-specific registers that are not switched with the vCPU. What is not here is not there: #GP.

use super::{Next, Vcpu, apic, cpuid, hardware::Hardware};
use hv_core::ids::VcpuId;
use x86_64::registers::control::EferFlags;

const APIC_BASE: u32 = 0x1b;
/// Enabled, in x2APIC mode, at the usual address.
const APIC_BASE_VALUE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
const APIC_BASE_BOOT_CPU: u64 = 1 << 8;
const TIME: u32 = 0x10;
const MICROCODE: u32 = 0x8b;
const EFER: u32 = 0xc000_0080;
/// Machine checks' capabilities (no banks) and status; AMD's system, hardware and north bridge configuration and interrupt
/// pending: nothing to configure.
const QUIET: [u32; 6] = [0x179, 0x17a, 0xc001_0010, 0xc001_0015, 0xc001_001f, 0xc001_0055];
/// Decode configuration; LFENCE serializes.
const DECODE: u32 = 0xc001_1029;
const DECODE_VALUE: u64 = 1 << 1;

impl Vcpu {
    /// RDMSR. `None`: #GP.
    pub(super) fn read_msr(&self, number: VcpuId, msr: u32) -> Option<u64> {
        match msr {
            APIC_BASE if number.0 == 0 => Some(APIC_BASE_VALUE | APIC_BASE_BOOT_CPU),
            APIC_BASE => Some(APIC_BASE_VALUE),
            MICROCODE => Some(0),
            DECODE => Some(DECODE_VALUE),
            EFER => Some(self.hardware.efer()),
            msr if QUIET.contains(&msr) => Some(0),
            msr if apic::MSRS.contains(&msr) => self.apic.read(msr, self.hardware.task_priority()).ok(),
            _ => None,
        }
    }

    /// WRMSR; what is to be done then, for others than the vCPU too. `None`: #GP.
    pub(super) fn write_msr(&mut self, number: VcpuId, msr: u32, value: u64) -> Option<Next> {
        match msr {
            EFER => self.write_efer(value)?,
            TIME | MICROCODE | DECODE => {}
            APIC_BASE if Some(value) == self.read_msr(number, APIC_BASE) => {}
            cpuid::XEN_HYPERCALL_MSR => return Some(Next::HypercallPage(value & !0xfff)),
            msr if QUIET.contains(&msr) => {}
            apic::TASK_PRIORITY if value <= 0xff => self.hardware.set_task_priority(value as u8),
            msr if apic::MSRS.contains(&msr) => {
                let sent = self.apic.write(msr, value).ok()?;
                return Some(sent.map_or(Next::Again, |(message, targets)| Next::Send(message, targets)));
            }
            _ => return None,
        }
        Some(Next::Again)
    }

    fn write_efer(&mut self, value: u64) -> Option<()> {
        let changeable = EferFlags::SYSTEM_CALL_EXTENSIONS | EferFlags::LONG_MODE_ENABLE | EferFlags::NO_EXECUTE_ENABLE;
        let (old, active) = (self.hardware.efer(), EferFlags::LONG_MODE_ACTIVE.bits());
        let toggles_long = (old ^ value) & EferFlags::LONG_MODE_ENABLE.bits() != 0;
        if value & !(changeable.bits() | active) != 0 || (toggles_long && self.hardware.state().paging) {
            return None;
        }
        self.hardware.set_efer(value & changeable.bits() | old & active);
        Some(())
    }
}
