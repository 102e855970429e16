//! Errors with a place in the file, shown as compilers show them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::ops::Range;

/// A byte range of the policy text.
pub type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> At<T> {
    /// `value` at `span`.
    pub fn new(value: T, span: Span) -> Self {
        At { value, span }
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where, as a byte range of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// Another place that has to do with it, and what it is.
    pub related: Option<(Range<usize>, String)>,
    /// How to mend it.
    pub help: Option<String>,
}

/// All errors of one policy file, in the order of the file. Its `Display` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    path: String,
    text: String,
    list: Vec<Diagnostic>,
}

impl Errors {
    /// One error that concerns no place of the file.
    pub(crate) fn without_place(path: &str, message: String) -> Self {
        let diagnostic = Diagnostic { span: 0..0, message, related: None, help: None };
        Errors { path: path.into(), text: String::new(), list: alloc::vec![diagnostic] }
    }

    /// The single errors.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Line and column of an error, both from 1; columns count characters.
    pub fn position(&self, diagnostic: &Diagnostic) -> (usize, usize) {
        let place = Place::of(&self.text, diagnostic.span.start);
        (place.line, place.column)
    }
}

/// Errors shown at most; a file that is no policy at all should not flood the screen.
const SHOWN_MAX: usize = 20;

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.list.iter().take(SHOWN_MAX) {
            self.show(f, diagnostic)?;
        }
        match self.list.len() {
            1 => write!(f, "{}: 1 error", self.path),
            n if n > SHOWN_MAX => write!(f, "{}: {n} errors, the first {SHOWN_MAX} shown", self.path),
            n => write!(f, "{}: {n} errors", self.path),
        }
    }
}

impl core::error::Error for Errors {}

impl Errors {
    fn show(&self, f: &mut fmt::Formatter<'_>, diagnostic: &Diagnostic) -> fmt::Result {
        let place = Place::of(&self.text, diagnostic.span.start);
        let margin = " ".repeat(place.line.to_string().len());
        writeln!(f, "error: {}", diagnostic.message)?;
        match self.text.is_empty() {
            true => writeln!(f, "{margin}--> {}", self.path)?,
            false => writeln!(f, "{margin}--> {}:{}:{}", self.path, place.line, place.column)?,
        }
        if !place.text.trim().is_empty() {
            writeln!(f, "{margin} |")?;
            writeln!(f, "{} | {}", place.line, place.text)?;
            writeln!(f, "{margin} | {}", place.underline(diagnostic.span.len()))?;
        }
        if let Some((span, what)) = &diagnostic.related {
            let other = Place::of(&self.text, span.start);
            writeln!(f, "{margin} = note: {what} at {}:{}:{}", self.path, other.line, other.column)?;
        }
        if let Some(help) = &diagnostic.help {
            writeln!(f, "{margin} = help: {help}")?;
        }
        writeln!(f)
    }
}

/// A line of the text and a position in it.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    before: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, offset: usize) -> Self {
        let offset = (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (head, tail) = text.split_at(offset);
        let start = head.rfind('\n').map_or(0, |newline| newline + 1);
        let end = offset + tail.find('\n').unwrap_or(tail.len());
        let before = &text[start..offset];
        Place {
            line: head.matches('\n').count() + 1,
            column: before.chars().count() + 1,
            text: text[start..end].trim_end_matches('\r'),
            before,
        }
    }

    /// Carets under `bytes` bytes from this position, to the end of the line at most. Tabs before them are kept, so
    /// that the carets stand right whatever the tab width is.
    fn underline(&self, bytes: usize) -> String {
        let pad: String = self.before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let rest = self.text.get(self.before.len()..).unwrap_or("");
        let marked = rest.char_indices().take_while(|(at, _)| *at < bytes).count().max(1);
        pad + &"^".repeat(marked)
    }
}

/// Collects errors while a policy is read.
#[derive(Default)]
pub struct Sink(RefCell<Vec<Diagnostic>>);

impl Sink {
    /// Notes an error; more can be said about it through what is returned.
    pub fn error(&self, span: Span, message: impl Into<String>) -> Noted<'_> {
        let mut list = self.0.borrow_mut();
        list.push(Diagnostic { span, message: message.into(), related: None, help: None });
        Noted { sink: self, index: list.len() - 1 }
    }

    /// No error so far.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The errors in the order of the file, each once.
    pub fn into_errors(self, path: &str, text: &str) -> Errors {
        let mut list = self.0.into_inner();
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        list.dedup();
        Errors { path: path.into(), text: text.into(), list }
    }
}

/// An error just noted.
pub struct Noted<'a> {
    sink: &'a Sink,
    index: usize,
}

impl Noted<'_> {
    /// Adds how to mend it.
    pub fn help(self, help: impl Into<String>) -> Self {
        if let Some(diagnostic) = self.sink.0.borrow_mut().get_mut(self.index) {
            diagnostic.help = Some(help.into());
        }
        self
    }

    /// Adds another place that has to do with it.
    pub fn related(self, span: &Span, what: impl Into<String>) -> Self {
        if let Some(diagnostic) = self.sink.0.borrow_mut().get_mut(self.index) {
            diagnostic.related = Some((span.clone(), what.into()));
        }
        self
    }
}
