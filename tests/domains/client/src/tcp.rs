//! A TCP server that takes a stream of known content, checks it, and answers with how much of it came. With `content=any` it is
//! for a benchmark, which sends anything, and nothing is looked at or said.

use crate::domain::Outcome;
use crate::nic;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use frontends::net::{Checksum, PACKET_MAX, Takes};
use frontends::net::{FRAME_MAX, Nic};
use runtime::time::{Instant, now};
use runtime::{event, info, println, store};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Packet, TcpPacket};

const PORT: u16 = 80;
/// What may be under way to us, and from us.
const WINDOW: usize = 1 << 20;
const ANSWER: usize = 4096;
/// Bytes after which it says how far it has come.
const TELL: u64 = 1 << 18;

/// The interface as the stack sees it. It takes packets that are larger than a frame.
struct Device {
    nic: Nic,
    packet: Vec<u8>,
    failure: Option<String>,
}

impl phy::Device for Device {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Sending<'_>)> {
        loop {
            if !self.nic.can_send() {
                return None;
            }
            match self.nic.receive_packet(&mut self.packet) {
                Ok(Some((bytes, checksum))) => {
                    if checksum == Checksum::InPacket && !self.packet.get(..bytes).is_some_and(is_whole) {
                        continue;
                    }
                    let Self { nic, packet, failure } = self;
                    return Some((Received(packet.get(..bytes)?), Sending { nic, failure }));
                }
                Ok(None) => return None,
                Err(error) => {
                    self.failure = Some(error.to_string());
                    return None;
                }
            }
        }
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        let Self { nic, failure, .. } = self;
        nic.can_send().then_some(Sending { nic, failure })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        // Of what comes in, [`is_whole`] has looked at those that are not known to be good.
        capabilities.checksum.tcp = phy::Checksum::Tx;
        capabilities
    }
}

/// Whether the TCP checksum is right, if it is TCP.
fn is_whole(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return false };
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return true;
    }
    let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return false };
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    packet.next_header() != IpProtocol::Tcp
        || TcpPacket::new_checked(packet.payload()).is_ok_and(|segment| segment.verify_checksum(&from, &to))
}

struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Sending<'a> {
    nic: &'a mut Nic,
    failure: &'a mut Option<String>,
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = alloc::vec![0; length];
        let result = f(&mut frame);
        if let Err(error) = self.nic.send(&frame) {
            *self.failure = Some(error.to_string());
        }
        result
    }
}

fn stack_time() -> StackInstant {
    StackInstant::from_micros((now().0 / 1000) as i64)
}

/// The byte at a place of the stream. The test on the host computes the same.
fn byte(at: u64) -> u8 {
    ((at >> 3).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (8 * (at & 7))) as u8
}

/// Where in the stream bytes belong, if anywhere in the first GiB.
fn whence(bytes: &[u8]) -> String {
    let belongs = |at: &u64| (*at..).zip(bytes.iter().take(64)).all(|(at, value)| *value == byte(at));
    (0..1 << 30).find(belongs).map_or_else(|| "nowhere in the stream".to_string(), |at| format!("the stream's at {at}"))
}

/// Serves one connection after the other, for ever.
pub fn sink() -> Outcome {
    let content = if info::argument("content") == Some("any") { Content::Any } else { Content::Known };
    let nic = nic::open(Takes::Large)?;
    let address = nic::address(&nic)?;
    let mac = nic.mac();
    let mut device = Device { nic, packet: Vec::with_capacity(PACKET_MAX), failure: None };
    let mut interface = Interface::new(Config::new(EthernetAddress(mac).into()), &mut device, stack_time());
    interface.update_ip_addrs(|addresses| {
        // One address fits: the list is empty.
        let _ = addresses.push(IpCidr::new(address.into(), 24));
    });
    let buffer = |bytes| tcp::SocketBuffer::new(alloc::vec![0; bytes]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(tcp::Socket::new(buffer(WINDOW), buffer(ANSWER)));
    println!("listening");
    let (mut received, mut told) = (0, 0);
    loop {
        device.nic.collect_sent().map_err(|error| error.to_string())?;
        interface.poll(stack_time(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        if !socket.is_open() {
            if received != 0 && content == Content::Known {
                println!("took {received}, all good");
            }
            received = 0;
            socket.listen(PORT).map_err(|error| format!("{error:?}"))?;
        }
        take(socket, content, &mut received)?;
        if content == Content::Known && (received < told || received >= told + TELL) {
            told = received;
            println!("received {told}");
        }
        interface.poll(stack_time(), &mut device, &mut sockets);
        device.nic.flush();
        if let Some(failure) = device.failure {
            return Err(failure);
        }
        let due = interface.poll_at(stack_time(), &sockets).map(|at| Instant(at.total_micros() as u64 * 1000));
        event::wait(due.filter(|_| device.nic.can_send())).for_each(drop);
        while let Some(event) = store::next_event() {
            if device.nic.concerns(&event) {
                device.nic.hear().map_err(|error| error.to_string())?;
            }
        }
    }
}

/// What is known of what comes.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// It is the stream's.
    Known,
    /// Nothing.
    Any,
}

/// Takes what came, checks it, and answers when there is no more to come.
fn take(socket: &mut tcp::Socket<'_>, content: Content, received: &mut u64) -> Outcome {
    while socket.can_recv() {
        let before = *received;
        let wrong = socket.recv(|bytes| {
            let good = content == Content::Any || (*received..).zip(bytes.iter()).all(|(at, value)| *value == byte(at));
            let wrong = (!good).then(|| format!("{:02x?}, {}", bytes.get(..16), whence(bytes)));
            *received += bytes.len() as u64;
            (bytes.len(), wrong)
        });
        match wrong {
            Ok(None) if before == 0 && content == Content::Known => println!("receiving"),
            Ok(None) => {}
            Ok(Some(what)) => return Err(format!("wrong bytes before byte {received}: {what}")),
            Err(error) => return Err(format!("{error:?}")),
        }
    }
    if socket.state() == tcp::State::CloseWait {
        let _ = socket.send_slice(format!("{received} good\n").as_bytes());
        socket.close();
    }
    Ok(())
}
