//! The dance with the front ends: finds them, connects and disconnects them, and lets the traffic flow meanwhile.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;
use net_domain::frame::{Guard, Mac};
use net_domain::switch::{AddError, Reach};
use runtime::event::{Channel, Courtesy};
use runtime::grant::Mapping;
use runtime::xenbus::{BackendBus, BackendDevice, BackendEvent, DeviceId};
use runtime::{Access, Errno, GrantRef, Port, store};
use virtio::DeviceType;
use virtio::queue::DeviceFault;
use xen_rings::netif::{RxBack, TxBack};

use crate::buffers::Buffers;
use crate::nic::Nic;
use crate::traffic::{POOL, Traffic};
use crate::vif::Vif;

/// Rounds of traffic before the store is looked at again.
const ROUNDS: usize = 32;

/// How long those who run go first, at most, when a vif that sends much has some: it is not interrupted at each packet, and its
/// packets are taken, delivered and acknowledged together.
const GIVE_WAY: Duration = Duration::from_micros(200);

/// Whether everything is done that can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Wait for an event.
    Idle,
    /// There is more to do.
    Busy,
}

/// What the policy says of a vif.
#[derive(Clone, Copy, Debug)]
struct Plan {
    guard: Guard,
    reach: Reach,
}

/// The net domain.
pub struct Service {
    traffic: Traffic,
    bus: BackendBus,
    events: VecDeque<BackendEvent>,
    plans: BTreeMap<DeviceId, Plan>,
    courtesy: Courtesy,
}

impl Service {
    /// Opens the card and starts to look for front ends.
    pub fn new() -> Result<Self, Errno> {
        let mut buffers = Buffers::new(POOL).ok_or(Errno::ENOMEM)?;
        let nic = open_card(&mut buffers);
        Ok(Self {
            traffic: Traffic::new(buffers, nic),
            bus: BackendBus::new("vif")?,
            events: VecDeque::new(),
            plans: BTreeMap::new(),
            courtesy: Courtesy::default(),
        })
    }

    /// Notes what an event is about. [`Service::run`] does the work.
    pub fn on_event(&mut self, port: Port) {
        if let Some(vif) = self.traffic.vifs.iter_mut().find(|vif| vif.channel().port() == port) {
            vif.ready = vif.broken.is_none();
        } else if store::port() == Some(port) {
            while let Some(event) = store::next_event() {
                self.events.extend(self.bus.on_watch(&event));
            }
        }
    }

    /// Does what there is to do.
    pub fn run(&mut self) -> Progress {
        while let Some(event) = self.events.pop_front() {
            self.on_bus_event(event);
        }
        if self.traffic.vifs.iter().any(|vif| vif.ready && vif.bulk) {
            self.courtesy.give_way(GIVE_WAY);
        }
        for _ in 0..ROUNDS {
            let busy = self.traffic.round().unwrap_or_else(|fault| broke(fault));
            let buried = self.bury();
            if !busy && !buried {
                return Progress::Idle;
            }
        }
        Progress::Busy
    }

    /// Whether the card has something to do.
    pub fn is_busy(&self) -> bool {
        self.traffic.card_is_busy()
    }

    /// Ends the domain if the card has given up, or has frames to send and has sent none since the last time. Whoever
    /// drives it next gets it reset.
    pub fn check_card(&mut self) {
        let why = if self.traffic.card_failed() {
            "has failed and needs a reset"
        } else if self.traffic.card_is_stuck().unwrap_or_else(|fault| broke(fault)) {
            "does not answer"
        } else {
            return;
        };
        log::error!("network card: the device {why}");
        runtime::crash();
    }

    /// Prints what was done so far.
    pub fn print_counters(&self) {
        self.traffic.print_counters();
    }

    /// Lets go of vifs whose rings make no sense.
    fn bury(&mut self) -> bool {
        let mut buried = false;
        while let Some(at) = self.traffic.vifs.iter().position(|vif| vif.broken.is_some()) {
            let vif = self.traffic.remove(at);
            log::info!("vif {}: closed after {vif}", vif.id);
            let why = vif.broken.map_or(String::new(), |error| format!("closed: {error}"));
            let id = vif.id;
            drop(vif);
            self.bus.refuse(id, &why);
            buried = true;
        }
        buried
    }

    fn on_bus_event(&mut self, event: BackendEvent) {
        match event {
            BackendEvent::Found(id) => match self.plan(id).and_then(|plan| self.announce(id).map(|()| plan)) {
                Ok(plan) => {
                    self.plans.insert(id, plan);
                    self.events.extend(self.bus.announce(id));
                }
                Err(why) => self.bus.refuse(id, &why),
            },
            BackendEvent::Adopt(id) => {
                let adopted = self.plan(id).and_then(|plan| {
                    self.plans.insert(id, plan);
                    self.connect(id, TxBack::adopt, RxBack::adopt)
                });
                match adopted {
                    Ok(vif) => {
                        log::info!("vif {id}: goes on as {}", vif.guard.mac);
                        // What was answered, by the dead one too, is shown in the first round.
                        (vif.answered, vif.delivered) = (true, true);
                        vif.channel().notify();
                    }
                    Err(why) => self.bus.refuse(id, &format!("cannot go on where the last one died: {why}")),
                }
            }
            BackendEvent::Ready(id) => {
                if self.traffic.vifs.iter().any(|vif| vif.id == id) {
                    return;
                }
                match self.connect(id, TxBack::attach, RxBack::attach) {
                    Ok(vif) => {
                        let ip = vif.guard.ip.map_or_else(|| String::from("any address"), |ip| ip.to_string());
                        log::info!("vif {id}: connected as {}, {ip}", vif.guard.mac);
                        self.events.extend(self.bus.connected(id));
                    }
                    Err(why) => self.bus.refuse(id, &why),
                }
            }
            BackendEvent::Closing(id) => {
                self.disconnect(id, "closed");
                self.events.extend(self.bus.closed(id));
            }
            BackendEvent::Gone(id) => {
                self.disconnect(id, "front end is gone");
                self.plans.remove(&id);
            }
        }
    }

    /// Nothing of a vif is ever mapped or in flight but its rings: they go at once.
    fn disconnect(&mut self, id: DeviceId, why: &str) {
        if let Some(at) = self.traffic.vifs.iter().position(|vif| vif.id == id) {
            let vif = self.traffic.remove(at);
            log::info!("vif {id}: {why} after {vif}");
        }
    }

    /// What the policy says of a vif, by its nodes in our own directory.
    fn plan(&self, id: DeviceId) -> Result<Plan, String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let mac = device.config::<String>("mac").map_err(|_| "the policy gives it no `mac`")?;
        let mac = mac.parse::<Mac>().map_err(|_| format!("`{mac}` is no MAC address of one station"))?;
        let ip = match device.config::<String>("ip") {
            Ok(text) => Some(text.trim().parse().map_err(|_| format!("`{text}` is no IPv4 address"))?),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(format!("`ip` cannot be read: {error:?}")),
        };
        let isolated = device.config::<u32>("isolated").is_ok_and(|isolated| isolated != 0);
        let reach = if isolated { Reach::UplinkOnly } else { Reach::All };
        Ok(Plan { guard: Guard { mac, ip }, reach })
    }

    /// Tells the front end what it may ask for.
    fn announce(&self, id: DeviceId) -> Result<(), String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let features: [(&str, &dyn fmt::Display); 8] = [
            ("feature-rx-copy", &1),
            ("feature-rx-flip", &0),
            ("feature-sg", &1),
            ("feature-gso-tcpv4", &1),
            ("feature-gso-tcpv6", &0),
            ("feature-ipv6-csum-offload", &0),
            ("feature-split-event-channels", &0),
            ("multi-queue-max-queues", &1),
        ];
        device.write_all(&features).map_err(|error| format!("cannot write features: {error:?}"))
    }

    /// Maps the front end's rings, binds its channel, puts it on the switch.
    fn connect<T: fmt::Display, R: fmt::Display>(
        &mut self,
        id: DeviceId,
        tx: impl FnOnce(Mapping) -> Result<TxBack<Mapping>, T>,
        rx: impl FnOnce(Mapping) -> Result<RxBack<Mapping>, R>,
    ) -> Result<&mut Vif, String> {
        let device = self.bus.device(id).ok_or("it is gone")?;
        let plan = *self.plans.get(&id).ok_or("it was not announced")?;
        if device.frontend_value::<u32>("request-rx-copy").is_ok_and(|copy| copy == 0) {
            return Err(String::from("it wants pages exchanged, only copying is served"));
        }
        let tx = tx(ring(device, id, "tx-ring-ref")?).map_err(|error| format!("its tx ring: {error}"))?;
        let rx = rx(ring(device, id, "rx-ring-ref")?).map_err(|error| format!("its rx ring: {error}"))?;
        let port = device.frontend_value::<u32>("event-channel").map_err(|_| "it names no event channel")?;
        let channel = Channel::connect(id.frontend, Port(port))
            .map_err(|error| format!("its event channel cannot be bound: {error:?}"))?;
        let own = self.traffic.nic.as_ref().and_then(Nic::mac);
        if own == Some(plan.guard.mac) {
            return Err(format!("{} is the network card's own address", plan.guard.mac));
        }
        let port = self.traffic.switch.add(plan.guard.mac, plan.reach).map_err(|error| match error {
            AddError::Full => String::from("all ports of the switch are taken"),
            AddError::DuplicateMac => format!("{} is another vif's address", plan.guard.mac),
        })?;
        let mut vif = Vif::new(id, port, plan.guard, (tx, rx), channel);
        let offers = |key: &str| device.frontend_value::<u32>(key).is_ok_and(|value| value == 1);
        vif.takes_large = offers("feature-sg") && offers("feature-gso-tcpv4");
        Ok(self.traffic.add(vif))
    }
}

fn broke(fault: DeviceFault) -> ! {
    log::error!("network card: broke the virtio protocol: {fault:?}");
    runtime::crash();
}

fn ring(device: &BackendDevice, id: DeviceId, key: &str) -> Result<Mapping, String> {
    let reference = device.frontend_value::<u32>(key).map_err(|_| format!("it names no `{key}`"))?;
    let page = Mapping::new(id.frontend, &[GrantRef(reference)], Access::ReadWrite);
    page.map_err(|error| format!("its ring cannot be mapped: {error}"))
}

/// The first card that works.
fn open_card(buffers: &mut Buffers) -> Option<Nic> {
    for device in virtio::find(DeviceType::Network) {
        match Nic::open(&device, buffers) {
            Ok(nic) => {
                let mac = nic.mac().map_or_else(|| String::from("no address"), |mac| mac.to_string());
                log::info!("uplink {}: {mac}", nic.id());
                return Some(nic);
            }
            Err(error) => log::error!("network card {}: {error}", virtio::DeviceId::of(&device)),
        }
    }
    log::error!("there is no network card that could be used: vifs reach each other only");
    None
}
