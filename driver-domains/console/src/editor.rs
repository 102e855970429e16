//! The line that a person types: editing keys, and earlier lines.

use alloc::collections::VecDeque;
use alloc::string::String;

/// The longest line.
pub const LINE_MAX: usize = 1000;
/// Earlier lines that are kept.
const HISTORY: usize = 32;

/// What a key did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing to show.
    Nothing,
    /// A character was added at the end: show it.
    Added(char),
    /// The line changed: show it anew.
    Changed,
    /// The line is complete; the editor is empty again.
    Line(String),
    /// The line was dropped (Ctrl-C); the editor is empty again.
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keys {
    #[default]
    Plain,
    Escape,
    Control,
}

/// A line being typed.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    line: String,
    keys: Keys,
    /// The last byte ended a line with a carriage return: a line feed now belongs to it.
    after_return: bool,
    partial: [u8; 4],
    partial_bytes: usize,
    history: VecDeque<String>,
    /// Steps back in the history.
    back: usize,
}

impl Editor {
    /// The line so far.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Takes a byte from the serial line. Bytes that are no text and no known key do nothing.
    pub fn key(&mut self, byte: u8) -> Edit {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.keys, byte) {
            (Keys::Plain, 0x1b) => self.keys = Keys::Escape,
            (Keys::Escape, b'[' | b'O') => self.keys = Keys::Control,
            (Keys::Escape, _) => self.keys = Keys::Plain,
            (Keys::Control, 0x40..=0x7e) => {
                self.keys = Keys::Plain;
                return self.arrow(byte);
            }
            // Parameters; anything else ends a sequence that is none.
            (Keys::Control, 0x20..=0x3f) => {}
            (Keys::Control, _) => self.keys = Keys::Plain,
            (Keys::Plain, b'\n') if after_return => {}
            (Keys::Plain, b'\r' | b'\n') => return self.enter(),
            (Keys::Plain, 0x03) => {
                self.clear();
                return Edit::Cancelled;
            }
            (Keys::Plain, 0x08 | 0x7f) => return self.changed(|line| line.pop().is_some()),
            (Keys::Plain, 0x15) => return self.changed(|line| !core::mem::take(line).is_empty()),
            (Keys::Plain, 0x17) => return self.changed(erase_word),
            (Keys::Plain, _) => return self.text(byte),
        }
        Edit::Nothing
    }

    fn clear(&mut self) {
        self.line.clear();
        self.partial_bytes = 0;
        self.back = 0;
    }

    fn enter(&mut self) -> Edit {
        let line = self.line.clone();
        self.clear();
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            self.history.push_back(line.clone());
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        Edit::Line(line)
    }

    fn changed(&mut self, change: impl FnOnce(&mut String) -> bool) -> Edit {
        if change(&mut self.line) { Edit::Changed } else { Edit::Nothing }
    }

    fn arrow(&mut self, key: u8) -> Edit {
        let back = match key {
            b'A' => (self.back + 1).min(self.history.len()),
            b'B' => self.back.saturating_sub(1),
            _ => return Edit::Nothing,
        };
        if back == self.back {
            return Edit::Nothing;
        }
        self.back = back;
        let place = self.history.len() - back;
        self.line = self.history.get(place).cloned().unwrap_or_default();
        Edit::Changed
    }

    fn text(&mut self, byte: u8) -> Edit {
        if !(0x80..0xc0).contains(&byte) {
            self.partial_bytes = 0;
        }
        if self.partial_bytes >= self.partial.len() {
            self.partial_bytes = 0;
            return Edit::Nothing;
        }
        self.partial[self.partial_bytes] = byte;
        self.partial_bytes += 1;
        match core::str::from_utf8(&self.partial[..self.partial_bytes]) {
            Ok(text) => {
                let character = text.chars().next();
                self.partial_bytes = 0;
                match character {
                    Some(c) if !c.is_control() && self.line.len() + c.len_utf8() <= LINE_MAX => {
                        self.line.push(c);
                        Edit::Added(c)
                    }
                    _ => Edit::Nothing,
                }
            }
            Err(error) => {
                if error.error_len().is_some() {
                    self.partial_bytes = 0;
                }
                Edit::Nothing
            }
        }
    }
}

fn erase_word(line: &mut String) -> bool {
    let kept = line.trim_end().rfind(' ').map_or(0, |space| space + 1);
    let changed = kept != line.len();
    line.truncate(kept);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut editor = Editor::default();
        bytes
            .iter()
            .filter_map(|&byte| match editor.key(byte) {
                Edit::Line(line) => Some(line),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_kind_of_enter_ends_one_line() {
        assert_eq!(lines(b"a\rb\nc\r\nd\r\r"), ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn editing_keys_edit() {
        assert_eq!(lines(b"helx\x7fp\r"), ["help"]);
        assert_eq!(lines(b"junk\x15log\r"), ["log"]);
        assert_eq!(lines(b"log web\x17net\r"), ["log net"]);
        assert_eq!(lines(b"half\x03help\r"), ["help"]);
        assert_eq!(lines("grx\u{7f}ü\u{7f}ün\r".as_bytes()), ["grün"]);
    }

    #[test]
    fn arrows_bring_back_earlier_lines() {
        assert_eq!(lines(b"one\rtwo\r\x1b[A\x1b[A\r"), ["one", "two", "one"]);
        assert_eq!(lines(b"one\r\x1b[A\x1b[Btwo\r"), ["one", "two"]);
        assert_eq!(lines(b"\x1b[A\x1bOBx\r"), ["x"]);
    }

    #[test]
    fn garbage_types_nothing() {
        assert_eq!(lines(b"\x1b[A\xff\xfe\x00\x80 garbage\r"), [" garbage"]);
        assert_eq!(lines(b"\xc3\xc3\xa4\r"), ["\u{e4}"]);
    }

    proptest! {
        #[test]
        fn lines_are_bounded_and_printable_whatever_is_typed(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for line in lines(&bytes) {
                prop_assert!(line.len() <= LINE_MAX && !line.chars().any(char::is_control));
            }
        }
    }
}
