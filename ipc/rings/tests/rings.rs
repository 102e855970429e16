//! Request rings and byte rings: both ends against a model, and either end against a peer that writes garbage.

use std::collections::VecDeque;

use proptest::prelude::*;
use xen_rings::byte_ring::{ByteConsumer, ByteProducer, ByteRingLayout};
use xen_rings::console::{ConsoleBack, ConsoleFront};
use xen_rings::memory::{CellMemory, SharedMemory};
use xen_rings::ring::{BackRing, FrontRing, Protocol, RingError};

/// Four bytes there, eight back: an entry is eight bytes.
#[derive(Debug)]
enum Toy {}

impl Protocol for Toy {
    type Request = u32;
    type Response = u64;
}

const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;

/// 16 entries: few, so that the ring is often full.
const TOY_BYTES: usize = 64 + 16 * 8;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    PublishRequests,
    Serve,
    PublishResponses,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        2 => Just(Step::PublishRequests),
        4 => Just(Step::Serve),
        2 => Just(Step::PublishResponses),
        4 => Just(Step::Collect),
    ]
}

proptest! {
    /// Every request is answered once, in order, whatever the two ends do in which order; nothing is seen before it is
    /// published; and who sleeps after a final check is woken.
    #[test]
    fn front_and_back_agree_with_a_queue(steps in prop::collection::vec(step(), 0..600)) {
        let mut bytes = vec![0u8; TOY_BYTES];
        let memory = CellMemory::new(&mut bytes);
        let mut front = FrontRing::<Toy, _>::new(memory).unwrap();
        let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
        let (mut next, mut expected) = (0u32, 0u64);
        let (mut pushed, mut visible, mut answered, mut ready) = (0u32, VecDeque::new(), VecDeque::new(), 0u32);
        let (mut back_sleeps, mut front_sleeps) = (false, false);
        for step in steps {
            match step {
                Step::Push => match front.push(&next) {
                    Ok(()) => { next += 1; pushed += 1; }
                    Err(error) => { prop_assert_eq!(error, RingError::Full); prop_assert_eq!(front.free(), 0); }
                },
                Step::PublishRequests => {
                    let wake = front.publish();
                    if pushed > 0 && back_sleeps { prop_assert!(wake); }
                    if wake { back_sleeps = false; }
                    visible.extend(next - pushed..next);
                    pushed = 0;
                }
                Step::Serve => {
                    let request = back.next_request().unwrap();
                    prop_assert_eq!(request, visible.pop_front());
                    match request {
                        Some(request) => {
                            back.push(&u64::from(request)).unwrap();
                            answered.push_back(u64::from(request));
                        }
                        None => {
                            prop_assert_eq!(back.push(&0), Err(RingError::NothingToAnswer));
                            back_sleeps = !back.final_check().unwrap();
                        }
                    }
                }
                Step::PublishResponses => {
                    let wake = back.publish();
                    if answered.len() as u32 > ready && front_sleeps { prop_assert!(wake); }
                    if wake { front_sleeps = false; }
                    ready = answered.len() as u32;
                }
                Step::Collect => {
                    let response = front.next_response().unwrap();
                    if ready > 0 {
                        prop_assert_eq!(response, answered.pop_front());
                        prop_assert_eq!(response, Some(expected));
                        expected += 1;
                        ready -= 1;
                    } else {
                        prop_assert_eq!(response, None);
                        front_sleeps = !front.final_check().unwrap();
                    }
                }
            }
        }
    }

    /// A back end on a page of garbage either refuses it or reads at most a ring full of it.
    #[test]
    fn a_back_end_survives_any_page(page in prop::collection::vec(any::<u8>(), 0..TOY_BYTES * 2), later in any::<u32>()) {
        let mut bytes = page;
        bytes.resize(bytes.len().next_multiple_of(4).max(64), 0);
        let memory = CellMemory::new(&mut bytes);
        let Ok(mut back) = BackRing::<Toy, _>::attach(memory) else { return Ok(()) };
        let mut taken = 0;
        while let Ok(Some(_)) = back.next_request() { taken += 1; }
        prop_assert!(taken <= back.entries());
        memory.store_u32(REQ_PROD, later);
        while let Ok(Some(_)) = back.next_request() { taken += 1; }
        prop_assert!(taken <= back.entries());
        prop_assert_eq!(back.in_flight(), taken);
    }

    /// A front end never takes more responses than it has published requests.
    #[test]
    fn a_front_end_survives_any_producer_index(requests in 0u32..16, index in prop_oneof![0u32..20, any::<u32>()]) {
        let mut bytes = vec![0u8; TOY_BYTES];
        let memory = CellMemory::new(&mut bytes);
        let mut front = FrontRing::<Toy, _>::new(memory).unwrap();
        for request in 0..requests { front.push(&request).unwrap(); }
        let _ = front.publish();
        memory.store_u32(RSP_PROD, index);
        if index <= requests {
            prop_assert_eq!(front.unconsumed(), Ok(index));
        } else {
            let dead = Err(RingError::Overrun { producer: index, consumer: 0, allowed: requests });
            prop_assert_eq!(front.unconsumed(), dead);
            memory.store_u32(RSP_PROD, 0);
            prop_assert_eq!(front.unconsumed(), dead);
            prop_assert!(front.push(&0).is_err());
        }
    }

    /// A byte ring is a bounded queue of bytes.
    #[test]
    fn byte_rings_agree_with_a_queue(
        start in any::<u32>(),
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..100),
    ) {
        let layout = ByteRingLayout { data: 0, size: 32, cons: 32, prod: 36 };
        let mut bytes = vec![0u8; 40];
        let memory = CellMemory::new(&mut bytes);
        memory.store_u32(layout.cons, start);
        memory.store_u32(layout.prod, start);
        let mut producer = ByteProducer::attach(&memory, layout).unwrap();
        let mut consumer = ByteConsumer::attach(&memory, layout).unwrap();
        let mut model = VecDeque::<u8>::new();
        for (write, data) in steps {
            if write {
                let written = producer.write(&memory, &data).unwrap();
                prop_assert_eq!(written, data.len().min(32 - model.len()));
                model.extend(&data[..written]);
            } else {
                let mut into = vec![0; data.len()];
                let count = consumer.read(&memory, &mut into).unwrap();
                prop_assert_eq!(count, data.len().min(model.len()));
                prop_assert!(model.drain(..count).eq(into[..count].iter().copied()));
            }
        }
    }

    /// A console server on a page of garbage reads at most a ring full, and so does a domain.
    #[test]
    fn consoles_survive_any_page(indexes in prop::array::uniform4(any::<u32>()), later in prop::array::uniform4(any::<u32>())) {
        let mut bytes = vec![0xa5u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let set = |values: [u32; 4]| {
            for (offset, value) in (3072..).step_by(4).zip(values) { memory.store_u32(offset, value); }
        };
        set(indexes);
        let (back, front) = (ConsoleBack::attach(memory), ConsoleFront::attach(memory));
        set(later);
        let mut into = vec![0; 8192];
        if let Ok(mut back) = back {
            if let Ok(count) = back.read(&mut into) { prop_assert!(count <= 2048); }
            if let Ok(count) = back.write(&[0; 8192]) { prop_assert!(count <= 1024); }
        }
        if let Ok(mut front) = front {
            if let Ok(count) = front.read(&mut into) { prop_assert!(count <= 1024); }
            if let Ok(count) = front.write(&[0; 8192]) { prop_assert!(count <= 2048); }
        }
    }
}

#[test]
fn indexes_wrap() {
    let mut bytes = vec![0u8; TOY_BYTES];
    let memory = CellMemory::new(&mut bytes);
    // A connection that has run for long: the back end goes on behind the last response.
    for offset in [REQ_PROD, RSP_PROD] {
        memory.store_u32(offset, u32::MAX - 3);
    }
    let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
    memory.store_u32(REQ_PROD, 8u32.wrapping_sub(4));
    let mut taken = 0;
    while let Some(_request) = back.next_request().unwrap() {
        back.push(&7).unwrap();
        taken += 1;
    }
    assert_eq!(taken, 8);
    let _ = back.publish();
    assert_eq!(memory.load_u32(RSP_PROD), 4);
}

#[test]
fn a_producer_index_that_moves_back_kills_the_ring() {
    let mut bytes = vec![0u8; TOY_BYTES];
    let memory = CellMemory::new(&mut bytes);
    let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
    memory.store_u32(REQ_PROD, 4);
    for _ in 0..4 {
        assert!(back.next_request().unwrap().is_some());
    }
    memory.store_u32(REQ_PROD, 2);
    let dead = Err(RingError::Overrun { producer: 2, consumer: 4, allowed: 12 });
    assert_eq!(back.next_request(), dead);
    memory.store_u32(REQ_PROD, 5);
    assert_eq!(back.next_request(), dead);
    // What was taken can still be answered: its buffers have to be given back.
    assert_eq!(back.push(&1), Ok(()));
}

#[test]
fn a_ring_of_several_pages_uses_them_all() {
    let mut bytes = vec![0u8; 4 * 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = FrontRing::<Toy, _>::new(memory).unwrap();
    let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
    assert_eq!((front.entries(), back.entries()), (1024, 1024));
    for request in 0..1024 {
        front.push(&request).unwrap();
    }
    assert_eq!(front.push(&0), Err(RingError::Full));
    assert!(front.publish());
    for request in 0..1024 {
        assert_eq!(back.next_request(), Ok(Some(request)));
    }
}

#[test]
fn memory_that_holds_no_entry_is_refused() {
    let mut bytes = vec![0u8; 68];
    let memory = CellMemory::new(&mut bytes);
    assert_eq!(FrontRing::<Toy, _>::new(memory).err(), Some(RingError::TooSmall));
    assert_eq!(BackRing::<Toy, _>::attach(memory).err(), Some(RingError::TooSmall));
    assert_eq!(ConsoleBack::attach(memory).err(), Some(RingError::TooSmall));
}

#[test]
fn an_event_is_sent_only_when_it_was_asked_for() {
    let mut bytes = vec![0u8; TOY_BYTES];
    let memory = CellMemory::new(&mut bytes);
    let mut front = FrontRing::<Toy, _>::new(memory).unwrap();
    let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
    assert!(!front.publish(), "nothing new");
    front.push(&1).unwrap();
    assert!(front.publish(), "the first request wakes the back end");
    front.push(&2).unwrap();
    assert!(!front.publish(), "it is awake");
    while back.next_request().unwrap().is_some() {
        back.push(&0).unwrap();
    }
    assert_eq!(back.final_check(), Ok(false));
    assert!(back.publish() && !back.publish());
    front.push(&3).unwrap();
    front.push(&4).unwrap();
    assert!(front.publish(), "it sleeps");
}

#[test]
fn a_request_more_than_the_ring_holds_is_one_too_many() {
    for (ahead, alive) in [(16, true), (17, false), (u32::MAX, false)] {
        let mut bytes = vec![0u8; TOY_BYTES];
        let memory = CellMemory::new(&mut bytes);
        let mut back = BackRing::<Toy, _>::attach(memory).unwrap();
        memory.store_u32(REQ_PROD, ahead);
        assert_eq!(back.unconsumed().is_ok(), alive);
        assert_eq!(BackRing::<Toy, _>::attach(memory).is_ok(), alive);
    }
}

#[test]
fn a_byte_more_than_the_ring_holds_is_one_too_many() {
    for (ahead, alive) in [(32, true), (33, false), (u32::MAX, false)] {
        let layout = ByteRingLayout { data: 0, size: 32, cons: 32, prod: 36 };
        let mut bytes = vec![0u8; 40];
        let memory = CellMemory::new(&mut bytes);
        let mut consumer = ByteConsumer::attach(&memory, layout).unwrap();
        memory.store_u32(layout.prod, ahead);
        assert_eq!(consumer.waiting(&memory).is_ok(), alive);
        assert_eq!(ByteProducer::attach(&memory, layout).is_ok(), alive);
        memory.store_u32(layout.prod, 1);
        assert_eq!(consumer.waiting(&memory).is_ok(), alive, "a dead ring stays dead");
    }
}
