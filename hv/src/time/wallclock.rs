//! The time of day, read once at boot from the PC's real-time clock (Motorola MC146818A), which is taken to run in UTC. What
//! domains are told of it never changes: when system time was 0.

use core::mem::offset_of;
use hv_core::{ids::Mfn, machine::MachineMemory};
use x86_64::instructions::port::Port;
use xen_abi::xen::SharedInfo;
use zerocopy::IntoBytes;

const UPDATING: u8 = 0x80;
const BINARY: u8 = 4;
const HOURS_24: u8 = 2;

fn read(register: u8) -> u8 {
    // SAFETY: the clock's index and data ports of every PC; reading a register of it has no other effect. Bit 7 of the index
    // is the NMI's mask, and stays open.
    unsafe {
        Port::new(0x70).write(register);
        Port::new(0x71).read()
    }
}

/// Seconds since 1970 in UTC; 0 if there is no clock that says anything sensible.
fn seconds() -> u64 {
    // An update takes 2 ms at most; what is read in one twice alike is not of two seconds.
    let registers = || [0, 2, 4, 7, 8, 9].map(read);
    let settled = || (0..10_000).find(|_| read(0xa) & UPDATING == 0).map(|_| registers());
    let Some(fields) = (0..10).find_map(|_| settled().filter(|fields| *fields == registers())) else { return 0 };
    // Firmware leaves it in decimal digits and 24 hours.
    let [second, minute, hour, day, month, year] = fields.map(|field| u64::from((field >> 4) * 10 + (field & 15)));
    let sensible = hour < 24 && minute < 60 && second < 60 && year < 100;
    if read(0xb) & (BINARY | HOURS_24) != HOURS_24
        || !(1..=31).contains(&day)
        || !(1..=12).contains(&month)
        || !sensible
    {
        return 0;
    }
    // Days since 1970 of a year that begins in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (2000 + year, month - 3) } else { (1999 + year, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

/// Tells a new domain in its shared info page. Its version stays even, as for the clock.
pub fn tell(shared_info: Mfn, memory: &impl MachineMemory) {
    static BOOT: spin::Once<u64> = spin::Once::new();
    let boot = *BOOT.call_once(|| seconds().saturating_sub(super::now().0 / 1_000_000_000));
    let words = [2, boot as u32, 0, (boot >> 32) as u32];
    memory.write(shared_info.at(offset_of!(SharedInfo, wc_version) as u64), words.as_bytes());
}
