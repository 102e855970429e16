//! netif: chains of slots from hostile front ends, answers from hostile back ends; both ends against each other.

mod mortal;

use std::cell::Cell;
use std::collections::VecDeque;

use mortal::Mortal;
use proptest::prelude::*;
use xen_abi::io::netif::*;
use xen_rings::memory::{CellMemory, SharedMemory};
use xen_rings::netif::*;
use zerocopy::{FromBytes, IntoBytes};

const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;

fn slot(size: u16, flags: u16, id: u16) -> NetifTxRequest {
    NetifTxRequest { gref: 100 + u32::from(id), offset: 0, flags, id, size }
}

fn extra(kind: u8, flags: u8, u: [u16; 3]) -> Vec<u8> {
    NetifExtraInfo { kind, flags, u }.as_bytes().to_vec()
}

/// What [`TxBack::next_packet`] says, with grant and size of each fragment.
type Received = Result<Option<Result<(TxPacket, Vec<(u32, u16)>), TxFault>>, NetBackError>;

/// What a back end makes of slots, and the answers (id, status) that it has pushed by then.
fn receive(slots: &[Vec<u8>]) -> (Received, Vec<(u16, i16)>) {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut back = TxBack::attach(memory).unwrap();
    for (index, slot) in slots.iter().enumerate() {
        memory.write(64 + index * NETIF_TX_ENTRY_BYTES, slot);
    }
    memory.store_u32(REQ_PROD, slots.len() as u32);
    let result = back.next_packet().map(|packet| {
        packet.map(|packet| {
            packet.map(|packet| {
                let fragments = back.fragments(&packet).iter();
                (packet, fragments.map(|fragment| (fragment.gref(), fragment.bytes())).collect())
            })
        })
    });
    let _ = back.publish();
    let answers = (0..memory.load_u32(RSP_PROD) as usize).map(|index| {
        let mut answer = [0; 4];
        memory.read(64 + index * NETIF_TX_ENTRY_BYTES, &mut answer);
        let answer = NetifTxResponse::read_from_bytes(&answer).unwrap();
        (answer.id, answer.status)
    });
    let answers = answers.collect();
    (result, answers)
}

fn chain(slots: &[NetifTxRequest]) -> Vec<Vec<u8>> {
    slots.iter().map(|slot| slot.as_bytes().to_vec()).collect()
}

fn fault(slots: &[NetifTxRequest]) -> TxFault {
    let (result, answers) = receive(&chain(slots));
    assert_eq!(answers.len(), slots.len(), "every slot of a bad packet is answered at once");
    assert!(answers.iter().all(|&(_, status)| status == NETIF_RSP_ERROR));
    result.unwrap().unwrap().expect_err("must be refused")
}

#[test]
fn the_first_fragment_has_what_the_others_leave() {
    let slots = [slot(1000, NETTXF_MORE_DATA, 1), slot(300, NETTXF_MORE_DATA, 2), slot(200, 0, 3)];
    let (result, answers) = receive(&chain(&slots));
    let (packet, fragments) = result.unwrap().unwrap().unwrap();
    assert!(answers.is_empty());
    assert_eq!((packet.bytes, fragments), (1000, vec![(101, 500), (102, 300), (103, 200)]));
}

#[test]
fn empty_fragments_are_left_out_wherever_they_are() {
    let slots =
        [slot(60, NETTXF_MORE_DATA, 1), slot(0, NETTXF_MORE_DATA, 2), slot(60, NETTXF_MORE_DATA, 3), slot(0, 0, 4)];
    let (result, _) = receive(&chain(&slots));
    let (_, fragments) = result.unwrap().unwrap().unwrap();
    assert_eq!(fragments, vec![(103, 60)]);
}

#[test]
fn bad_chains_are_refused() {
    assert_eq!(fault(&[slot(13, 0, 1)]), TxFault::TooShort(13));
    assert_eq!(fault(&[slot(0, 0, 1)]), TxFault::TooShort(0));
    assert_eq!(fault(&[slot(100, NETTXF_MORE_DATA, 1), slot(101, 0, 2)]), TxFault::FragmentTooLarge);
    assert_eq!(fault(&[slot(4097, 0, 1)]), TxFault::CrossesPage);
    assert_eq!(fault(&[NetifTxRequest { offset: 4095, ..slot(14, 0, 1) }]), TxFault::CrossesPage);
    assert_eq!(fault(&[NetifTxRequest { offset: u16::MAX, ..slot(u16::MAX, 0, 1) }]), TxFault::CrossesPage);
    let second = NetifTxRequest { offset: 4000, ..slot(97, 0, 2) };
    assert_eq!(fault(&[slot(200, NETTXF_MORE_DATA, 1), second]), TxFault::CrossesPage);
}

#[test]
fn long_chains_are_taken_to_their_end_and_refused() {
    for count in [19, 40, 256] {
        let mut slots = vec![slot(1000, NETTXF_MORE_DATA, 0); count];
        for slot in &mut slots[1..] {
            slot.size = 1;
        }
        slots[count - 1].flags = 0;
        assert_eq!(fault(&slots), TxFault::TooManySlots);
    }
}

#[test]
fn incomplete_chains_end_the_connection() {
    let (result, _) = receive(&chain(&[slot(1000, NETTXF_MORE_DATA, 1)]));
    assert_eq!(result.err(), Some(NetBackError::Incomplete));
    let (result, _) = receive(&chain(&[slot(1000, NETTXF_EXTRA_INFO, 1)]));
    assert_eq!(result.err(), Some(NetBackError::Incomplete));
}

#[test]
fn extra_info_is_read_and_answered_without_an_id() {
    let first = slot(1000, NETTXF_EXTRA_INFO | NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED, 7).as_bytes().to_vec();
    let gso = extra(XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_FLAG_MORE, [1448, 1, 0]);
    let hash = extra(XEN_NETIF_EXTRA_TYPE_HASH, 0, [0; 3]);
    let (result, answers) = receive(&[first, gso, hash]);
    let (packet, _) = result.unwrap().unwrap().unwrap();
    assert_eq!(packet.gso, Some(Gso { segment_bytes: 1448, ipv6: false }));
    assert_eq!(packet.checksum, Checksum::Blank);
    assert!(answers.is_empty(), "the packet has not been answered");
}

#[test]
fn bad_extra_info_is_refused() {
    for (kind, u, expected) in [
        (0, [0; 3], TxFault::BadExtra(0)),
        (5, [0; 3], TxFault::BadExtra(5)),
        (255, [0; 3], TxFault::BadExtra(255)),
        (1, [0, 1, 0], TxFault::BadGso(1)),
        (1, [1448, 3, 0], TxFault::BadGso(3)),
        (1, [1448, 0, 0], TxFault::BadGso(0)),
    ] {
        let (result, answers) = receive(&[slot(1000, NETTXF_EXTRA_INFO, 7).as_bytes().to_vec(), extra(kind, 0, u)]);
        assert_eq!(result.unwrap().unwrap().err(), Some(expected));
        assert_eq!((answers.len(), answers[0], answers[1].1), (2, (7, NETIF_RSP_ERROR), NETIF_RSP_NULL));
    }
}

#[test]
fn a_packet_is_told_once_how_it_is_cut() {
    let gso = |flags, bytes| extra(XEN_NETIF_EXTRA_TYPE_GSO, flags, [bytes, 1, 0]);
    let first = || slot(1000, NETTXF_EXTRA_INFO, 7).as_bytes().to_vec();
    let (result, answers) = receive(&[first(), gso(XEN_NETIF_EXTRA_FLAG_MORE, 1448), gso(0, 1)]);
    assert_eq!(result.unwrap().unwrap().err(), Some(TxFault::BadExtra(XEN_NETIF_EXTRA_TYPE_GSO)));
    let statuses: Vec<_> = answers.iter().map(|(_, status)| *status).collect();
    assert_eq!((answers[0].0, statuses), (7, vec![NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_NULL]));
}

#[test]
fn a_chain_of_extra_info_without_an_end_ends_the_connection() {
    let endless = || extra(XEN_NETIF_EXTRA_TYPE_HASH, XEN_NETIF_EXTRA_FLAG_MORE, [0; 3]);
    let mut slots = vec![slot(1000, NETTXF_EXTRA_INFO, 7).as_bytes().to_vec()];
    slots.extend((1..NETIF_TX_RING_ENTRIES).map(|_| endless()));
    assert_eq!(receive(&slots).0.err(), Some(NetBackError::Incomplete));
}

#[test]
fn a_tx_front_end_believes_each_answer_once() {
    let attempt = |answers: &[NetifTxResponse]| {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = TxFront::new(memory).unwrap();
        for gref in 0..3 {
            front.send(&[Fragment::new(gref, 0, 60).unwrap()], Checksum::InPacket).unwrap();
        }
        let _ = front.publish();
        for (index, answer) in answers.iter().enumerate() {
            memory.write(64 + index * NETIF_TX_ENTRY_BYTES, answer.as_bytes());
        }
        memory.store_u32(RSP_PROD, answers.len() as u32);
        answers.iter().find_map(|_| front.next_completion().err())
    };
    let good = NetifTxResponse { id: 0x1ff, status: NETIF_RSP_OKAY };
    assert_eq!(attempt(&[good]), None);
    assert_eq!(attempt(&[good, good]), Some(NetFrontError::UnknownId(0x1ff)));
    for id in [0xff, 0x2ff, 0x100, 0xffff] {
        assert_eq!(attempt(&[NetifTxResponse { id, ..good }]), Some(NetFrontError::UnknownId(id)));
    }
    for status in [1, -3, i16::MAX, i16::MIN] {
        assert_eq!(attempt(&[NetifTxResponse { status, ..good }]), Some(NetFrontError::BadStatus(status)));
    }
}

#[test]
fn an_rx_front_end_refuses_what_it_did_not_ask_for() {
    let attempt = |answer: NetifRxResponse| {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = RxFront::new(memory).unwrap();
        front.post(5).unwrap();
        front.post(6).unwrap();
        let _ = front.publish();
        memory.write(64, answer.as_bytes());
        memory.store_u32(RSP_PROD, 1);
        front.next_piece()
    };
    let good = NetifRxResponse { id: 0, offset: 96, flags: NETRXF_DATA_VALIDATED, status: 4000 };
    let data = RxData { offset: 96, bytes: 4000, checksum: Checksum::Validated, more: More::Last };
    assert_eq!(attempt(good), Ok(Some(RxPiece { gref: 5, data: Some(data) })));
    assert_eq!(attempt(NetifRxResponse { status: -2, ..good }), Ok(Some(RxPiece { gref: 5, data: None })));
    assert_eq!(attempt(NetifRxResponse { id: 1, ..good }), Err(NetFrontError::UnknownId(1)));
    assert_eq!(attempt(NetifRxResponse { status: 4001, ..good }), Err(NetFrontError::OutsidePage));
    assert_eq!(attempt(NetifRxResponse { offset: u16::MAX, ..good }), Err(NetFrontError::OutsidePage));
    assert_eq!(attempt(NetifRxResponse { status: -3, ..good }), Err(NetFrontError::BadStatus(-3)));
    for flags in [NETRXF_EXTRA_INFO, NETRXF_GSO_PREFIX, 1 << 15] {
        assert!(matches!(attempt(NetifRxResponse { flags, ..good }), Err(NetFrontError::Unexpected(_))));
    }
}

#[test]
fn a_large_packet_says_how_it_is_cut_in_a_buffer_of_its_own() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = RxFront::new(memory).unwrap();
    let mut back = RxBack::attach(memory).unwrap();
    (10..13).for_each(|gref| front.post(gref).unwrap());
    let _ = front.publish();
    let [first, extra_place, second] = [(); 3].map(|()| back.next_buffer().unwrap().unwrap());
    let gso = Gso { segment_bytes: 1448, ipv6: false };
    back.deliver_large(first, 4096, extra_place, gso, More::Follows).unwrap();
    back.deliver(second, 0, 904, Checksum::InPacket, More::Last).unwrap();
    let _ = back.publish();
    let mut slots = [[0u8; 8]; 3];
    slots.iter_mut().enumerate().for_each(|(index, slot)| memory.read(64 + 8 * index, slot));
    let flags = NETRXF_EXTRA_INFO | NETRXF_MORE_DATA | NETRXF_CSUM_BLANK | NETRXF_DATA_VALIDATED;
    let [head, info, rest] = slots;
    assert_eq!(NetifRxResponse::read_from_bytes(&head), Ok(NetifRxResponse { id: 0, offset: 0, flags, status: 4096 }));
    assert_eq!(info.to_vec(), extra(XEN_NETIF_EXTRA_TYPE_GSO, 0, [1448, u16::from(XEN_NETIF_GSO_TYPE_TCPV4), 0]));
    assert_eq!(
        NetifRxResponse::read_from_bytes(&rest),
        Ok(NetifRxResponse { id: 2, offset: 0, flags: 0, status: 904 })
    );
    // This front end has not asked for it.
    assert!(matches!(front.next_piece(), Err(NetFrontError::Unexpected(_))));
}

#[test]
fn a_front_end_that_takes_large_packets_gets_an_empty_piece_where_they_say_how_they_are_cut() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = RxFront::new(memory).unwrap().taking(Takes::Large);
    let mut back = RxBack::attach(memory).unwrap();
    (10..16).for_each(|gref| front.post(gref).unwrap());
    let _ = front.publish();
    let mut buffer = || back.next_buffer().unwrap().unwrap();
    let [a, b, c, d, e, f] = [(); 6].map(|()| buffer());
    let gso = Gso { segment_bytes: 1448, ipv6: false };
    back.deliver_large(a, 4096, b, gso, More::Follows).unwrap();
    back.deliver(c, 0, 904, Checksum::InPacket, More::Last).unwrap();
    back.deliver_large(d, 3000, e, gso, More::Last).unwrap();
    back.deliver(f, 0, 60, Checksum::InPacket, More::Last).unwrap();
    let _ = back.publish();
    let piece = |gref, bytes, checksum, more| RxPiece { gref, data: Some(RxData { offset: 0, bytes, checksum, more }) };
    for expected in [
        piece(10, 4096, Checksum::Blank, More::Follows),
        piece(11, 0, Checksum::Blank, More::Follows),
        piece(12, 904, Checksum::InPacket, More::Last),
        piece(13, 3000, Checksum::Blank, More::Follows),
        piece(14, 0, Checksum::Blank, More::Last),
        piece(15, 60, Checksum::InPacket, More::Last),
    ] {
        assert_eq!(front.next_piece(), Ok(Some(expected)));
    }
    assert_eq!(front.next_piece(), Ok(None));
}

#[test]
fn extra_information_that_was_not_asked_for_breaks_the_ring() {
    let flags = NETRXF_EXTRA_INFO | NETRXF_MORE_DATA;
    let first = NetifRxResponse { id: 0, offset: 0, flags, status: 100 };
    let tcp4 = u16::from(XEN_NETIF_GSO_TYPE_TCPV4);
    for (kind, extra_flags, words, good) in [
        (XEN_NETIF_EXTRA_TYPE_GSO, 0, [1448, tcp4, 0], true),
        (XEN_NETIF_EXTRA_TYPE_GSO, 1, [1448, tcp4, 0], false),
        (XEN_NETIF_EXTRA_TYPE_GSO, 0, [0, tcp4, 0], false),
        (XEN_NETIF_EXTRA_TYPE_GSO, 0, [1448, tcp4 + 1, 0], false),
        (XEN_NETIF_EXTRA_TYPE_GSO + 1, 0, [1448, tcp4, 0], false),
        (0, 0, [1448, tcp4, 0], false),
    ] {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = RxFront::new(memory).unwrap().taking(Takes::Large);
        (0..4).for_each(|gref| front.post(gref).unwrap());
        let _ = front.publish();
        memory.write(64, first.as_bytes());
        memory.write(72, &extra(kind, extra_flags, words));
        // In the middle of a packet there is none.
        memory.write(80, NetifRxResponse { id: 2, ..first }.as_bytes());
        memory.store_u32(RSP_PROD, 3);
        assert!(front.next_piece().unwrap().is_some());
        assert_eq!(front.next_piece().is_ok(), good, "{kind} {extra_flags} {words:?}");
        assert!(matches!(front.next_piece(), Err(NetFrontError::Unexpected(_))));
    }
}

#[test]
fn an_rx_chain_is_bounded() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = RxFront::new(memory).unwrap();
    let mut back = RxBack::attach(memory).unwrap();
    for gref in 0..40 {
        front.post(gref).unwrap();
    }
    let _ = front.publish();
    while let Some(buffer) = back.next_buffer().unwrap() {
        back.deliver(buffer, 0, 100, Checksum::InPacket, More::Follows).unwrap();
    }
    let _ = back.publish();
    for _ in 0..17 {
        assert!(front.next_piece().unwrap().is_some());
    }
    assert_eq!(front.next_piece(), Err(NetFrontError::TooManySlots));
}

#[test]
fn a_back_end_does_not_deliver_outside_the_page() {
    let mut bytes = vec![0u8; 4096];
    let memory = CellMemory::new(&mut bytes);
    let mut front = RxFront::new(memory).unwrap();
    let mut back = RxBack::attach(memory).unwrap();
    front.post(9).unwrap();
    let _ = front.publish();
    let buffer = back.next_buffer().unwrap().unwrap();
    back.deliver(buffer, 4000, 97, Checksum::InPacket, More::Last).unwrap();
    let _ = back.publish();
    assert_eq!(front.next_piece(), Ok(Some(RxPiece { gref: 9, data: None })));
}

/// A front end as Linux has it: it knows its slots by their ids, skips NULL answers, and is done with us at an id that is not
/// open.
struct Sender<'a> {
    memory: CellMemory<'a>,
    req_prod: u32,
    rsp_cons: u32,
    /// Packets without an answer: size, and the ids of the slots that have none.
    open: VecDeque<(u16, Vec<u16>)>,
}

impl Sender<'_> {
    fn put(&mut self, slot: &[u8]) {
        self.memory.write(64 + self.req_prod as usize % 256 * NETIF_TX_ENTRY_BYTES, slot);
        self.req_prod += 1;
    }

    /// Sends a packet, if there is room.
    fn send(&mut self, extras: usize, data: usize) {
        if self.req_prod - self.rsp_cons + (extras + data) as u32 > 256 {
            return;
        }
        let more = |has: bool, flag| if has { flag } else { 0 };
        let (bytes, mut ids) = (1000 + (self.req_prod % 30_000) as u16, vec![]);
        for index in 0..data {
            let id = (self.req_prod % 256) as u16;
            ids.push(id);
            let flags = more(index + 1 < data, NETTXF_MORE_DATA) | more(index == 0 && extras > 0, NETTXF_EXTRA_INFO);
            self.put(slot(if index == 0 { bytes } else { 100 }, flags, id).as_bytes());
            for left in (0..extras).rev().filter(|_| index == 0) {
                let kind = if left == 0 { XEN_NETIF_EXTRA_TYPE_GSO } else { XEN_NETIF_EXTRA_TYPE_HASH };
                self.put(&extra(kind, if left > 0 { XEN_NETIF_EXTRA_FLAG_MORE } else { 0 }, [1448, 1, 0]));
            }
        }
        self.open.push_back((bytes, ids));
        self.memory.store_u32(REQ_PROD, self.req_prod);
    }

    /// Takes all answers.
    fn collect(&mut self) {
        let end = self.memory.load_u32(RSP_PROD);
        assert!(end - self.rsp_cons <= self.req_prod - self.rsp_cons, "more answers than slots");
        while self.rsp_cons != end {
            let mut answer = [0; 4];
            self.memory.read(64 + self.rsp_cons as usize % 256 * NETIF_TX_ENTRY_BYTES, &mut answer);
            let answer = NetifTxResponse::read_from_bytes(&answer).unwrap();
            self.rsp_cons += 1;
            if answer.status == NETIF_RSP_NULL {
                continue;
            }
            let open = self
                .open
                .iter_mut()
                .find_map(|(_, ids)| ids.iter().position(|id| *id == answer.id).map(|at| ids.remove(at)));
            assert_eq!(open, Some(answer.id), "answered, and not open");
        }
        self.open.retain(|(_, ids)| !ids.is_empty());
    }
}

/// Takes all packets that wait.
fn take<M: SharedMemory>(back: &mut TxBack<M>, taken: &mut Vec<TxPacket>) {
    while let Some(packet) = back.next_packet().unwrap() {
        taken.push(packet.unwrap());
    }
}

fn any_slot() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(0), Just(NETTXF_MORE_DATA), Just(NETTXF_EXTRA_INFO), 0u16..16];
    let size = prop_oneof![0u16..100, 0u16..5000, any::<u16>()];
    let offset = prop_oneof![Just(0u16), 0u16..4096, any::<u16>()];
    (flags, size, offset, any::<u32>(), any::<u16>()).prop_map(|(flags, size, offset, gref, id)| {
        NetifTxRequest { gref, offset, flags, id, size }.as_bytes().to_vec()
    })
}

proptest! {
    /// Whatever slots: no panic; a packet's fragments lie in their pages and add up; every slot is answered or counted.
    #[test]
    fn packets_add_up(slots in prop::collection::vec(any_slot(), 0..64)) {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut back = TxBack::attach(memory).unwrap();
        for (index, slot) in slots.iter().enumerate() {
            memory.write(64 + index * NETIF_TX_ENTRY_BYTES, slot);
        }
        memory.store_u32(REQ_PROD, slots.len() as u32);
        loop {
            match back.next_packet() {
                Ok(None) => break,
                Ok(Some(Ok(packet))) => {
                    let sum: u32 = back.fragments(&packet).iter().map(|fragment| u32::from(fragment.bytes())).sum();
                    prop_assert_eq!(sum, u32::from(packet.bytes));
                    prop_assert!(packet.bytes >= ETHERNET_HEADER_BYTES && back.fragments(&packet).len() <= 18);
                    for fragment in back.fragments(&packet) {
                        prop_assert!(fragment.bytes() > 0);
                        prop_assert!(u32::from(fragment.offset()) + u32::from(fragment.bytes()) <= 4096);
                    }
                    back.answer(&packet, TxOutcome::Sent).unwrap();
                }
                Ok(Some(Err(_))) => {}
                Err(error) => {
                    prop_assert_eq!(error, NetBackError::Incomplete);
                    prop_assert_eq!(back.next_packet().err(), Some(NetBackError::Incomplete));
                    return Ok(());
                }
            }
        }
        let _ = back.publish();
        prop_assert_eq!(back.in_flight(), 0);
    }

    /// A back end dies between any two stores, with packets answered in any order, and its successor goes on in the same ring:
    /// the front end has each of its ids answered once, in the end, and packets are told apart as they were sent.
    #[test]
    fn a_successor_answers_each_id_once(
        lives in prop::collection::vec(
            (1u32..60, prop::collection::vec((0u8..4, 0usize..3, 1usize..5, any::<prop::sample::Index>()), 0..40)), 1..20),
    ) {
        let mut bytes = vec![0u8; 4096];
        let (memory, left) = (CellMemory::new(&mut bytes), Cell::new(u32::MAX));
        let mut front = Sender { memory, req_prod: 0, rsp_cons: 0, open: VecDeque::new() };
        let mut back = TxBack::attach(Mortal(memory, &left)).unwrap();
        for (stores, steps) in lives {
            left.set(stores);
            let mut taken = vec![];
            take(&mut back, &mut taken);
            let sizes: Vec<u16> = front.open.iter().map(|(size, _)| *size).collect();
            let got: Vec<u16> = taken.iter().map(|packet| packet.bytes).collect();
            prop_assert!(sizes.ends_with(&got), "{sizes:?} are open, {got:?} taken");
            for (step, extras, data, which) in steps {
                match step {
                    0 => front.send(extras, data),
                    1 => take(&mut back, &mut taken),
                    2 if !taken.is_empty() => {
                        back.answer(&taken.swap_remove(which.index(taken.len())), TxOutcome::Sent).unwrap();
                    }
                    _ => _ = back.publish(),
                }
                if left.get() == 0 { break }
            }
            front.collect();
            left.set(u32::MAX);
            back = TxBack::adopt(Mortal(memory, &left)).unwrap();
            let _ = back.publish();
            front.collect();
        }
        let mut taken = vec![];
        take(&mut back, &mut taken);
        taken.iter().rev().for_each(|packet| back.answer(packet, TxOutcome::Sent).unwrap());
        let _ = back.publish();
        front.collect();
        prop_assert_eq!((front.open.len(), front.rsp_cons), (0, front.req_prod));
    }

    /// The same for buffers: each comes back once, in order, with a packet or without.
    #[test]
    fn a_successor_gives_each_buffer_back_once(
        lives in prop::collection::vec((1u32..40, prop::collection::vec((0u8..3, 1usize..9), 0..30)), 1..20),
    ) {
        let mut bytes = vec![0u8; 4096];
        let (memory, left) = (CellMemory::new(&mut bytes), Cell::new(u32::MAX));
        let mut front = RxFront::new(memory).unwrap();
        let mut back = RxBack::attach(Mortal(memory, &left)).unwrap();
        let (mut posted, mut gref) = (VecDeque::new(), 0);
        for (stores, steps) in lives.into_iter().chain([(u32::MAX, vec![(1, 300), (2, 1)])]) {
            left.set(stores);
            for (step, count) in steps {
                match step {
                    0 => for _ in 0..count.min(front.free()) {
                        front.post(gref).unwrap();
                        posted.push_back(gref);
                        gref += 1;
                    },
                    1 => for _ in 0..count {
                        let Some(buffer) = back.next_buffer().unwrap() else { break };
                        let bytes = (buffer.gref() % 1500) as u16;
                        back.deliver(buffer, 2, bytes, Checksum::InPacket, More::Last).unwrap();
                    },
                    _ => _ = back.publish(),
                }
                let _ = front.publish();
                if left.get() == 0 { break }
            }
            let mut collect = || {
                while let Some(piece) = front.next_piece().unwrap() {
                    prop_assert_eq!(Some(piece.gref), posted.pop_front());
                    prop_assert!(piece.data.is_none_or(|data| data.bytes == (piece.gref % 1500) as u16));
                }
                Ok(())
            };
            collect()?;
            left.set(u32::MAX);
            back = RxBack::adopt(Mortal(memory, &left)).unwrap();
            let _ = back.publish();
            collect()?;
        }
        prop_assert!(posted.is_empty());
    }

    /// Whatever a front end left in its page for a successor: it is refused, or is packets like others.
    #[test]
    fn a_successor_survives_any_page(garbage in prop::collection::vec(any::<u8>(), 4096), indices in any::<[u16; 3]>()) {
        let mut bytes = garbage;
        let memory = CellMemory::new(&mut bytes);
        for (offset, index) in [REQ_PROD, RSP_PROD, 16].into_iter().zip(indices) {
            memory.store_u32(offset, u32::from(index % 300));
        }
        if let Ok(mut back) = TxBack::adopt(memory) {
            let mut taken = 0;
            while let Ok(Some(_)) = back.next_packet() { taken += 1; }
            prop_assert!(taken <= 256);
            let _ = back.publish();
        }
        if let Ok(mut back) = RxBack::adopt(memory) {
            let mut taken = 0;
            while let Ok(Some(_buffer)) = back.next_buffer() { taken += 1; }
            prop_assert!(taken <= 256);
        }
    }

    /// One packet in any fragmentation arrives the same, and every fragment's grant comes back once.
    #[test]
    fn tx_front_and_back_understand_each_other(
        packets in prop::collection::vec(prop::collection::vec(14u16..300, 1..18), 1..60),
    ) {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = TxFront::new(memory).unwrap();
        let mut back = TxBack::attach(memory).unwrap();
        let mut gref = 0;
        for sizes in packets {
            let fragments: Vec<_> = sizes.iter().map(|&size| { gref += 1; Fragment::new(gref, 7, size).unwrap() }).collect();
            front.send(&fragments, Checksum::InPacket).unwrap();
            let _ = front.publish();
            let packet = back.next_packet().unwrap().unwrap().unwrap();
            prop_assert_eq!(back.fragments(&packet), &fragments[..]);
            back.answer(&packet, TxOutcome::Dropped).unwrap();
            let _ = back.publish();
            let mut returned: Vec<_> = fragments.iter().map(|fragment| fragment.gref()).collect();
            while let Some(done) = front.next_completion().unwrap() {
                prop_assert_eq!(done.outcome, TxOutcome::Dropped);
                let place = returned.iter().position(|&gref| gref == done.gref);
                prop_assert!(place.is_some());
                returned.swap_remove(place.unwrap());
            }
            prop_assert!(returned.is_empty());
            prop_assert_eq!(front.free(), 256);
        }
    }

    /// Buffers come back in order with what was put into them.
    #[test]
    fn rx_front_and_back_understand_each_other(script in prop::collection::vec((0usize..9, 0usize..9), 1..200)) {
        let mut bytes = vec![0u8; 4096];
        let memory = CellMemory::new(&mut bytes);
        let mut front = RxFront::new(memory).unwrap();
        let mut back = RxBack::attach(memory).unwrap();
        let (mut posted, mut gref) = (VecDeque::new(), 0);
        for (post, deliver) in script {
            for _ in 0..post.min(front.free()) {
                front.post(gref).unwrap();
                posted.push_back(gref);
                gref += 1;
            }
            let _ = front.publish();
            for _ in 0..deliver {
                let Some(buffer) = back.next_buffer().unwrap() else { break };
                let bytes = (buffer.gref() % 1500) as u16;
                back.deliver(buffer, 2, bytes, Checksum::InPacket, More::Last).unwrap();
            }
            let _ = back.publish();
            while let Some(piece) = front.next_piece().unwrap() {
                prop_assert_eq!(Some(piece.gref), posted.pop_front());
                prop_assert_eq!(piece.data.unwrap().bytes, (piece.gref % 1500) as u16);
            }
        }
    }

    /// Front ends on garbage: no panic, no more completions than requests.
    #[test]
    fn front_ends_survive_any_answer(garbage in prop::collection::vec(any::<u8>(), 4096 - 64), index in 0u32..40) {
        let mut bytes = [vec![0u8; 4096], vec![0u8; 4096]];
        let [tx, rx] = &mut bytes;
        let (tx_memory, rx_memory) = (CellMemory::new(tx), CellMemory::new(rx));
        let mut tx = TxFront::new(tx_memory).unwrap();
        let takes = if index % 2 == 0 { Takes::Large } else { Takes::Frames };
        let mut rx = RxFront::new(rx_memory).unwrap().taking(takes);
        for gref in 0..16 {
            tx.send(&[Fragment::new(gref, 0, 60).unwrap()], Checksum::Blank).unwrap();
            rx.post(gref).unwrap();
        }
        let _ = (tx.publish(), rx.publish());
        for memory in [tx_memory, rx_memory] {
            memory.write(64, &garbage);
            memory.store_u32(RSP_PROD, index);
        }
        let (mut sent, mut received) = (0, 0);
        while let Ok(Some(_)) = tx.next_completion() { sent += 1; }
        while let Ok(Some(piece)) = rx.next_piece() {
            received += 1;
            if let Some(data) = piece.data {
                prop_assert!(u32::from(data.offset) + u32::from(data.bytes) <= 4096);
            }
        }
        prop_assert!(sent <= 16 && received <= 16);
    }
}

#[test]
fn fragments_are_not_empty_and_lie_in_their_page() {
    assert!(Fragment::new(1, 0, 4096).is_some() && Fragment::new(1, 4095, 1).is_some());
    for (offset, bytes) in [(0, 0), (4096, 0), (4096, 1), (1, 4096), (u16::MAX, u16::MAX)] {
        assert_eq!(Fragment::new(1, offset, bytes), None);
    }
}
