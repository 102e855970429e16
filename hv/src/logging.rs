//! The hypervisor's log: a ring of text that the console domain reads (`platform_op` READ_LOG), written to the serial
//! line too until that domain holds VIRQ_CON_RING.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

const RING_BYTES: usize = 64 * 1024;

/// The newest [`RING_BYTES`] of log text. Positions count bytes since boot.
struct Ring {
    bytes: [u8; RING_BYTES],
    written: u64,
    read: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring { bytes: [0; RING_BYTES], written: 0, read: 0 });
/// Whether the hypervisor still writes to the serial line itself.
static OWN_SERIAL: AtomicBool = AtomicBool::new(true);
/// Text came since the reader was told last.
static NEWS: AtomicBool = AtomicBool::new(false);

/// The log, and the formatter's way into it.
struct Sink;

impl Ring {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes[(self.written % RING_BYTES as u64) as usize] = byte;
            self.written += 1;
        }
        self.read = self.read.max(self.written.saturating_sub(RING_BYTES as u64));
    }
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        RING.lock().push(text);
        if OWN_SERIAL.load(Ordering::Relaxed) {
            return crate::serial::Serial.write_str(text);
        }
        Ok(())
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let mark = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                Level::Info => "",
                Level::Debug | Level::Trace => "debug: ",
            };
            let micros = crate::time::now().as_nanos() / 1000;
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            // The sink cannot fail.
            let _ = writeln!(Sink, "[{seconds:5}.{micros:06}] hv: {mark}{}", record.args());
            NEWS.store(true, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Writes text of a domain (`console_io`), as it is.
pub fn domain_text(name: &str, text: &str) {
    for part in text.split_inclusive('\n') {
        let _ = write!(Sink, "({name}) {part}{}", if part.ends_with('\n') { "" } else { "\n" });
    }
    NEWS.store(true, Ordering::Relaxed);
}

/// Makes `log::info!` and its kin work.
pub fn init() {
    // It fails only when called twice.
    let _ = log::set_logger(&Sink);
    log::set_max_level(LevelFilter::Info);
}

/// Who writes to the serial line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SerialOwner {
    /// The hypervisor itself: the line is polled.
    Hypervisor,
    /// The console domain, from the ring.
    Console,
}

/// Hands the serial line over, or takes it back.
pub fn set_serial_owner(owner: SerialOwner) {
    OWN_SERIAL.store(owner == SerialOwner::Hypervisor, Ordering::Relaxed);
}

/// Whether lines came since [`take_news`].
#[inline]
pub fn news() -> bool {
    NEWS.load(Ordering::Relaxed)
}

/// The same, and there are none any more.
pub fn take_news() -> bool {
    NEWS.swap(false, Ordering::Relaxed)
}

/// Takes the oldest unread text; answers its length.
pub fn read(buffer: &mut [u8]) -> usize {
    let mut ring = RING.lock();
    let count = buffer.len().min((ring.written - ring.read) as usize);
    for byte in &mut buffer[..count] {
        *byte = ring.bytes[(ring.read % RING_BYTES as u64) as usize];
        ring.read += 1;
    }
    count
}
