//! A network interface: whole frames in and out, no offloads; or, for a user that asks for it, larger packets in.
//!
//! 256 pages each for sending and receiving are granted for the life of the connection: what the back end does not take
//! in time is refused here ([`Nic::can_send`]), what nobody receives stays with the back end.
//!
//! When the back end dies, frames under way in both directions are lost, as Ethernet may lose them; then nothing can be
//! sent and nothing comes, until the policy domain has another back end in place and the interface has connected to it.
//! Its user hands it the watch events that concern it ([`Nic::hear`]). It ends only when the policy gives the back end up
//! ([`NicError::Gone`]).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use runtime::event::Channel;
use runtime::grant::{GrantError, GrantedPages};
use runtime::pages::PAGE;
use runtime::store::WatchEvent;
use runtime::xenbus::{Frontend, Peer, State};
use runtime::{Access, Errno, Port};
pub use xen_rings::netif::{Checksum, Takes};
use xen_rings::netif::{Fragment, More, NetFrontError, RxFront, TxFront};

use crate::opening::Steps;
pub use crate::opening::Waiting;

/// Frames in flight in each direction at most: the entries of a one-page ring.
const FRAMES: usize = 256;
const _: () = assert!(FRAMES <= u8::MAX as usize + 1);
/// Bytes of a frame at most: an Ethernet header and 1500 bytes.
pub const FRAME_MAX: usize = 1514;
/// Bytes of a packet at most, for who takes such that are larger than a frame: netif has 16 bits for them.
pub const PACKET_MAX: usize = u16::MAX as usize;

/// Why an interface cannot be used, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicError {
    /// xenstore or the event channel.
    System(Errno),
    /// Pages could not be granted.
    Grant(GrantError),
    /// The back end broke the protocol.
    Ring(NetFrontError),
    /// There is no `mac` node with an address.
    NoAddress,
    /// The back end's domain is gone, and the policy does not start it again.
    Gone,
}

impl From<Errno> for NicError {
    fn from(error: Errno) -> Self {
        NicError::System(error)
    }
}

impl From<GrantError> for NicError {
    fn from(error: GrantError) -> Self {
        NicError::Grant(error)
    }
}

impl From<NetFrontError> for NicError {
    fn from(error: NetFrontError) -> Self {
        NicError::Ring(error)
    }
}

impl fmt::Display for NicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NicError::System(error) => write!(f, "the connection to its back end: {error}"),
            NicError::Grant(error) => write!(f, "pages for it cannot be granted: {error}"),
            NicError::Ring(error) => error.fmt(f),
            NicError::NoAddress => f.write_str("its `mac` node has no address"),
            NicError::Gone => f.write_str("its domain is gone and is not started again"),
        }
    }
}

impl core::error::Error for NicError {}

/// An interface that is being opened.
#[derive(Debug)]
pub struct Opening(Steps<Link>, Takes);

/// What is made anew for each connection.
#[derive(Debug)]
struct Link {
    tx: TxFront<GrantedPages>,
    rx: RxFront<GrantedPages>,
    tx_ring_reference: u32,
    rx_ring_reference: u32,
    channel: Channel,
}

/// Granted pages, found by their references.
#[derive(Debug)]
struct Buffers {
    pages: GrantedPages,
    /// By reference; `None`: not one of these.
    index_of: Vec<Option<u8>>,
}

impl Buffers {
    fn new(device: &Frontend, access: Access) -> Result<Self, GrantError> {
        let pages = GrantedPages::allocate(FRAMES, device.backend(), access)?;
        let largest = pages.references().iter().map(|reference| reference.0 as usize).max().unwrap_or(0);
        let mut index_of = alloc::vec![None; largest + 1];
        for (reference, index) in pages.references().iter().zip(0u8..=u8::MAX) {
            index_of[reference.0 as usize] = Some(index);
        }
        Ok(Buffers { pages, index_of })
    }

    /// Which page has this reference.
    fn index(&self, reference: u32) -> Option<usize> {
        self.index_of.get(reference as usize).copied().flatten().map(usize::from)
    }

    fn reference(&self, index: usize) -> u32 {
        self.pages.reference(index).0
    }
}

impl Opening {
    /// Of interface `index`, or of the first that there is.
    #[must_use]
    pub fn new(index: Option<u32>) -> Self {
        Opening(Steps::new("vif", index), Takes::Frames)
    }

    /// Tells the back end that larger packets are taken too, and with them blank checksums: for [`Nic::receive_packet`].
    #[must_use]
    pub fn taking(self, takes: Takes) -> Self {
        Opening(self.0, takes)
    }

    /// Goes on without waiting: call it when the xenstore port has news, and now and then.
    pub fn step(&mut self) -> Result<Result<Nic, Waiting>, NicError> {
        match connect(&mut self.0, self.1)? {
            Ok((device, link)) => Nic::new(device, link, self.1).map(Ok),
            Err(waiting) => Ok(Err(waiting)),
        }
    }
}

/// The next steps to a connection.
fn connect(steps: &mut Steps<Link>, takes: Takes) -> Result<Result<(Frontend, Link), Waiting>, NicError> {
    let large = u32::from(takes == Takes::Large);
    loop {
        let is_gone = |error: &NicError| *error == NicError::System(Errno::ESRCH);
        let connected = steps.step(Link::new, is_gone, |link, publish| {
            publish(
                State::Connected,
                &[
                    ("tx-ring-ref", &link.tx_ring_reference),
                    ("rx-ring-ref", &link.rx_ring_reference),
                    ("event-channel", &link.channel.port()),
                    ("request-rx-copy", &1),
                    ("feature-rx-notify", &1),
                    ("feature-sg", &large),
                    ("feature-gso-tcpv4", &large),
                    ("feature-no-csum-offload", &(1 - large)),
                ],
            )
        })?;
        match connected {
            // It died at once; what told of that may have been taken by the wait for it.
            Ok((device, _)) if device.peer() != Peer::There => *steps = Steps::again("vif", device),
            Ok((device, mut link)) => {
                link.rx = link.rx.taking(takes);
                return Ok(Ok((device, link)));
            }
            waiting => return Ok(waiting),
        }
    }
}

impl Link {
    fn new(device: &Frontend) -> Result<Self, NicError> {
        let page = || GrantedPages::allocate(1, device.backend(), Access::ReadWrite);
        let (tx_ring, rx_ring) = (page()?, page()?);
        let (tx_ring_reference, rx_ring_reference) = (tx_ring.reference(0).0, rx_ring.reference(0).0);
        Ok(Link {
            tx: TxFront::new(tx_ring).map_err(NetFrontError::from)?,
            rx: RxFront::new(rx_ring).map_err(NetFrontError::from)?,
            tx_ring_reference,
            rx_ring_reference,
            channel: Channel::listen(device.backend())?,
        })
    }
}

/// Whether there is a back end.
#[derive(Debug)]
enum Connection {
    /// It serves.
    Up(Frontend),
    /// It is lost, and its successor is waited for.
    Down(Box<Steps<Link>>),
}

/// How often in a row a back end may break the protocol before it is given up: between two times a frame must come.
const BREAKS_MAX: u32 = 8;

/// An open interface.
#[derive(Debug)]
pub struct Nic {
    connection: Connection,
    link: Link,
    tx_pages: Buffers,
    rx_pages: Buffers,
    /// Pages of `tx_pages` that hold no frame in flight.
    tx_free: Vec<usize>,
    takes: Takes,
    mac: [u8; 6],
    /// The address that the policy gives the interface.
    ip: Option<String>,
    /// Frames that were too large or had no checksum, and so were not handed on.
    pub dropped: u64,
    /// How often the protocol was broken since a frame last came.
    breaks: u32,
    /// How often another back end has taken over.
    reconnections: u32,
}

impl Nic {
    fn new(device: Frontend, link: Link, takes: Takes) -> Result<Self, NicError> {
        let mac = device.value::<String>("mac").ok().and_then(|text| parse_mac(&text)).ok_or(NicError::NoAddress)?;
        let mut nic = Nic {
            tx_pages: Buffers::new(&device, Access::ReadOnly)?,
            rx_pages: Buffers::new(&device, Access::ReadWrite)?,
            tx_free: Vec::with_capacity(FRAMES),
            ip: device.value("ip").ok(),
            connection: Connection::Up(device),
            link,
            takes,
            mac,
            dropped: 0,
            breaks: 0,
            reconnections: 0,
        };
        nic.begin()?;
        Ok(nic)
    }

    /// Gives the back end all buffers.
    fn begin(&mut self) -> Result<(), NicError> {
        self.tx_free.clear();
        self.tx_free.extend(0..FRAMES);
        for index in 0..FRAMES {
            self.link.rx.post(self.rx_pages.reference(index))?;
        }
        self.flush();
        Ok(())
    }

    /// Its address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The address that the policy gives the interface, if it does.
    #[must_use]
    pub fn configured_address(&self) -> Option<String> {
        self.ip.clone()
    }

    /// How often another back end has taken over.
    #[must_use]
    pub fn reconnections(&self) -> u32 {
        self.reconnections
    }

    /// The port that has news when frames came or went. Another one after each reconnection.
    #[must_use]
    pub fn port(&self) -> Port {
        self.link.channel.port()
    }

    /// Takes the next frame into `frame`, replacing what is in it; `false`: there is none, and [`Nic::port`] will tell
    /// of the next. A back end that breaks the protocol is left and connected to again; an error means that this came to
    /// nothing, and is final: close the interface.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, NicError> {
        match self.receive_into(frame, Takes::Frames)? {
            Some((bytes, _)) => frame.truncate(bytes),
            None => frame.clear(),
        }
        Ok(!frame.is_empty())
    }

    /// The same with packets that may be larger than a frame, or have a checksum that is left blank because the sender is known
    /// to have no other. Answers the packet's bytes, at the start of `buffer`, which grows to the largest.
    pub fn receive_packet(&mut self, buffer: &mut Vec<u8>) -> Result<Option<(usize, Checksum)>, NicError> {
        self.receive_into(buffer, self.takes)
    }

    fn receive_into(&mut self, buffer: &mut Vec<u8>, takes: Takes) -> Result<Option<(usize, Checksum)>, NicError> {
        if self.is_down() {
            return Ok(None);
        }
        match self.next_packet(buffer, takes) {
            Ok(came) => {
                self.breaks = if came.is_some() { 0 } else { self.breaks };
                Ok(came)
            }
            Err(error) => self.broken(error).map(|()| None),
        }
    }

    fn next_packet(&mut self, buffer: &mut Vec<u8>, takes: Takes) -> Result<Option<(usize, Checksum)>, NetFrontError> {
        let most = if takes == Takes::Large { PACKET_MAX } else { FRAME_MAX };
        let (mut bytes, mut checksum, mut good) = (0, None, true);
        loop {
            let Some(piece) = self.link.rx.next_piece()? else {
                if self.link.rx.final_check()? {
                    continue;
                }
                // A packet whose rest is missing so far is the back end's mistake: it publishes whole ones.
                self.dropped += u64::from(bytes != 0);
                return Ok(None);
            };
            let Some(index) = self.rx_pages.index(piece.gref) else {
                continue;
            };
            let mut last = true;
            if let Some(data) = piece.data {
                last = data.more == More::Last;
                let end = bytes + usize::from(data.bytes);
                let checksum = *checksum.get_or_insert(data.checksum);
                good &= end <= most && (takes == Takes::Large || checksum != Checksum::Blank);
                if good {
                    if buffer.len() < end {
                        buffer.resize(end, 0);
                    }
                    let page = self.rx_pages.pages.page(index);
                    page.read(usize::from(data.offset), &mut buffer[bytes..end]);
                    bytes = end;
                }
            } else {
                good = false;
            }
            self.link.rx.post(piece.gref)?;
            if !last {
                continue;
            }
            if good && bytes != 0 {
                return Ok(Some((bytes, checksum.unwrap_or_default())));
            }
            self.dropped += 1;
            (bytes, checksum, good) = (0, None, true);
        }
    }

    /// Whether [`Nic::send`] would take a frame now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        !self.is_down() && !self.tx_free.is_empty() && self.link.tx.free() > 0
    }

    /// Frames that can be queued before one is taken back.
    #[must_use]
    pub fn room(&self) -> usize {
        self.tx_free.len()
    }

    /// Queues a frame. `false`: there is no room, or it is empty or too large; it is not sent.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool, NicError> {
        if frame.len() > FRAME_MAX || !self.can_send() {
            return Ok(false);
        }
        let Some(&index) = self.tx_free.last() else {
            return Ok(false);
        };
        let reference = self.tx_pages.reference(index);
        let Some(fragment) = Fragment::new(reference, 0, frame.len() as u16) else {
            return Ok(false);
        };
        self.tx_pages.pages.memory().write(index * PAGE, frame);
        self.link.tx.send(&[fragment], Checksum::InPacket)?;
        self.tx_free.pop();
        Ok(true)
    }

    /// Takes back the pages of frames that are sent. Call it after each event; an error is final.
    pub fn collect_sent(&mut self) -> Result<(), NicError> {
        if self.is_down() {
            return Ok(());
        }
        match self.take_sent() {
            Ok(()) => Ok(()),
            Err(error) => self.broken(error),
        }
    }

    fn take_sent(&mut self) -> Result<(), NetFrontError> {
        loop {
            while let Some(completion) = self.link.tx.next_completion()? {
                self.tx_free.extend(self.tx_pages.index(completion.gref));
            }
            if !self.link.tx.final_check()? {
                return Ok(());
            }
        }
    }

    /// Shows the back end what was queued and which buffers are free again. Once for a batch of frames.
    pub fn flush(&mut self) {
        if self.is_down() {
            return;
        }
        let (sent, posted) = (self.link.tx.publish(), self.link.rx.publish());
        if sent || posted {
            self.link.channel.notify();
        }
    }

    /// Whether there is no back end now.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.connection, Connection::Down(_))
    }

    /// The back end broke the protocol. It lets go of what it has when it sees that we are done with it.
    #[cold]
    fn broken(&mut self, error: NetFrontError) -> Result<(), NicError> {
        self.breaks += 1;
        let Connection::Up(device) = &mut self.connection else { return Err(error.into()) };
        if self.breaks > BREAKS_MAX {
            return Err(error.into());
        }
        log::warn!("network interface: {error}; connecting again");
        device.close()?;
        self.lose()
    }

    /// Leaves the back end and begins to look for the next.
    fn lose(&mut self) -> Result<(), NicError> {
        let nothing = Connection::Down(Box::new(Steps::new("vif", None)));
        let down = match core::mem::replace(&mut self.connection, nothing) {
            Connection::Up(device) => Box::new(Steps::again("vif", device)),
            Connection::Down(steps) => steps,
        };
        self.connection = Connection::Down(down);
        self.look_for_backend()
    }

    fn look_for_backend(&mut self) -> Result<(), NicError> {
        let Connection::Down(steps) = &mut self.connection else { return Ok(()) };
        match connect(steps, self.takes)? {
            Ok((device, link)) => {
                // The old one has been taken apart, or has let go of everything.
                self.tx_pages.pages.regrant(device.backend())?;
                self.rx_pages.pages.regrant(device.backend())?;
                (self.link, self.connection) = (link, Connection::Up(device));
                self.reconnections += 1;
                self.begin()
            }
            Err(Waiting::GivenUp) => Err(NicError::Gone),
            Err(Waiting::NoDevice | Waiting::Backend) => Ok(()),
        }
    }

    /// Whether a watch event is about this interface: then [`Nic::hear`] it.
    #[must_use]
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        match &self.connection {
            Connection::Up(device) => device.concerns(event),
            Connection::Down(steps) => steps.concerns(event),
        }
    }

    /// Looks after the connection: to be called when a watch event [concerns](Nic::concerns) the interface. An error is
    /// final: close the interface.
    pub fn hear(&mut self) -> Result<(), NicError> {
        let Connection::Up(device) = &self.connection else { return self.look_for_backend() };
        match device.peer() {
            Peer::There => Ok(()),
            Peer::Lost | Peer::Replaced => self.lose(),
            Peer::GivenUp => Err(NicError::Gone),
        }
    }

    /// Ends the connection. Pages that the back end still has mapped are held back.
    pub fn close(self) {
        if let Connection::Up(mut device) = self.connection {
            // A store that does not answer is no reason to keep the pages.
            let _ = device.close();
        }
    }
}

/// Six hexadecimal bytes with colons between.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    // A group address is nobody's own.
    (bytes.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn addresses_are_read_strictly() {
        assert_eq!(parse_mac("00:16:3e:01:02:fF"), Some([0, 0x16, 0x3e, 1, 2, 0xff]));
        for bad in
            ["", "00:16:3e:01:02", "00:16:3e:01:02:03:04", "0:16:3e:1:2:3", "01:16:3e:01:02:03", "00:00:00:00:00:00"]
        {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
