//! Event channels: one bit of news from another domain, a device or the timer.
//!
//! A domain's main loop is
//!
//! ```text
//! loop {
//!     for port in event::wait(deadline) {
//!         /* serve what the port stands for; it may have nothing new */
//!     }
//!     /* the deadline's work, if it passed */
//! }
//! ```
//!
//! [`wait`] returns without ports when the deadline passes; a port may be returned without news (spurious events are
//! legal), and several events on one port are one. Serving *all* that is there after each wake-up is therefore the rule:
//! read the ring until it is empty, then go on waiting.

pub mod bits;
mod courtesy;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::console;
use crate::errno::Result;
use crate::hypercall::{event_channel, sched, vcpu};
use crate::ids::{DomId, Port};
use crate::shared_info;
use crate::time::{Instant, now};

use bits::Scan;
pub use courtesy::Courtesy;

/// An event channel that this domain owns; closed when dropped.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping a channel closes it"]
pub struct Channel {
    port: Port,
}

impl Channel {
    /// A port to which `remote` may bind with [`Channel::connect`]. Tell it the number.
    pub fn listen(remote: DomId) -> Result<Channel> {
        Ok(Self::opened(event_channel::alloc_unbound(DomId::SELF, remote)?))
    }

    /// Binds to the port that `remote` made for us.
    pub fn connect(remote: DomId, remote_port: Port) -> Result<Channel> {
        Ok(Self::opened(event_channel::bind_interdomain(remote, remote_port)?))
    }

    /// Binds a virtual interrupt (`VIRQ_*`).
    pub fn virq(virq: u32) -> Result<Channel> {
        Ok(Self::opened(event_channel::bind_virq(virq)?))
    }

    /// Binds a physical interrupt that `hypercall::physdev` mapped.
    pub fn pirq(pirq: u32) -> Result<Channel> {
        Ok(Self::opened(event_channel::bind_pirq(pirq)?))
    }

    /// Takes over a port that was made otherwise (start info, the policy domain's own). It stays masked until
    /// [`unmask`] is called.
    pub fn adopt(port: Port) -> Channel {
        Channel { port }
    }

    fn opened(port: Port) -> Channel {
        unmask(port);
        Channel { port }
    }

    /// The port's number: what [`wait`] yields and what the other side is told.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Sends an event. A peer that is gone is not an error here: its closing is announced by other means.
    pub fn notify(&self) {
        let _ = event_channel::send(self.port);
    }

    /// Sends an event and says whether that was possible.
    pub fn send(&self) -> Result<()> {
        event_channel::send(self.port)
    }

    /// Gives up ownership without closing.
    pub fn leak(self) -> Port {
        let port = self.port;
        core::mem::forget(self);
        port
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        mask(self.port);
        let _ = event_channel::close(self.port);
        shared_info::bits().take(self.port.0);
    }
}

/// Stops [`wait`] from returning a port. Events that come meanwhile stay pending.
pub fn mask(port: Port) {
    shared_info::bits().mask(port.0);
}

/// Lets [`wait`] return a port again, at once if something came meanwhile. For a physical interrupt this is also the end
/// of the interrupt: a level-triggered line may fire again from here on.
pub fn unmask(port: Port) {
    shared_info::bits().unmask(port.0);
}

/// Masks every port but these. For a domain that waits for nothing else any more.
pub fn mask_all_but(ports: &[Port]) {
    shared_info::bits().mask_all();
    ports.iter().for_each(|&port| unmask(port));
}

/// Takes a port's event, if there is one: `true`, and it is cleared. Without waiting; `sched::block` behind it waits
/// for the next event of any unmasked port.
#[inline]
pub fn take(port: Port) -> bool {
    shared_info::clear_upcall_pending();
    shared_info::bits().take(port.0)
}

/// Makes a port of our own pending, so that the next [`wait`] returns it.
pub fn raise(port: Port) {
    shared_info::bits().raise(port.0);
}

/// Waits until ports are pending or the deadline passes (`None`: for ever), and goes through them.
///
/// Each port is cleared as it is returned: look at what it stands for afterwards. The console's output is served in
/// passing; its port and the xenstore port are returned like any other.
pub fn wait(deadline: Option<Instant>) -> Pending {
    loop {
        shared_info::clear_upcall_pending();
        let mut scan = Pending { scan: shared_info::bits().scan(), first: None };
        scan.first = scan.pull();
        if scan.first.is_some() {
            return scan;
        }
        drop(scan);
        // A timer that goes off in time wakes us; the clock is looked at after that.
        if let Some(deadline) = deadline.filter(|&deadline| !timer::is_armed_by(deadline)) {
            if now() >= deadline {
                return Pending { scan: shared_info::bits().scan(), first: None };
            }
            timer::arm(deadline);
        }
        sched::block();
    }
}

/// What is pending now, without waiting.
pub fn pending() -> Pending {
    shared_info::clear_upcall_pending();
    Pending { scan: shared_info::bits().scan(), first: None }
}

/// Waits for one of a few ports, while all others stay pending for [`wait`]. `true`: one of them came, and has been
/// cleared; `false`: the deadline passed. For synchronous calls to another domain.
pub fn poll(ports: &[Port], deadline: Option<Instant>) -> bool {
    loop {
        shared_info::clear_upcall_pending();
        let bits = shared_info::bits();
        let mut came = false;
        for port in ports {
            came |= bits.take(port.0);
        }
        if came {
            return true;
        }
        if deadline.is_some_and(|deadline| now() >= deadline) {
            return false;
        }
        sched::poll(ports, deadline);
    }
}

/// The same, and which of them came first; the others stay pending.
pub fn poll_for(ports: &[Port], deadline: Option<Instant>) -> Option<Port> {
    loop {
        shared_info::clear_upcall_pending();
        let bits = shared_info::bits();
        if let Some(port) = ports.iter().find(|port| bits.take(port.0)) {
            return Some(*port);
        }
        if deadline.is_some_and(|deadline| now() >= deadline) {
            return None;
        }
        sched::poll(ports, deadline);
    }
}

/// The pending ports of one wake-up.
pub struct Pending {
    scan: Scan<'static>,
    first: Option<Port>,
}

impl Pending {
    fn pull(&mut self) -> Option<Port> {
        for port in self.scan.by_ref() {
            let port = Port(port);
            if timer::is(port) {
                timer::fired();
                continue;
            }
            if console::port() == Some(port) {
                console::service();
            }
            return Some(port);
        }
        None
    }
}

impl Iterator for Pending {
    type Item = Port;

    fn next(&mut self) -> Option<Port> {
        self.first.take().or_else(|| self.pull())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(port) = self.first.take() {
            raise(port);
        }
    }
}

/// Starts the timer. Once, at the start.
pub(crate) fn init() {
    timer::init();
}

/// The one-shot timer of the vCPU, behind [`wait`]'s deadline.
mod timer {
    use super::*;
    use crate::hypercall::event_channel::VIRQ_TIMER;

    /// The timer's port; `u64::MAX`: none yet.
    static PORT: AtomicU64 = AtomicU64::new(u64::MAX);
    /// The moment it is set to; `u64::MAX`: not set.
    static ARMED: AtomicU64 = AtomicU64::new(u64::MAX);

    pub fn init() {
        let channel = Channel::virq(VIRQ_TIMER).expect("every domain has a timer");
        PORT.store(u64::from(channel.leak().0), Relaxed);
    }

    pub fn is(port: Port) -> bool {
        u64::from(port.0) == PORT.load(Relaxed)
    }

    pub fn fired() {
        ARMED.store(u64::MAX, Relaxed);
    }

    /// Whether the timer is set to that moment or an earlier one. Then it is left alone: `wait` comes round and sets it
    /// again.
    pub fn is_armed_by(deadline: Instant) -> bool {
        ARMED.load(Relaxed) <= deadline.0
    }

    pub fn arm(deadline: Instant) {
        if vcpu::set_singleshot_timer(deadline.0).is_ok() {
            ARMED.store(deadline.0, Relaxed);
        }
    }
}
