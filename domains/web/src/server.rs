//! The event loop: frames, connections, disk.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use frontends::net::{Nic, Opening, Waiting};
use runtime::time::{Instant, now};
use runtime::{event, info, store};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use web::http::connection::{Connection, Progress, Sink};

use crate::disk_site::{DiskSite, OpenFile};
use crate::network::{Device, parse_address};

/// Bytes that a connection may have on the way to its client.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of requests that a connection takes in at once.
const RECEIVE_BUFFER: usize = 4096;
/// Connections at most.
const CONNECTIONS_MAX: usize = 128;
/// Sockets that listen for the next connections.
const LISTENERS: usize = 8;
/// Frames taken in before the connections get their turn: all that the interface can hold, as what it cannot hold
/// while the connections are served is lost.
const FRAMES_PER_TURN: usize = 256;
/// How long a connection may be idle.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a peer may leave data unacknowledged.
const SILENCE_MAX: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// How long xenstore may take to answer: without it, what is connected goes on.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How often a missing disk or network is looked for, besides when xenstore has news.
const RETRY: Duration = Duration::from_millis(500);

/// Serves for ever.
pub fn run() {
    store::set_timeout(Some(STORE_PATIENCE));
    let mut site = DiskSite::new();
    loop {
        let nic = wait_for_network(&mut site);
        let Some(mut server) = Server::new(nic) else { return };
        let failure = server.serve(&mut site);
        log::warn!("{failure}; waiting for the network to come back");
        server.device.nic.close();
    }
}

/// Opens the interface; meanwhile the disk is looked after.
fn wait_for_network(site: &mut DiskSite) -> Nic {
    let mut opening = Opening::new(None);
    let mut said = String::new();
    loop {
        let why = match opening.step() {
            Ok(Ok(nic)) => return nic,
            Ok(Err(Waiting::NoDevice)) => "this domain has no network interface (xenstore has no device/vif)".into(),
            Ok(Err(Waiting::Backend)) => "the network's domain is not ready".into(),
            Ok(Err(Waiting::GivenUp)) => "the network's domain is gone and is not started again".into(),
            Err(error) => alloc::format!("the network interface cannot be used: {error}"),
        };
        if said != why {
            log::info!("waiting: {why}");
            said = why;
        }
        site.step();
        for _port in event::wait(Some(now() + RETRY)) {}
        while let Some(event) = store::next_event() {
            site.hear(&event);
        }
        site.collect();
    }
}

/// A socket and the connection on it, if it has one.
struct Client {
    handle: SocketHandle,
    connection: Option<Connection<OpenFile>>,
    active: Instant,
}

/// The stack with its sockets.
struct Server {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    clients: Vec<Client>,
    port: u16,
}

/// What a round of service leaves to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing before the next event.
    Idle,
    /// More work is ready.
    Busy,
}

impl Server {
    fn new(nic: Nic) -> Option<Self> {
        let Some(address) = own_address(&nic) else {
            log::error!("no address: give the domain the argument ip=A.B.C.D/PREFIX, or its interface an `ip`");
            return None;
        };
        let mut config = Config::new(EthernetAddress(nic.mac()).into());
        config.random_seed = now().0;
        let mut device = Device::new(nic);
        let mut interface = Interface::new(config, &mut device, stack_time());
        interface.update_ip_addrs(|addresses| {
            // One address fits: the list is empty.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        let gateway = info::argument("gateway").and_then(|text| text.parse::<Ipv4Address>().ok());
        if let Some(gateway) = gateway {
            // One route fits: the table is empty.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let port = info::argument("port").and_then(|text| text.parse().ok()).unwrap_or(80);
        log::info!("serving http://{}:{port}/", address.address());
        Some(Server { device, interface, sockets: SocketSet::new(Vec::new()), clients: Vec::new(), port })
    }

    /// Serves until the network is lost; gives the reason.
    fn serve(&mut self, site: &mut DiskSite) -> String {
        let mut next_step = now();
        let mut announced = false;
        loop {
            if site.is_waiting() && now() >= next_step {
                site.step();
                next_step = now() + RETRY;
            }
            let round = self.round(site);
            if let Some(error) = &self.device.failure {
                return alloc::format!("the network's domain misbehaves: {error}");
            }
            if !announced && !site.is_waiting() {
                announced = true;
                // For a policy with `ready = "announced"`. It serves as well if this cannot be written.
                let _ = store::Store::new().write("data/ready", "1");
            }
            if round == Round::Busy {
                for _port in event::pending() {}
            } else {
                let mut deadline = self.deadline();
                if site.is_waiting() {
                    deadline = Some(deadline.map_or(next_step, |other| other.min(next_step)));
                }
                for _port in event::wait(deadline) {}
            }
            while let Some(event) = store::next_event() {
                site.hear(&event);
                if self.device.nic.concerns(&event)
                    && let Err(error) = self.device.nic.hear()
                {
                    return alloc::format!("the network is lost: {error}");
                }
                next_step = now();
            }
        }
    }

    /// One turn for the network, every connection and the disk.
    fn round(&mut self, site: &mut DiskSite) -> Round {
        self.device.collect();
        site.collect();
        let (mut round, spare) = self.take_in_frames();
        // The buffers are free again before the longer part of the round.
        self.device.nic.flush();
        for index in 0..self.clients.len() {
            if self.serve_client(index, site, spare) == Round::Busy {
                round = Round::Busy;
            }
        }
        while self.interface.poll_egress(stack_time(), &mut self.device, &mut self.sockets) != PollResult::None {}
        self.device.nic.flush();
        site.kick();
        round
    }

    /// Takes in frames. Each may be a new connection, so listeners are made as fast as they are used up.
    fn take_in_frames(&mut self) -> (Round, usize) {
        for _ in 0..FRAMES_PER_TURN / LISTENERS {
            let spare = self.keep_listening();
            for _ in 0..LISTENERS {
                let result = self.interface.poll_ingress_single(stack_time(), &mut self.device, &mut self.sockets);
                if result == PollIngressSingleResult::None {
                    return (Round::Idle, spare);
                }
            }
        }
        (Round::Busy, self.keep_listening())
    }

    /// When the stack or an idle connection wants attention without an event.
    fn deadline(&mut self) -> Option<Instant> {
        let at = self.interface.poll_at(stack_time(), &self.sockets).map(|at| Instant(at.total_micros() as u64 * 1000));
        // A stack that cannot send waits for room, which comes with an event.
        let at = at.filter(|_| self.device.nic.can_send());
        let idle =
            self.clients.iter().filter(|client| client.connection.is_some()).map(|client| client.active + IDLE_MAX);
        idle.chain(at).min()
    }

    /// Sees to it that a few sockets listen, and gives how many do.
    fn keep_listening(&mut self) -> usize {
        let mut listening = 0;
        for client in &mut self.clients {
            let socket = self.sockets.get_mut::<tcp::Socket>(client.handle);
            if !socket.is_open() {
                client.connection = None;
                // Fails only for port 0, which is not served.
                let _ = socket.listen(self.port);
            }
            listening += usize::from(socket.is_listening());
        }
        while listening < LISTENERS && self.clients.len() < CONNECTIONS_MAX {
            let buffer = |bytes: usize| tcp::SocketBuffer::new(alloc::vec![0; bytes]);
            let mut socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
            socket.set_nagle_enabled(false);
            socket.set_timeout(Some(SILENCE_MAX));
            if socket.listen(self.port).is_err() {
                break;
            }
            let handle = self.sockets.add(socket);
            self.clients.push(Client { handle, connection: None, active: now() });
            listening += 1;
        }
        listening
    }

    fn serve_client(&mut self, index: usize, site: &mut DiskSite, spare: usize) -> Round {
        let Some(client) = self.clients.get_mut(index) else {
            return Round::Idle;
        };
        let socket = self.sockets.get_mut::<tcp::Socket>(client.handle);
        match socket.state() {
            tcp::State::Closed | tcp::State::Listen | tcp::State::SynReceived | tcp::State::SynSent => {
                return Round::Idle;
            }
            // The peer has all; the wait is for its stray segments. When sockets run out it is cut short.
            tcp::State::TimeWait => {
                client.connection = None;
                if spare == 0 {
                    socket.abort();
                }
                return Round::Idle;
            }
            _ => {}
        }
        let connection = client.connection.get_or_insert_with(|| {
            client.active = now();
            Connection::default()
        });
        let moved = take_in(socket, connection);
        let queued = socket.send_queue();
        let progress = connection.advance(site, &mut Output(socket), 1);
        if moved || socket.send_queue() != queued {
            client.active = now();
        }
        match progress {
            Progress::CouldGoOn => return Round::Busy,
            Progress::WaitsForRequest if !socket.may_recv() => socket.close(),
            Progress::WaitsForRequest | Progress::WaitsForRoom | Progress::WaitsForDisk => {
                if now().since(client.active) > IDLE_MAX {
                    socket.abort();
                }
            }
            Progress::Finished => {
                // What still comes is nobody's: take it, so that the close is not held up.
                let _ = socket.recv(|bytes| (bytes.len(), ()));
                socket.close();
            }
            Progress::Broken => socket.abort(),
        }
        Round::Idle
    }
}

/// Gives the connection what came in; whether anything did.
fn take_in(socket: &mut tcp::Socket<'_>, connection: &mut Connection<OpenFile>) -> bool {
    let mut any = false;
    while connection.input_room() > 0 && socket.can_recv() {
        let taken = socket.recv(|bytes| {
            let count = connection.input(bytes);
            (count, count)
        });
        match taken {
            Ok(count) if count > 0 => any = true,
            _ => break,
        }
    }
    any
}

/// A socket's send buffer.
struct Output<'a, 'b>(&'a mut tcp::Socket<'b>);

impl Sink for Output<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.send_slice(bytes).unwrap_or(0)
    }
}

/// From the argument `ip`, else from the interface's own node.
fn own_address(nic: &Nic) -> Option<Ipv4Cidr> {
    match info::argument("ip") {
        Some(text) => parse_address(text),
        None => parse_address(&nic.configured_address()?),
    }
}

fn stack_time() -> StackInstant {
    StackInstant::from_micros((now().0 / 1000) as i64)
}
