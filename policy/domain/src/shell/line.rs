//! A line editor for a terminal that shows what it is sent: echo, erase, kill, interrupt.

use alloc::string::String;
use alloc::vec::Vec;

/// What the shell should do about a byte of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Send this to the terminal.
    Echo(Vec<u8>),
    /// A line is complete; the line end is to be echoed.
    Line(String),
    /// Ctrl-C: forget the line, show a new prompt.
    Interrupt,
    /// Nothing.
    Nothing,
}

/// Bytes of a line; more are not taken.
const LINE_MAX: usize = 256;
/// Lines that can be had back.
const HISTORY_MAX: usize = 16;

/// The line that is being typed.
#[derive(Debug, Default)]
pub struct Editor {
    line: String,
    escape: Escape,
    after_return: bool,
    history: Vec<String>,
    /// How far back in the history the shown line is; 0: a new one.
    back: usize,
}

/// How much of an escape sequence has come.
#[derive(Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// ESC.
    Begun,
    /// ESC [ or ESC O.
    Sequence,
}

impl Editor {
    /// Takes one byte from the terminal.
    pub fn take(&mut self, byte: u8) -> Input {
        let after_return = core::mem::take(&mut self.after_return);
        match (&self.escape, byte) {
            (Escape::None, _) => {}
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Sequence;
                return Input::Nothing;
            }
            (Escape::Sequence, b'0'..=b'9' | b';') => return Input::Nothing,
            (Escape::Sequence, b'A') => return self.recall(self.back + 1),
            (Escape::Sequence, b'B') => return self.recall(self.back.saturating_sub(1)),
            _ => {
                self.escape = Escape::None;
                return Input::Nothing;
            }
        }
        match byte {
            b'\n' if after_return => Input::Nothing,
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                self.finish()
            }
            0x08 | 0x7f => match self.line.pop() {
                Some(_) => Input::Echo(b"\x08 \x08".to_vec()),
                None => Input::Nothing,
            },
            0x15 => Input::Echo(self.erase()),
            0x17 => Input::Echo(self.erase_word()),
            0x03 => {
                self.line.clear();
                self.back = 0;
                Input::Interrupt
            }
            0x1b => {
                self.escape = Escape::Begun;
                Input::Nothing
            }
            b' '..=b'~' if self.line.len() < LINE_MAX => {
                self.line.push(char::from(byte));
                Input::Echo([byte].to_vec())
            }
            _ => Input::Nothing,
        }
    }

    /// What has been typed so far, to show it again after other output.
    pub fn typed(&self) -> &str {
        &self.line
    }

    fn finish(&mut self) -> Input {
        self.back = 0;
        let line = core::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        Input::Line(line)
    }

    fn erase(&mut self) -> Vec<u8> {
        let count = self.line.len();
        self.line.clear();
        b"\x08 \x08".repeat(count)
    }

    fn erase_word(&mut self) -> Vec<u8> {
        let kept = self.line.trim_end().rfind(' ').map_or(0, |space| space + 1);
        let count = self.line.len() - kept;
        self.line.truncate(kept);
        b"\x08 \x08".repeat(count)
    }

    /// Shows the line that is `back` lines back.
    fn recall(&mut self, back: usize) -> Input {
        self.escape = Escape::None;
        if back > self.history.len() {
            return Input::Nothing;
        }
        let mut echo = self.erase();
        self.back = back;
        let line = back.checked_sub(1).and_then(|skip| self.history.iter().rev().nth(skip));
        self.line = line.cloned().unwrap_or_default();
        echo.extend_from_slice(self.line.as_bytes());
        Input::Echo(echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// Types bytes and gives the lines that come of it.
    fn typed(bytes: &[u8]) -> Vec<String> {
        let mut editor = Editor::default();
        let line = |&byte: &u8| match editor.take(byte) {
            Input::Line(line) => Some(line),
            _ => None,
        };
        bytes.iter().filter_map(line).collect()
    }

    #[test]
    fn any_line_end_ends_one_line() {
        assert_eq!(typed(b"help\r"), ["help"]);
        assert_eq!(typed(b"a\nb\r\nc\r\r"), ["a", "b", "c", ""]);
    }

    #[test]
    fn erase_kill_and_interrupt() {
        assert_eq!(typed(b"heel\x7f\x7flp\x08p\r"), ["help"]);
        assert_eq!(typed(b"\x7f\x7fok\r"), ["ok"]);
        assert_eq!(typed(b"wrong\x15right\r"), ["right"]);
        assert_eq!(typed(b"log wrong\x17web\r"), ["log web"]);
        assert_eq!(typed(b"half a line\x03help\r"), ["help"]);
    }

    #[test]
    fn erasing_clears_what_is_on_the_screen() {
        let mut editor = Editor::default();
        for byte in b"ab" {
            editor.take(*byte);
        }
        assert_eq!(editor.take(0x15), Input::Echo(b"\x08 \x08\x08 \x08".to_vec()));
        assert_eq!(editor.take(0x7f), Input::Nothing);
    }

    #[test]
    fn arrows_walk_through_the_history() {
        assert_eq!(typed(b"one\rtwo\r\x1b[A\r"), ["one", "two", "two"]);
        assert_eq!(typed(b"one\rtwo\r\x1b[A\x1b[A\r"), ["one", "two", "one"]);
        assert_eq!(
            typed(b"one\rtwo\r\x1b[A\x1b[A\x1b[A\x1b[B\x1b[Bx\r"),
            ["one", "two", "x"]
        );
    }

    #[test]
    fn escape_sequences_and_control_bytes_leave_no_trace() {
        assert_eq!(typed(b"a\x1b[1;5Cb\x1bOPc\x00\xffd\x1bxe\r"), ["abcde"]);
    }

    #[test]
    fn a_line_has_an_end() {
        assert_eq!(
            typed(&[&[b'x'; 5000][..], b"\r"].concat()),
            ["x".repeat(LINE_MAX).to_string()]
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_lines_are_printable(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            for line in typed(&bytes) {
                prop_assert!(line.len() <= LINE_MAX && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
