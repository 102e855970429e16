//! The network interface as the TCP/IP stack sees it, and the stack's configuration.

use alloc::vec::Vec;

use frontends::net::{FRAME_MAX, Nic, NicError};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{Ipv4Address, Ipv4Cidr};
use web::checksum;

/// Length of a prefix where none is given.
const PREFIX_DEFAULT: u8 = 24;

/// A netif front end under the stack.
pub struct Device {
    pub nic: Nic,
    received: Vec<u8>,
    sending: Vec<u8>,
    /// The back end's fault, after which the interface is to be closed.
    pub failure: Option<NicError>,
}

impl Device {
    pub fn new(nic: Nic) -> Self {
        Device { nic, received: Vec::with_capacity(FRAME_MAX), sending: alloc::vec![0; FRAME_MAX], failure: None }
    }

    /// Takes back the room of frames that went out.
    pub fn collect(&mut self) {
        if let Err(error) = self.nic.collect_sent() {
            self.failure.get_or_insert(error);
        }
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        // A frame may want an answer: without room for one it waits.
        if self.failure.is_some() || !self.nic.can_send() {
            return None;
        }
        match self.nic.receive(&mut self.received) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                self.failure = Some(error);
                return None;
            }
        }
        let Device { nic, received, sending, failure } = self;
        Some((Received(received), Sending { nic, buffer: sending, failure }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let Device { nic, sending, failure, .. } = self;
        (failure.is_none() && nic.can_send()).then_some(Sending { nic, buffer: sending, failure })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        // Those of outgoing segments are filled in below.
        capabilities.checksum.tcp = Checksum::Rx;
        capabilities
    }
}

/// A frame that came in.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to go out.
pub struct Sending<'a> {
    nic: &'a mut Nic,
    buffer: &'a mut Vec<u8>,
    failure: &'a mut Option<NicError>,
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let frame = &mut self.buffer[..length];
        let result = f(frame);
        checksum::fill_tcp(frame);
        // The room was there when the token was made.
        if let Err(error) = self.nic.send(frame) {
            self.failure.get_or_insert(error);
        }
        result
    }
}

/// The address to use: `10.0.2.15/24` or, with the usual prefix, `10.0.2.15`.
pub fn parse_address(text: &str) -> Option<Ipv4Cidr> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse().ok()?),
        None => (text, PREFIX_DEFAULT),
    };
    let address: Ipv4Address = address.trim().parse().ok()?;
    (prefix <= 32).then(|| Ipv4Cidr::new(address, prefix))
}
