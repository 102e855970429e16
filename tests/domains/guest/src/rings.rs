//! A front end that does everything wrong that it can, from a seed: garbage in its ring and its indices, requests that are nearly
//! right, grants that go and change while the back end uses them, pages given back to the hypervisor under its hands, nodes of
//! nonsense, ports closed. When the back end has had enough it starts over.

use crate::hypercall::with;
use crate::kernel::Line;
use crate::println;
use crate::silly::{Random, number};
use crate::store::{Store, Text, give_way, send, word_at};
use crate::tasks::{Failure, check};
use core::fmt::Write;
use core::sync::atomic::Ordering;
use xen_abi::event_channel::{EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_CLOSE, EvtchnAllocUnbound, EvtchnClose};
use xen_abi::memory::{
    XENMAPSPACE_GRANT_TABLE, XENMEM_ADD_TO_PHYSMAP, XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP,
    XenAddToPhysmap, XenMemoryReservation,
};
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_MEMORY_OP};

/// Pages for rings and data: memory that nothing else uses. The first two are the rings.
const POOL: u64 = 32 << 20;
const PAGES: u32 = 32;
/// Where the grant table is.
const TABLE: u64 = 48 << 20;
/// The reference of the first page; below are the hypervisor's.
const FIRST: u32 = 8;
/// What the back end is given to answer.
const PATIENCE: u32 = 20_000;
/// Between looks at the back end's state.
const LOOK: u64 = 64;

// Of `struct xen_sring` (Xen public `io/ring.h`): words.
const REQ_PROD: u64 = 0;
const RSP_PROD: u64 = 8;
const SLOTS: u64 = 64;

const XENBUS_INITIALISING: &str = "1";
const XENBUS_INIT_WAIT: &str = "2";
const XENBUS_INITIALISED: &str = "3";
const XENBUS_CONNECTED: &str = "4";
const XENBUS_CLOSING: &str = "5";
const XENBUS_CLOSED: &str = "6";

/// A page's address.
fn page(index: u32) -> u64 {
    POOL + u64::from(index) * 4096
}

/// Writes a grant table entry, flags last.
fn grant(reference: u32, flags: u16, domain: u16, frame: u32) {
    let entry = TABLE + u64::from(reference) * 8;
    word_at(entry).store(0, Ordering::Release);
    word_at(entry + 4).store(frame, Ordering::Relaxed);
    word_at(entry).store(u32::from(domain) << 16 | u32::from(flags), Ordering::Release);
}

fn number_of(text: Option<Text>) -> Option<u16> {
    text?.text().parse().ok()
}

struct Front {
    store: Store,
    random: Random,
    /// `device/vbd/51712`.
    path: Line,
    disk: bool,
    backend: Text,
    peer: u16,
    port: u32,
    connections: u32,
}

impl Front {
    fn new(kind: &str, seed: u64) -> Result<Self, Failure> {
        let mut store = Store::new()?;
        let mut path = Line::default();
        let _fits = write!(path, "device/{kind}");
        let index = loop {
            match store.first(path.text()) {
                Some(index) => break index,
                None => give_way(),
            }
        };
        let _fits = write!(path, "/{}", index.text());
        let (mut link, mut id) = (Line::default(), Line::default());
        let _fits = write!(link, "{}/backend", path.text());
        let _fits = write!(id, "{}/backend-id", path.text());
        let backend = store.read(link.text()).ok_or("no back end")?;
        let peer = number_of(store.read(id.text())).ok_or("no back end's id")?;
        let disk = kind == "vbd";
        Ok(Self { store, random: Random(seed), path, disk, backend, peer, port: 0, connections: 0 })
    }

    fn write(&mut self, key: &str, value: &str) {
        let mut path = Line::default();
        let _fits = write!(path, "{}/{key}", self.path.text());
        self.store.write(path.text(), value);
    }

    fn write_number(&mut self, key: &str, value: u64) {
        let mut text = Line::default();
        let _fits = write!(text, "{value}");
        self.write(key, text.text());
    }

    fn backend_is(&mut self, states: &[&str]) -> bool {
        let mut path = Line::default();
        let _fits = write!(path, "{}/state", self.backend.text());
        self.store.read(path.text()).is_some_and(|state| states.contains(&state.text()))
    }

    fn wait_for(&mut self, states: &[&str]) -> bool {
        (0..PATIENCE).any(|_| {
            give_way();
            self.backend_is(states)
        })
    }

    /// From wherever things stand to a connection, or to the back end's refusal.
    fn connect(&mut self) -> Result<(), Failure> {
        self.write("state", XENBUS_CLOSED);
        check(self.wait_for(&[XENBUS_CLOSED, XENBUS_INIT_WAIT]), "the back end does not close")?;
        if self.port != 0 {
            with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port: self.port });
        }
        self.clean_nodes();
        self.write("state", XENBUS_INITIALISING);
        check(self.wait_for(&[XENBUS_INIT_WAIT]), "the back end does not start over")?;
        for index in 0..PAGES {
            grant(FIRST + index, 1, self.peer, (page(index) >> 12) as u32);
        }
        for ring in [page(0), page(1)] {
            (0..1024).for_each(|word| word_at(ring + word * 4).store(0, Ordering::Relaxed));
            word_at(ring + 4).store(1, Ordering::Relaxed);
            word_at(ring + 12).store(1, Ordering::Relaxed);
        }
        let mut unbound = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: self.peer, ..Default::default() };
        let result = with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut unbound);
        check(result == 0, "no port for the back end")?;
        self.port = unbound.port;
        self.write_number("event-channel", self.port.into());
        if self.disk {
            self.write_number("ring-ref", FIRST.into());
            self.write("state", XENBUS_INITIALISED);
        } else {
            self.write_number("tx-ring-ref", FIRST.into());
            self.write_number("rx-ring-ref", u64::from(FIRST) + 1);
            self.write("request-rx-copy", "1");
            self.write("state", XENBUS_CONNECTED);
        }
        check(self.wait_for(&[XENBUS_CONNECTED]), "the back end does not connect")?;
        self.write("state", XENBUS_CONNECTED);
        self.connections += 1;
        Ok(())
    }

    /// A ring: a disk has one, an interface two.
    fn ring(&mut self) -> u64 {
        page(if self.disk { 0 } else { self.random.next() as u32 & 1 })
    }

    fn reference(&mut self) -> u32 {
        match self.random.next() % 16 {
            0 => self.random.next() as u32,
            1 => self.random.next() as u32 % FIRST,
            _ => FIRST + 2 + self.random.next() as u32 % (PAGES - 2),
        }
    }

    /// One request, nearly right.
    fn request(&mut self) {
        let ring = self.ring();
        let index = word_at(ring + REQ_PROD).load(Ordering::Relaxed);
        let noise = self.random.next();
        if self.disk {
            let slot = ring + SLOTS + u64::from(index % 32) * 112;
            let operation = [0, 1, 0, 1, 3, 5, 6, noise as u8][noise as usize >> 8 & 7];
            let segments = (noise >> 16 & 0xf) as u32 % 13;
            // An indirect request has its operation and its count there.
            let head = u32::from(operation) | segments << 8 | (noise as u32 >> 20 & 1) << 16;
            let sector = if noise >> 32 & 7 == 0 { self.random.next() } else { noise >> 40 & 0x1fff };
            let fixed = [head, 0, index, 0, sector as u32, (sector >> 32) as u32];
            fixed.into_iter().enumerate().for_each(|(at, word)| self.word(slot + at as u64 * 4, word));
            for segment in 0..11 {
                let reference = self.reference();
                let some = self.random.next() as u32;
                let (first, last) = if some & 7 == 0 { (some >> 8 & 0xf, some >> 16 & 0xf) } else { (0, 7) };
                self.word(slot + 24 + segment * 8, reference);
                self.word(slot + 28 + segment * 8, first | last << 8);
            }
        } else if ring == page(0) {
            let slot = ring + SLOTS + u64::from(index % 256) * 12;
            let reference = self.reference();
            let flags = if noise & 3 == 0 { noise as u32 >> 8 & 0xf } else { 0 };
            let (offset, size) = (noise as u32 >> 16 & 0xfff, (noise >> 32) as u32 & 0x7ff);
            self.word(slot, reference);
            self.word(slot + 4, offset | flags << 16);
            self.word(slot + 8, index & 0xff | size << 16);
        } else {
            let slot = ring + SLOTS + u64::from(index % 256) * 8;
            let reference = self.reference();
            self.word(slot, index & 0xff);
            self.word(slot + 4, reference);
        }
        // As many as fit; now and then more.
        let answered = word_at(ring + RSP_PROD).load(Ordering::Relaxed);
        let fit = if self.disk { 32 } else { 256 };
        if index.wrapping_sub(answered) < fit || noise >> 56 == 0 {
            word_at(ring + REQ_PROD).store(index.wrapping_add(1), Ordering::Release);
        }
    }

    /// A word, now and then another one.
    fn word(&mut self, at: u64, value: u32) {
        let noise = self.random.next();
        let value = if noise.is_multiple_of(256) { (noise >> 32) as u32 } else { value };
        word_at(at).store(value, Ordering::Relaxed);
    }

    /// Gives a page back while it may be mapped, and takes another in its place.
    fn balloon(&mut self) -> Result<(), Failure> {
        let index = self.random.next() as u32 % PAGES;
        let frame = page(index) >> 12;
        let mut op = XenMemoryReservation {
            extent_start: (&raw const frame).addr() as u64,
            nr_extents: 1,
            domid: DOMID_SELF,
            ..Default::default()
        };
        if with(HYPERVISOR_MEMORY_OP, XENMEM_DECREASE_RESERVATION, &mut op) != 1 {
            return Ok(());
        }
        let back = (0..PATIENCE).any(|_| {
            give_way();
            with(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut op) == 1
        });
        check(back, "a page that was given back cannot be had again")?;
        // The back end keeps the old page of a ring, and would see nothing any more.
        if index < 2 { self.connect() } else { Ok(()) }
    }

    fn spoil_nodes(&mut self) {
        let noise = self.random.next();
        let key = match noise % 6 {
            0 => "ring-ref",
            1 => "event-channel",
            2 => "tx-ring-ref",
            3 => "ring-page-order",
            4 => "protocol",
            _ => "state",
        };
        if noise >> 8 & 3 == 0 {
            let mut path = Line::default();
            let _fits = write!(path, "{}/{key}", self.path.text());
            self.store.remove(path.text());
        } else {
            let bound = [9, 64, 5000, u64::MAX][noise as usize >> 16 & 3];
            let value = self.random.next() % bound;
            self.write_number(key, value);
        }
    }

    /// Undoes what `spoil_nodes` has left that a connection would stumble over.
    fn clean_nodes(&mut self) {
        for key in ["ring-page-order", "protocol"] {
            let mut path = Line::default();
            let _fits = write!(path, "{}/{key}", self.path.text());
            self.store.remove(path.text());
        }
    }

    fn mischief(&mut self) -> Result<(), Failure> {
        let noise = self.random.next();
        match noise % 64 {
            0 => {
                let at = self.ring() + (noise >> 8 & 0xffc);
                word_at(at).store(self.random.next() as u32, Ordering::Release);
            }
            1 => {
                let index = word_at(self.ring() + REQ_PROD);
                index.fetch_add((noise >> 8) as u32 & 0x1ff, Ordering::Release);
            }
            2..=5 => grant(self.reference() % 512, 0, 0, 0),
            6..=9 => {
                let index = self.random.next() as u32 % PAGES;
                let flags = if noise & 0x100 == 0 { 1 } else { 5 };
                grant(FIRST + index, flags, self.peer, (page(index) >> 12) as u32);
            }
            10 => {
                let (flags, domain, frame) = (noise >> 8, noise >> 24, self.random.next());
                let reference = FIRST + self.random.next() as u32 % PAGES;
                grant(reference, flags as u16, domain as u16, frame as u32);
            }
            11 => self.balloon()?,
            12..=16 => send(self.port),
            17..=19 => give_way(),
            20 if noise >> 8 & 0x3f == 0 => self.spoil_nodes(),
            21 if noise >> 8 & 0x3f == 0 => {
                with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port: self.port });
            }
            _ => self.request(),
        }
        Ok(())
    }
}

/// `device=vbd|vif seed=S count=N`.
pub fn run(command_line: &str) -> Result<(), Failure> {
    let kind = if command_line.contains("device=vif") { "vif" } else { "vbd" };
    let (space, gpfn) = (XENMAPSPACE_GRANT_TABLE, TABLE >> 12);
    let mut op = XenAddToPhysmap { domid: DOMID_SELF, space, gpfn, ..Default::default() };
    check(with(HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut op) == 0, "no grant table")?;
    for index in 2..PAGES {
        (0..1024).for_each(|word| word_at(page(index) + word * 4).store(0x5a5a_0000 | index, Ordering::Relaxed));
    }
    let mut front = Front::new(kind, number(command_line, "seed").unwrap_or(1))?;
    front.connect()?;
    println!("GUEST connected");
    for round in 0..number(command_line, "count").unwrap_or(10_000) {
        front.mischief()?;
        if round % LOOK == 0 {
            send(front.port);
            give_way();
            if front.backend_is(&[XENBUS_CLOSING, XENBUS_CLOSED]) {
                front.connect()?;
            }
        }
    }
    println!("GUEST {} connections", front.connections);
    Ok(())
}
