//! Nonsense, a lot of it: hypercalls, ports, MSRs and CPUID leaves by chance, from a seed. Only this domain may suffer.

use crate::cpu;
use crate::hypercall::call;
use crate::tasks::Failure;
use core::arch::x86_64::__cpuid_count;
use xen_abi::xen::{HYPERVISOR_CONSOLE_IO, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_SCHED_OP};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number as a caller might choose one: small, an address of the scratch area, of a page's end, of nothing.
    fn argument(&mut self) -> u64 {
        let noise = self.next();
        match noise % 8 {
            0..=2 => noise >> 8 & 0x3f,
            3 | 4 => SCRATCH + (noise >> 8 & 0xffff8),
            5 => SCRATCH + (noise >> 8 & 0xff) * 4096 - 4,
            6 => 0x7fe0_0000_0000 + (noise >> 8 & 0xffff_ffff),
            _ => noise,
        }
    }
}

/// Memory that nothing else uses: 16 MiB on.
const SCRATCH: u64 = 16 << 20;
const SCRATCH_WORDS: usize = (1 << 20) / 8;

/// The number behind `key=` on the command line.
pub fn number(command_line: &str, key: &str) -> Option<u64> {
    command_line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .and_then(|text| text.parse().ok())
}

/// `seed=S count=N`.
pub fn run(command_line: &str) -> Result<(), Failure> {
    let mut random = Random(number(command_line, "seed").unwrap_or(1));
    for round in 0..number(command_line, "count").unwrap_or(10_000) {
        match random.next() % 16 {
            0 => {
                cpu::input(random.next() as u16, random.next() as u32);
            }
            // Not those that end the domain.
            1 => match random.next() as u16 {
                0x600..=0x60f | 0xcf8..=0xcff => {}
                port => cpu::output(port, random.next() as u8),
            },
            2 => {
                let register = msr(&mut random);
                cpu::expecting(|| _ = cpu::read_msr(register));
            }
            3 => {
                let (register, value) = (msr(&mut random), random.next());
                // What this kernel itself stands on: EFER, its segment bases' neighbours, the hypercall page, the APIC's commands.
                if !matches!(register, 0xc000_0080 | 0x4000_0000 | 0x174..=0x176 | 0x830) {
                    cpu::expecting(|| cpu::write_msr(register, value));
                }
            }
            4 => {
                let base = [0, 0x4000_0000, 0x8000_0000, random.next() as u32][random.next() as usize % 4];
                let told = __cpuid_count(base.wrapping_add(random.next() as u32 % 0x20), random.next() as u32 % 4);
                core::hint::black_box(told);
            }
            5 => {
                let at = random.next() as usize % SCRATCH_WORDS;
                // SAFETY: memory that no Rust object lives in.
                unsafe {
                    core::ptr::with_exposed_provenance_mut::<u64>(SCRATCH as usize)
                        .add(at)
                        .write_volatile(random.argument());
                }
            }
            _ => hypercall(&mut random),
        }
        if round % 100_000 == 0 {
            crate::println!("GUEST round {round}");
        }
    }
    Ok(())
}

fn msr(random: &mut Random) -> u32 {
    let noise = random.next() as u32;
    let base = [0, 0x800, 0xc000_0080, 0xc001_0000, noise][random.next() as usize % 5];
    base.wrapping_add(noise % 0x120)
}

fn hypercall(random: &mut Random) {
    let number = random.next() % 64;
    let mut args = [(); 5].map(|()| random.argument());
    if number == HYPERVISOR_GRANT_TABLE_OP {
        // A batch of millions, all with a status to be written back, leaves nothing of the caller.
        args[2] %= 64;
    }
    // Waiting and ending are not nonsense, and the console has better to do.
    if !matches!(number, HYPERVISOR_SCHED_OP | HYPERVISOR_CONSOLE_IO) {
        call(number, args);
    }
}
