//! Many domains on one line: who is shown how, who gets what is typed, and what is kept.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::editor::{Edit, Editor};
use crate::kept::KeptLog;
use crate::sanitize::{Piece, Sanitizer};
use crate::screen::{Screen, Terminal};

/// The key that starts a command to the console itself: Ctrl-].
pub const ESCAPE_KEY: u8 = 0x1d;
/// The longest line; a longer one is broken.
const LINE_MAX: usize = 1024;
/// Input that waits for a domain that does not read.
const INPUT_MAX: usize = 4096;

/// How a domain wants its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputMode {
    /// Whole lines, edited and echoed here.
    Line,
    /// Every byte as it comes.
    Raw,
}

/// One that prints: a domain, by its name, or the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(usize);

#[derive(Debug)]
struct Source {
    name: String,
    colour: u8,
    sanitizer: Sanitizer,
    /// The line that has not ended yet.
    line: String,
    kept: KeptLog,
    /// Whether a domain is there now; the hypervisor takes no input and counts as none.
    alive: bool,
    mode: InputMode,
    editor: Editor,
    input: VecDeque<u8>,
}

/// The multiplexer.
#[derive(Debug)]
pub struct Mux {
    sources: Vec<Source>,
    screen: Screen,
    focus: Option<SourceId>,
    /// Where `Ctrl-] s` goes.
    shell: Option<SourceId>,
    /// The escape key was typed: the next key is a command.
    command: bool,
}

impl Mux {
    /// A console without sources.
    pub fn new(terminal: Terminal) -> Self {
        Self { sources: Vec::new(), screen: Screen::new(terminal), focus: None, shell: None, command: false }
    }

    /// The source of that name, made if there is none. A domain that is built again goes on with the log of the one before.
    pub fn source(&mut self, name: &str, colour: u8) -> SourceId {
        if let Some(index) = self.sources.iter().position(|source| source.name == name) {
            return SourceId(index);
        }
        self.sources.push(Source {
            name: String::from(name),
            colour,
            sanitizer: Sanitizer::default(),
            line: String::new(),
            kept: KeptLog::default(),
            alive: false,
            mode: InputMode::Line,
            editor: Editor::default(),
            input: VecDeque::new(),
        });
        SourceId(self.sources.len() - 1)
    }

    /// A domain of this name is connected.
    pub fn connected(&mut self, id: SourceId, mode: InputMode) {
        if let Some(source) = self.sources.get_mut(id.0) {
            source.alive = true;
            source.mode = mode;
            source.sanitizer = Sanitizer::default();
            source.input.clear();
        }
    }

    /// The admin shell: gets the focus now, and again by `Ctrl-] s`.
    pub fn set_shell(&mut self, id: SourceId) {
        self.shell = Some(id);
        self.focus = Some(id);
        self.restore();
    }

    /// The domain is gone. Its log stays.
    pub fn ended(&mut self, id: SourceId) {
        self.hide();
        if let Some(source) = self.sources.get_mut(id.0) {
            source.alive = false;
            source.input.clear();
        }
        if self.sources.get(id.0).is_some_and(|source| !source.line.is_empty()) {
            self.end_line(id, true);
        }
        if let Some(source) = self.sources.get_mut(id.0) {
            source.line.push_str("(ended)");
        }
        self.end_line(id, true);
        self.restore();
    }

    /// Text that stands on the screen already, by other ways: it is kept only.
    pub fn keep(&mut self, id: SourceId, bytes: &[u8]) {
        let Some(source) = self.sources.get_mut(id.0) else {
            return;
        };
        let Source { sanitizer, line, kept, .. } = source;
        for &byte in bytes {
            sanitizer.push(byte, |piece| match piece {
                Piece::Char(character) => line.push(character),
                Piece::Tab => line.push(' '),
                Piece::Back => drop(line.pop()),
                Piece::LineEnd => {
                    kept.push(line);
                    line.clear();
                }
            });
        }
    }

    /// Text that a source printed.
    pub fn output(&mut self, id: SourceId, bytes: &[u8]) {
        let focused = self.focus == Some(id);
        let Some(source) = self.sources.get_mut(id.0) else {
            return;
        };
        let mut sanitizer = core::mem::take(&mut source.sanitizer);
        // What is typed stands behind the prompt: it goes, and comes back behind the new text.
        let editing = focused && !source.editor.line().is_empty();
        if editing {
            self.repaint(Parts::WithoutInput);
        }
        let mut hidden = false;
        for &byte in bytes {
            sanitizer.push(byte, |piece| {
                let ends = self.add(id, piece, focused);
                if ends {
                    if !focused && !hidden {
                        self.hide();
                        hidden = true;
                    }
                    self.end_line(id, !focused);
                }
            });
        }
        if hidden {
            self.restore();
        }
        if let Some(source) = self.sources.get_mut(id.0) {
            source.sanitizer = sanitizer;
            if editing {
                self.screen.put(None, source.editor.line());
            }
        }
    }

    /// Adds a piece to a source's line, shows it if it has the focus, and says whether the line ends.
    fn add(&mut self, id: SourceId, piece: Piece, focused: bool) -> bool {
        let Some(source) = self.sources.get_mut(id.0) else {
            return false;
        };
        let before = source.line.len();
        match piece {
            Piece::LineEnd => return true,
            Piece::Char(character) => source.line.push(character),
            Piece::Tab => {
                let column = source.line.chars().count();
                source.line.extend(core::iter::repeat_n(' ', 8 - column % 8));
            }
            Piece::Back => {
                source.line.pop();
                if focused {
                    self.repaint(Parts::WithoutInput);
                }
                return false;
            }
        }
        if focused {
            self.screen.put(Some(id.0), &source.line[before..]);
        }
        source.line.len() >= LINE_MAX
    }

    /// Ends a source's line: keeps it, and shows it whole with its prefix, or, where it stands on the screen already,
    /// shows the line end.
    fn end_line(&mut self, id: SourceId, whole: bool) {
        let Some(source) = self.sources.get_mut(id.0) else {
            return;
        };
        if whole {
            self.screen.prefix(Some(id.0), &source.name, source.colour);
            self.screen.put(Some(id.0), &source.line);
        }
        self.screen.line_end(Some(id.0));
        source.kept.push(&source.line);
        source.line.clear();
    }

    /// Bytes of a source's output that wait for the line. One that has many is not read for the moment.
    pub fn waiting(&self, id: SourceId) -> usize {
        self.screen.queued_of(id.0)
    }

    /// Bytes that wait for the line.
    pub fn screen_bytes(&self) -> usize {
        self.screen.queued_bytes()
    }

    /// Takes bytes for the line; how many.
    pub fn take_screen(&mut self, buffer: &mut [u8]) -> usize {
        self.screen.take(buffer)
    }

    /// Input that waits for a domain.
    pub fn input(&mut self, id: SourceId) -> Option<&mut VecDeque<u8>> {
        self.sources.get_mut(id.0).map(|source| &mut source.input)
    }

    /// A byte was typed.
    pub fn key(&mut self, byte: u8) {
        if core::mem::take(&mut self.command) {
            return self.command_key(byte);
        }
        if byte == ESCAPE_KEY {
            self.command = true;
            return;
        }
        let Some(source) = self.focus.and_then(|id| self.sources.get_mut(id.0)) else {
            return;
        };
        if source.mode == InputMode::Raw {
            return self.send(&[byte]);
        }
        match source.editor.key(byte) {
            Edit::Nothing => {}
            Edit::Added(character) => self.screen.put_char(None, character),
            Edit::Changed => self.repaint(Parts::All),
            Edit::Cancelled => {
                self.screen.put(None, "^C");
                self.screen.line_end(None);
                self.restore();
            }
            Edit::Line(line) => {
                // Prompt and input are one line of the log, as they are on the screen.
                source.line.push_str(&line);
                source.kept.push(&source.line);
                source.line.clear();
                self.screen.line_end(None);
                self.send(format!("{line}\n").as_bytes());
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(source) = self.focus.and_then(|id| self.sources.get_mut(id.0)) else {
            return;
        };
        if !source.alive {
            let text = format!("{} is not running", source.name);
            self.say(&text);
        } else if source.input.len() + bytes.len() <= INPUT_MAX {
            source.input.extend(bytes);
        } else {
            let text = format!("{} does not read its input; what was typed is dropped", source.name);
            self.say(&text);
        }
    }

    fn command_key(&mut self, key: u8) {
        let domains: Vec<usize> = self.focusable();
        let at = self.focus.and_then(|focus| domains.iter().position(|&index| index == focus.0));
        let chosen = match key {
            b'n' => at.map_or(Some(0), |at| Some((at + 1) % domains.len())),
            b'p' => at.map_or(Some(0), |at| Some((at + domains.len() - 1) % domains.len())),
            b'0'..=b'9' => Some(usize::from(key - b'0')),
            b's' => self.shell.and_then(|shell| domains.iter().position(|&index| index == shell.0)),
            ESCAPE_KEY => return self.send(&[ESCAPE_KEY]),
            _ => return self.say_list(&domains),
        };
        match chosen.and_then(|place| domains.get(place)) {
            Some(&index) => self.switch(SourceId(index)),
            None => self.say_list(&domains),
        }
    }

    /// Sources that can have the focus: those with a domain, and the one that has it.
    fn focusable(&self) -> Vec<usize> {
        let eligible = |index: &usize| {
            self.sources.get(*index).is_some_and(|source| source.alive) || self.focus == Some(SourceId(*index))
        };
        (0..self.sources.len()).filter(eligible).collect()
    }

    fn switch(&mut self, id: SourceId) {
        self.hide();
        self.focus = Some(id);
        let text = self.sources.get(id.0).map(|source| format!("input goes to {}", source.name));
        self.say_line(&text.unwrap_or_default());
        self.restore();
    }

    fn say_list(&mut self, domains: &[usize]) {
        self.hide();
        self.say_line("Ctrl-] then: n next, p previous, s shell, or a number:");
        for (number, &index) in domains.iter().enumerate() {
            let mark = if self.focus == Some(SourceId(index)) { " *" } else { "" };
            let name = self.sources.get(index).map_or("", |source| &source.name);
            let text = format!("  {number} {name}{mark}");
            self.say_line(&text);
        }
        self.restore();
    }

    /// Shows what is kept of a source.
    pub fn show_log(&mut self, name: &str) {
        self.hide();
        match self.sources.iter().find(|source| source.name == name) {
            None => self.say_line(&format!("nothing was ever printed by `{}`", printable(name))),
            Some(source) => {
                let forgotten = source.kept.forgotten();
                let note = (forgotten != 0).then(|| format!("({forgotten} bytes dropped)"));
                let unfinished = (!source.line.is_empty()).then_some(source.line.as_str());
                for line in note.as_deref().into_iter().chain(source.kept.lines()).chain(unfinished) {
                    self.screen.prefix(None, &source.name, source.colour);
                    self.screen.put(None, line);
                    self.screen.line_end(None);
                }
            }
        }
        self.restore();
    }

    /// Says something of the console's own.
    pub fn say(&mut self, text: &str) {
        self.hide();
        self.say_line(text);
        self.restore();
    }

    fn say_line(&mut self, text: &str) {
        self.screen.prefix(None, "console", 0);
        self.screen.put(None, text);
        self.screen.line_end(None);
    }

    /// Takes the unfinished line of the focus off the screen.
    fn hide(&mut self) {
        self.screen.erase_line();
    }

    /// Puts it back.
    fn restore(&mut self) {
        self.paint(Parts::All);
    }

    fn repaint(&mut self, parts: Parts) {
        self.hide();
        self.paint(parts);
    }

    fn paint(&mut self, parts: Parts) {
        let Some(source) = self.focus.and_then(|id| self.sources.get(id.0)) else {
            return;
        };
        if !source.line.is_empty() {
            self.screen.put(None, &source.line);
        }
        if parts == Parts::All && !source.editor.line().is_empty() {
            self.screen.put(None, source.editor.line());
        }
    }
}

/// What of the focus's last line is painted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// The domain's text and what is typed.
    All,
    /// The domain's text.
    WithoutInput,
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a simple terminal shows: lines, with CR, LF and "erase to the end of the line".
    fn terminal(bytes: &[u8]) -> Vec<String> {
        let (mut lines, mut column) = (alloc::vec![String::new()], 0usize);
        let text = core::str::from_utf8(bytes).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let last = lines.last_mut().unwrap();
            match c {
                '\r' => column = 0,
                '\n' => lines.push(String::new()),
                '\x1b' => {
                    let sequence: String = chars.by_ref().take_while(|c| !c.is_ascii_alphabetic()).collect();
                    if sequence == "[" {
                        *last = last.chars().take(column).collect();
                    }
                }
                c => {
                    assert!(!c.is_control(), "{c:?} reached the terminal");
                    let mut kept: Vec<char> = last.chars().collect();
                    kept.truncate(kept.len().max(column));
                    if column < kept.len() {
                        kept[column] = c
                    } else {
                        kept.push(c)
                    }
                    *last = kept.into_iter().collect();
                    column += 1;
                }
            }
        }
        lines
    }

    /// Everything that was sent to the line so far.
    struct Line {
        mux: Mux,
        sent: Vec<u8>,
    }

    impl Line {
        fn new() -> Self {
            Self { mux: Mux::new(Terminal::Ansi), sent: Vec::new() }
        }

        /// A policy shell with the focus, and `web`.
        fn with_shell() -> (Self, SourceId, SourceId) {
            let mut line = Self::new();
            let shell = line.mux.source("policy", 1);
            line.mux.connected(shell, InputMode::Line);
            line.mux.set_shell(shell);
            let web = line.mux.source("web", 2);
            line.mux.connected(web, InputMode::Line);
            (line, shell, web)
        }

        fn shown(&mut self) -> Vec<String> {
            let mut buffer = [0; 7];
            loop {
                match self.mux.take_screen(&mut buffer) {
                    0 => return terminal(&self.sent),
                    count => self.sent.extend_from_slice(&buffer[..count]),
                }
            }
        }

        fn keys(&mut self, text: &[u8]) {
            text.iter().for_each(|&byte| self.mux.key(byte));
        }

        fn typed(&mut self, id: SourceId) -> Vec<u8> {
            self.mux.input(id).unwrap().drain(..).collect()
        }
    }

    #[test]
    fn the_focus_is_shown_raw_and_others_by_whole_lines_with_their_name() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(shell, b"welcome\nbulkhead> ");
        assert_eq!(line.shown(), ["welcome", "bulkhead> "]);
        line.mux.output(web, b"listen");
        assert_eq!(line.shown(), ["welcome", "bulkhead> "]);
        line.mux.output(web, b"ing\n");
        assert_eq!(line.shown(), ["welcome", "web| listening", "bulkhead> "]);
    }

    #[test]
    fn what_is_typed_is_echoed_survives_others_lines_and_is_sent_on_enter() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(shell, b"bulkhead> ");
        line.keys(b"dom");
        line.mux.output(web, b"hit\n");
        assert_eq!(line.shown(), ["web| hit", "bulkhead> dom"]);
        assert!(line.typed(shell).is_empty());
        line.keys(b"ainx\x7fs\r");
        assert_eq!(line.shown(), ["web| hit", "bulkhead> domains", ""]);
        assert_eq!(line.typed(shell), b"domains\n");
        line.mux.output(shell, b"1 web\nbulkhead> ");
        assert_eq!(line.shown()[2..], ["1 web", "bulkhead> "]);
    }

    #[test]
    fn text_of_the_focus_goes_in_front_of_what_is_typed() {
        let (mut line, shell, _) = Line::with_shell();
        line.mux.output(shell, b"> ");
        line.keys(b"abc");
        line.mux.output(shell, b"\nnews\n> ");
        assert_eq!(line.shown(), ["> ", "news", "> abc"]);
    }

    #[test]
    fn no_domain_can_forge_another_line() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(shell, b"bulkhead> ");
        line.mux.output(
            web,
            b"x\rpolicy| all is well\n\x1b[2K\x1b[1A\x1b[31mhv| panic\x1b[0m\n\x08\x08\x08\x08\x08hv| y\n",
        );
        let shown = line.shown();
        assert_eq!(shown, ["web| x", "web| policy| all is well", "web| hv| panic", "web| hv| y", "bulkhead> "]);
    }

    #[test]
    fn the_escape_key_moves_the_focus_and_back() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(shell, b"bulkhead> ");
        line.mux.output(web, b"name? ");
        line.keys(b"\x1dn");
        assert_eq!(line.shown().last().unwrap(), "name? ");
        line.keys(b"me\r");
        assert_eq!((line.typed(web), line.typed(shell)), (b"me\n".to_vec(), Vec::new()));
        line.keys(b"\x1ds");
        assert_eq!(line.shown().last().unwrap(), "bulkhead> ");
        line.keys(b"\x1d1ok\r\x1d0no\r");
        assert_eq!((line.typed(web), line.typed(shell)), (b"ok\n".to_vec(), b"no\n".to_vec()));
    }

    #[test]
    fn the_list_names_those_that_run() {
        let (mut line, _, web) = Line::with_shell();
        line.keys(b"\x1d?");
        let shown = line.shown().join("\n");
        assert!(shown.contains("console|   0 policy *") && shown.contains("console|   1 web"), "{shown}");
        line.mux.ended(web);
        line.keys(b"\x1d1\x1d?");
        assert!(!line.shown().last().unwrap().contains("web"));
        assert_eq!(line.mux.focus, Some(SourceId(0)));
    }

    #[test]
    fn a_backspace_erases_within_the_line_only() {
        let (mut line, _, linux) = Line::with_shell();
        line.mux.connected(linux, InputMode::Raw);
        line.mux.output(linux, b"first\n\x08\x08sl\x08 \x08\x08 \x08ls\n");
        line.keys(b"\x1dn");
        line.mux.output(linux, b"$ sl\x08 \x08\x08 \x08ls"); // as a kernel echoes it
        let shown = line.shown();
        assert!(shown.contains(&String::from("web| first")) && shown.contains(&String::from("web| ls")), "{shown:?}");
        assert_eq!(shown.last().map(String::as_str), Some("$ ls"));
    }

    #[test]
    fn raw_mode_sends_every_byte_and_does_not_echo() {
        let (mut line, _, _) = Line::with_shell();
        let linux = line.mux.source("linux", 3);
        line.mux.connected(linux, InputMode::Raw);
        line.keys(b"\x1d2a\x1b[A\x03\x1d\x1d");
        assert_eq!(line.typed(linux), b"a\x1b[A\x03\x1d");
    }

    #[test]
    fn an_ended_domain_keeps_its_log_and_goes_on_with_it() {
        let (mut line, _, web) = Line::with_shell();
        line.mux.output(web, b"one\nlast words");
        line.mux.ended(web);
        assert_eq!(line.shown(), ["web| one", "web| last words", "web| (ended)", ""]);
        let again = line.mux.source("web", 2);
        assert_eq!(again, web);
        line.mux.connected(again, InputMode::Line);
        line.mux.output(again, b"two\n");
        line.sent.clear();
        line.mux.show_log("web");
        assert_eq!(line.shown()[1..], ["web| one", "web| last words", "web| (ended)", "web| two", ""]);
    }

    #[test]
    fn a_log_that_does_not_exist_is_said_so() {
        let (mut line, _, _) = Line::with_shell();
        line.mux.show_log("nob\x1b[2Jody");
        assert_eq!(line.shown()[0], "console| nothing was ever printed by `nob[2Jody`");
    }

    #[test]
    fn what_was_shown_by_other_ways_is_kept_and_not_shown() {
        let (mut line, _, _) = Line::with_shell();
        let hv = line.mux.source("hv", 0);
        line.mux.keep(hv, b"boot\nre");
        line.mux.output(hv, b"port\n");
        assert_eq!(line.shown(), ["hv| report", ""]);
        line.mux.show_log("hv");
        assert_eq!(line.shown()[1..], ["hv| boot", "hv| report", ""]);
    }

    #[test]
    fn endless_lines_are_broken() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(web, &[b'x'; 5 * LINE_MAX]);
        line.mux.output(shell, &[b'y'; 5 * LINE_MAX]);
        assert_eq!(line.shown().len(), 11);
    }

    #[test]
    fn input_that_is_not_read_is_bounded() {
        let (mut line, shell, _) = Line::with_shell();
        for _ in 0..2000 {
            line.keys(b"0123456789\r");
        }
        assert!(line.mux.input(shell).unwrap().len() <= INPUT_MAX);
        assert!(line.shown().iter().any(|shown| shown.contains("does not read")));
    }

    #[test]
    fn what_waits_is_counted_by_source() {
        let (mut line, shell, web) = Line::with_shell();
        line.mux.output(web, b"0123456789\n");
        assert!(line.mux.waiting(web) > 10 && line.mux.waiting(shell) == 0);
        line.shown();
        assert_eq!((line.mux.waiting(web), line.mux.screen_bytes()), (0, 0));
    }

    proptest! {
        /// Two domains write anything, a person types anything: every line that ends on the screen starts with the
        /// name of who wrote it, or is the focus's.
        #[test]
        fn lines_without_the_focus_always_carry_their_name(
            steps in proptest::collection::vec((0u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 0..40)
        ) {
            let mut line = Line::new();
            let a = line.mux.source("aaa", 1);
            let b = line.mux.source("bbb", 2);
            line.mux.connected(a, InputMode::Line);
            line.mux.connected(b, InputMode::Line);
            for (who, bytes) in steps {
                match who {
                    0 => line.mux.output(a, &bytes),
                    1 => line.mux.output(b, &bytes),
                    // Nobody has the focus as long as no command gives it.
                    _ => bytes.iter().filter(|&&byte| byte != ESCAPE_KEY).for_each(|&byte| line.mux.key(byte)),
                }
            }
            let shown = line.shown();
            let (last, ended) = shown.split_last().unwrap();
            prop_assert!(last.is_empty());
            for text in ended {
                prop_assert!(text.starts_with("aaa| ") || text.starts_with("bbb| "), "{text:?}");
            }
        }

        /// With the focus, escape commands and all: no control character but those of the screen itself comes out (the
        /// terminal model asserts it).
        #[test]
        fn nothing_drives_the_terminal(
            steps in proptest::collection::vec((0u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 0..40)
        ) {
            let (mut line, shell, web) = Line::with_shell();
            for (who, bytes) in steps {
                match who {
                    0 => line.mux.output(shell, &bytes),
                    1 => line.mux.output(web, &bytes),
                    _ => line.keys(&bytes),
                }
            }
            line.shown();
        }
    }
}
