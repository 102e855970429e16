//! This domain's console: `log` and `print!` go out, lines come in.
//!
//! The ring page is at `native::CONSOLE_RING` (Xen public header `io/console.h`, `struct xencons_interface`); the
//! console domain is at its other end. Output never waits: what does not fit the ring is kept in a bounded buffer and
//! follows when the other end has made room; what does not fit that is dropped and counted, and the count is told.
//! Before there is a console connection, output goes to the hypervisor by `console_io`, which prefixes our name.

use alloc::string::String;
use core::fmt::{self, Write as _};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::event::{self, Channel};
use crate::hypercall::console_io;
use crate::ids::Port;
use crate::info::start_info;
use crate::local::Local;
use crate::shared::Shared;

/// `struct xencons_interface`.
mod ring {
    pub const IN: usize = 0;
    pub const IN_BYTES: u32 = 1024;
    pub const OUT: usize = 1024;
    pub const OUT_BYTES: u32 = 2048;
    pub const IN_CONS: usize = 3072;
    pub const IN_PROD: usize = 3076;
    pub const OUT_CONS: usize = 3080;
    pub const OUT_PROD: usize = 3084;
}

/// Bytes kept for a console domain that is slow.
const BACKLOG_BYTES: usize = 16 * 1024;
/// The longest input line; what is longer comes in pieces.
const LINE_BYTES: usize = 1024;

static CONSOLE: Local<Console> = Local::new(Console::new());

struct Console {
    connection: Option<Connection>,
    /// Output that waits for room in the ring: a circular buffer.
    backlog: [u8; BACKLOG_BYTES],
    backlog_start: usize,
    backlog_bytes: usize,
    /// Bytes lost since the last report of it.
    dropped: usize,
    /// Input read that is not a whole line yet.
    line: heapless::Vec<u8, LINE_BYTES>,
}

struct Connection {
    ring: Shared<'static>,
    channel: Channel,
}

impl Console {
    const fn new() -> Self {
        Self {
            connection: None,
            backlog: [0; BACKLOG_BYTES],
            backlog_start: 0,
            backlog_bytes: 0,
            dropped: 0,
            line: heapless::Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.connection.is_none() {
            console_io::write(bytes);
            return;
        }
        self.flush();
        let sent = if self.backlog_bytes == 0 { self.send(bytes) } else { 0 };
        self.keep(&bytes[sent..]);
    }

    /// Puts into the ring what fits, and tells the other end.
    fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(Connection { ring, channel }) = &self.connection else {
            return 0;
        };
        let producer = ring.u32_at(ring::OUT_PROD);
        let start = producer.load(Relaxed);
        let used = start.wrapping_sub(ring.u32_at(ring::OUT_CONS).load(Acquire));
        // A consumer index that makes no sense is the other end's fault: nothing fits until it does.
        let room = ring::OUT_BYTES.saturating_sub(used) as usize;
        let count = room.min(bytes.len());
        for (i, &byte) in bytes[..count].iter().enumerate() {
            let at = start.wrapping_add(i as u32) % ring::OUT_BYTES;
            ring.u8_at(ring::OUT + at as usize).store(byte, Relaxed);
        }
        if count != 0 {
            producer.store(start.wrapping_add(count as u32), Release);
            channel.notify();
        }
        count
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = BACKLOG_BYTES - self.backlog_bytes;
        let kept = room.min(bytes.len());
        for &byte in &bytes[..kept] {
            self.backlog[(self.backlog_start + self.backlog_bytes) % BACKLOG_BYTES] = byte;
            self.backlog_bytes += 1;
        }
        self.dropped += bytes.len() - kept;
    }

    /// Moves the backlog into the ring as far as it fits.
    fn flush(&mut self) {
        while self.backlog_bytes != 0 {
            let run = self.backlog_bytes.min(BACKLOG_BYTES - self.backlog_start);
            let mut chunk = [0u8; 256];
            let count = run.min(chunk.len());
            chunk[..count].copy_from_slice(&self.backlog[self.backlog_start..self.backlog_start + count]);
            let sent = self.send(&chunk[..count]);
            self.backlog_start = (self.backlog_start + sent) % BACKLOG_BYTES;
            self.backlog_bytes -= sent;
            if sent < count {
                return;
            }
        }
        if self.dropped != 0 {
            let mut note = heapless::String::<64>::new();
            let _ = writeln!(note, "\n[{} bytes of output dropped]", self.dropped);
            self.dropped = 0;
            let sent = self.send(note.as_bytes());
            self.keep(&note.as_bytes()[sent..]);
        }
    }

    /// Takes one byte of input out of the ring.
    fn read_byte(&mut self) -> Option<u8> {
        let Connection { ring, channel } = self.connection.as_ref()?;
        let consumer = ring.u32_at(ring::IN_CONS);
        let at = consumer.load(Relaxed);
        let filled = ring.u32_at(ring::IN_PROD).load(Acquire).wrapping_sub(at);
        if filled == 0 || filled > ring::IN_BYTES {
            return None;
        }
        let byte = ring.u8_at(ring::IN + (at % ring::IN_BYTES) as usize).load(Relaxed);
        consumer.store(at.wrapping_add(1), Release);
        if filled == ring::IN_BYTES {
            channel.notify(); // it was full: there is room again
        }
        Some(byte)
    }
}

/// Connects by what start info says, if it names a console.
pub(crate) fn init() {
    let port = start_info().console_port;
    if port != 0 {
        attach(Port(port));
    }
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// Connects to the console domain through `port`, an event channel that this domain owns already. Only the policy
/// domain, which makes its own channel, calls this.
pub fn attach(port: Port) {
    // SAFETY: the ring page is mapped read-write for the life of the domain, and nothing else refers to it.
    let ring = unsafe { Shared::new(xen_abi::native::CONSOLE_RING as *mut u8, crate::pages::PAGE) };
    let channel = Channel::adopt(port);
    event::unmask(port);
    let mut console = CONSOLE.borrow();
    console.connection = Some(Connection { ring, channel });
    console.flush();
}

/// The port of the console connection, to tell input in an event loop.
pub fn port() -> Option<Port> {
    CONSOLE
        .borrow()
        .connection
        .as_ref()
        .map(|connection| connection.channel.port())
}

/// Whether output goes to the console domain.
pub fn is_connected() -> bool {
    CONSOLE.try_borrow().is_some_and(|console| console.connection.is_some())
}

/// Sends what waits. The event loop calls this when the console's port is pending.
pub(crate) fn service() {
    if let Some(mut console) = CONSOLE.try_borrow() {
        console.flush();
    }
}

/// Writes raw bytes.
pub fn write(bytes: &[u8]) {
    match CONSOLE.try_borrow() {
        Some(mut console) => console.write(bytes),
        // Inside the console itself (a panic there): past it.
        None => console_io::write(bytes),
    }
}

/// Writes to the hypervisor, past the ring. For the panic handler.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "panics on the host have their own handler")
)]
pub(crate) fn write_early(bytes: &[u8]) {
    console_io::write(bytes);
}

/// Takes one byte of input, if there is any.
pub fn read_byte() -> Option<u8> {
    CONSOLE.borrow().read_byte()
}

/// Takes one line of input, without its end, if a whole one has come. What is not UTF-8 is replaced.
///
/// No echo and no editing: the console domain's line discipline sends lines ready-made.
pub fn read_line() -> Option<String> {
    let mut console = CONSOLE.borrow();
    while let Some(byte) = console.read_byte() {
        let end = matches!(byte, b'\n' | b'\r');
        if !end {
            let _ = console.line.push(byte);
        }
        if end || console.line.is_full() {
            let line = String::from_utf8_lossy(&console.line).into_owned();
            console.line.clear();
            return Some(line);
        }
    }
    None
}

/// Formats to the console, in few pieces, so that few events are sent. Behind `print!`.
pub fn write_fmt(arguments: fmt::Arguments<'_>) {
    let mut pieces = Pieces(heapless::Vec::new());
    let _ = pieces.write_fmt(arguments);
    pieces.send();
}

/// Collects formatted text on the stack.
struct Pieces(heapless::Vec<u8, 256>);

impl Pieces {
    fn send(&mut self) {
        if !self.0.is_empty() {
            write(&self.0);
            self.0.clear();
        }
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.0.is_full() {
                self.send();
            }
            let _ = self.0.push(byte);
        }
        Ok(())
    }
}

/// Formats to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::write_fmt(::core::format_args!($($argument)*)) };
}

/// Formats a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($argument)*)) };
}

struct Logger;

static LOGGER: Logger = Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            log::Level::Error => println!("error: {}", record.args()),
            log::Level::Warn => println!("warning: {}", record.args()),
            log::Level::Info => println!("{}", record.args()),
            log::Level::Debug | log::Level::Trace => println!("[{}] {}", record.target(), record.args()),
        }
    }

    fn flush(&self) {}
}
