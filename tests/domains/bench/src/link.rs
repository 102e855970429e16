//! The connection of the two domains: granted pages and an event channel.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use runtime::event::{self, Channel};
use runtime::grant::GrantedPages;
use runtime::shared::Shared;
use runtime::store;
use runtime::time::{Instant, now};
use runtime::xenbus::{BackendBus, BackendEvent, Frontend, State};
use runtime::{Access, DomId, Errno, GrantRef, Port};

const KIND: &str = "channel";
/// Pages that the peer grants. The first is for talking, see [`Mode`].
pub const PAGES: usize = 17;

/// What the peer does, a word at the start of its first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// Waits for an event, sends one.
    Echo,
    /// The same in one hypercall.
    EchoAtOnce,
    /// Gives way, again and again.
    GiveWay,
    /// Says the time in the page, again and again (see [`TIME`]).
    Spin,
}

impl Mode {
    /// The mode of a number.
    pub fn read(page: Shared<'_>) -> Self {
        match page.u32_at(0).load(core::sync::atomic::Ordering::Acquire) {
            1 => Mode::EchoAtOnce,
            2 => Mode::GiveWay,
            3 => Mode::Spin,
            _ => Mode::Echo,
        }
    }

    /// Tells the peer what to do, the next time that it looks.
    pub fn tell(self, page: Shared<'_>) {
        page.u32_at(0).store(self as u32, core::sync::atomic::Ordering::Release);
    }
}

/// Where in the first page a spinning peer writes the time.
pub const TIME: usize = 8;

fn soon() -> Option<Instant> {
    Some(now() + Duration::from_secs(60))
}

/// Waits until all others have started and wait. Nothing else runs then, so this is no time to speak of.
pub fn settle() {
    let start = now() + Duration::from_secs(10);
    while now() < start {
        event::wait(Some(start)).for_each(drop);
    }
}

/// The peer's end.
pub struct Offer {
    /// The pages.
    pub pages: GrantedPages,
    /// The channel.
    pub channel: Channel,
    _device: Frontend,
}

/// Offers pages and a channel, and waits until they are taken.
pub fn offer() -> Result<Offer, String> {
    let in_words = |error: Errno| error.to_string();
    let mut device = Frontend::open(KIND, 0).map_err(in_words)?;
    device.wait_for_backend(soon()).map_err(in_words)?;
    let pages =
        GrantedPages::allocate(PAGES, device.backend(), Access::ReadWrite).map_err(|error| error.to_string())?;
    let channel = Channel::listen(device.backend()).map_err(in_words)?;
    let first = pages.reference(0).0;
    if pages.references().iter().zip(first..).any(|(reference, expected)| reference.0 != expected) {
        return Err(String::from("the references are not in a row"));
    }
    let nodes: [(&str, &dyn core::fmt::Display); 2] = [("first-ref", &first), ("event-channel", &channel.port().0)];
    device.publish(State::Initialised, &nodes).map_err(in_words)?;
    device.wait_connected(soon()).map_err(in_words)?;
    Ok(Offer { pages, channel, _device: device })
}

/// The measuring domain's end.
pub struct Peer {
    /// Who.
    pub domain: DomId,
    /// Its pages.
    pub references: Vec<GrantRef>,
    /// The channel.
    pub channel: Channel,
    _bus: BackendBus,
}

/// Takes what the peer offers.
pub fn accept() -> Result<Peer, String> {
    let in_words = |error: Errno| format!("no peer: {error}");
    let mut bus = BackendBus::new(KIND).map_err(in_words)?;
    loop {
        let watched = store::wait_event(soon()).ok_or("no peer in time")?;
        let mut todo = bus.on_watch(&watched);
        while let Some(next) = todo.pop() {
            match next {
                BackendEvent::Found(id) => todo.extend(bus.announce(id)),
                BackendEvent::Ready(id) => {
                    let device = bus.device(id).ok_or("no peer")?;
                    let number = |key: &str| device.frontend_value::<u32>(key).map_err(in_words);
                    let first = number("first-ref")?;
                    let references = (first..).take(PAGES).map(GrantRef).collect();
                    let channel = Channel::connect(id.frontend, Port(number("event-channel")?)).map_err(in_words)?;
                    bus.connected(id);
                    // Binding makes our end pending once; that is not the peer's event.
                    event::poll(&[channel.port()], soon());
                    return Ok(Peer { domain: id.frontend, references, channel, _bus: bus });
                }
                // Links of this kind are written anew for a successor.
                BackendEvent::Adopt(_) | BackendEvent::Closing(_) | BackendEvent::Gone(_) => {}
            }
        }
    }
}
