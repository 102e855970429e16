//! Rings and what runs over them, served from a page that the input fills.

use xen_abi::io::blkif::{BLKIF_ENTRY_BYTES, BLKIF_MAX_SEGMENTS_PER_REQUEST};
use xen_abi::io::netif::{NETIF_TX_ENTRY_BYTES, XEN_NETIF_NR_SLOTS_MIN};
use xen_abi::io::ring::SRING_ENTRIES_OFFSET;
use xen_abi::io::xs_wire::XENSTORE_PAYLOAD_MAX;
use xen_rings::blkif::{Access, BlkBack, CheckedRequest, Direction, Discard, DiskLimits, Outcome, Segment};
use xen_rings::memory::{CellMemory, SharedMemory};
use xen_rings::netif::{TxBack, TxOutcome};
use xen_rings::store::message::encode_head;
use xen_rings::store::reply::check_reply;
use xen_rings::store::{Message, MessageReader, Request, StoreServer, WatchEvent, WireError};

/// Requests read from a stream that is cut into pieces (the first byte says how), and from a page.
pub fn xenstore_wire(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let mut reader = MessageReader::new();
    for mut piece in stream.chunks(usize::from(cut).max(1)) {
        let mut source = |into: &mut [u8]| {
            let count = piece.len().min(into.len());
            into[..count].copy_from_slice(&piece[..count]);
            piece = &piece[count..];
            Ok::<_, WireError>(count)
        };
        while let Ok(Some(message)) = reader.poll(&mut source) {
            look_at(&message);
        }
    }
    let mut page = vec![0; 4096];
    let length = stream.len().min(page.len());
    page[..length].copy_from_slice(&stream[..length]);
    if let Ok(mut server) = StoreServer::attach(CellMemory::new(&mut page)) {
        while let Ok(Some(message)) = server.next_message() {
            look_at(&message);
        }
    }
}

fn look_at(message: &Message<'_>) {
    assert!(message.payload.len() <= XENSTORE_PAYLOAD_MAX);
    let _ = WatchEvent::parse(message);
    let _ = check_reply(message, message.head.kind, message.head.req_id);
    match Request::parse(message) {
        Ok(Request::Write(path, value)) => assert_eq!(path.text().len() + 1 + value.len(), message.payload.len()),
        Ok(Request::SetPerms(_, entries)) => assert!(entries.rest().ends_with(&[0])),
        _ => {}
    }
}

pub(crate) fn xenstore_seeds() -> Vec<Vec<u8>> {
    let messages: [(u32, &[u8]); 6] = [
        (2, b"/local/domain/1/name\0"),
        (4, b"@releaseDomain\0token\0"),
        (7, b"T\0"),
        (8, b"3\x004098\x007\0"),
        (11, b"device/vbd/51712/state\x004"),
        (14, b"/local\0n0\0r3\0"),
    ];
    let encode = |(kind, payload): &(u32, &[u8])| {
        let head = encode_head(*kind, 1, 0, payload.len()).unwrap_or_default();
        [&head[..], payload].concat()
    };
    let all = messages.iter().flat_map(encode).collect::<Vec<_>>();
    vec![[&[7], &all[..]].concat(), [&[255], &all[..]].concat()]
}

/// A page of blkif requests (first byte: limits; then the entries), with indirect segments from the same bytes.
pub fn blkif_request(data: &[u8]) {
    let Some((&choice, entries)) = data.split_first() else {
        return;
    };
    let limits = DiskLimits {
        sectors: [8, 1000, u64::MAX, 1 << 40][usize::from(choice & 3)],
        access: if choice & 4 == 0 {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        },
        discard: [Discard::None, Discard::Plain, Discard::Secure, Discard::Plain][usize::from(choice >> 3 & 3)],
        indirect_segments: [0, 32, 256, u16::MAX][usize::from(choice >> 5 & 3)],
    };
    let mut page = vec![0; 4096];
    let memory = fill_page(&mut page, entries, BLKIF_ENTRY_BYTES);
    let Ok(mut back) = BlkBack::attach(memory, limits) else {
        return;
    };
    let mut into = vec![Segment::default(); 4096];
    let mut direct = [Segment::default(); BLKIF_MAX_SEGMENTS_PER_REQUEST];
    while let Ok(Some(result)) = back.next_request(&mut direct) {
        let Ok(request) = result else { continue };
        let ticket = match request {
            CheckedRequest::Transfer(transfer) => {
                assert!((1..=BLKIF_MAX_SEGMENTS_PER_REQUEST).contains(&transfer.segments(&direct).len()));
                check_transfer(&limits, transfer.direction, transfer.sector, transfer.segments(&direct));
                transfer.ticket
            }
            CheckedRequest::Indirect(request) => {
                assert!((1..=usize::from(limits.indirect_segments).min(4096)).contains(&request.segments()));
                assert_eq!(request.pages().len(), request.segments().div_ceil(512));
                if let Ok(segments) = request.check_segments(&limits, entries, &mut into) {
                    assert_eq!(segments.len(), request.segments());
                    check_transfer(&limits, request.direction, request.sector, segments);
                }
                request.ticket
            }
            CheckedRequest::Flush(ticket) => ticket,
            CheckedRequest::Discard {
                ticket,
                sector,
                sectors,
                secure,
            } => {
                assert!(limits.access == Access::ReadWrite && sectors > 0);
                assert!(!secure || limits.discard == Discard::Secure);
                assert!(sector.checked_add(sectors).is_some_and(|end| end <= limits.sectors));
                ticket
            }
        };
        assert!(back.answer(ticket, Outcome::Done).is_ok());
    }
    assert_eq!(back.in_flight(), 0);
}

fn check_transfer(limits: &DiskLimits, direction: Direction, sector: u64, segments: &[Segment]) {
    assert!(limits.access == Access::ReadWrite || direction == Direction::Read);
    let sectors = segments.iter().map(|segment| segment.sectors()).sum();
    assert!(sector.checked_add(sectors).is_some_and(|end| end <= limits.sectors));
    assert!(
        segments
            .iter()
            .all(|segment| segment.bytes() >= 512 && segment.offset() + segment.bytes() <= 4096)
    );
}

/// A ring page whose entries are `data`, and whose producer index says how many they are.
fn fill_page<'a>(page: &'a mut [u8], data: &[u8], entry_bytes: usize) -> CellMemory<'a> {
    let length = data.len().min(page.len() - SRING_ENTRIES_OFFSET);
    page[SRING_ENTRIES_OFFSET..][..length].copy_from_slice(&data[..length]);
    let memory = CellMemory::new(page);
    memory.store_u32(0, (length / entry_bytes) as u32);
    memory
}

pub(crate) fn blkif_seeds() -> Vec<Vec<u8>> {
    let entry = |operation: u8, second: u8, rest: &[u8]| {
        let mut bytes = vec![0; BLKIF_ENTRY_BYTES];
        bytes[0] = operation;
        bytes[1] = second;
        bytes[24..][..rest.len()].copy_from_slice(rest);
        bytes
    };
    let segment = [9, 0, 0, 0, 0, 7, 0, 0];
    let indirect = {
        let mut bytes = entry(6, 0, &[]);
        bytes[2] = 3;
        bytes
    };
    let all = [
        entry(0, 1, &segment),
        entry(1, 2, &[segment, segment].concat()),
        entry(3, 0, &[]),
        entry(5, 0, &[1]),
        indirect,
    ];
    (0..128)
        .step_by(9)
        .map(|choice| [&[choice], &all.concat()[..]].concat())
        .collect()
}

/// A page of netif tx slots.
pub fn netif_request(data: &[u8]) {
    let mut page = vec![0; 4096];
    let memory = fill_page(&mut page, data, NETIF_TX_ENTRY_BYTES);
    let Ok(mut back) = TxBack::attach(memory) else { return };
    loop {
        match back.next_packet() {
            Ok(None) => break,
            Ok(Some(Ok(packet))) => {
                let fragments = back.fragments(&packet);
                assert!((1..=XEN_NETIF_NR_SLOTS_MIN).contains(&fragments.len()));
                let bytes: u32 = fragments.iter().map(|fragment| u32::from(fragment.bytes())).sum();
                assert_eq!(bytes, u32::from(packet.bytes));
                let inside = |offset, bytes| bytes > 0 && u32::from(offset) + u32::from(bytes) <= 4096u32;
                assert!(
                    fragments
                        .iter()
                        .all(|fragment| inside(fragment.offset(), fragment.bytes()))
                );
                assert!(back.answer(&packet, TxOutcome::Sent).is_ok());
            }
            Ok(Some(Err(_))) => {}
            Err(_) => return,
        }
    }
    let _ = back.publish();
    assert_eq!(back.in_flight(), 0);
}

pub(crate) fn netif_seeds() -> Vec<Vec<u8>> {
    let slot = |flags: u16, size: u16| {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0];
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    let gso = vec![1, 0, 168, 5, 1, 0, 0, 0, 0, 0, 0, 0];
    vec![
        slot(0, 60),
        [slot(4, 1000), slot(4, 300), slot(0, 200), slot(0, 60)].concat(),
        [slot(8 | 4 | 1, 3000), gso, slot(4, 0), slot(0, 2000), slot(0, 60)].concat(),
    ]
}
