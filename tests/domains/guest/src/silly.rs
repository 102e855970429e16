//! Nonsense, a lot of it: hypercalls, ports, MSRs and CPUID leaves by chance, from a seed. Only this domain may suffer.

use crate::cpu;
use crate::hypercall::call;
use crate::tasks::Failure;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_abi::xen::{HYPERVISOR_CONSOLE_IO, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_SCHED_OP};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
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
            6 => BAD + (noise >> 8 & 0x7f_ffff_ffff),
            _ => noise,
        }
    }
}

/// Memory that nothing else uses: 16 MiB on.
const SCRATCH: u64 = 16 << 20;
const SCRATCH_WORDS: usize = (1 << 20) / 8;
/// What the second entry of the top-level table maps, by tables of nonsense. Only the hypervisor looks there.
const BAD: u64 = 1 << 39;

#[repr(C, align(4096))]
struct Tables([[AtomicU64; 512]; 3]);

static TABLES: Tables = Tables([const { [const { AtomicU64::new(0) }; 512] }; 3]);

unsafe extern "C" {
    static guest_pml4: [AtomicU64; 512];
}

/// A page table entry: of one of the tables above, of memory that may be there or not, or of anything at all, but not of
/// this kernel, which is below 16 MiB.
fn entry(random: &mut Random) -> u64 {
    let noise = random.next();
    let table = (&raw const TABLES.0[noise as usize >> 8 & 1]).addr() as u64;
    match noise % 8 {
        0 => 0,
        1..=4 => table | 1 | noise >> 16 & 0x166,
        5 => SCRATCH + (noise & 0xff000) | noise >> 24 & 0x167 | 1,
        _ => noise | SCRATCH,
    }
}

fn spoil_tables(random: &mut Random) {
    for table in &TABLES.0 {
        table[random.next() as usize % 512].store(entry(random), Ordering::Relaxed);
    }
}

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
    for _ in 0..4096 {
        spoil_tables(&mut random);
    }
    // SAFETY: atomic words of the boot code's table; the entry is not in use.
    let top: &[AtomicU64; 512] = unsafe { &guest_pml4 };
    top[1].store((&raw const TABLES.0[0]).addr() as u64 | 7, Ordering::Relaxed);
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
            6 => spoil_tables(&mut random),
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
