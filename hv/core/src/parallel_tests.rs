//! Several CPUs at once: what the locks must hold together. Three threads act for three domains at random while one of
//! these domains dies and comes back; at the end nothing may be lost, stuck or half connected.

use std::sync::Mutex;
use std::thread;
use std::vec::Vec;

use xen_abi::grant_table::{
    GNTCOPY_SOURCE_GREF, GNTMAP_HOST_MAP, GNTMAP_READONLY, GTF_PERMIT_ACCESS, GnttabCopy, GnttabCopyPtr,
    GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::native::GRANT_WINDOW;
use zerocopy::IntoBytes;

use crate::domain::Death;
use crate::events::{self, Binding};
use crate::ids::{DomId, PAGE_BYTES, Port};
use crate::machine::MachineMemory;
use crate::testing;
use crate::testing::{OWN, World};
use crate::{domain, space};

const STEPS: u32 = 1_500;
const CPUS: u64 = 3;

/// A small generator of numbers: the threads must not share one.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

struct Shared {
    world: World,
    /// The domain of each label.
    ids: Mutex<[DomId; 3]>,
    /// Mappings that were made: by whom, where, handle.
    handles: Mutex<Vec<(DomId, u64, u32)>>,
}

impl Shared {
    fn offer_all(&self, grantor: DomId) {
        let ids = *self.ids.lock().unwrap();
        let frame = self.world.domains.with(grantor, |domain| domain.grants.frame(0)).unwrap().unwrap();
        for (gref, peer) in ids.iter().enumerate() {
            let words = [u32::from(GTF_PERMIT_ACCESS) | u32::from(peer.0) << 16, OWN.0 as u32];
            self.world.machine.write(frame.at(gref as u64 * 8), words.as_bytes());
        }
    }

    fn event_step(&self, random: &mut Random, caller: DomId, peer: DomId) {
        let env = self.world.env();
        let port = Port(random.below(12) as u32);
        match random.below(6) {
            0 => drop(events::alloc_unbound(&env, caller, DomId::SELF, peer)),
            1 | 2 => drop(events::bind_interdomain(&env, caller, peer, port)),
            3 => drop(events::close(&env, caller, port)),
            4 if random.below(20) == 0 => {
                let mut next = 0;
                while events::close_slice(&env, caller, &mut next, 8, |_| ()) == Ok(space::Progress::More) {}
            }
            _ => drop(events::send(&env, caller, port)),
        }
    }

    fn grant_step(&self, random: &mut Random, caller: DomId, peer: DomId) {
        let env = self.world.env();
        let gref = random.below(3) as u32;
        let host_addr = GRANT_WINDOW + random.below(12) * PAGE_BYTES;
        match random.below(3) {
            0 => {
                let flags = GNTMAP_HOST_MAP | if random.below(2) == 0 { GNTMAP_READONLY } else { 0 };
                let op = GnttabMapGrantRef { host_addr, flags, gref, dom: peer.0, ..GnttabMapGrantRef::default() };
                if let Ok(mapped) = testing::map(&env, caller, &op) {
                    self.handles.lock().unwrap().push((caller, host_addr, mapped.handle.0));
                }
            }
            1 => {
                // Two CPUs may take the same one: only one of them may succeed.
                let mut handles = self.handles.lock().unwrap();
                if handles.is_empty() {
                    return;
                }
                let index = random.below(handles.len() as u64) as usize;
                let (mapper, host_addr, handle) = handles[index];
                if random.below(4) != 0 {
                    handles.swap_remove(index);
                }
                drop(handles);
                let op = GnttabUnmapGrantRef { host_addr, handle, ..GnttabUnmapGrantRef::default() };
                let _any = testing::unmap(&env, mapper, &op);
            }
            _ => {
                let source = GnttabCopyPtr { target: u64::from(gref), domid: peer.0, ..GnttabCopyPtr::default() };
                let dest = GnttabCopyPtr { target: OWN.0 + 1, domid: DomId::SELF.0, ..GnttabCopyPtr::default() };
                let op = GnttabCopy { source, dest, len: 32, flags: GNTCOPY_SOURCE_GREF, ..GnttabCopy::default() };
                let _any = testing::copy(&env, caller, &op);
            }
        }
    }

    /// The third domain dies, in slices, and comes back.
    fn rebirth(&self) {
        let dying = self.ids.lock().unwrap()[2];
        domain::begin_destroy(&self.world.env(), dying, Death::default()).unwrap();
        self.world.finish_destroy(dying);
        let new = self.world.start(3);
        self.ids.lock().unwrap()[2] = new;
        let ids = *self.ids.lock().unwrap();
        for id in ids {
            self.offer_all(id);
        }
    }

    fn connections_are_symmetric(&self) {
        let env = self.world.env();
        for id in *self.ids.lock().unwrap() {
            for port in 0..64 {
                let binding = events::status(&env, id, DomId::SELF, Port(port)).unwrap().binding;
                if let Binding::Interdomain { remote, port: far } = binding {
                    let back = events::status(&env, remote, DomId::SELF, Port(u32::from(far))).unwrap().binding;
                    assert_eq!(back, Binding::Interdomain { remote: id, port: port as u16 });
                }
            }
        }
    }
}

#[test]
fn e02_g10_g11_c04_three_cpus_lose_nothing_and_never_deadlock() {
    let world = World::linked(4);
    let ids = [world.start(1), world.start(2), world.start(3)];
    let shared = Shared { world, ids: Mutex::new(ids), handles: Mutex::new(Vec::new()) };
    for id in ids {
        shared.offer_all(id);
    }
    thread::scope(|scope| {
        for cpu in 1..=CPUS {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random(cpu.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for step in 0..STEPS {
                    let ids = *shared.ids.lock().unwrap();
                    let (caller, peer) = (ids[random.below(3) as usize], ids[random.below(3) as usize]);
                    if random.below(2) == 0 {
                        shared.event_step(&mut random, caller, peer);
                    } else {
                        shared.grant_step(&mut random, caller, peer);
                    }
                    if cpu == 1 && step % 100 == 99 {
                        shared.rebirth();
                    }
                }
            });
        }
    });
    shared.connections_are_symmetric();
    shared.world.end();
}
