//! Random hypercalls: any number, any command, pointers good and bad, structures of values that mean something.
//!
//! Left out is only what would end this domain or its part in the test by right: shutting down, waiting for ever, giving
//! back the pages that it runs on, closing the channels of its console and xenstore.

use crate::raw::hypercall;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use runtime::grant::GrantedPages;
use runtime::pages::{PAGE, Pages};
use runtime::shared::Shared;
use runtime::verdict::{equal, fail, pass};
use runtime::{Access, DomId, info, println, time, verdict};
use xen_abi::native::{ADDRESS_LIMIT, GRANT_WINDOW, GRANT_WINDOW_END, PAGE_SIZE, START_INFO};
use xen_abi::xen as abi;
use xen_abi::{event_channel, grant_table, memory, sched, vcpu};

const CALLS: u32 = 1_000_000;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// Pages that structures lie in; the one behind them is given back, so that no count reaches further.
const SCRATCH: usize = 8;
/// Words that are written anew for each call.
const WORDS: u64 = 16;
/// Mappings at once at most: one a place.
const HANDLES: usize = 8;
/// What no map operation answers.
const NO_STATUS: u64 = 0x7777;
/// Where grants are mapped: pages counted from the end of the window.
const WINDOW_PAGES: [u64; 6] = [16, 17, 18, 19, 20, 24];
/// Ports below this one are the runtime's.
const OWN_PORTS: u64 = 16;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn of(&mut self, values: &[u64]) -> u64 {
        values[self.below(values.len() as u64) as usize]
    }
}

struct Fuzzer<'a> {
    random: Random,
    scratch: Shared<'a>,
    /// A frame that may go.
    spare: u64,
    /// References of pages that are granted to ourselves.
    references: [u64; 2],
    own: u64,
    /// Handles of mappings, by their index; some are void by now.
    handles: [u32; HANDLES],
    /// Where structures are in which this call is told handles.
    told: Vec<usize>,
    /// How many mappings there were.
    mapped: u32,
}

/// A call, ready to be made.
type Call = (u64, [u64; 5]);

impl Fuzzer<'_> {
    /// A value that may mean something, wherever it lands. Never the frame number of a page that we live on.
    fn value(&mut self) -> u64 {
        let window = GRANT_WINDOW_END - PAGE_SIZE * self.random.of(&WINDOW_PAGES);
        match self.random.below(16) {
            0 => self.random.next() | 1 << 40,
            1 => u64::MAX >> self.random.below(64),
            2 => 1 << (18 + self.random.below(46)),
            3 => self.random.of(&[ADDRESS_LIMIT, ADDRESS_LIMIT - PAGE_SIZE, START_INFO, GRANT_WINDOW - PAGE_SIZE]),
            4 | 5 => window,
            6 => window >> 12,
            7 => self.spare,
            8 => self.random.of(&[0x7ff0, 0x7fff, 0xffff, 0x7ff1]) | self.random.of(&[0, 0x7ff0]) << 16,
            9 => self.own | self.own << 16,
            10 | 11 => {
                let reference = self.references[self.random.below(2) as usize];
                reference | self.own << 32
            }
            12 => self.random.below(16) << 32 | self.random.below(64),
            _ => self.random.below(64),
        }
    }

    /// An address for a structure, with fresh words there if it is ours.
    fn pointer(&mut self, slot: u64) -> (u64, Option<usize>) {
        if self.random.below(12) == 0 {
            let bad = [
                0,
                0x18_0000_0000,
                ADDRESS_LIMIT - 4,
                0x8000_0000_0000,
                0xffff_8000_0000_1000,
                u64::MAX - 7,
                START_INFO,
            ];
            return (self.random.of(&bad), None);
        }
        let offset = (slot * 256 + self.random.below(8) * 8) as usize;
        for word in 0..WORDS as usize {
            let value = self.value();
            self.scratch.u64_at(offset + word * 8).store(value, Relaxed);
        }
        (self.scratch.address() + offset as u64, Some(offset))
    }

    fn set(&self, offset: usize, word: usize, value: u64) {
        self.scratch.u64_at(offset + word * 8).store(value, Relaxed);
    }

    /// One call whose structure is in `slot`.
    fn call(&mut self, slot: u64) -> Call {
        let number = match self.random.below(16) {
            0 => self.random.below(64),
            1 => self.value(),
            _ => self.random.of(&[
                abi::HYPERVISOR_EVENT_CHANNEL_OP,
                abi::HYPERVISOR_EVENT_CHANNEL_OP,
                abi::HYPERVISOR_GRANT_TABLE_OP,
                abi::HYPERVISOR_GRANT_TABLE_OP,
                abi::HYPERVISOR_GRANT_TABLE_OP,
                abi::HYPERVISOR_MEMORY_OP,
                abi::HYPERVISOR_SCHED_OP,
                abi::HYPERVISOR_VCPU_OP,
                abi::HYPERVISOR_PHYSDEV_OP,
                abi::HYPERVISOR_XEN_VERSION,
                abi::HYPERVISOR_PLATFORM_OP,
                abi::HYPERVISOR_CONSOLE_IO,
            ]),
        };
        let command = match self.random.below(8) {
            0 => self.value(),
            1 => self.random.below(64),
            _ => self.random.below(16),
        };
        let (pointer, ours) = self.pointer(slot);
        let count = self.random.of(&[0, 1, 1, 1, 2, 3, 40, 1000, 1 << 31, u64::MAX]);
        let arguments = [command, pointer, count, self.random.next(), self.random.next()];
        self.harmless(number, arguments, ours)
    }

    /// Changes what would end us by right.
    fn harmless(&mut self, number: u64, mut arguments: [u64; 5], ours: Option<usize>) -> Call {
        let [command, pointer, ..] = arguments;
        match (number, ours) {
            (abi::HYPERVISOR_SCHED_OP, _) if [sched::SCHEDOP_BLOCK, sched::SCHEDOP_SHUTDOWN].contains(&command) => {
                arguments[0] = sched::SCHEDOP_YIELD;
            }
            (abi::HYPERVISOR_SCHED_OP, Some(at)) if command == sched::SCHEDOP_POLL => {
                // struct sched_poll: ports, nr_ports, timeout.
                let until = time::now().0 + self.random.below(20_000);
                self.set(at, 2, until);
            }
            (abi::HYPERVISOR_SCHED_OP, None) if command == sched::SCHEDOP_POLL => arguments[1] = 0,
            (abi::HYPERVISOR_EVENT_CHANNEL_OP, Some(at)) => {
                let first = self.scratch.u64_at(at).load(Relaxed);
                let port = first as u32;
                if command == event_channel::EVTCHNOP_CLOSE && u64::from(port) < OWN_PORTS {
                    self.set(at, 0, first + OWN_PORTS);
                }
                if command == event_channel::EVTCHNOP_RESET {
                    self.set(at, 0, 0);
                }
            }
            // It could name what we are made of.
            (abi::HYPERVISOR_MEMORY_OP, _) if command == memory::XENMEM_DECREASE_RESERVATION => {
                arguments[0] = memory::XENMEM_CURRENT_RESERVATION;
            }
            (abi::HYPERVISOR_MEMORY_OP, None) if pointer == START_INFO => arguments[1] = 0,
            (abi::HYPERVISOR_MEMORY_OP, Some(at)) if command == memory::XENMEM_REMOVE_FROM_PHYSMAP => {
                let gfn = self.scratch.u64_at(at + 8).load(Relaxed);
                if gfn < 1 << 18 {
                    self.set(at, 1, self.spare);
                }
            }
            // Where our events are would move.
            (abi::HYPERVISOR_VCPU_OP, Some(_)) if command == vcpu::VCPUOP_REGISTER_VCPU_INFO => arguments[1] = 0,
            (abi::HYPERVISOR_VCPU_OP, Some(_)) => {
                arguments[2] = pointer;
                arguments[1] = self.random.of(&[0, 0, 0, 1, 4, u64::MAX]);
            }
            // Not onto the console, which the test reads.
            (abi::HYPERVISOR_CONSOLE_IO, _) => arguments = [command | 1, 3, pointer, 0, 0],
            (abi::HYPERVISOR_MULTICALL, _) => arguments = [0, 1, 0, 0, 0],
            (abi::HYPERVISOR_GRANT_TABLE_OP, Some(at)) => {
                if self.random.below(2) == 0 {
                    self.grant(command, at);
                }
                if command == grant_table::GNTTABOP_MAP_GRANT_REF {
                    arguments[2] = arguments[2].min(1);
                    let domain = self.scratch.u64_at(at + 16).load(Relaxed) & 0xffff;
                    self.set(at, 2, domain | NO_STATUS << 16);
                    self.told.push(at);
                }
            }
            _ => {}
        }
        (number, arguments)
    }

    /// A structure for a grant operation as it should be, but for one word or none.
    fn grant(&mut self, command: u64, at: usize) {
        let page = GRANT_WINDOW_END - PAGE_SIZE * self.random.of(&WINDOW_PAGES);
        let references = self.references;
        let handle = self.handles[self.random.below(HANDLES as u64) as usize].into();
        let (one, other) = (self.random.of(&references), self.random.of(&references));
        let words = match command {
            grant_table::GNTTABOP_MAP_GRANT_REF => [page, self.random.of(&[2, 2, 6, 3]) | one << 32, self.own, 0, 0],
            grant_table::GNTTABOP_UNMAP_GRANT_REF => [page, 0, handle, 0, 0],
            grant_table::GNTTABOP_COPY => [one, self.own | 64 << 16, other, self.own, 64 | 3 << 16],
            _ => return,
        };
        let wrong = self.random.below(10) as usize;
        for (index, word) in words.into_iter().enumerate().filter(|(index, _)| *index != wrong) {
            self.set(at, index, word);
        }
    }

    /// Remembers the handles that a call was told (`struct gnttab_map_grant_ref`: dom, status, handle in word 2).
    fn take_handles(&mut self) {
        for at in core::mem::take(&mut self.told) {
            let word = self.scratch.u64_at(at + 16).load(Relaxed);
            let handle = (word >> 32) as u32;
            if word >> 16 & 0xffff == 0 {
                self.handles[handle as usize % HANDLES] = handle;
                self.mapped += 1;
            }
        }
    }

    /// Several calls in one.
    fn multicall(&mut self) -> Call {
        let count = self.random.below(8);
        let list = (SCRATCH - 2) * PAGE;
        for index in 0..count {
            let (number, mut arguments) = self.call(index);
            // What one call writes may be what the next one reads; nobody must come to wait for ever by that, and
            // handles must stay where they were told.
            match number {
                abi::HYPERVISOR_XEN_VERSION => arguments[1] = 0,
                abi::HYPERVISOR_GRANT_TABLE_OP => arguments[2] = arguments[2].min(3),
                abi::HYPERVISOR_SCHED_OP if arguments[0] == sched::SCHEDOP_POLL => arguments[1] = 0,
                abi::HYPERVISOR_EVENT_CHANNEL_OP if arguments[0] == event_channel::EVTCHNOP_RESET => arguments[1] = 0,
                _ => {}
            }
            let at = list + index as usize * 64;
            self.set(at, 0, number);
            for (word, argument) in arguments.into_iter().enumerate() {
                self.set(at, 2 + word, argument);
            }
        }
        (abi::HYPERVISOR_MULTICALL, [self.scratch.address() + list as u64, count, 0, 0, 0])
    }
}

/// `do=fuzz`.
pub fn all() {
    let own = u64::from(info::start_info().domid);
    let own_id = DomId(own as u16);
    let (Some(scratch), Some(spare)) = (Pages::new(SCRATCH + 1), Pages::new(1)) else {
        return fail("fuzz-pages", "no memory");
    };
    let granted = [Access::ReadWrite, Access::ReadOnly].map(|access| GrantedPages::allocate(1, own_id, access));
    let [Ok(writable), Ok(read_only)] = granted else {
        return fail("fuzz-grants", "none");
    };
    // Both are the hypervisor's to write for the rest of our life.
    let scratch = alloc::boxed::Box::leak(alloc::boxed::Box::new(scratch));
    let (guard, spare_gfn) = (scratch.gfn(SCRATCH), spare.gfn(0));
    core::mem::forget(spare);
    let structure = [u64::from(abi::DOMID_SELF), guard];
    let remove = [memory::XENMEM_REMOVE_FROM_PHYSMAP, structure.as_ptr() as u64, 0, 0, 0];
    equal("fuzz-guard-page", hypercall(abi::HYPERVISOR_MEMORY_OP, remove), 0);
    let mut fuzzer = Fuzzer {
        random: Random(SEED),
        scratch: scratch.as_shared(),
        spare: spare_gfn,
        references: [writable.reference(0).0.into(), read_only.reference(0).0.into()],
        own,
        handles: [0; HANDLES],
        told: Vec::new(),
        mapped: 0,
    };
    let (mut good, mut refused) = (0_u32, 0_u32);
    for _ in 0..CALLS {
        let (number, arguments) = if fuzzer.random.below(8) == 0 {
            fuzzer.multicall()
        } else {
            let slot = fuzzer.random.below(8);
            fuzzer.call(slot)
        };
        let answer = hypercall(number, arguments);
        fuzzer.take_handles();
        match answer {
            0.. => good += 1,
            -4095..0 => refused += 1,
            odd => return fail("m8-an-error-is-an-error-number", format_args!("{number} {arguments:x?}: {odd}")),
        }
    }
    println!("{good} calls done, {refused} refused, {} mappings", fuzzer.mapped);
    verdict!("m8-fuzz-maps", fuzzer.mapped > 100, "{}", fuzzer.mapped);
    verdict!("m8-fuzz-does-something", good > CALLS / 50 && refused > CALLS / 50, "{good} and {refused}");
    unmap_all(&fuzzer.handles);
    let revoked = [writable.revoke().is_ok(), read_only.revoke().is_ok()];
    equal("g8-pages-are-not-mapped-any-more", revoked, [true, true]);
    pass("m8-fuzz-is-survived");
}

/// Undoes whatever is mapped still, wherever it is.
fn unmap_all(handles: &[u32]) {
    let places = WINDOW_PAGES.map(|page| GRANT_WINDOW_END - PAGE_SIZE * page);
    // The start of the window is a power of two, and so among the random values.
    for (&handle, host_addr) in
        handles.iter().flat_map(|handle| places.into_iter().chain([GRANT_WINDOW]).map(move |at| (handle, at)))
    {
        let mut op = grant_table::GnttabUnmapGrantRef { host_addr, handle, ..Default::default() };
        let address = core::ptr::from_mut(&mut op) as u64;
        hypercall(abi::HYPERVISOR_GRANT_TABLE_OP, [grant_table::GNTTABOP_UNMAP_GRANT_REF, address, 1, 0, 0]);
    }
}
