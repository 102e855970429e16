//! Servers that die at any store to memory, and their successors, against one that never dies.
//!
//! The machine is modelled by its memory: the clients' ring pages and the hand-over region. A death is a moment after
//! which no store of the server reaches memory any more. A successor starts from what is there. What every client gets
//! must be, to the byte, what the server that never dies gives, and so must be the whole state of the engine.

mod common;

use common::Op;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use xen_abi::io::xs_wire as abi;
use xen_abi::io::xs_wire::XsdSockmsg;
use xen_abi::native::{HANDOVER_SELECTOR, HANDOVER_UNUSABLE};
use xen_rings::byte_ring::{ByteConsumer, ByteProducer};
use xen_rings::memory::SharedMemory;
use xen_rings::store::Message;
use xen_rings::store::message::encode_head;
use xen_rings::store::page::{REQUESTS, RESPONSES};
use xenstore::domid::DomId;
use xenstore::engine::Engine;
use xenstore::handover::bytes::Reader;
use xenstore::handover::{Unusable, snapshot};
use xenstore::quota;
use xenstore::service::{NoService, Service, World};

/// xorshift64.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| _ = random.below(2));
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// The stores that a server has left to live.
#[derive(Default)]
struct Life {
    left: Cell<u64>,
    stores: Cell<u64>,
}

impl Life {
    fn renew(&self, stores: u64) {
        self.left.set(stores);
    }

    fn store(&self) -> bool {
        self.stores.set(self.stores.get() + 1);
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left != 0
    }

    fn is_over(&self) -> bool {
        self.left.get() == 0
    }
}

/// Memory as a server sees it; as everybody else does without a life.
#[derive(Clone)]
struct Ram {
    bytes: Rc<Vec<Cell<u8>>>,
    life: Option<Rc<Life>>,
}

impl Ram {
    fn new(bytes: usize) -> Self {
        Ram { bytes: Rc::new(vec![Cell::new(0); bytes]), life: None }
    }

    fn of(&self, life: &Rc<Life>) -> Self {
        Ram { bytes: self.bytes.clone(), life: Some(life.clone()) }
    }

    fn copy(&self) -> Self {
        Ram { bytes: Rc::new(self.bytes.to_vec()), life: None }
    }

    fn lives(&self) -> bool {
        self.life.as_ref().is_none_or(|life| life.store())
    }
}

impl SharedMemory for Ram {
    fn bytes(&self) -> usize {
        self.bytes.len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        if self.lives() {
            self.bytes[offset..][..4].iter().zip(value.to_le_bytes()).for_each(|(to, from)| to.set(from));
        }
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        let cells = &self.bytes[offset..][..into.len()];
        into.iter_mut().zip(cells).for_each(|(to, from)| *to = from.get());
    }
    fn write(&self, offset: usize, from: &[u8]) {
        for (at, word) in (offset..).step_by(8).zip(from.chunks(8)) {
            if self.lives() {
                self.bytes[at..][..word.len()].iter().zip(word).for_each(|(to, from)| to.set(*from));
            }
        }
    }
    fn fence(&self) {}
}

/// The domains, as far as the server sees them.
struct Machine {
    pages: BTreeMap<u16, Ram>,
    life: Rc<Life>,
    woken: BTreeMap<u16, bool>,
    memory_is_short: bool,
}

/// A machine that the server and the test share.
#[derive(Clone)]
struct Shared(Rc<RefCell<Machine>>);

impl World for Shared {
    type Page = Ram;

    fn attach(&mut self, domain: DomId, _port: u32) -> Option<Ram> {
        let machine = self.0.borrow();
        machine.pages.get(&domain.0).map(|page| page.of(&machine.life))
    }
    fn detach(&mut self, _domain: DomId) {}
    fn notify(&mut self, domain: DomId) {
        let mut machine = self.0.borrow_mut();
        if !machine.life.is_over() {
            machine.woken.insert(domain.0, true);
        }
    }
    fn memory_is_short(&self) -> bool {
        self.0.borrow().memory_is_short
    }
    fn say(&mut self, _what: fmt::Arguments<'_>) {}
}

/// A client's side: what it has still to send, and all that it has received.
struct Client {
    page: Ram,
    requests: ByteProducer,
    replies: ByteConsumer,
    outbox: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    fn new(page: &Ram) -> Self {
        let requests = ByteProducer::attach(page, REQUESTS).unwrap();
        let replies = ByteConsumer::attach(page, RESPONSES).unwrap();
        Client { page: page.clone(), requests, replies, outbox: Vec::new(), received: Vec::new() }
    }

    /// Whether all that it has sent was taken by the server.
    fn is_heard(&mut self) -> bool {
        self.outbox.is_empty() && self.requests.free(&self.page) == Ok(abi::XENSTORE_RING_SIZE)
    }

    /// Gives whether the server is told: as Linux does, only when the ring was empty.
    fn push(&mut self, at_most: usize) -> bool {
        let was_empty = self.requests.free(&self.page) == Ok(abi::XENSTORE_RING_SIZE);
        let piece = &self.outbox[..self.outbox.len().min(at_most)];
        let count = self.requests.write(&self.page, piece).unwrap();
        self.outbox.drain(..count);
        was_empty
    }

    /// Gives whether the server is told: as Linux does, only when the ring was full.
    fn pull(&mut self, at_most: usize) -> bool {
        let was_full = self.replies.waiting(&self.page) == Ok(abi::XENSTORE_RING_SIZE);
        let mut piece = vec![0; at_most];
        let count = self.replies.read(&self.page, &mut piece).unwrap();
        self.received.extend(&piece[..count]);
        was_full
    }
}

const QUOTA: usize = 100_000;

/// A machine with a server on it.
struct System {
    machine: Shared,
    clients: BTreeMap<u16, Client>,
    /// What outlives a server; one that never dies needs none.
    region: Option<Ram>,
    service: Option<Service<Shared, Ram>>,
    deaths: u32,
}

impl System {
    fn new(region_bytes: Option<usize>) -> Self {
        let life = Rc::new(Life::default());
        life.renew(u64::MAX);
        let machine = Machine { pages: BTreeMap::new(), life, woken: BTreeMap::new(), memory_is_short: false };
        let machine = Shared(Rc::new(RefCell::new(machine)));
        let region = region_bytes.map(Ram::new);
        let mut system = System { machine, clients: BTreeMap::new(), region, service: None, deaths: 0 };
        CLIENTS.iter().for_each(|domain| system.new_domain(*domain));
        system
    }

    fn life(&self) -> Rc<Life> {
        self.machine.0.borrow().life.clone()
    }

    fn new_domain(&mut self, domain: u16) {
        let page = Ram::new(4096);
        // A ring need not begin at 0, nor stay below the end of its numbers.
        for (at, start) in [(REQUESTS.cons, 0xffff_ff00), (REQUESTS.prod, 0xffff_ff00)] {
            page.store_u32(at, start);
        }
        self.clients.insert(domain, Client::new(&page));
        self.machine.0.borrow_mut().pages.insert(domain, page);
    }

    /// Starts a server, again and again until one lives.
    fn start(&mut self, lives: &mut dyn FnMut() -> u64) {
        while self.service.is_none() {
            let region = self.region.as_ref().map(|region| region.of(&self.life()));
            let started = Service::start(self.machine.clone(), QUOTA, 7, region);
            if self.life().is_over() {
                self.deaths += 1;
                self.life().renew(lives());
            } else {
                match started {
                    Ok(service) => self.service = Some(service),
                    // It ran out of room before it died.
                    Err(NoService::Unusable(Unusable::GivenUp)) => return,
                    Err(why) => panic!("after {} deaths: {why}", self.deaths),
                }
            }
        }
    }

    /// Whether a server of today would have a successor.
    fn goes_on(&self) -> bool {
        self.service.as_ref().is_some_and(Service::hands_over)
    }

    /// Lets the server work until there is nothing to do. Each life has as many stores as `lives` says.
    fn settle(&mut self, told: Option<u16>, lives: &mut dyn FnMut() -> u64) {
        self.start(lives);
        self.service.iter_mut().for_each(|service| told.into_iter().for_each(|told| service.is_ready(DomId(told))));
        while let Some(service) = &mut self.service {
            if service.is_busy() {
                service.turn();
            }
            let is_busy = service.is_busy();
            if self.life().is_over() {
                self.service = None;
                self.deaths += 1;
                self.life().renew(lives());
                self.start(lives);
            } else if !is_busy {
                return self.expect_heard();
            }
        }
    }

    /// Nothing lies about that the server could have taken: nobody might tell it again.
    fn expect_heard(&mut self) {
        let engine = self.service.as_ref().unwrap().engine();
        for (id, client) in &mut self.clients {
            if engine.takes_requests(DomId(*id)) && self.machine.0.borrow().pages.contains_key(id) {
                let free = client.requests.free(&client.page);
                assert_eq!(free, Ok(abi::XENSTORE_RING_SIZE), "domain {id} is not heard");
            }
        }
    }

    fn state(&self) -> Vec<u8> {
        snapshot::to_bytes(self.service.as_ref().unwrap().engine())
    }

    /// The same at this moment, to go on from in another way.
    fn copy(&self) -> Self {
        let machine = self.machine.0.borrow();
        let pages: BTreeMap<u16, Ram> = machine.pages.iter().map(|(id, page)| (*id, page.copy())).collect();
        let clients = self.clients.iter().map(|(id, client)| {
            let page = pages.get(id).cloned().unwrap_or_else(|| client.page.copy());
            let (requests, replies) = (client.requests, client.replies);
            let (outbox, received) = (client.outbox.clone(), client.received.clone());
            (*id, Client { page, requests, replies, outbox, received })
        });
        let clients = clients.collect();
        let life = Rc::new(Life::default());
        life.renew(u64::MAX);
        let (woken, memory_is_short) = (machine.woken.clone(), machine.memory_is_short);
        let machine = Shared(Rc::new(RefCell::new(Machine { pages, life, woken, memory_is_short })));
        let region = self.region.as_ref().map(Ram::copy);
        System { machine, clients, region, service: None, deaths: 0 }
    }

    /// What happens outside the server. Gives who tells it.
    fn act(&mut self, step: &Step) -> Option<u16> {
        match step {
            Step::Send { client, message, piece } => {
                let end = self.clients.get_mut(client).unwrap();
                end.outbox.extend(message);
                return end.push(*piece).then_some(*client);
            }
            Step::Push { client, piece } => {
                return self.clients.get_mut(client).unwrap().push(*piece).then_some(*client);
            }
            Step::Pull { client, piece } => {
                // Who was not told does not look.
                let woken = self.machine.0.borrow().woken.get(client).copied().unwrap_or(false);
                if woken {
                    let client_end = self.clients.get_mut(client).unwrap();
                    let tells = client_end.pull(*piece);
                    let rest = client_end.replies.waiting(&client_end.page).unwrap();
                    self.machine.0.borrow_mut().woken.insert(*client, rest != 0);
                    return tells.then_some(*client);
                }
            }
            Step::Die { domain } => _ = self.machine.0.borrow_mut().pages.remove(domain),
            Step::Build { domain } => self.new_domain(*domain),
            Step::Shortage(short) => self.machine.0.borrow_mut().memory_is_short = *short,
        }
        None
    }
}

/// What happens outside the server.
#[derive(Clone, Debug)]
enum Step {
    /// A client has a request, and puts a piece of it into its ring.
    Send { client: u16, message: Vec<u8>, piece: usize },
    /// It puts more of it there.
    Push { client: u16, piece: usize },
    /// It reads, if it was woken.
    Pull { client: u16, piece: usize },
    /// A domain has died.
    Die { domain: u16 },
    /// Another has its number.
    Build { domain: u16 },
    /// Memory becomes short, or no longer is.
    Shortage(bool),
}

fn message(kind: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = encode_head(kind, 5, transaction, payload.len()).unwrap().to_vec();
    message.extend(payload);
    message
}

/// Chooses what happens next, by what the server that never dies has come to.
struct Script {
    random: Random,
    /// The domain that was replaced and has to be introduced.
    introduce: Option<u16>,
    setup: Vec<(u32, String)>,
}

const CLIENTS: [u16; 4] = [0, 1, 2, 3];

impl Script {
    fn new(seed: u64) -> Self {
        let mut setup = Vec::new();
        for domain in [3, 2, 1] {
            setup.push((abi::XS_SET_PERMS, format!("/local/domain/{domain}\0n{domain}\0r2\0")));
            setup.push((abi::XS_MKDIR, format!("/local/domain/{domain}\0")));
            setup.push((abi::XS_INTRODUCE, format!("{domain}\x000\x0040\0")));
        }
        setup.push((abi::XS_SET_PERMS, "/common\0b0\0".into()));
        setup.push((abi::XS_WRITE, "/common\0x".into()));
        Script { random: Random::new(seed), introduce: None, setup }
    }

    fn next(&mut self, model: &mut System) -> Step {
        let mut client = *self.random.pick(&CLIENTS);
        // While the policy domain has the store to itself only it goes on: what it releases would run in one turn.
        if model.service.as_ref().is_some_and(|service| service.engine().is_held(DomId(1))) {
            client = 0;
        }
        if !self.setup.is_empty() || self.introduce.is_some() {
            client = 0;
        }
        let end = model.clients.get_mut(&client).unwrap();
        let random = &mut self.random;
        let pieces = [1, 7, 16, 100, 1024, 4096];
        if !end.outbox.is_empty() && random.below(3) != 0 {
            return Step::Push { client, piece: *random.pick(&pieces) };
        }
        if !end.is_heard() || random.below(3) == 0 {
            return Step::Pull { client, piece: *random.pick(&pieces) };
        }
        let piece = *random.pick(&[3, 20, 4096, 4096, 4096]);
        if let Some((kind, payload)) = self.setup.pop() {
            let domain = payload.as_bytes()[0].wrapping_sub(b'0');
            if kind == abi::XS_INTRODUCE && !model.machine.0.borrow().pages.contains_key(&domain.into()) {
                self.setup.push((kind, payload));
                return Step::Build { domain: domain.into() };
            }
            return Step::Send { client, message: message(kind, 0, payload.as_bytes()), piece: 4096 };
        }
        if let Some(domain) = self.introduce.take() {
            self.setup.push((abi::XS_SET_PERMS, format!("/local/domain/{domain}\0n{domain}\0")));
            self.setup.push((abi::XS_MKDIR, format!("/local/domain/{domain}\0")));
            self.setup.push((abi::XS_INTRODUCE, format!("{domain}\x000\x0041\0")));
            let payload = format!("{domain}\0");
            return Step::Send { client: 0, message: message(abi::XS_RELEASE, 0, payload.as_bytes()), piece: 4096 };
        }
        match random.below(60) {
            0 => return Step::Shortage(random.below(2) == 0),
            1 if random.below(3) == 0 => {
                self.introduce = Some(3);
                return Step::Die { domain: 3 };
            }
            2 if client == 3 => {
                let mut bad = message(abi::XS_READ, 0, b"");
                bad[12..16].copy_from_slice(&5000_u32.to_le_bytes());
                return Step::Send { client, message: bad, piece };
            }
            _ => {}
        }
        let names = ["a", "b", "a/b", "a/b/c", "d", "/common", "/common/x", "/common/x/y", "/local/domain/2/a", "/"];
        let name = *random.pick(&names);
        let long = if random.below(12) == 0 { random.below(3000) as usize } else { random.below(40) as usize };
        let value = "v".repeat(long);
        let transaction = if random.below(3) == 0 { 1 + random.below(4) as u32 } else { 0 };
        let token = random.below(3);
        let (kind, payload) = match random.below(24) {
            0..=7 => (abi::XS_WRITE, format!("{name}\0{value}")),
            8 => (abi::XS_MKDIR, format!("{name}\0")),
            9 => (abi::XS_RM, format!("{name}\0")),
            10 => (abi::XS_READ, format!("{name}\0")),
            11 => (abi::XS_DIRECTORY, format!("{name}\0")),
            12 => (abi::XS_DIRECTORY_PART, format!("{name}\x000\0")),
            13 => (abi::XS_SET_PERMS, format!("{name}\0b{client}\0r{}\0", token + 1)),
            14..=16 => (abi::XS_WATCH, format!("{name}\0token{token}\0")),
            17 => (abi::XS_UNWATCH, format!("{name}\0token{token}\0")),
            18..=19 => (abi::XS_TRANSACTION_START, "\0".into()),
            20..=21 => (abi::XS_TRANSACTION_END, if random.below(4) == 0 { "F\0" } else { "T\0" }.into()),
            22 => (*random.pick(&[abi::XS_RESET_WATCHES, abi::XS_GET_PERMS, 77]), format!("{name}\0")),
            _ if client == 0 => (*random.pick(&[abi::XS_CONTROL, abi::XS_WATCH]), {
                if random.below(2) == 0 { "memory\0".into() } else { format!("@releaseDomain\0t{token}\0") }
            }),
            _ => (abi::XS_GET_DOMAIN_PATH, "3\0".into()),
        };
        let transaction = if kind == abi::XS_TRANSACTION_START { 0 } else { transaction };
        Step::Send { client, message: message(kind, transaction, payload.as_bytes()), piece }
    }
}

#[track_caller]
fn expect_same(system: &System, model: &System, what: &dyn fmt::Debug) {
    for (id, client) in &model.clients {
        let theirs = &system.clients[id].received;
        assert!(client.received == *theirs, "domain {id} received other bytes, after {what:?}");
    }
    // That a client's ring is gone a successor learns before it is told.
    if model.machine.0.borrow().pages.len() != model.clients.len() {
        return;
    }
    assert!(system.state() == model.state(), "the states differ after {what:?}, {} deaths", system.deaths);
}

/// A region with room for all that a script does.
const REGION: usize = 2 * 40_000;
/// Regions so small that a new snapshot is written every now and then, until one does not fit.
const SMALL: [usize; 3] = [2 * 9_000, 2 * 12_000, 2 * 16_000];

/// Deaths, and snapshots that were written.
fn run(seed: u64, steps: usize, mean_life: u64) -> (u32, u32) {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut script = Script::new(seed);
    let region = SMALL[seed as usize % SMALL.len()];
    let (mut model, mut system) = (System::new(None), System::new(Some(region)));
    let (mut snapshots, mut selector) = (0, 0);
    for number in 0..steps {
        let step = script.next(&mut model);
        let told = model.act(&step);
        model.settle(told, &mut || u64::MAX);
        let told = system.act(&step);
        // A request of which three servers have died is not begun a fourth time: so the third lives long enough.
        let mut born = random.below(3);
        let mut lives = || {
            born += 1;
            if born.is_multiple_of(3) { 6000 } else { 1 + random.below(2 * mean_life) }
        };
        system.life().renew(lives());
        system.settle(told, &mut lives);
        if !system.goes_on() {
            break;
        }
        expect_same(&system, &model, &(seed, number, &step));
        let now = system.region.as_ref().unwrap().load_u32(HANDOVER_SELECTOR);
        snapshots += u32::from(now != selector);
        selector = now;
    }
    (system.deaths, snapshots)
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("BULKHEAD_SEED").unwrap_or(0);
    first..first + number("BULKHEAD_SEEDS").unwrap_or(default)
}

#[test]
fn nobody_notices_servers_that_die_at_random_stores() {
    let (mut deaths, mut snapshots) = (0, 0);
    for seed in seeds(1000) {
        let (died, written) = run(seed, 400, [20, 40, 80, 800][seed as usize % 4]);
        (deaths, snapshots) = (deaths + died, snapshots + written);
    }
    let seeds = seeds(1000).count() as u32;
    assert!(deaths > 5 * seeds && snapshots > 2 * seeds, "only {deaths} deaths and {snapshots} snapshots");
    println!("{deaths} deaths, {snapshots} snapshots, {seeds} seeds");
}

/// At each store of each step, one death; the successor finishes the step.
#[test]
fn nobody_notices_a_death_at_any_store_whatever() {
    let mut deaths = 0;
    for seed in seeds(3) {
        let mut script = Script::new(seed + 1000);
        let (mut model, mut system) = (System::new(None), System::new(Some(REGION)));
        for number in 0..90 {
            let step = script.next(&mut model);
            let before = system.copy();
            let told = model.act(&step);
            model.settle(told, &mut || u64::MAX);
            let stores = system.life().stores.get();
            let told = system.act(&step);
            system.settle(told, &mut || u64::MAX);
            let stores = system.life().stores.get() - stores;
            expect_same(&system, &model, &(seed, number, &step));
            // From the same moment, with a server that goes on living, and one that dies after so many stores.
            for life in 0..stores {
                let mut other = before.copy();
                let told = other.act(&step);
                other.start(&mut || u64::MAX);
                other.life().renew(life);
                other.settle(told, &mut || u64::MAX);
                expect_same(&other, &model, &(seed, number, life, &step));
                deaths += other.deaths;
            }
        }
    }
    assert!(deaths > 1000, "only {deaths} deaths");
}

#[test]
fn a_request_that_no_server_survives_costs_its_client_and_nobody_else() {
    let mut system = System::new(Some(REGION));
    let mut forever = || u64::MAX;
    let send =
        |client, kind, payload: &str| Step::Send { client, message: message(kind, 0, payload.as_bytes()), piece: 4096 };
    for step in [send(0, abi::XS_INTRODUCE, "1\x000\x0040\0"), send(0, abi::XS_INTRODUCE, "2\x000\x0041\0")] {
        let told = system.act(&step);
        system.settle(told, &mut forever);
    }
    // It dies as soon as it has said that it begins.
    let poison = send(1, abi::XS_GET_DOMAIN_PATH, "1\0");
    system.act(&poison);
    for death in 1..=3 {
        system.start(&mut forever);
        system.life().renew(if death == 1 { 3 } else { 2 });
        let service = system.service.as_mut().unwrap();
        service.is_ready(DomId(1));
        service.turn();
        assert!(!service.engine().is_cut_off(DomId(1)));
        assert!(system.life().is_over());
        system.service = None;
        system.life().renew(u64::MAX);
    }
    system.settle(Some(1), &mut forever);
    assert!(system.service.as_ref().unwrap().engine().is_cut_off(DomId(1)));
    let told = system.act(&send(2, abi::XS_GET_DOMAIN_PATH, "2\0"));
    system.settle(told, &mut forever);
    system.act(&Step::Pull { client: 2, piece: 100 });
    assert_eq!(system.clients[&2].received, message_reply(abi::XS_GET_DOMAIN_PATH, b"/local/domain/2\0"));
}

fn message_reply(kind: u32, payload: &[u8]) -> Vec<u8> {
    message(kind, 0, payload)
}

/// A region with a tree, watches, events, transactions and half a request in it.
fn worked(seed: u64) -> System {
    let mut script = Script::new(seed);
    let mut system = System::new(Some(REGION));
    for _ in 0..150 {
        system.start(&mut || u64::MAX);
        let step = script.next(&mut system);
        let told = system.act(&step);
        system.settle(told, &mut || u64::MAX);
    }
    system
}

#[test]
fn what_was_handed_over_and_is_damaged_is_refused_or_understood_and_nothing_panics() {
    let (mut refused, mut taken) = (0, 0);
    for seed in seeds(60) {
        let whole = worked(seed);
        let mut random = Random::new(seed ^ 0xbad);
        for _ in 0..20 {
            let system = whole.copy();
            let region = system.region.as_ref().unwrap();
            let bytes = region.bytes();
            let half = [64, 64 + (bytes - 64) / 2][random.below(2) as usize];
            for _ in 0..=random.below(3) {
                // Heads are the most interesting.
                let limit = *random.pick(&[32, 64, 256, 2000, bytes as u64 / 2 - 64]);
                let start = *random.pick(&[0, half]);
                let at = start + random.below(limit) as usize;
                region.bytes[at.min(bytes - 1)].set(random.below(256) as u8);
            }
            let service = Service::start(system.machine.clone(), QUOTA, 7, Some(region.of(&system.life())));
            match service {
                Ok(mut service) => {
                    taken += 1;
                    (0..20).for_each(|_| service.turn());
                }
                Err(_) => {
                    refused += 1;
                    let selector = region.load_u32(HANDOVER_SELECTOR);
                    assert_eq!(selector, HANDOVER_UNUSABLE, "and it stays so");
                }
            }
        }
    }
    assert!(refused > 100 && taken > 100, "{refused} refused, {taken} taken");
}

/// Snapshots that are damaged and have the right sum nevertheless: what reads them believes nothing.
#[test]
fn a_forged_snapshot_is_refused_or_understood_and_nothing_panics() {
    let (mut refused, mut taken) = (0, 0);
    for seed in seeds(60) {
        let whole = worked(seed);
        let bytes = snapshot::to_bytes(whole.service.as_ref().unwrap().engine());
        let mut random = Random::new(seed ^ 0xf0e);
        for _ in 0..60 {
            let forged = Ram::new(bytes.len().next_multiple_of(8));
            forged.write(0, &bytes);
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                let value = *random.pick(&[0, 1, 2, 3, 0xff, b'/', random.clone().below(256) as u8]);
                forged.bytes[at].set(value);
            }
            let mut reader = Reader::new(&forged, 0, bytes.len());
            let Some(engine) = snapshot::decode(QUOTA, &mut reader) else {
                refused += 1;
                continue;
            };
            taken += 1;
            exercise(engine);
        }
    }
    assert!(refused > 100 && taken > 100, "{refused} refused, {taken} taken");
}

/// Every kind of request on whatever is there.
fn exercise(mut engine: Engine) {
    for client in CLIENTS {
        for transaction in 0..4 {
            for kind in 0..24 {
                for payload in [&b"a\0value\0"[..], b"/common\0", b"/common/x/y\0token0\0", b"T\0", b"3\x000\x0040\0"] {
                    let head = XsdSockmsg { kind, req_id: 1, tx_id: transaction, len: payload.len() as u32 };
                    engine.request(DomId(client), &Message { head, payload }, &mut common::NoRings);
                    engine.fill_with_events(DomId(client));
                    let output = engine.output(DomId(client)).len();
                    engine.output_taken(DomId(client), output);
                }
            }
        }
    }
}

#[test]
fn a_snapshot_says_all() {
    for seed in seeds(60) {
        let system = worked(seed);
        let bytes = system.state();
        let memory = Ram::new(bytes.len().next_multiple_of(8));
        memory.write(0, &bytes);
        let engine = snapshot::decode(QUOTA, &mut Reader::new(&memory, 0, bytes.len())).unwrap();
        assert!(snapshot::to_bytes(&engine) == bytes);
        for client in CLIENTS {
            let original = system.service.as_ref().unwrap().engine();
            assert_eq!(engine.memory_of(DomId(client)), original.memory_of(DomId(client)), "memory of {client}");
            assert_eq!(engine.store().usage(DomId(client)), original.store().usage(DomId(client)));
        }
    }
}

/// Clients that take all that they are given, each in a way of its own, and read nothing: there is room for that, and for
/// the log behind it.
#[test]
fn whatever_the_quotas_allow_can_be_handed_over() {
    let mut largest = 0;
    for seed in seeds(12) {
        let mut random = Random::new(seed);
        let clients = 1 + random.below(4) as u16;
        let bytes = 2 * (192 + 224 * usize::from(clients)) * 1024;
        let quota = quota::memory_handed_over(bytes, clients.into());
        assert_eq!(quota, 128 * 1024);
        let mut server = common::Server::with_quota(clients, quota);
        // What the policy domain writes for each.
        for client in 1..=clients {
            for number in 0..60 {
                let value = "v".repeat(40);
                server.ok(0, Op::Write, &format!("/local/domain/{client}/backend/vbd/7/51712/fact-{number}\0{value}"));
            }
        }
        for client in 1..=clients {
            let style = random.below(4);
            let transactions: Vec<u32> = match style {
                0 => (0..10).map(|_| server.start(client)).collect(),
                _ => vec![0],
            };
            server.ok(client, Op::Watch, "a\0token\0");
            // As long as anything is left.
            let mut refused = 0;
            for number in 0.. {
                let transaction = *random.pick(&transactions);
                let big = "v".repeat(*random.pick(&[0, 100, 1900, 2000]));
                let name = match style {
                    1 => format!("a/{number}"),
                    2 => format!("a/{}/{}", "d/".repeat(random.below(900) as usize), number),
                    _ => format!("a/{}/{number}-{}", number % 7, "n".repeat(random.below(50) as usize)),
                };
                let reply = if style == 3 && random.below(2) == 0 {
                    let token = "t".repeat(random.below(3000) as usize);
                    server.call_in(client, 0, Op::Watch, format!("{name}\0{token}\0").as_bytes())
                } else {
                    server.call_in(client, transaction, Op::Write, format!("{name}\0{big}").as_bytes())
                };
                refused += u32::from(reply.is_err());
                if refused > 40 {
                    break;
                }
            }
            server.events(client);
        }
        // Events that wait, replies that nobody reads.
        for client in 1..=clients {
            for number in 0..400 {
                let path = format!("/local/domain/{client}/a/{number}{}", "x".repeat(200));
                server.ok(0, Op::Write, &format!("{path}\0y"));
                server.ok(0, Op::SetPerms, &format!("{path}\0n{client}\0"));
                server.ok(0, Op::Remove, &format!("{path}\0"));
            }
            server.engine.fill_with_events(DomId(client));
            while server.engine.takes_requests(DomId(client)) {
                server.send(client, Op::Directory, 0, b"a\0");
            }
        }
        let size = snapshot::to_bytes(&server.engine).len() + usize::from(clients) * 4200;
        largest = largest.max(size * 100 / (bytes / 2));
        assert!(size + quota::LOG_LEAST <= bytes / 2, "{size} bytes for {clients} clients, seed {seed}");
    }
    assert!(largest > 40, "nobody was greedy: {largest} %");
}
