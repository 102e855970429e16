//! What goes out on the serial line: a queue of text that knows who caused it, and what stands in the terminal's last line.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Whether escape sequences (colours, erasing) may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// A terminal of the VT100 kind.
    Ansi,
    /// Nothing but text.
    Dumb,
}

/// Columns that any terminal has.
const COLUMNS: usize = 80;

#[derive(Debug)]
struct Chunk {
    /// The source that it counts against.
    owner: Option<usize>,
    text: String,
    sent: usize,
}

/// The way to the terminal.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal,
    queue: VecDeque<Chunk>,
    queued_bytes: usize,
    /// Characters in the terminal's last line.
    width: usize,
}

impl Screen {
    /// An empty screen.
    pub fn new(terminal: Terminal) -> Self {
        Self { terminal, queue: VecDeque::new(), queued_bytes: 0, width: 0 }
    }

    /// Shows text without line ends, or [`Screen::line_end`].
    pub fn put(&mut self, owner: Option<usize>, text: &str) {
        self.width += text.chars().count();
        self.push(owner, text);
    }

    /// Shows one character.
    pub fn put_char(&mut self, owner: Option<usize>, character: char) {
        self.width += 1;
        self.push(owner, character.encode_utf8(&mut [0; 4]));
    }

    /// Starts a new line.
    pub fn line_end(&mut self, owner: Option<usize>) {
        self.push(owner, "\r\n");
        self.width = 0;
    }

    /// Takes away what stands in the last line, or, where that cannot be, leaves it and starts a new one.
    pub fn erase_line(&mut self) {
        if self.width == 0 {
            return;
        }
        match self.terminal {
            Terminal::Ansi if self.width < COLUMNS => self.push(None, "\r\x1b[K"),
            _ => self.push(None, "\r\n"),
        }
        self.width = 0;
    }

    /// Shows a name in front of a line, in its colour.
    pub fn prefix(&mut self, owner: Option<usize>, name: &str, colour: u8) {
        let ansi = self.terminal == Terminal::Ansi;
        if ansi {
            self.push(owner, COLOURS[usize::from(colour) % COLOURS.len()]);
        }
        self.put(owner, name);
        self.put(owner, "|");
        if ansi {
            self.push(owner, "\x1b[0m");
        }
        self.put(owner, " ");
    }

    fn push(&mut self, owner: Option<usize>, text: &str) {
        self.queued_bytes += text.len();
        match self.queue.back_mut() {
            Some(last) if last.owner == owner && last.text.len() < 4096 => last.text.push_str(text),
            _ => self.queue.push_back(Chunk { owner, text: String::from(text), sent: 0 }),
        }
    }

    /// Bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes of one source that wait.
    pub fn queued_of(&self, owner: usize) -> usize {
        let chunks = self.queue.iter().filter(|chunk| chunk.owner == Some(owner));
        chunks.map(|chunk| chunk.text.len() - chunk.sent).sum()
    }

    /// Takes the next bytes for the line; how many.
    pub fn take(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(chunk) = self.queue.front_mut() else { break };
            let rest = &chunk.text.as_bytes()[chunk.sent..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            chunk.sent += count;
            if chunk.sent == chunk.text.len() {
                self.queue.pop_front();
            }
        }
        self.queued_bytes -= filled;
        filled
    }
}

/// Foreground colours: default, then red to cyan.
const COLOURS: [&str; 7] = ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m"];
