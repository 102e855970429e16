//! The hypervisor's log: a ring of text that the console domain reads (`platform_op` READ_LOG), written to the serial
//! line too until that domain holds VIRQ_CON_RING.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use heapless::Deque;
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

const RING_BYTES: usize = 64 * 1024;

/// The newest log text that was not read yet.
static RING: Mutex<Deque<u8, RING_BYTES>> = Mutex::new(Deque::new());
/// Whether the hypervisor still writes to the serial line itself.
pub static OWN_SERIAL: AtomicBool = AtomicBool::new(true);
/// Text came since the reader was told last.
pub static NEWS: AtomicBool = AtomicBool::new(false);

/// The log, and the formatter's way into it.
struct Sink;

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut ring = RING.lock();
        for byte in text.bytes() {
            if ring.is_full() {
                ring.pop_front();
            }
            // There is room now.
            let _ = ring.push_back(byte);
        }
        drop(ring);
        if OWN_SERIAL.load(Ordering::Relaxed) { crate::serial::Serial.write_str(text) } else { Ok(()) }
    }
}

impl Log for Sink {
    /// The macros of `log` have looked at the level already.
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let mark = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug | Level::Trace => "debug: ",
        };
        let micros = crate::time::now().0 / 1000;
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        // The sink cannot fail.
        let _ = writeln!(Sink, "[{seconds:5}.{micros:06}] hv: {mark}{}", record.args());
        tell();
    }

    fn flush(&self) {}
}

/// Writes text of a domain (`console_io`), as it is.
pub fn domain_text(name: &str, text: &str) {
    for part in text.split_inclusive('\n') {
        let _ = write!(Sink, "({name}) {part}{}", if part.ends_with('\n') { "" } else { "\n" });
    }
    tell();
}

/// There is something to read: whoever reads is told when the current hypercall or trap ends.
fn tell() {
    NEWS.store(true, Ordering::Relaxed);
    crate::domain::ERRANDS.fetch_or(crate::domain::CHORES, Ordering::Relaxed);
}

/// Makes `log::info!` and its kin work.
pub fn init() {
    // It fails only when called twice.
    let _ = log::set_logger(&Sink);
    log::set_max_level(LevelFilter::Info);
}

/// Takes the oldest unread text; answers its length.
pub fn read(buffer: &mut [u8]) -> usize {
    let mut ring = RING.lock();
    let bytes = core::iter::from_fn(|| ring.pop_front());
    buffer.iter_mut().zip(bytes).map(|(to, byte)| *to = byte).count()
}
