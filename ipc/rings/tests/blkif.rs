//! blkif: what a hostile front end may send and a hostile back end may answer; both ends against each other.

mod mortal;

use std::cell::Cell;

use mortal::Mortal;
use proptest::prelude::*;
use xen_abi::io::blkif::*;
use xen_rings::blkif::*;
use xen_rings::memory::{CellMemory, SharedMemory};
use zerocopy::IntoBytes;

const LIMITS: DiskLimits =
    DiskLimits { sectors: 1000, access: Access::ReadWrite, discard: Discard::Plain, indirect_segments: 256 };
const READ_ONLY: DiskLimits = DiskLimits { access: Access::ReadOnly, ..LIMITS };
const RSP_PROD: usize = 8;

fn raw(request: &impl IntoBytesOf) -> RawRequest {
    let mut bytes = [0; BLKIF_ENTRY_BYTES];
    let source = request.bytes();
    bytes[..source.len()].copy_from_slice(source);
    RawRequest::from_bytes(bytes)
}

trait IntoBytesOf {
    fn bytes(&self) -> &[u8];
}
impl<T: IntoBytes + zerocopy::Immutable> IntoBytesOf for T {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

fn transfer(operation: u8, nr_segments: u8, sector_number: u64, segment: (u8, u8)) -> BlkifRequest {
    let one = BlkifRequestSegment { gref: 9, first_sect: segment.0, last_sect: segment.1, pad: 0 };
    BlkifRequest { operation, nr_segments, id: 77, sector_number, seg: [one; 11], ..Default::default() }
}

fn refusal(request: &impl IntoBytesOf, limits: &DiskLimits) -> (Refusal, i16) {
    let refused = check(&raw(request), limits).expect_err("must be refused");
    assert_eq!(refused.response.id, 77);
    (refused.why, refused.response.status)
}

/// Checks a request whose segments do not matter.
fn check(raw: &RawRequest, limits: &DiskLimits) -> Result<CheckedRequest, Refused> {
    check_request(raw, 0, limits, &mut DirectSegments::default())
}

#[test]
fn segments_are_bounded() {
    for count in [0, 12, 255] {
        let request = transfer(BLKIF_OP_READ, count, 0, (0, 7));
        assert_eq!(refusal(&request, &LIMITS), (Refusal::Segments(count.into()), BLKIF_RSP_ERROR));
    }
    for segment in [(0, 8), (5, 4), (255, 255), (8, 8)] {
        let request = transfer(BLKIF_OP_WRITE, 2, 0, segment);
        assert_eq!(refusal(&request, &LIMITS), (Refusal::Segment(0), BLKIF_RSP_ERROR));
    }
}

#[test]
fn transfers_end_with_the_disk() {
    assert!(check(&raw(&transfer(BLKIF_OP_READ, 2, 984, (0, 7))), &LIMITS).is_ok());
    for sector in [985, 1000, u64::MAX, u64::MAX - 15] {
        let request = transfer(BLKIF_OP_READ, 2, sector, (0, 7));
        assert_eq!(refusal(&request, &LIMITS).0, Refusal::Range { sector, sectors: 16 });
    }
}

#[test]
fn a_read_only_disk_refuses_all_that_writes() {
    assert!(check(&raw(&transfer(BLKIF_OP_READ, 1, 0, (0, 7))), &READ_ONLY).is_ok());
    assert_eq!(refusal(&transfer(BLKIF_OP_WRITE, 1, 0, (0, 7)), &READ_ONLY).0, Refusal::ReadOnly);
    assert_eq!(refusal(&transfer(BLKIF_OP_FLUSH_DISKCACHE, 0, 0, (0, 0)), &READ_ONLY).0, Refusal::ReadOnly);
    let discard = BlkifRequestDiscard { operation: BLKIF_OP_DISCARD, id: 77, nr_sectors: 1, ..Default::default() };
    assert_eq!(refusal(&discard, &READ_ONLY).0, Refusal::ReadOnly);
    let indirect = BlkifRequestIndirect {
        operation: BLKIF_OP_INDIRECT,
        indirect_op: BLKIF_OP_WRITE,
        nr_segments: 1,
        id: 77,
        ..Default::default()
    };
    assert_eq!(refusal(&indirect, &READ_ONLY).0, Refusal::ReadOnly);
}

#[test]
fn unknown_operations_are_not_supported() {
    for operation in [BLKIF_OP_WRITE_BARRIER, BLKIF_OP_RESERVED_1, 7, 255] {
        let expected = (Refusal::Operation(operation), BLKIF_RSP_EOPNOTSUPP);
        assert_eq!(refusal(&transfer(operation, 1, 0, (0, 7)), &LIMITS), expected);
    }
}

#[test]
fn discards_lie_on_the_disk_and_are_secure_only_where_the_disk_is() {
    let discard = |flag, sector_number, nr_sectors| BlkifRequestDiscard {
        operation: BLKIF_OP_DISCARD,
        flag,
        id: 77,
        sector_number,
        nr_sectors,
        ..Default::default()
    };
    assert!(check(&raw(&discard(0, 0, 1000)), &LIMITS).is_ok());
    assert!(matches!(refusal(&discard(0, 0, 0), &LIMITS).0, Refusal::Range { .. }));
    assert!(matches!(refusal(&discard(0, 1, 1000), &LIMITS).0, Refusal::Range { .. }));
    assert!(matches!(refusal(&discard(0, u64::MAX, u64::MAX), &LIMITS).0, Refusal::Range { .. }));
    assert_eq!(refusal(&discard(1, 0, 1), &LIMITS).1, BLKIF_RSP_EOPNOTSUPP);
    assert!(check(&raw(&discard(1, 0, 1)), &DiskLimits { discard: Discard::Secure, ..LIMITS }).is_ok());
}

#[test]
fn indirect_requests_name_their_pages_and_answer_with_the_operation_inside() {
    let indirect = |nr_segments| BlkifRequestIndirect {
        operation: BLKIF_OP_INDIRECT,
        indirect_op: BLKIF_OP_READ,
        nr_segments,
        id: 77,
        indirect_grefs: [1, 2, 3, 4, 5, 6, 7, 8],
        ..Default::default()
    };
    assert_eq!(refusal(&indirect(257), &LIMITS).0, Refusal::Segments(257));
    assert_eq!(refusal(&indirect(0), &LIMITS).0, Refusal::Segments(0));
    let all = DiskLimits { indirect_segments: u16::MAX, ..LIMITS };
    assert_eq!(refusal(&indirect(4097), &all).0, Refusal::Segments(4097));
    let none = DiskLimits { indirect_segments: 0, ..LIMITS };
    assert_eq!(refusal(&indirect(1), &none).1, BLKIF_RSP_EOPNOTSUPP);
    for (segments, pages) in [(1, 1), (512, 1), (513, 2), (4096, 8)] {
        let Ok(CheckedRequest::Indirect(request)) = check(&raw(&indirect(segments)), &all) else { panic!() };
        assert_eq!((request.segments(), request.pages().len()), (segments as usize, pages));
        assert_eq!(request.ticket.response(Outcome::Done).operation, BLKIF_OP_READ);
    }
}

#[test]
fn indirect_segments_are_checked_in_the_copy() {
    let request = BlkifRequestIndirect {
        operation: BLKIF_OP_INDIRECT,
        indirect_op: BLKIF_OP_READ,
        nr_segments: 20,
        id: 77,
        sector_number: 840,
        ..Default::default()
    };
    let Ok(CheckedRequest::Indirect(request)) = check(&raw(&request), &LIMITS) else { panic!() };
    let mut page = [0; 4096];
    let mut segments = vec![Segment::page(5); 20];
    assert_eq!(encode_segments(&segments, &mut page), Some(160));
    let mut into = [Segment::default(); 32];
    assert_eq!(request.check_segments(&LIMITS, &page, &mut into).map(<[_]>::len), Ok(20));
    let why = |result: Result<&[Segment], Refused>| result.map(|_| ()).map_err(|refused| refused.why);
    assert_eq!(why(request.check_segments(&LIMITS, &page[..159], &mut into)), Err(Refusal::ShortIndirect));
    assert_eq!(why(request.check_segments(&LIMITS, &page, &mut into[..19])), Err(Refusal::Segments(20)));
    let smaller = DiskLimits { sectors: 999, ..LIMITS };
    let range = Refusal::Range { sector: 840, sectors: 160 };
    assert_eq!(why(request.check_segments(&smaller, &page, &mut into)), Err(range));
    page[19 * 8 + 5] = 8;
    assert_eq!(why(request.check_segments(&LIMITS, &page, &mut into)), Err(Refusal::Segment(19)));
    segments.truncate(0);
    assert_eq!(encode_segments(&segments, &mut []), Some(0));
    assert_eq!(encode_segments(&[Segment::page(1)], &mut [0; 7]), None);
}

/// Memory whose peer changes every byte right after it has been read once.
struct Flipping<'a>(CellMemory<'a>, &'a Cell<usize>);

impl SharedMemory for Flipping<'_> {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.0.load_u32(offset)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.0.store_u32(offset, value);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.0.read(offset, into);
        self.1.set(self.1.get() + 1);
        self.0.write(offset, &vec![0xff; into.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.write(offset, from);
    }
    fn fence(&self) {}
}

#[test]
fn a_request_is_read_from_the_ring_exactly_once() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let reads = Cell::new(0);
    let mut front = BlkFront::<_>::new(memory).unwrap();
    let mut back = BlkBack::attach(Flipping(memory, &reads), LIMITS).unwrap();
    front.transfer(Direction::Write, 3, &[Segment::new(5, 1, 2).unwrap()]).unwrap();
    assert!(front.publish());
    let mut direct = DirectSegments::default();
    let Ok(Some(Ok(CheckedRequest::Transfer(request)))) = back.next_request(&mut direct) else { panic!() };
    assert_eq!((reads.get(), request.sector, request.segments(&direct)), (1, 3, &[Segment::new(5, 1, 2).unwrap()][..]));
}

#[test]
fn a_back_end_that_answers_twice_or_wrongly_is_given_up() {
    let attempt = |answers: &[BlkifResponse]| {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = BlkFront::<_>::new(memory).unwrap();
        for _ in 0..4 {
            front.transfer(Direction::Read, 0, &[Segment::page(1)]).unwrap();
        }
        let _ = front.publish();
        for (index, answer) in answers.iter().enumerate() {
            memory.write(64 + index * BLKIF_ENTRY_BYTES, answer.as_bytes());
        }
        memory.store_u32(RSP_PROD, answers.len() as u32);
        let mut last = Ok(None);
        for _ in answers {
            last = front.next_completion();
        }
        assert_eq!(last.is_err(), front.flush().is_err(), "a broken connection stays broken");
        last.err()
    };
    // Front ends number from the last slot down; the first four ids have generation 1.
    let id = |slot: u64| 1 << 32 | slot;
    let good = BlkifResponse { id: id(31), operation: BLKIF_OP_READ, ..Default::default() };
    assert_eq!(attempt(&[good]), None);
    assert_eq!(attempt(&[good, good]), Some(BlkFrontError::UnknownId(good.id)));
    for bad in [id(0), id(32), id(65535), id(65536 + 31), 31, 2 << 32 | 31, u64::MAX] {
        assert_eq!(attempt(&[BlkifResponse { id: bad, ..good }]), Some(BlkFrontError::UnknownId(bad)));
    }
    let wrong = BlkFrontError::WrongOperation { sent: BLKIF_OP_READ, answered: BLKIF_OP_WRITE };
    assert_eq!(attempt(&[BlkifResponse { operation: BLKIF_OP_WRITE, ..good }]), Some(wrong));
    assert_eq!(attempt(&[BlkifResponse { status: 1, ..good }]), Some(BlkFrontError::BadStatus(1)));
    assert_eq!(attempt(&[BlkifResponse { status: -3, ..good }]), Some(BlkFrontError::BadStatus(-3)));
}

#[test]
fn responses_are_initialised_to_the_last_byte() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = BlkFront::<_>::new(memory).unwrap();
    let mut back = BlkBack::attach(memory, LIMITS).unwrap();
    front.flush().unwrap();
    let _ = front.publish();
    let Ok(Some(Ok(CheckedRequest::Flush(ticket)))) = back.next_request(&mut DirectSegments::default()) else {
        panic!()
    };
    memory.write(64, &[0xee; 16]);
    back.answer(ticket, Outcome::Done).unwrap();
    let mut response = [0xee; 16];
    memory.read(64, &mut response);
    let expected = BlkifResponse { id: ticket.id(), operation: BLKIF_OP_FLUSH_DISKCACHE, ..Default::default() };
    assert_eq!(&response, expected.as_bytes());
}

/// Takes all that waits in a ring: tickets and sectors.
fn take_all<M: SharedMemory>(back: &mut BlkBack<M>, taken: &mut Vec<(Ticket, u64)>) {
    while let Some(request) = back.next_request(&mut DirectSegments::default()).unwrap() {
        let CheckedRequest::Transfer(request) = request.unwrap() else { panic!() };
        taken.push((request.ticket, request.sector));
    }
}

#[test]
fn an_answer_before_its_turn_is_held_and_a_second_one_is_refused() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = BlkFront::<_>::new(memory).unwrap();
    let mut back = BlkBack::attach(memory, LIMITS).unwrap();
    let requests: Vec<_> =
        (0..3).map(|sector| front.transfer(Direction::Read, sector, &[Segment::page(1)]).unwrap()).collect();
    let _ = front.publish();
    let mut taken = Vec::new();
    take_all(&mut back, &mut taken);
    back.answer(taken[2].0, Outcome::Failed).unwrap();
    back.answer(taken[1].0, Outcome::Done).unwrap();
    let _ = back.publish();
    assert_eq!(front.next_completion(), Ok(None));
    back.answer(taken[0].0, Outcome::Done).unwrap();
    for (request, outcome) in requests.into_iter().zip([Outcome::Done, Outcome::Done, Outcome::Failed]) {
        assert_eq!(front.next_completion(), Ok(Some(Completion { request, outcome })));
    }
    assert_eq!(back.answer(taken[1].0, Outcome::Done), Err(xen_rings::ring::RingError::NothingToAnswer));
}

proptest! {
    /// A back end dies between any two stores, with answers given in any order. Its successor goes on in the same ring, of
    /// which the front end notices nothing: each of its requests is answered once, and those that were not are asked for
    /// again, in order and unchanged.
    #[test]
    fn a_successor_finds_every_request_without_an_answer(
        lives in prop::collection::vec((1u32..80, prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..60)), 1..20),
    ) {
        let mut bytes = vec![0u8; 4096];
        let (memory, left) = (CellMemory::new(&mut bytes), Cell::new(u32::MAX));
        let mut front = BlkFront::<_>::new(memory).unwrap();
        let mut back = BlkBack::attach(Mortal(memory, &left), LIMITS).unwrap();
        let (mut next_sector, mut waiting) = (0, std::collections::VecDeque::new());
        for (stores, steps) in lives {
            left.set(stores);
            let mut taken = Vec::new();
            take_all(&mut back, &mut taken);
            prop_assert_eq!(taken.iter().map(|(_, sector)| *sector).collect::<Vec<_>>(),
                waiting.iter().map(|(_, sector)| *sector).collect::<Vec<_>>());
            for (step, which) in steps {
                match step {
                    0 => while front.free() > 0 {
                        let request = front.transfer(Direction::Write, next_sector, &[Segment::page(7)]).unwrap();
                        waiting.push_back((request, next_sector));
                        next_sector += 1;
                        if which.index(3) == 0 { break }
                    },
                    1 => take_all(&mut back, &mut taken),
                    2 if !taken.is_empty() => {
                        let (ticket, _) = taken.swap_remove(which.index(taken.len()));
                        back.answer(ticket, Outcome::Done).unwrap();
                    }
                    _ => _ = back.publish(),
                }
                let _ = front.publish();
                if left.get() == 0 { break }
            }
            while let Some(done) = front.next_completion().unwrap() {
                prop_assert_eq!((done.outcome, waiting.pop_front().map(|(request, _)| request)), (Outcome::Done, Some(done.request)));
            }
            left.set(u32::MAX);
            back = BlkBack::adopt(Mortal(memory, &left), LIMITS).unwrap();
        }
        let mut taken = Vec::new();
        take_all(&mut back, &mut taken);
        for (ticket, _) in taken.into_iter().rev() {
            back.answer(ticket, Outcome::Done).unwrap();
        }
        while let Some(done) = front.next_completion().unwrap() {
            prop_assert_eq!(waiting.pop_front().map(|(request, _)| request), Some(done.request));
        }
        prop_assert_eq!((front.in_flight(), waiting.len()), (0, 0));
    }

    /// Whatever a front end left in its page for a successor: it is refused, or is requests like others.
    #[test]
    fn a_successor_survives_any_page(garbage in prop::collection::vec(any::<u8>(), 4096), indices in any::<[u8; 3]>()) {
        let mut bytes = garbage;
        let memory = CellMemory::new(&mut bytes);
        for (offset, index) in [0, RSP_PROD, 16].into_iter().zip(indices) {
            memory.store_u32(offset, u32::from(index % 48));
        }
        if let Ok(mut back) = BlkBack::adopt(memory, LIMITS) {
            let mut taken = 0;
            while let Ok(Some(_)) = back.next_request(&mut DirectSegments::default()) { taken += 1; }
            prop_assert!(taken <= 32);
        }
    }

    /// Whatever bytes a request has: no panic, and what is let through is within the limits.
    #[test]
    fn checked_requests_are_within_the_limits(
        bytes in prop::array::uniform32(any::<[u8; 4]>()),
        operation in 0u8..8,
        nr_segments in 0u8..14,
        sector in prop_oneof![0u64..1100, any::<u64>()],
        small in any::<bool>(),
        read_only in any::<bool>(),
    ) {
        let mut flat = [0; BLKIF_ENTRY_BYTES];
        flat.copy_from_slice(&bytes.concat()[..BLKIF_ENTRY_BYTES]);
        flat[0] = operation;
        flat[1] = nr_segments;
        flat[16..24].copy_from_slice(&sector.to_le_bytes());
        if small {
            for segment in flat[24..].chunks_exact_mut(8) { segment[4] %= 8; segment[5] %= 10; }
        }
        let limits = if read_only { READ_ONLY } else { LIMITS };
        let mut direct = DirectSegments::default();
        match check_request(&RawRequest::from_bytes(flat), 0, &limits, &mut direct) {
            Ok(CheckedRequest::Transfer(request)) => {
                prop_assert!(!read_only || request.direction == Direction::Read);
                prop_assert!((1..=11).contains(&request.segments(&direct).len()));
                let sectors: u64 = request.segments(&direct).iter().map(|segment| segment.sectors()).sum();
                prop_assert!(request.sector <= 1000 && request.sector + sectors <= 1000);
                for segment in request.segments(&direct) {
                    prop_assert!(segment.offset() + segment.bytes() <= 4096 && segment.bytes() >= 512);
                }
            }
            Ok(CheckedRequest::Indirect(request)) => {
                prop_assert!(!read_only || request.direction == Direction::Read);
                prop_assert!((1..=256).contains(&request.segments()) && request.pages().len() == 1);
                let mut into = [Segment::default(); 256];
                let _ = request.check_segments(&limits, &flat, &mut into);
            }
            Ok(CheckedRequest::Flush(_)) => prop_assert!(!read_only),
            Ok(CheckedRequest::Discard { sector, sectors, secure, .. }) => {
                prop_assert!(!read_only && !secure && sectors > 0);
                prop_assert!(sector.checked_add(sectors).is_some_and(|end| end <= 1000));
            }
            Err(refused) => prop_assert!(refused.response.status < 0),
        }
    }

    /// What a front end asks is what a back end gets, and each request ends once with the outcome it was given.
    #[test]
    fn front_and_back_understand_each_other(script in prop::collection::vec((any::<bool>(), 0u64..900, 1usize..12, 0u8..3), 1..200)) {
        let mut bytes = vec![0u8; 2 * 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = BlkFront::<_, 48>::new(memory).unwrap();
        let mut back = BlkBack::attach(memory, LIMITS).unwrap();
        let mut expected = std::collections::HashMap::new();
        for (write, sector, count, outcome) in script {
            let direction = if write { Direction::Write } else { Direction::Read };
            let segments: Vec<_> = (0..count).map(|index| Segment::new(index as u32, 0, (index % 8) as u8).unwrap()).collect();
            let outcome = [Outcome::Done, Outcome::Failed, Outcome::NotSupported][outcome as usize];
            if front.free() == 0 {
                prop_assert_eq!(front.transfer(direction, sector, &segments), Err(BlkFrontError::Busy));
            } else {
                let request = front.transfer(direction, sector, &segments).unwrap();
                prop_assert!(request.slot() < 48);
                expected.insert(request, outcome);
                let _ = front.publish();
                let mut direct = DirectSegments::default();
                let Ok(Some(Ok(CheckedRequest::Transfer(got)))) = back.next_request(&mut direct) else { panic!() };
                prop_assert_eq!((got.direction, got.sector, got.segments(&direct)), (direction, sector, &segments[..]));
                back.answer(got.ticket, outcome).unwrap();
            }
            if sector % 3 == 0 {
                let _ = back.publish();
                while let Some(done) = front.next_completion().unwrap() {
                    prop_assert_eq!(expected.remove(&done.request), Some(done.outcome));
                }
            }
            prop_assert_eq!(front.in_flight(), expected.len());
        }
    }

    /// Back ends die at any moment, also between an answer and its being shown. Each that takes over is asked for what has
    /// no answer yet, in order and unchanged; each request is answered once in the end.
    #[test]
    fn what_a_dead_back_end_left_unanswered_is_asked_again(script in prop::collection::vec((0u8..4, 0u64..900), 1..200)) {
        let mut pages = vec![[0u8; 4096]; script.len() + 1];
        let mut pages = pages.iter_mut().map(|page| CellMemory::new(page));
        let memory = pages.next().unwrap();
        let mut front = BlkFront::<_>::new(memory).unwrap();
        let mut back = BlkBack::attach(memory, LIMITS).unwrap();
        let (mut waiting, mut taken) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
        for (step, sector) in script.into_iter().chain([(3, 0), (1, 0)]) {
            match step {
                0 if front.free() > 0 => {
                    waiting.push_back((front.transfer(Direction::Write, sector, &[Segment::page(7)]).unwrap(), sector));
                    let _ = front.publish();
                }
                1 => {
                    while let Some(request) = back.next_request(&mut DirectSegments::default()).unwrap() {
                        let CheckedRequest::Transfer(request) = request.unwrap() else { panic!() };
                        taken.push_back((request.ticket, request.sector));
                    }
                    let all: Vec<_> = waiting.iter().map(|(_, sector)| *sector).collect();
                    prop_assert_eq!(taken.iter().map(|(_, sector)| *sector).collect::<Vec<_>>(), all);
                }
                2 => {
                    if let Some((ticket, _)) = taken.pop_front() {
                        back.answer(ticket, Outcome::Done).unwrap();
                        let _ = back.publish();
                        let (request, _) = waiting.pop_front().unwrap();
                        let done = front.next_completion().unwrap().unwrap();
                        prop_assert_eq!((done.request, done.outcome), (request, Outcome::Done));
                    }
                }
                _ => {
                    // Answered, and not shown: nobody knows.
                    if let Some((ticket, _)) = taken.front() {
                        back.answer(*ticket, Outcome::Failed).unwrap();
                    }
                    front.suspend();
                    prop_assert_eq!(front.next_completion(), Ok(None));
                    let memory = pages.next().unwrap_or(memory);
                    front.resume(BlkFront::new(memory).unwrap()).unwrap();
                    back = BlkBack::attach(memory, LIMITS).unwrap();
                    let _ = front.publish();
                    taken.clear();
                }
            }
        }
        prop_assert_eq!(taken.len(), front.in_flight());
    }

    /// A front end on garbage from its back end: no panic, no more completions than requests.
    #[test]
    fn a_front_end_survives_any_answer(garbage in prop::collection::vec(any::<u8>(), 4096 - 64), index in 0u32..40) {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = BlkFront::<_>::new(memory).unwrap();
        for _ in 0..16 { front.flush().unwrap(); }
        let _ = front.publish();
        memory.write(64, &garbage);
        memory.store_u32(RSP_PROD, index);
        let mut done = 0;
        while let Ok(Some(_)) = front.next_completion() { done += 1; }
        prop_assert!(done <= 16);
    }
}
