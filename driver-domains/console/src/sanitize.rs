//! Makes a domain's output harmless for a terminal: text in, printable characters and line ends out.
//!
//! Whatever could move the cursor, change colours, ring, switch character sets or reorder what is shown is removed, so
//! that a line on the screen is what it seems. Escape sequences (ECMA-48, 5.3 and 5.4) are swallowed whole, across
//! calls, and up to a length; what follows is text again.

/// What is left of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A printable character.
    Char(char),
    /// A tabulator.
    Tab,
    /// A backspace, as a kernel echoes it: the last character of the line goes. It reaches nothing before the line.
    Back,
    /// The end of a line.
    LineEnd,
}

/// The longest escape sequence that is swallowed.
const SEQUENCE_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC [, until a byte of 0x40 to 0x7e.
    Control,
    /// After ESC ], P, X, ^ or _, until BEL or ESC \.
    String,
}

/// The filter, for one stream.
#[derive(Clone, Debug)]
pub struct Sanitizer {
    state: State,
    sequence_bytes: usize,
    /// The last character was a carriage return: a line end, unless a line feed follows and is it.
    carriage_return: bool,
    /// Bytes of an incomplete UTF-8 character.
    partial: [u8; 4],
    partial_bytes: usize,
}

impl Default for Sanitizer {
    fn default() -> Self {
        Self { state: State::Text, sequence_bytes: 0, carriage_return: false, partial: [0; 4], partial_bytes: 0 }
    }
}

impl Sanitizer {
    /// Filters one byte; each call yields few pieces.
    pub fn push(&mut self, byte: u8, mut emit: impl FnMut(Piece)) {
        if self.state != State::Text {
            return self.swallow(byte);
        }
        if self.partial_bytes != 0 && !(0x80..0xc0).contains(&byte) {
            self.partial_bytes = 0;
            self.character(char::REPLACEMENT_CHARACTER, &mut emit);
        }
        match byte {
            0x1b => self.enter(State::Escape),
            0..=0x7f => self.character(char::from(byte), &mut emit),
            _ => self.multibyte(byte, &mut emit),
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.sequence_bytes = 0;
    }

    fn swallow(&mut self, byte: u8) {
        self.sequence_bytes += 1;
        let next = match (self.state, byte) {
            (_, 0x18 | 0x1a) => State::Text,
            (_, 0x1b) => State::Escape,
            (State::Escape, b'[') => State::Control,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape, _) => State::Text,
            (State::Control, 0x40..=0x7e) => State::Text,
            (State::String, 0x07) => State::Text,
            // A sequence does not go over the end of a line: an unfinished one must not hide what follows.
            (_, b'\n') => State::Text,
            (state, _) => state,
        };
        self.state = if self.sequence_bytes >= SEQUENCE_MAX { State::Text } else { next };
    }

    fn multibyte(&mut self, byte: u8, emit: &mut impl FnMut(Piece)) {
        self.partial[self.partial_bytes] = byte;
        self.partial_bytes += 1;
        let bytes = &self.partial[..self.partial_bytes];
        match core::str::from_utf8(bytes) {
            Ok(text) => {
                let character = text.chars().next();
                self.partial_bytes = 0;
                character.into_iter().for_each(|c| self.character(c, emit));
            }
            // More bytes may complete it.
            Err(error) if error.error_len().is_none() && self.partial_bytes < 4 => {}
            Err(_) => {
                self.partial_bytes = 0;
                self.character(char::REPLACEMENT_CHARACTER, emit);
            }
        }
    }

    fn character(&mut self, character: char, emit: &mut impl FnMut(Piece)) {
        let after_return = core::mem::replace(&mut self.carriage_return, character == '\r');
        if after_return && character != '\n' && character != '\r' {
            emit(Piece::LineEnd);
        }
        match character {
            '\n' => emit(Piece::LineEnd),
            '\t' => emit(Piece::Tab),
            '\x08' => emit(Piece::Back),
            c if is_harmless(c) => emit(Piece::Char(c)),
            _ => {}
        }
    }
}

/// Whether a character only puts ink on its own place.
fn is_harmless(character: char) -> bool {
    let reorders =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    let breaks_lines = matches!(character, '\u{2028}' | '\u{2029}');
    !character.is_control() && !reorders && !breaks_lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn clean(bytes: &[u8]) -> String {
        let (mut sanitizer, mut text) = (Sanitizer::default(), String::new());
        for &byte in bytes {
            sanitizer.push(byte, |piece| match piece {
                Piece::Char(c) => text.push(c),
                Piece::Tab => text.push('\t'),
                Piece::Back => text.push('\u{2190}'),
                Piece::LineEnd => text.push('\n'),
            });
        }
        text
    }

    #[test]
    fn text_passes_as_it_is() {
        assert_eq!(clean("grün, 日本語 ok\n".as_bytes()), "grün, 日本語 ok\n");
    }

    #[test]
    fn escape_sequences_are_swallowed_whole() {
        assert_eq!(clean(b"a\x1b[31;1mred\x1b[0m\x1b]0;title\x07b\x1bcc\x1b(Bd\x1b]8;;x\x1b\\e"), "aredbcde");
        assert_eq!(clean(b"\x1b[999999;\nnext"), "next");
        let endless = [b"\x1b]".as_slice(), &[b'x'; 300], b"\nafter\n"].concat();
        assert!(clean(&endless).ends_with("\nafter\n"));
    }

    #[test]
    fn carriage_returns_end_lines_and_cannot_overwrite() {
        assert_eq!(clean(b"one\r\ntwo\rthree\n"), "one\ntwo\nthree\n");
        assert_eq!(clean(b"web| real\r hv| forged\n"), "web| real\n hv| forged\n");
    }

    #[test]
    fn garbage_becomes_replacement_characters() {
        assert_eq!(clean(b"\xff\xc3(\xe2\x82z\x80"), "\u{fffd}\u{fffd}(\u{fffd}z\u{fffd}");
        assert_eq!(clean("a\u{202e}b\u{9b}31mc\u{7f}\0d\x08".as_bytes()), "ab31mcd\u{2190}");
    }

    proptest! {
        #[test]
        fn nothing_that_drives_a_terminal_ever_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let text = clean(&bytes);
            prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || is_harmless(c)));
        }

        #[test]
        fn printable_text_is_never_changed(text in "[ -~äöü€😀\n]{0,80}") {
            prop_assert_eq!(clean(text.as_bytes()), text);
        }
    }
}
