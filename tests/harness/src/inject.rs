//! Faults in a running domain, from outside: nothing in the domain knows of it, and nothing in it was made for it.
//!
//! QEMU's debugger interface stops the machine at a random moment. When the domain that is to suffer happens to execute
//! (ring 3, and the start info page, which every native domain has at the same address, names it), its registers or its
//! memory are changed, through its own page tables; if not, the machine goes on and is stopped again. The moments and the
//! changes come from a seed. What instruction it is that a seed hits is not the same in each run, as the machine's
//! clock is the host's.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::mem::offset_of;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use xen_abi::native::{
    CONSOLE_RING, GRANT_WINDOW, HEAP_BASE, IMAGE_BASE, PAGE_SIZE, STACK_PAGES, STACK_TOP, START_INFO, STORE_RING,
    StartInfo,
};
use xen_abi::sched::{SCHEDOP_POLL, SchedPoll};
use xen_abi::xen::HYPERVISOR_SCHED_OP;

/// What is done to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It goes on at an address where nothing is, from whatever instruction it was at: it dies of that.
    Crash,
    /// It goes on at a jump to itself, from whatever instruction it was at. (Its code is not changed: whoever runs the image
    /// next has the same pages.)
    Wedge,
    /// Whatever instruction it was at, it waits for nothing, without any use of the CPU, and that never ends (`SCHEDOP_poll` of no port).
    Stall,
    /// A random page of its stack, or of the heap in use, is filled with random bytes.
    CorruptPage,
    /// Its rings to xenstore and the console, and those of its clients that it has mapped from this page of its grant
    /// window on, are filled with random bytes.
    Garbage {
        /// Where the rings begin, after pages that are kept for other mappings.
        first_page: u64,
    },
}

/// Pages from the start of the heap that are taken for used.
const HEAP_PAGES: u64 = 64;
/// Pages of the grant window that are looked at for rings.
const RING_PAGES: u64 = 8;
/// Instructions that are executed one by one before the fault, at most.
const STEPS: u64 = 100;
/// Places in QEMU's list of all registers, in bytes.
const RAX_AT: usize = 0;
const RSI_AT: usize = 4 * 8;
const RDI_AT: usize = 5 * 8;
const RSP_AT: usize = 7 * 8;
const RIP_AT: usize = 16 * 8;
const CS_AT: usize = RIP_AT + 8 + 4;
/// An address in the first page, which no domain has.
const NOWHERE: u64 = 0x10;
/// `jmp .`
const LOOP: [u8; 2] = [0xeb, 0xfe];

/// `syscall`
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes below the stack pointer that may be in use.
const STACK_UNUSED: u64 = 256;

/// Puts faults into domains of one machine.
pub struct Injector {
    stream: UnixStream,
    random: u64,
}

impl Injector {
    /// Connects. The machine goes on.
    pub(crate) fn connect(path: &Path, seed: u64) -> Result<Self> {
        let stream = UnixStream::connect(path).context("QEMU has no debugger interface")?;
        let mut injector = Self { stream, random: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1 };
        // QEMU stops the machine for a debugger that comes, and tells so, or does not.
        injector.send("?")?;
        injector.stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        while injector.answer().is_ok() {}
        injector.stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        injector.send("c")?;
        Ok(injector)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn noise(&mut self, bytes: u64) -> Vec<u8> {
        (0..bytes).map(|_| self.below(256) as u8).collect()
    }

    /// Waits for a random moment at which `domain` executes, and does `fault` to it; answers what it was doing. An error
    /// if it does not execute within `limit`.
    pub fn inject(&mut self, domain: &str, fault: Fault, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            sleep(Duration::from_micros(self.below(3000)));
            self.stop()?;
            let mut done = None;
            if self.is_in(domain)? {
                // The machine stops between pieces of translated code only: some instructions further, at any of them.
                for _ in 0..self.below(STEPS) {
                    self.send("s")?;
                    self.answer()?;
                }
                if self.is_in(domain)? {
                    done = self.act(fault)?;
                }
            }
            self.send("c")?;
            if let Some(rip) = done {
                return Ok(format!("{fault:?} at {rip:#x}"));
            }
        }
        bail!("{domain} did not execute within {limit:?}")
    }

    /// The name of the domain whose page tables are loaded.
    fn current(&mut self) -> Result<String> {
        let name = self.read(START_INFO + offset_of!(StartInfo, name) as u64, 32)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
    }

    /// Whether the machine executes code of this domain.
    fn is_in(&mut self, domain: &str) -> Result<bool> {
        let ring = self.registers()?.get(CS_AT).map_or(0, |cs| cs & 3);
        Ok(ring == 3 && self.current()? == domain)
    }

    fn registers(&mut self) -> Result<Vec<u8>> {
        Ok(bytes(&self.ask("g")?))
    }

    /// Does it, and answers at which instruction. `None`: there was nothing to change.
    fn act(&mut self, fault: Fault) -> Result<Option<u64>> {
        let mut registers = self.registers()?;
        let rip = word(&registers, RIP_AT);
        let done = match fault {
            Fault::Crash | Fault::Wedge => {
                let place = if fault == Fault::Crash { NOWHERE } else { self.find(&LOOP)? };
                put_word(&mut registers, RIP_AT, place);
                Ok(self.ask(&format!("G{}", hexadecimal(&registers)))? == "OK")
            }
            Fault::Stall => {
                let structure = (word(&registers, RSP_AT) - STACK_UNUSED) & !7;
                let call = [(RAX_AT, HYPERVISOR_SCHED_OP), (RDI_AT, SCHEDOP_POLL), (RSI_AT, structure)];
                for (at, value) in call.into_iter().chain([(RIP_AT, self.find(&SYSCALL)?)]) {
                    put_word(&mut registers, at, value);
                }
                // No port, no time limit.
                Ok(self.write(structure, &[0; size_of::<SchedPoll>()])?
                    && self.ask(&format!("G{}", hexadecimal(&registers)))? == "OK")
            }
            Fault::CorruptPage => {
                let page = match self.below(2) {
                    // The end of the stack that is in use.
                    0 => STACK_TOP - (1 + self.below(STACK_PAGES.min(2))) * PAGE_SIZE,
                    _ => HEAP_BASE + self.below(HEAP_PAGES) * PAGE_SIZE,
                };
                let noise = self.noise(PAGE_SIZE);
                self.write(page, &noise)
            }
            Fault::Garbage { first_page } => {
                let first = GRANT_WINDOW + first_page * PAGE_SIZE;
                let rings = (0..RING_PAGES).map(|page| first + page * PAGE_SIZE);
                let mut any = false;
                for page in rings.chain([STORE_RING, CONSOLE_RING]) {
                    if self.read(page, 8)?.is_some() {
                        let noise = self.noise(PAGE_SIZE);
                        any |= self.write(page, &noise)?;
                    }
                }
                Ok(any)
            }
        };
        done.map(|done: bool| done.then_some(rip))
    }

    /// Where the image of the current domain has these bytes first, whatever they are there for.
    fn find(&mut self, wanted: &[u8]) -> Result<u64> {
        let mut image = Vec::new();
        while let Some(piece) = self.read(IMAGE_BASE + image.len() as u64, 1024)? {
            image.extend(piece);
            if let Some(at) = image.windows(wanted.len()).position(|bytes| bytes == wanted) {
                return Ok(IMAGE_BASE + at as u64);
            }
        }
        bail!("the image nowhere has {wanted:x?}")
    }

    /// Memory of the current domain; `None`: nothing is mapped there.
    fn read(&mut self, address: u64, count: usize) -> Result<Option<Vec<u8>>> {
        let answer = self.ask(&format!("m{address:x},{count:x}"))?;
        Ok(if answer.starts_with('E') { None } else { Some(bytes(&answer)) })
    }

    /// `false`: nothing is mapped there.
    fn write(&mut self, address: u64, content: &[u8]) -> Result<bool> {
        // QEMU takes packets of 4 KiB.
        for (at, piece) in (address..).step_by(1024).zip(content.chunks(1024)) {
            if self.ask(&format!("M{at:x},{:x}:{}", piece.len(), hexadecimal(piece)))? != "OK" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn stop(&mut self) -> Result<()> {
        self.stream.write_all(&[3])?;
        let answer = self.answer()?;
        ensure!(answer.starts_with('T'), "the machine did not stop: {answer}");
        Ok(())
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.answer()
    }

    /// GDB's remote protocol: `$packet#checksum`, each answered with `+`.
    fn send(&mut self, packet: &str) -> Result<()> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream, "${packet}#{sum:02x}").context("QEMU's debugger interface is gone")
    }

    fn answer(&mut self) -> Result<String> {
        while self.byte()? != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                // A run of one character: that, `*`, and how often more.
                b'*' => {
                    let count = self.byte()?.saturating_sub(29);
                    let last = *packet.last().context("a repetition of nothing")?;
                    packet.extend(std::iter::repeat_n(last, usize::from(count)));
                }
                byte => packet.push(byte),
            }
        }
        let (_, _) = (self.byte()?, self.byte()?);
        self.stream.write_all(b"+")?;
        Ok(String::from_utf8_lossy(&packet).into_owned())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).context("QEMU's debugger interface does not answer")?;
        Ok(byte[0])
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn word(registers: &[u8], at: usize) -> u64 {
    registers.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn put_word(registers: &mut [u8], at: usize, value: u64) {
    if let Some(bytes) = registers.get_mut(at..at + 8) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}
