//! A TCP server that takes a stream of known content, checks it, and answers with how much of it came.

use crate::domain::Outcome;
use crate::nic;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use frontends::net::{FRAME_MAX, Nic};
use runtime::store;
use runtime::time::{Instant, now};
use runtime::{event, println};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpCidr};

const PORT: u16 = 80;
const BUFFER: usize = 64 * 1024;
/// Bytes after which it says how far it has come.
const TELL: u64 = 1 << 18;

/// The interface as the stack sees it.
struct Device {
    nic: Nic,
    frame: Vec<u8>,
    failure: Option<String>,
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sending<'_>)> {
        if !self.nic.can_send() {
            return None;
        }
        match self.nic.receive(&mut self.frame) {
            Ok(true) => Some((Received(self.frame.clone()), Sending(self))),
            Ok(false) => None,
            Err(error) => {
                self.failure = Some(error.to_string());
                None
            }
        }
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        self.nic.can_send().then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sending<'a>(&'a mut Device);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = alloc::vec![0; length];
        let result = f(&mut frame);
        if let Err(error) = self.0.nic.send(&frame) {
            self.0.failure = Some(error.to_string());
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
    let nic = nic::open()?;
    let address = nic::address(&nic)?;
    let mac = nic.mac();
    let mut device = Device { nic, frame: Vec::with_capacity(FRAME_MAX), failure: None };
    let mut interface = Interface::new(Config::new(EthernetAddress(mac).into()), &mut device, stack_time());
    interface.update_ip_addrs(|addresses| {
        // One address fits: the list is empty.
        let _ = addresses.push(IpCidr::new(address.into(), 24));
    });
    let buffer = || tcp::SocketBuffer::new(alloc::vec![0; BUFFER]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
    println!("listening");
    let (mut received, mut told) = (0, 0);
    loop {
        device.nic.collect_sent().map_err(|error| error.to_string())?;
        interface.poll(stack_time(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        if !socket.is_open() {
            received = 0;
            socket.listen(PORT).map_err(|error| format!("{error:?}"))?;
        }
        take(socket, &mut received)?;
        if received < told || received >= told + TELL {
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

/// Takes what came, checks it, and answers when there is no more to come.
fn take(socket: &mut tcp::Socket<'_>, received: &mut u64) -> Outcome {
    while socket.can_recv() {
        let before = *received;
        let wrong = socket.recv(|bytes| {
            let good = (*received..).zip(bytes.iter()).all(|(at, value)| *value == byte(at));
            let wrong = (!good).then(|| format!("{:02x?}, {}", bytes.get(..16), whence(bytes)));
            *received += bytes.len() as u64;
            (bytes.len(), wrong)
        });
        match wrong {
            Ok(None) if before == 0 => println!("receiving"),
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
