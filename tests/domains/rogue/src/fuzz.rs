//! Random commands of the policy domain: any arguments, near and far from good ones. Afterwards nothing is missing.

use crate::child::{LABELS, finish, frames_free};
use crate::raw;
use runtime::hypercall::{event_channel, platform};
use runtime::verdict::equal;
use runtime::{DomId, verdict};
use xen_abi::native::{ADDRESS_LIMIT, BUNDLE_BASE, MMIO_WINDOW, START_INFO};
use xen_abi::platform as abi;

const CALLS: u32 = 200_000;

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

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A frame or an address, likely one that means something.
    fn place(&mut self, source: u64) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => self.of(&[0, 1, u64::MAX, ADDRESS_LIMIT, ADDRESS_LIMIT >> 12, MMIO_WINDOW, BUNDLE_BASE, START_INFO]),
            2 => source,
            3 => 1 << self.below(64),
            _ => 0x200 + self.below(64),
        }
    }
}

/// All of it.
pub fn all() {
    let before = frames_free();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut succeeded = 0;
    for _ in 0..CALLS {
        succeeded += u32::from(call(&mut random));
    }
    verdict!("m8-some-calls-succeed", succeeded > CALLS / 100, "{succeeded}");
    let left = platform::domains().map(|info| info.domid as u16).filter(|&id| id != 0).last();
    runtime::println!("the last domain is {left:?}");
    while let Some(id) = platform::domains().map(|info| DomId(info.domid as u16)).find(|id| *id != DomId::POLICY) {
        finish(id);
    }
    equal("m8-no-frame-is-lost", frames_free(), before);
    let devices = platform::devices().filter(|info| info.owner < 0x8000).count();
    equal("m8-no-device-is-lost", devices, 0);
}

/// One command. Whether it succeeded.
fn call(random: &mut Random) -> bool {
    let data = [0x90_u8; 64];
    let source = data.as_ptr() as u64;
    let living = platform::domains().map(|info| info.domid).filter(|&id| id != 0);
    let count = living.count() as u64;
    let pick = random.below(count + 2);
    let domid = match platform::domains().filter(|info| info.domid != 0).nth(pick as usize) {
        Some(info) => info.domid,
        None => random.next() as u32 & 0x1_ffff,
    };
    let command = random.of(&[
        abi::CREATE_DOMAIN,
        abi::CREATE_DOMAIN,
        abi::POPULATE,
        abi::POPULATE,
        abi::POPULATE,
        abi::COPY_IN,
        abi::COPY_IN,
        abi::LEND,
        abi::SEED_GRANT,
        abi::SEED_GRANT,
        abi::SET_ENTRY,
        abi::ASSIGN_DEVICE,
        abi::UNPAUSE,
        abi::PAUSE,
        abi::DESTROY,
        abi::DOMAIN_INFO,
        abi::GRANT_INFO,
        abi::DEVICE_INFO,
        abi::REAPED,
        255,
    ]);
    let place = random.place(source);
    let small = random.below(8) as u32;
    let result = match command {
        abi::CREATE_DOMAIN => {
            let domid = random.of(&[0, 0, domid, u32::MAX]);
            raw::platform(command, &mut abi::CreateDomain { label: small % (LABELS + 1), domid })
        }
        abi::POPULATE => {
            let count = random.of(&[0, 1, 3, 64, u64::MAX]);
            raw::platform(command, &mut abi::Populate { domid, rights: small, gfn: place, count, done: 0 })
        }
        abi::COPY_IN => {
            let (gpa, bytes) = (place << random.of(&[0, 12]), random.of(&[0, 1, 64, 5000, u64::MAX]));
            let source = random.of(&[source, source, START_INFO, place]);
            raw::platform(command, &mut abi::CopyIn { domid, reserved: small / 7, gpa, source, bytes })
        }
        abi::LEND => {
            let page = random.of(&[0, 1, 20, 1 << 20, u64::MAX, place]);
            let count = random.of(&[0, 1, 3, 64, u64::MAX]);
            raw::platform(command, &mut abi::Lend { domid, rights: small, gfn: place, page, count })
        }
        abi::SEED_GRANT => {
            let other = random.next() as u8;
            let peer = random.of(&[domid, 0, other.into()]);
            let gref = random.of(&[small, small << 9, u32::MAX]);
            raw::platform(command, &mut abi::SeedGrant { domid, gref, gfn: place, peer, read_only: small / 3 })
        }
        abi::SET_ENTRY => raw::platform(
            command,
            &mut abi::SetEntry { domid, reserved: small / 7, rip: place << 12, rsp: place, argument: 0 },
        ),
        abi::ASSIGN_DEVICE => {
            let bdf = {
                let any = random.next() as u32;
                random.of(&[0x50, 0x50, 0x40, 0, any])
            };
            raw::platform(command, &mut abi::AssignDevice { domid, bdf })
        }
        abi::DOMAIN_INFO => platform::domain_info(domid).map(|_| 0),
        abi::GRANT_INFO => platform::grant_info(DomId(domid as u16), runtime::GrantRef(small)).map(|_| 0),
        abi::DEVICE_INFO => platform::device_info(small * 2).map(|_| 0),
        255 => event_channel::alloc_unbound(DomId(domid as u16), DomId(domid as u16)).map(|_| 0),
        _ => raw::platform(command, &mut abi::DomainTarget { domid, reserved: small / 7 }),
    };
    result.is_ok()
}
