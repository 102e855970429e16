//! One virtual interface: the two rings of a front end, its guard, and the frames that wait for it.

use core::fmt;
use net_domain::frame::{Guard, Refused};
use net_domain::pool::Backlog;
use net_domain::switch::PortNumber;
use runtime::event::Channel;
use runtime::grant::Mapping;
use runtime::xenbus::DeviceId;
use xen_rings::netif::{NetBackError, RxBack, TxBack};

/// Things that a front end does wrong that are logged, for each connection.
const COMPLAINTS_MAX: u32 = 4;

/// What a vif has done. "sent" and "received" are seen from the front end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames taken and passed on.
    pub sent: u64,
    /// Frames delivered.
    pub received: u64,
    /// Frames refused: too short or too long.
    pub misshapen: u64,
    /// Frames refused: from an address that is not the vif's.
    pub forged: u64,
    /// Packets whose slots or pages were bad.
    pub failed: u64,
    /// Frames dropped for want of a buffer.
    pub starved: u64,
}

impl Counters {
    /// Counts a frame that the guard refused.
    pub fn refused(&mut self, why: Refused) {
        match why {
            Refused::Runt | Refused::Giant => self.misshapen += 1,
            Refused::ForeignMac | Refused::ForeignIp => self.forged += 1,
        }
    }
}

/// A connected vif.
pub struct Vif {
    /// Which.
    pub id: DeviceId,
    /// Its port of the switch.
    pub port: PortNumber,
    /// What it may send.
    pub guard: Guard,
    /// Its tx ring: frames from the front end.
    pub tx: TxBack<Mapping>,
    /// Its rx ring: buffers for frames to the front end.
    pub rx: RxBack<Mapping>,
    channel: Channel,
    /// Whether its front end takes packets over IPv4 that are larger than a frame.
    pub takes_large: bool,
    /// Frames that wait for buffers.
    pub backlog: Backlog,
    /// Packets may wait in the tx ring.
    pub ready: bool,
    /// When packets were last taken, some were larger than a frame: there will be more.
    pub bulk: bool,
    /// Answers were written to the tx ring.
    pub answered: bool,
    /// Frames were written to the rx ring.
    pub delivered: bool,
    /// The rings make no sense: why.
    pub broken: Option<NetBackError>,
    complaints: u32,
    /// What it has done.
    pub counters: Counters,
}

impl Vif {
    /// A vif over attached rings.
    pub fn new(
        id: DeviceId,
        port: PortNumber,
        guard: Guard,
        rings: (TxBack<Mapping>, RxBack<Mapping>),
        channel: Channel,
    ) -> Self {
        Self {
            id,
            port,
            guard,
            tx: rings.0,
            rx: rings.1,
            channel,
            takes_large: false,
            backlog: Backlog::default(),
            ready: true, // packets may have come before the channel
            bulk: false,
            answered: false,
            delivered: false,
            broken: None,
            complaints: 0,
            counters: Counters::default(),
        }
    }

    /// The event channel to its front end.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Shows the front end what was answered and delivered, with one event for both.
    pub fn publish(&mut self) {
        let tx = core::mem::take(&mut self.answered) && self.tx.publish();
        let rx = core::mem::take(&mut self.delivered) && self.rx.publish();
        if tx || rx {
            self.channel.notify();
        }
    }

    /// The connection is to be closed.
    pub fn fail(&mut self, error: impl Into<NetBackError>) {
        self.broken.get_or_insert(error.into());
        self.ready = false;
    }

    /// Logs what the front end does wrong, the first few times.
    pub fn complain(&mut self, what: fmt::Arguments<'_>) {
        if self.complaints < COMPLAINTS_MAX {
            self.complaints += 1;
            log::warn!("vif {}: {what}", self.id);
        }
    }
}

impl fmt::Display for Vif {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { sent, received, misshapen, forged, failed, starved } = self.counters;
        let dropped = self.backlog.dropped();
        write!(
            out,
            "{sent} frames sent, {received} received, {dropped} dropped as it did not take them, {forged} forged, \
             {misshapen} misshapen, {failed} failed, {starved} starved"
        )
    }
}
