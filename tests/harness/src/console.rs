//! The serial line, read by a thread into lines that know which domain wrote them.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The domain's name from the line's prefix `name| `; empty for text without one (the hypervisor's early output,
    /// and the domain that has the focus).
    pub domain: String,
    /// The line without prefix and colours.
    pub text: String,
}

/// What a test domain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who says so.
    pub domain: String,
    /// What was tried.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// More.
    pub detail: String,
}

#[derive(Default)]
struct Text {
    all: String,
    ended: bool,
}

/// Everything that was printed so far.
#[derive(Clone, Default)]
pub(crate) struct Console {
    shared: Arc<(Mutex<Text>, Condvar)>,
    deaf: Arc<AtomicBool>,
}

/// Nobody reads the console for as long as this lives.
#[must_use]
pub struct Deaf(Arc<AtomicBool>);

impl Drop for Deaf {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Console {
    /// Starts reading.
    pub(crate) fn read(mut from: impl Read + Send + 'static) -> Self {
        let console = Self::default();
        let writer = console.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut raw = Vec::new();
            loop {
                while writer.deaf.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let count = from.read(&mut buffer).unwrap_or(0);
                raw.extend_from_slice(&buffer[..count]);
                let mut text = writer.lock();
                text.all = plain(&raw);
                text.ended = count == 0;
                drop(text);
                writer.shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        console
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        // A reader that panicked has left nothing half done.
        self.shared.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stops reading.
    pub(crate) fn stop_reading(&self) -> Deaf {
        self.deaf.store(true, Ordering::Relaxed);
        Deaf(self.deaf.clone())
    }

    /// All text so far, without colours and carriage returns.
    pub(crate) fn text(&self) -> String {
        self.lock().all.clone()
    }

    /// Characters so far: a position for [`Console::wait`].
    pub(crate) fn position(&self) -> usize {
        self.lock().all.len()
    }

    /// Waits until `found` says yes to the text from `from` on. `None`: the limit was hit, or QEMU ended first.
    pub(crate) fn wait<T>(&self, from: usize, limit: Duration, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut text = self.lock();
        loop {
            if let Some(value) = found(text.all.get(from..).unwrap_or("")) {
                return Some(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                return None;
            }
            text = match self.shared.1.wait_timeout(text, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Splits text into lines by domain.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    text.lines().map(line).collect()
}

fn line(text: &str) -> Line {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match text.split_once('|') {
        Some((name, rest)) if is_name(name.trim()) => {
            Line { domain: name.trim().into(), text: rest.strip_prefix(' ').unwrap_or(rest).into() }
        }
        _ => Line { domain: String::new(), text: text.into() },
    }
}

/// Collects the verdict lines of a text.
pub(crate) fn verdicts(text: &str) -> Vec<Verdict> {
    lines(text).into_iter().filter_map(verdict).collect()
}

fn verdict(line: Line) -> Option<Verdict> {
    let rest = &line.text[line.text.find("VERDICT ")? + 8..];
    let (word, rest) = rest.split_once(' ')?;
    let (name, detail) = rest.split_once(':').unwrap_or((rest, ""));
    let passed = match word {
        "pass" => true,
        "fail" => false,
        _ => return None,
    };
    Some(Verdict { domain: line.domain, name: name.trim().into(), passed, detail: detail.trim().into() })
}

/// Drops escape sequences (an erased line becomes a line) and carriage returns; what is no UTF-8 becomes the replacement character.
fn plain(raw: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            0x1b => {
                if rest.next() == Some(b'[') {
                    // A control sequence ends with a byte of 0x40 to 0x7e.
                    let end = rest.by_ref().find(|byte| (0x40..0x7f).contains(byte));
                    // The console erases the prompt to put another domain's line in its place. Here the prompt stays,
                    // as a line of its own: text that was seen once never goes or moves.
                    if end == Some(b'K') && bytes.last().is_some_and(|last| *last != b'\n') {
                        bytes.push(b'\n');
                    }
                }
            }
            b'\r' => {}
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_colours_are_understood() {
        let text = plain(b"\x1b[36mweb|\x1b[0m listening\r\nplain | text\r\n");
        let lines = lines(&text);
        assert_eq!(lines[0], Line { domain: "web".into(), text: "listening".into() });
        assert_eq!(lines[1].domain, "plain");
    }

    #[test]
    fn a_line_that_takes_the_place_of_the_prompt_is_a_line() {
        let text = plain(b"ok\r\nbulkhead> \r\x1b[K\x1b[36mweb|\x1b[0m up\r\nbulkhead> ");
        assert_eq!(text, "ok\nbulkhead> \nweb| up\nbulkhead> ");
        assert_eq!(lines(&text)[2].domain, "web");
    }

    #[test]
    fn verdicts_are_collected() {
        let found =
            verdicts("probe| VERDICT pass null: fine\nprobe| VERDICT fail other: why: so\nVERDICT maybe x: y\n");
        assert_eq!(found.len(), 2);
        assert!(found[0].passed && !found[1].passed);
        assert_eq!(found[1].detail, "why: so");
    }
}
