//! The log that is kept of a domain: its last lines, up to a number of bytes.

use alloc::collections::VecDeque;
use alloc::string::String;

/// The last lines, oldest first.
#[derive(Clone, Debug, Default)]
pub struct KeptLog {
    lines: VecDeque<String>,
    bytes: usize,
    forgotten: u64,
}

/// Bytes kept of one domain.
pub const KEPT_BYTES: usize = 64 * 1024;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = 32;

impl KeptLog {
    /// Adds a line; the oldest go when there is no room.
    pub fn push(&mut self, line: &str) {
        self.bytes += line.len() + LINE_OVERHEAD;
        self.lines.push_back(String::from(line));
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + LINE_OVERHEAD;
            self.forgotten += oldest.len() as u64 + 1;
        }
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Bytes that had to go.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn the_newest_lines_stay_and_the_bound_holds() {
        let mut log = KeptLog::default();
        for i in 0..10_000 {
            log.push(&format!("line {i}"));
            assert!(log.bytes <= KEPT_BYTES);
        }
        assert_eq!(log.lines().last(), Some("line 9999"));
        assert!(log.forgotten() > 0 && log.lines().count() > 1000);
    }
}
