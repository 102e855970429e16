//! This domain's console: `log` and `print!` go out, lines come in.
//!
//! The ring page is at `native::CONSOLE_RING` (Xen public header `io/console.h`, `struct xencons_interface`); the
//! console domain is at its other end. Output never waits: what does not fit the ring is kept in a bounded buffer and
//! follows when the other end has made room; what does not fit that is dropped and counted, and the count is told.
//! Before there is a console connection, output goes to the hypervisor by `console_io`, which prefixes our name.
//!
//! The console domain may die and be started again, under the same id. The next one maps the ring page as it is, with all
//! that is still in it, and binds the same port: nothing changes here, and output waits meanwhile.

use alloc::string::String;
use core::fmt::{self, Write as _};

use xen_abi::native::CONSOLE_RING;
use xen_rings::console::ConsoleFront;

use crate::event::{self, Channel};
use crate::hypercall::console_io;
use crate::ids::Port;
use crate::info::start_info;
use crate::local::Local;
use crate::pages::PAGE;
use crate::shared::Shared;

/// Bytes kept for a console domain that is slow.
const BACKLOG_BYTES: usize = 16 * 1024;
/// The longest input line; what is longer comes in pieces.
const INPUT_BYTES: usize = 1024;

static CONSOLE: Local<Console> = Local::new(Console::new());

struct Console {
    connection: Option<Connection>,
    /// Output that waits for room in the ring: a circular buffer.
    backlog: [u8; BACKLOG_BYTES],
    backlog_start: usize,
    backlog_bytes: usize,
    /// Bytes lost since the last report of it.
    dropped: usize,
    /// Input read and not handed out as lines yet.
    input: heapless::Vec<u8, INPUT_BYTES>,
}

struct Connection {
    ring: ConsoleFront<Shared<'static>>,
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
            input: heapless::Vec::new(),
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

    /// Puts into the ring what fits, and tells the other end. A ring with impossible indices has no room.
    fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(Connection { ring, channel }) = &mut self.connection else {
            return 0;
        };
        let count = ring.write(bytes).unwrap_or(0);
        if count != 0 {
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

    /// Takes input out of the ring.
    fn read(&mut self, into: &mut [u8]) -> usize {
        let Some(Connection { ring, channel }) = &mut self.connection else {
            return 0;
        };
        let count = ring.read(into).unwrap_or(0);
        if count != 0 {
            channel.notify(); // there is room again
        }
        count
    }

    /// Hands out the first `bytes` of the input as text and forgets the first `used`.
    fn take_input(&mut self, bytes: usize, used: usize) -> String {
        let text = String::from_utf8_lossy(&self.input[..bytes]).into_owned();
        self.input.drain(..used);
        text
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
    let page = unsafe { Shared::new(CONSOLE_RING as *mut u8, PAGE) };
    let channel = Channel::adopt(port);
    // Indices that are impossible from the start: output goes on to the hypervisor.
    let Ok(ring) = ConsoleFront::attach(page) else { return };
    event::unmask(port);
    let mut console = CONSOLE.borrow();
    console.connection = Some(Connection { ring, channel });
    console.flush();
}

/// Ends the connection: output goes to the hypervisor again. For the policy domain, when the console domain is dead.
pub fn detach() {
    let connection = CONSOLE.borrow().connection.take();
    drop(connection);
}

/// The port of the console connection, to tell input in an event loop.
pub fn port() -> Option<Port> {
    CONSOLE.borrow().connection.as_ref().map(|connection| connection.channel.port())
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
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "panics on the host have their own handler"))]
pub(crate) fn write_early(bytes: &[u8]) {
    console_io::write(bytes);
}

/// Takes input as it comes; how many bytes. For a domain whose console is in raw mode.
pub fn read(into: &mut [u8]) -> usize {
    CONSOLE.borrow().read(into)
}

/// Takes one line of input, without its end, if a whole one has come. What is not UTF-8 is replaced.
///
/// No echo and no editing: the console domain does both and sends whole lines.
pub fn read_line() -> Option<String> {
    let mut console = CONSOLE.borrow();
    loop {
        let input = &console.input;
        if let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            return Some(console.take_input(end, end + 1));
        }
        if input.is_full() {
            return Some(console.take_input(INPUT_BYTES, INPUT_BYTES));
        }
        let mut piece = [0; 128];
        let room = piece.len().min(INPUT_BYTES - input.len());
        let count = console.read(&mut piece[..room]);
        if count == 0 {
            return None;
        }
        let _ = console.input.extend_from_slice(&piece[..count]);
    }
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
