//! xenstore's wire: messages through the small ring, garbage, and the bounds.

use proptest::prelude::*;
use xen_abi::io::xs_wire::*;
use xen_rings::memory::{CellMemory, SharedMemory};
use xen_rings::ring::RingError;
use xen_rings::store::message::encode_head;
use xen_rings::store::{Message, MessageReader, Path, Request, StoreClient, StoreServer, WatchEvent, WireError};

const REQ_PROD: usize = 2052;
const ERROR: usize = 2072;

fn message(kind: u32, payload: &[u8]) -> Vec<u8> {
    [&encode_head(kind, 3, 0, payload.len()).unwrap()[..], payload].concat()
}

#[test]
fn a_message_longer_than_the_ring_arrives_in_pieces() {
    let mut page = vec![0u8; 4096];
    let memory = CellMemory::new(&mut page);
    let mut client = StoreClient::attach(memory).unwrap();
    let mut server = StoreServer::attach(memory).unwrap();
    let payload = vec![b'x'; XENSTORE_PAYLOAD_MAX];
    let bytes = message(XS_WRITE, &payload);
    let mut rest = &bytes[..];
    let mut rounds = 0;
    loop {
        let written = client.write(rest).unwrap();
        rest = &rest[written..];
        rounds += 1;
        if let Some(got) = server.next_message().unwrap() {
            assert_eq!((got.head.kind, got.head.req_id, got.payload), (XS_WRITE, 3, &payload[..]));
            break;
        }
    }
    assert_eq!((rounds, rest.len()), (5, 0));
}

#[test]
fn a_message_that_says_it_is_too_long_ends_the_connection() {
    assert_eq!(encode_head(XS_READ, 0, 0, XENSTORE_PAYLOAD_MAX + 1), None);
    for length in [XENSTORE_PAYLOAD_MAX as u32 + 1, u32::MAX] {
        let mut page = vec![0u8; 4096];
        let memory = CellMemory::new(&mut page);
        let mut server = StoreServer::attach(memory).unwrap();
        memory.write(12, &length.to_le_bytes());
        memory.store_u32(REQ_PROD, 16);
        assert_eq!(server.next_message(), Err(WireError::TooLong(length)));
        memory.write(12, &0u32.to_le_bytes());
        memory.store_u32(REQ_PROD, 32);
        assert_eq!(server.next_message(), Err(WireError::TooLong(length)), "there is no way back");
        server.set_error(XENSTORE_ERROR_PROTO);
        assert_eq!(memory.load_u32(ERROR), XENSTORE_ERROR_PROTO);
    }
}

#[test]
fn an_impossible_index_ends_the_connection() {
    let mut page = vec![0u8; 4096];
    let memory = CellMemory::new(&mut page);
    let mut server = StoreServer::attach(memory).unwrap();
    memory.store_u32(REQ_PROD, 1025);
    let overrun = RingError::Overrun { producer: 1025, consumer: 0, allowed: 1024 };
    assert_eq!(server.next_message(), Err(WireError::Ring(overrun)));
}

proptest! {
    /// Messages arrive whole, in order and unchanged, however the stream is cut.
    #[test]
    fn messages_survive_any_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        cuts in prop::collection::vec(1usize..400, 1..50),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| message(XS_WRITE, payload)).collect();
        let (mut sent, mut received) = (0, Vec::new());
        let mut reader = MessageReader::new();
        for cut in cuts.iter().cycle() {
            let end = (sent + cut).min(stream.len());
            let mut piece = &stream[sent..end];
            sent = end;
            while let Some(got) = reader.poll(|into| {
                let count = piece.len().min(into.len());
                into[..count].copy_from_slice(&piece[..count]);
                piece = &piece[count..];
                Ok::<_, WireError>(count)
            }).unwrap() {
                received.push(got.payload.to_vec());
            }
            prop_assert!(piece.is_empty());
            if sent == stream.len() { break; }
        }
        prop_assert_eq!(received, payloads);
    }

    /// A server on a page of garbage: no panic, and its messages are within the bounds.
    #[test]
    fn a_server_survives_any_page(page in prop::collection::vec(any::<u8>(), 2048), indexes in prop::array::uniform4(0u32..3000)) {
        let mut bytes = page;
        bytes.resize(4096, 0);
        let memory = CellMemory::new(&mut bytes);
        let Ok(mut server) = StoreServer::attach(memory) else { panic!("an empty ring is fine") };
        for (offset, index) in (2048..).step_by(4).zip(indexes) { memory.store_u32(offset, index); }
        while let Ok(Some(got)) = server.next_message() {
            prop_assert!(got.payload.len() <= XENSTORE_PAYLOAD_MAX);
            let _ = Request::parse(&got);
        }
    }

    /// Any payload for any type: no panic, names of legal form only, and nothing from outside the payload.
    #[test]
    fn requests_survive_any_payload(
        kind in 0u32..26,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[a-z/@0-9]{0,20}\u{0}[0-9]{0,12}\u{0}[TF]?[0-9]{0,3}\u{0}?".prop_map(String::into_bytes),
        ],
    ) {
        let head = XsdSockmsg { kind, req_id: 0, tx_id: 0, len: payload.len() as u32 };
        let got = Message { head, payload: &payload };
        let _ = WatchEvent::parse(&got);
        let inside = |part: &[u8]| payload.as_ptr_range().contains(&part.as_ptr()) || part.is_empty();
        match Request::parse(&got) {
            Ok(Request::Read(path) | Request::Directory(path) | Request::Mkdir(path) | Request::Rm(path)) => {
                prop_assert!(inside(path.text().as_bytes()));
                prop_assert_eq!(Path::parse(path.text().as_bytes()), Ok(path));
                prop_assert!(!path.text().contains("//"));
            }
            Ok(Request::Write(path, value)) => {
                prop_assert!(inside(value));
                prop_assert_eq!(path.text().len() + 1 + value.len(), payload.len());
            }
            _ => {}
        }
    }
}
