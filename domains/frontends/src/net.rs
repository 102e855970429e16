//! A network interface: whole frames in and out, no offloads.
//!
//! 256 pages each for sending and receiving are granted for the life of the connection: what the back end does not take
//! in time is refused here ([`Nic::can_send`]), what nobody receives stays with the back end.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use runtime::event::Channel;
use runtime::grant::{GrantError, GrantedPages};
use runtime::pages::PAGE;
use runtime::store::WatchEvent;
use runtime::xenbus::{Frontend, State};
use runtime::{Access, Errno, Port};
use xen_rings::netif::{Checksum, Fragment, More, NetFrontError, RxFront, TxFront};

use crate::opening::Steps;
pub use crate::opening::Waiting;

/// Frames in flight in each direction at most: the entries of a one-page ring.
const FRAMES: usize = 256;
const _: () = assert!(FRAMES <= u8::MAX as usize + 1);
/// Bytes of a frame at most: an Ethernet header and 1500 bytes.
pub const FRAME_MAX: usize = 1514;

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
        }
    }
}

impl core::error::Error for NicError {}

/// An interface that is being opened.
#[derive(Debug)]
pub struct Opening(Steps<Link>);

/// The shared parts of a connection.
#[derive(Debug)]
struct Link {
    tx: TxFront<GrantedPages>,
    rx: RxFront<GrantedPages>,
    tx_ring_reference: u32,
    rx_ring_reference: u32,
    tx_pages: Buffers,
    rx_pages: Buffers,
    /// Pages of `tx_pages` that hold no frame in flight.
    tx_free: Vec<usize>,
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
        Opening(Steps::new("vif", index))
    }

    /// Goes on without waiting: call it when the xenstore port has news, and now and then.
    pub fn step(&mut self) -> Result<Result<Nic, Waiting>, NicError> {
        let opened = self.0.step(Link::new, |link, publish| {
            publish(
                State::Connected,
                &[
                    ("tx-ring-ref", &link.tx_ring_reference),
                    ("rx-ring-ref", &link.rx_ring_reference),
                    ("event-channel", &link.channel.port()),
                    ("request-rx-copy", &1),
                    ("feature-rx-notify", &1),
                    ("feature-no-csum-offload", &1),
                ],
            )
        })?;
        match opened {
            Ok((device, link)) => Nic::new(device, link).map(Ok),
            Err(waiting) => Ok(Err(waiting)),
        }
    }
}

impl Link {
    fn new(device: &Frontend) -> Result<Self, NicError> {
        let page = || GrantedPages::allocate(1, device.backend(), Access::ReadWrite);
        let (tx_ring, rx_ring) = (page()?, page()?);
        let (tx_ring_reference, rx_ring_reference) = (tx_ring.reference(0).0, rx_ring.reference(0).0);
        let mut link = Link {
            tx: TxFront::new(tx_ring).map_err(NetFrontError::from)?,
            rx: RxFront::new(rx_ring).map_err(NetFrontError::from)?,
            tx_ring_reference,
            rx_ring_reference,
            tx_pages: Buffers::new(device, Access::ReadOnly)?,
            rx_pages: Buffers::new(device, Access::ReadWrite)?,
            tx_free: (0..FRAMES).collect(),
            channel: Channel::listen(device.backend())?,
        };
        for index in 0..FRAMES {
            link.rx.post(link.rx_pages.reference(index))?;
        }
        // The back end looks at the ring when it connects.
        let _ = link.rx.publish();
        Ok(link)
    }
}

/// An open interface.
#[derive(Debug)]
pub struct Nic {
    device: Frontend,
    link: Link,
    mac: [u8; 6],
    /// Frames that were too large or had no checksum, and so were not handed on.
    pub dropped: u64,
}

impl Nic {
    fn new(device: Frontend, link: Link) -> Result<Self, NicError> {
        let mac = device.value::<String>("mac").ok().and_then(|text| parse_mac(&text)).ok_or(NicError::NoAddress)?;
        Ok(Nic { device, link, mac, dropped: 0 })
    }

    /// Its address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The address that the policy gives the interface, if it does.
    #[must_use]
    pub fn configured_address(&self) -> Option<String> {
        self.device.value("ip").ok()
    }

    /// The port that has news when frames came or went.
    #[must_use]
    pub fn port(&self) -> Port {
        self.link.channel.port()
    }

    /// Takes the next frame into `frame`, replacing what is in it; `false`: there is none, and [`Nic::port`] will tell
    /// of the next. An error is the back end's fault and final: close the interface.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, NicError> {
        frame.clear();
        let mut good = true;
        loop {
            let Some(piece) = self.link.rx.next_piece()? else {
                if self.link.rx.final_check()? {
                    continue;
                }
                // A frame whose rest is missing so far is the back end's mistake: it publishes whole frames.
                self.dropped += u64::from(!frame.is_empty());
                return Ok(false);
            };
            let Some(index) = self.link.rx_pages.index(piece.gref) else {
                continue;
            };
            let mut last = true;
            if let Some(data) = piece.data {
                last = data.more == More::Last;
                let start = frame.len();
                let end = start + usize::from(data.bytes);
                good &= end <= FRAME_MAX && data.checksum != Checksum::Blank;
                if good {
                    frame.resize(end, 0);
                    let page = self.link.rx_pages.pages.page(index);
                    page.read(usize::from(data.offset), &mut frame[start..end]);
                }
            } else {
                good = false;
            }
            self.link.rx.post(piece.gref)?;
            if !last {
                continue;
            }
            if good && !frame.is_empty() {
                return Ok(true);
            }
            self.dropped += 1;
            frame.clear();
            good = true;
        }
    }

    /// Whether [`Nic::send`] would take a frame now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        !self.link.tx_free.is_empty() && self.link.tx.free() > 0
    }

    /// Frames that can be queued before one is taken back.
    #[must_use]
    pub fn room(&self) -> usize {
        self.link.tx_free.len()
    }

    /// Queues a frame. `false`: there is no room, or it is empty or too large; it is not sent.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool, NicError> {
        if frame.len() > FRAME_MAX || !self.can_send() {
            return Ok(false);
        }
        let Some(&index) = self.link.tx_free.last() else {
            return Ok(false);
        };
        let reference = self.link.tx_pages.reference(index);
        let Some(fragment) = Fragment::new(reference, 0, frame.len() as u16) else {
            return Ok(false);
        };
        self.link.tx_pages.pages.memory().write(index * PAGE, frame);
        self.link.tx.send(&[fragment], Checksum::InPacket)?;
        self.link.tx_free.pop();
        Ok(true)
    }

    /// Takes back the pages of frames that are sent. Call it after each event; an error is final.
    pub fn collect_sent(&mut self) -> Result<(), NicError> {
        loop {
            while let Some(completion) = self.link.tx.next_completion()? {
                self.link.tx_free.extend(self.link.tx_pages.index(completion.gref));
            }
            if !self.link.tx.final_check()? {
                return Ok(());
            }
        }
    }

    /// Shows the back end what was queued and which buffers are free again. Once for a batch of frames.
    pub fn flush(&mut self) {
        let (sent, posted) = (self.link.tx.publish(), self.link.rx.publish());
        if sent || posted {
            self.link.channel.notify();
        }
    }

    /// Whether a watch event is about this interface; if so, look at [`Nic::is_gone`].
    #[must_use]
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        self.device.concerns(event)
    }

    /// Whether the back end is going or gone: [`Nic::close`].
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.device.backend_gone()
    }

    /// Ends the connection. Pages that the back end still has mapped are held back.
    pub fn close(mut self) {
        // A store that does not answer is no reason to keep the pages.
        let _ = self.device.close();
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
