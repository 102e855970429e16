//! The console's main loop: the serial line on one side, the rings and the hypervisor's log on the other.

use alloc::format;

use console_mux::mux::{Mux, SourceId};
use console_mux::screen::Terminal;
use core::time::Duration;
use runtime::event::{self, Channel};
use runtime::hypercall::event_channel::VIRQ_CON_RING;
use runtime::hypercall::platform;
use runtime::store::{self, Store};
use runtime::time::{Instant, now};
use runtime::{DomId, Port, info};

use crate::links::{DIRECTORY, Links};
use crate::serial::{FIFO_BYTES, Serial};

/// The time that xenstore has for an answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the line is looked at when no interrupt tells that it has come or gone.
const POLL: Duration = Duration::from_millis(5);
/// Bytes received and sent in a round.
const ROUND_BYTES: usize = 4096;
/// While this much waits for the line, the hypervisor's log is not read, and keys wait.
const WAITING_MAX: usize = 128 * 1024;

/// The base port of the first serial line, and its interrupt.
const COM1: (u16, u32) = (0x3f8, 4);

/// Where requests for kept logs come and are answered, see `docs/console.md`.
const LOG_REQUEST: &str = "backend/console/0/0/log-request";
const LOG_ANSWER: &str = "backend/console/0/0/log-answer";

/// Runs the console, for ever. Arguments: `port=0x3f8`, `irq=4`, `terminal=dumb`.
pub fn run() {
    store::set_timeout(Some(STORE_TIMEOUT));
    let mut server = Server::new();
    if let Err(error) = Store::new().watch(DIRECTORY, "links") {
        log::error!("cannot watch for domains: {error}");
    }
    server.keep_early_log();
    // From here on the hypervisor leaves the line to us.
    server.log_port = Channel::virq(VIRQ_CON_RING)
        .inspect_err(|error| log::warn!("the hypervisor's log is not readable: {error}"))
        .ok();
    loop {
        let busy = server.round();
        let pending = if busy { event::pending() } else { event::wait(server.deadline()) };
        for port in pending {
            server.notify(port);
        }
    }
}

struct Server {
    mux: Mux,
    serial: Option<Serial>,
    links: Links,
    log_port: Option<Channel>,
    hypervisor: SourceId,
    /// The hypervisor's log may have something.
    log_pending: bool,
    /// xenstore may have something.
    store_pending: bool,
    /// The request for a kept log that was answered last.
    answered: Option<u64>,
    /// The serial line's interrupt came and was not ended yet.
    interrupted: bool,
}

impl Server {
    fn new() -> Self {
        let terminal = if info::argument("terminal") == Some("dumb") { Terminal::Dumb } else { Terminal::Ansi };
        let mut mux = Mux::new(terminal);
        let hypervisor = mux.source("hv", 0);
        let base = info::argument("port").and_then(number).and_then(|port| port.try_into().ok());
        let irq = info::argument("irq").and_then(number);
        let serial = Serial::new(base.unwrap_or(COM1.0), irq.unwrap_or(COM1.1));
        if serial.is_none() {
            log::error!("there is no serial line");
        }
        Self {
            mux,
            serial,
            links: Links::default(),
            log_port: None,
            hypervisor,
            log_pending: true,
            store_pending: true,
            answered: None,
            interrupted: false,
        }
    }

    /// What the hypervisor logged so far it printed itself.
    fn keep_early_log(&mut self) {
        let mut text = [0; 2048];
        // Its ring holds no more than this; whatever it does, the loop ends.
        for _ in 0..128 {
            match platform::read_log(&mut text) {
                Ok(count) if count != 0 => self.mux.keep(self.hypervisor, &text[..count]),
                _ => return,
            }
        }
    }

    fn notify(&mut self, port: Port) {
        if self.links.notify(port) {
        } else if self.log_port.as_ref().is_some_and(|channel| channel.port() == port) {
            self.log_pending = true;
        } else if store::port() == Some(port) {
            self.store_pending = true;
        } else if self.serial.as_ref().and_then(Serial::port) == Some(port) {
            // Its data is looked at in every round anyway.
            self.interrupted = true;
        }
    }

    /// The moment to look at the line again without an event.
    fn deadline(&self) -> Option<Instant> {
        let serial = self.serial.as_ref()?;
        (serial.port().is_none() || self.mux.screen_bytes() != 0).then(|| now() + POLL)
    }

    /// A bounded amount of all that is to do. Whether there is more at once.
    fn round(&mut self) -> bool {
        let mut busy = self.receive();
        if core::mem::take(&mut self.store_pending) {
            self.watch_events();
        }
        // The last words of a domain before the hypervisor's word of its end.
        busy |= self.links.round(&mut self.mux);
        busy |= self.read_log();
        busy | self.transmit()
    }

    fn receive(&mut self) -> bool {
        let Some(serial) = &mut self.serial else { return false };
        if self.mux.screen_bytes() > WAITING_MAX {
            return false;
        }
        for _ in 0..ROUND_BYTES {
            let Some(byte) = serial.receive() else { return false };
            self.mux.key(byte);
        }
        true
    }

    fn transmit(&mut self) -> bool {
        let Some(serial) = &mut self.serial else {
            // Nowhere to show it; the logs are kept all the same.
            while self.mux.take_screen(&mut [0; 256]) != 0 {}
            return false;
        };
        let mut left = ROUND_BYTES;
        while left != 0 && self.mux.screen_bytes() != 0 && serial.can_transmit() {
            let mut bytes = [0; FIFO_BYTES];
            let count = self.mux.take_screen(&mut bytes);
            serial.transmit(&bytes[..count]);
            left = left.saturating_sub(count);
        }
        serial.more_to_send(self.mux.screen_bytes());
        let again = core::mem::take(&mut self.interrupted) && serial.end_interrupt();
        left == 0 || again
    }

    fn read_log(&mut self) -> bool {
        if !self.log_pending || self.log_port.is_none() || self.mux.screen_bytes() > WAITING_MAX {
            return false;
        }
        let mut text = [0; 2048];
        let count = platform::read_log(&mut text).unwrap_or(0);
        self.mux.output(self.hypervisor, &text[..count]);
        self.log_pending = count != 0;
        self.log_pending
    }

    fn watch_events(&mut self) {
        let mut changed = false;
        while let Some(event) = store::next_event() {
            if event.path.ends_with("/log-request") {
                self.answer_log_request();
            } else if let Some(domain) = with_another_port(&event.path) {
                self.links.look_at(domain, &mut self.mux);
            } else {
                // Our own writing is not news.
                changed |= !event.path.ends_with("/state") && !event.path.ends_with("/log-answer");
            }
        }
        if changed {
            self.links.scan(&mut self.mux);
            self.answer_log_request();
        }
    }

    fn answer_log_request(&mut self) {
        let Ok(request) = Store::new().read_text(LOG_REQUEST) else {
            return;
        };
        let Some((id, name)) = request.split_once(' ') else {
            return;
        };
        let Ok(id) = id.parse() else { return };
        if self.answered != Some(id) {
            self.answered = Some(id);
            self.mux.show_log(name.trim());
            let _ = Store::new().write(LOG_ANSWER, format!("{id}"));
        }
    }
}

/// The domain whose port changed, if that is what a path tells: `.../backend/console/4/0/port`.
fn with_another_port(path: &str) -> Option<DomId> {
    let mut parts = path.rsplit('/');
    let is_port = parts.next() == Some("port") && parts.next() == Some("0");
    DomId::from_u32(parts.next().filter(|_| is_port)?.parse().ok()?)
}

/// Reads `4` or `0x3f8`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
