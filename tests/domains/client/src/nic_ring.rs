//! netif rings in wrong hands.

use crate::disk::PATIENCE;
use crate::domain::Outcome;
use crate::nic::arp_request;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use runtime::event::{self, Channel};
use runtime::grant::GrantedPages;
use runtime::time::now;
use runtime::xenbus::{Frontend, State};
use runtime::{Access, Errno, store};
use xen_abi::io::netif::{
    NETIF_RSP_DROPPED, NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETTXF_CSUM_BLANK, NETTXF_EXTRA_INFO,
    NETTXF_MORE_DATA, NetifExtraInfo, NetifTxRequest, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO,
    XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};
use xen_rings::netif::{NetRx, NetTx, RawTxSlot};
use xen_rings::ring::FrontRing;
use zerocopy::IntoBytes;

fn words(error: Errno) -> String {
    format!("{error:?}")
}

/// A connection with bare rings.
struct Connection {
    device: Frontend,
    tx: FrontRing<NetTx, GrantedPages>,
    _rx: FrontRing<NetRx, GrantedPages>,
    data: GrantedPages,
    channel: Channel,
    next_id: u16,
}

/// A slot: offset in the data page, bytes as the slot tells, whether another follows.
type Slot = (u16, u16, bool);

impl Connection {
    fn new() -> Result<Self, String> {
        let index = loop {
            if let Some(&index) = Frontend::list("vif").first() {
                break index;
            }
            drop(store::wait_event(Some(now() + Duration::from_millis(100))));
        };
        let mut device = Frontend::open("vif", index).map_err(words)?;
        let deadline = Some(now() + PATIENCE);
        device.wait_for_backend(deadline).map_err(words)?;
        let page = || GrantedPages::allocate(1, device.backend(), Access::ReadWrite).map_err(|e| e.to_string());
        let (tx, rx, data) = (page()?, page()?, page()?);
        let references = (tx.reference(0), rx.reference(0));
        let tx = FrontRing::new(tx).map_err(|error| error.to_string())?;
        let rx = FrontRing::new(rx).map_err(|error| error.to_string())?;
        let channel = Channel::listen(device.backend()).map_err(words)?;
        let details: [(&str, &dyn core::fmt::Display); 4] = [
            ("tx-ring-ref", &references.0),
            ("rx-ring-ref", &references.1),
            ("event-channel", &channel.port()),
            ("request-rx-copy", &1),
        ];
        device.publish(State::Connected, &details).map_err(words)?;
        device.wait_connected(deadline).map_err(words)?;
        Ok(Self { device, tx, _rx: rx, data, channel, next_id: 0 })
    }

    fn push(&mut self, slots: &[Slot]) -> Outcome {
        for &(offset, size, more) in slots {
            let flags = if more { NETTXF_MORE_DATA } else { 0 };
            let request = NetifTxRequest { gref: self.data.reference(0).0, offset, flags, id: self.next_id, size };
            let bytes = request.as_bytes().try_into().map_err(|_| "a slot of another size")?;
            self.tx.push(&RawTxSlot::from_bytes(bytes)).map_err(|error| error.to_string())?;
            self.next_id = self.next_id.wrapping_add(1);
        }
        if self.tx.publish() {
            self.channel.notify();
        }
        Ok(())
    }

    /// Sends a packet and expects this status for all of its slots.
    fn expect(&mut self, what: &str, slots: &[Slot], wanted: i16) -> Outcome {
        self.push(slots)?;
        let deadline = Some(now() + PATIENCE);
        let mut statuses = Vec::new();
        while statuses.len() < slots.len() {
            match self.tx.next_response().map_err(|error| error.to_string())? {
                Some(response) => statuses.push(response.status),
                None if self.tx.final_check().map_err(|error| error.to_string())? => {}
                None if event::poll(&[self.channel.port()], deadline) => {}
                None => return Err(format!("{what}: no answer")),
            }
        }
        if statuses.iter().all(|&status| status == wanted) {
            Ok(())
        } else {
            Err(format!("{what}: {statuses:?} instead of {wanted}"))
        }
    }
}

/// Extra info of a packet that is to be cut.
fn gso(flags: u8, segment_bytes: u16, kind: u8) -> NetifExtraInfo {
    NetifExtraInfo { kind: XEN_NETIF_EXTRA_TYPE_GSO, flags, u: [segment_bytes, kind.into(), 0] }
}

impl Connection {
    /// Sends a packet of one slot with extra infos, and expects this status.
    fn expect_large(&mut self, what: &str, slot: (u16, u16), extras: &[NetifExtraInfo], wanted: i16) -> Outcome {
        let (gref, id) = (self.data.reference(0).0, self.next_id);
        let (offset, size) = slot;
        let request = NetifTxRequest { gref, offset, flags: NETTXF_EXTRA_INFO | NETTXF_CSUM_BLANK, id, size };
        let mut raws = Vec::from([request.as_bytes().to_vec()]);
        raws.extend(extras.iter().map(|extra| [extra.as_bytes(), &[0; 4]].concat()));
        for raw in raws {
            let raw = raw.as_slice().try_into().map_err(|_| "a slot of another size")?;
            self.tx.push(&RawTxSlot::from_bytes(raw)).map_err(|error| error.to_string())?;
        }
        self.next_id = self.next_id.wrapping_add(1);
        if self.tx.publish() {
            self.channel.notify();
        }
        let (deadline, mut answers) = (Some(now() + PATIENCE), 0);
        // In the order of the slots.
        while answers <= extras.len() {
            match self.tx.next_response().map_err(|error| error.to_string())? {
                Some(response) if answers == 0 && (response.id, response.status) == (id, wanted) => answers = 1,
                Some(response) if answers != 0 && response.status == NETIF_RSP_NULL => answers += 1,
                Some(response) => {
                    return Err(format!("{what}: answer {answers} is {} for {}", response.status, response.id));
                }
                None if self.tx.final_check().map_err(|error| error.to_string())? => {}
                None if event::poll(&[self.channel.port()], deadline) => {}
                None => return Err(format!("{what}: no answer")),
            }
        }
        Ok(())
    }
}

/// Packets that are to be cut into frames: a good one, and many that make no sense. Nobody gets a frame that is none.
pub fn segments() -> Outcome {
    let mut connection = Connection::new()?;
    let mac: String = connection.device.value("mac").map_err(words)?;
    let mac: Vec<u8> = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let ip: Ipv4Addr = connection.device.value("ip").map_err(words)?;
    // Ethernet, IPv4 and TCP to a station that is not there.
    let head = |source: &[u8], protocol: u8, tcp_words: u8, flags: u8| {
        let mut head =
            [&[2, 9, 9, 9, 9, 9][..], source, &[8, 0, 0x45, 0, 0x0f, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0]].concat();
        head.extend(ip.octets());
        head.extend([10, 0, 2, 2, 0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, tcp_words << 4, flags, 1, 0, 0, 0, 0, 0]);
        head
    };
    let good = head(&mac, 6, 5, 0x18);
    let v4 = XEN_NETIF_GSO_TYPE_TCPV4;
    connection.data.memory().write(0, &good);
    connection.expect_large("a packet of three segments", (0, 4000), &[gso(0, 1448, v4)], NETIF_RSP_OKAY)?;
    connection.expect_large("a packet of one segment", (0, 100), &[gso(0, 1448, v4)], NETIF_RSP_OKAY)?;
    connection.expect_large("the smallest segments", (0, 4000), &[gso(0, 16, v4)], NETIF_RSP_OKAY)?;
    for (what, size, extras) in [
        ("segments of nothing", 4000, &[gso(0, 0, v4)][..]),
        ("segments of a byte", 4000, &[gso(0, 1, v4)]),
        ("segments larger than a frame", 4000, &[gso(0, 1465, v4)]),
        ("segments as large as can be said", 4000, &[gso(0, u16::MAX, v4)]),
        ("a type that is not offered", 4000, &[gso(0, 1448, XEN_NETIF_GSO_TYPE_TCPV6)]),
        ("no type", 4000, &[gso(0, 1448, 0)]),
        ("a type that does not exist", 4000, &[gso(0, 1448, 77)]),
        ("two ways to cut it", 4000, &[gso(XEN_NETIF_EXTRA_FLAG_MORE, 1448, v4), gso(0, 100, v4)]),
        ("extra info that does not exist", 4000, &[NetifExtraInfo { kind: 99, flags: 0, u: [0; 3] }]),
        ("headers and nothing behind", 54, &[gso(0, 1448, v4)]),
        ("half a header", 40, &[gso(0, 1448, v4)]),
        ("more than the page has", 8000, &[gso(0, 1448, v4)]),
        ("no way to cut it, and larger than a frame", 4000, &[NetifExtraInfo { kind: 4, flags: 0, u: [0; 3] }]),
    ] {
        connection.expect_large(what, (0, size), extras, NETIF_RSP_ERROR)?;
    }
    for (what, head) in [
        ("not TCP", head(&mac, 17, 5, 0x18)),
        ("a header longer than all headers", head(&mac, 6, 15, 0x18)),
        ("a header shorter than one", head(&mac, 6, 4, 0x18)),
        ("a SYN", head(&mac, 6, 5, 0x02)),
        ("a forged source", head(&[2, 9, 9, 9, 9, 8], 6, 5, 0x18)),
    ] {
        connection.data.memory().write(0, &head);
        // The second of these has its header, but no more.
        let size = if what.contains("longer") { 74 } else { 4000 };
        connection.expect_large(what, (0, size), &[gso(0, 1400, v4)], NETIF_RSP_ERROR)?;
    }
    connection.data.memory().write(0, &good);
    connection.expect_large("a good one after all that", (0, 4000), &[gso(0, 1448, v4)], NETIF_RSP_OKAY)
}

/// Slots that cut `size` bytes at `offset` into pieces, the first slot telling the size of the whole.
fn pieces(offset: u16, size: u16, cuts: &[u16]) -> Vec<Slot> {
    let mut slots = Vec::from([(offset, size, true)]);
    let mut at = size - cuts.iter().sum::<u16>();
    for &cut in cuts {
        slots.push((offset + at, cut, true));
        at += cut;
    }
    if let Some(last) = slots.last_mut() {
        last.2 = false;
    }
    slots
}

/// One good frame in all sorts of pieces, and bad ones between.
pub fn fragments() -> Outcome {
    let mut connection = Connection::new()?;
    let mac: String = connection.device.value("mac").map_err(words)?;
    let bytes: Vec<u8> = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac = bytes.try_into().map_err(|_| "no MAC address")?;
    let ip: Ipv4Addr = connection.device.value("ip").map_err(words)?;
    let frame = arp_request(mac, ip, Ipv4Addr::new(10, 0, 2, 2));
    connection.data.memory().write(64, &frame);
    let size = frame.len() as u16;
    for (what, cuts) in [
        ("header split after the first address", &[size - 6][..]),
        ("single bytes", &[1; 17]),
        ("empty slots", &[0, 10, 0, 0, 5, 0]),
        ("an empty first piece", &[20, size - 20]),
        ("an empty last piece", &[20, 0]),
    ] {
        connection.expect(what, &pieces(64, size, cuts), NETIF_RSP_OKAY)?;
    }
    for (what, slots) in [
        ("shorter than a header", &[(64, 13, false)][..]),
        ("longer than a frame", &[(0, 2000, false)]),
        ("across the page's end", &[(4090, 42, false)]),
        ("far outside the page", &[(0xfff0, 42, false)]),
        ("pieces larger than the whole", &[(64, 42, true), (64, 43, false)]),
    ] {
        connection.expect(what, slots, NETIF_RSP_ERROR)?;
    }
    connection.expect("too many slots", &pieces(64, size, &[1; 20]), NETIF_RSP_ERROR)?;
    connection.data.memory().write(64 + 6, &[2, 9, 9, 9, 9, 9]);
    connection.expect("a forged source in pieces", &pieces(64, size, &[size - 8]), NETIF_RSP_DROPPED)
}

/// A packet that says that it goes on, and does not: the back end closes.
pub fn incomplete_packet() -> Outcome {
    let mut connection = Connection::new()?;
    connection.push(&[(0, 100, true)])?;
    let deadline = now() + PATIENCE;
    while connection.device.backend_state() != State::Closed {
        if now() > deadline {
            return Err(format!("the back end is {:?}, not closed", connection.device.backend_state()));
        }
        drop(store::wait_event(Some(now() + Duration::from_millis(100))));
    }
    Ok(())
}

/// Posts no receive buffer, ever.
pub fn never_takes_frames() -> Outcome {
    let connection = Connection::new()?;
    runtime::time::sleep(Duration::from_secs(3));
    match connection.device.backend_state() {
        State::Connected => Ok(()),
        state => Err(format!("the back end is {state:?}")),
    }
}
