//! Reading TOML tables key by key: types, known keys, and errors that name the place.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{At, Sink, Span};
use super::suggest::nearest;

/// A table that is being read. Every key asked for counts as known; [`Section::finish`] complains about all others.
pub struct Section<'a> {
    /// How errors call it: `[domain.web]`, `an entry of disks`.
    pub title: String,
    /// Where errors about the whole of it point.
    pub span: Span,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
    sink: &'a Sink,
}

impl<'a> Section<'a> {
    /// Begins to read `table`.
    pub fn new(title: String, span: Span, table: &'a DeTable<'a>, sink: &'a Sink) -> Self {
        Section { title, span, table, known: RefCell::default(), sink }
    }

    /// The value of `key`, whatever it is.
    pub fn any(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Whether `key` is there; asking does not make it known.
    pub fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// The place of `key` itself.
    pub fn key_span(&self, key: &str) -> Span {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map_or(self.span.clone(), |(name, _)| name.span())
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<At<String>> {
        self.any(key).and_then(|value| text(value, &format!("`{key}`"), self.sink))
    }

    /// A text that must be there.
    pub fn required_text(&self, key: &'static str, example: &str) -> Option<At<String>> {
        if self.any(key).is_none() {
            self.sink
                .error(self.span.clone(), format!("{} has no `{key}`", self.title))
                .help(format!("add `{key} = {example}`"));
        }
        self.text(key)
    }

    /// A text, translated by `parse`, whose error is a message; `help` says how it is written.
    pub fn parsed<T>(&self, key: &'static str, help: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        let text = self.text(key)?;
        parsed(text, help, self.sink, parse)
    }

    /// Yes or no.
    pub fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.any(key)?;
        match value.get_ref() {
            DeValue::Boolean(yes) => Some(At::new(*yes, value.span())),
            other => {
                wrong_type(&format!("`{key}`"), "true or false", other, value.span(), self.sink);
                None
            }
        }
    }

    /// A number from `least` to `most`.
    pub fn number(&self, key: &'static str, least: u32, most: u32) -> Option<At<u32>> {
        self.any(key).and_then(|value| number(value, &format!("`{key}`"), least, most, self.sink))
    }

    /// A list of anything.
    pub fn list(&self, key: &'static str) -> impl Iterator<Item = &'a Spanned<DeValue<'a>>> + use<'a> {
        let value = self.any(key);
        let items = value.and_then(|value| match value.get_ref() {
            DeValue::Array(items) => Some(items.iter()),
            other => {
                wrong_type(&format!("`{key}`"), "a list in [ ]", other, value.span(), self.sink);
                None
            }
        });
        items.into_iter().flatten()
    }

    /// A list of texts.
    pub fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let what = format!("an entry of `{key}`");
        self.list(key).filter_map(|item| text(item, &what, self.sink)).collect()
    }

    /// A list of tables, each read as a section.
    pub fn sections(&self, key: &'static str) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let title = format!("an entry of `{key}` of {}", self.title);
        let sink = self.sink;
        self.list(key).filter_map(move |item| match item.get_ref() {
            DeValue::Table(table) => Some(Section::new(title.clone(), item.span(), table, sink)),
            other => {
                wrong_type(&title, "a table in { }", other, item.span(), sink);
                None
            }
        })
    }

    /// The named tables under `key`, e.g. the domains under `domain`, in the order of the file.
    pub fn named(&self, key: &'static str, prefix: &str) -> Vec<(At<String>, Section<'a>)> {
        let Some(value) = self.any(key) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            wrong_type(
                &format!("`{key}`"),
                &format!("tables [{prefix}.NAME]"),
                value.get_ref(),
                value.span(),
                self.sink,
            );
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in tables.iter() {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let section = Section::new(format!("[{prefix}.{}]", name.get_ref()), name.span(), table, self.sink);
                    found.push((At::new(name.get_ref().to_string(), name.span()), section));
                }
                other => {
                    let what = format!("`{}`", name.get_ref());
                    wrong_type(&what, &format!("a table [{prefix}.{}]", name.get_ref()), other, name.span(), self.sink);
                }
            }
        }
        found.sort_by_key(|(name, _)| name.span.start);
        found
    }

    /// A table of free-form settings: texts, numbers, yes or no.
    pub fn settings(&self, key: &'static str) -> Vec<(At<String>, At<String>)> {
        let Some(value) = self.any(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(&format!("`{key}`"), "a table in { }", value.get_ref(), value.span(), self.sink);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in table.iter() {
            let shown = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Boolean(yes) => yes.to_string(),
                other => {
                    let what = format!("`{}` of `{key}`", name.get_ref());
                    wrong_type(&what, "a text, a number, true or false", other, value.span(), self.sink);
                    continue;
                }
            };
            found.push((At::new(name.get_ref().to_string(), name.span()), At::new(shown, value.span())));
        }
        found.sort_by_key(|(name, _)| name.span.start);
        found
    }

    /// Where errors go.
    pub fn sink(&self) -> &'a Sink {
        self.sink
    }

    /// Ends the reading: whatever key nobody asked for is an error.
    pub fn finish(self) {
        self.finish_but(&[]);
    }

    /// Like [`Section::finish`], but the keys in `reported` have had their error already.
    pub fn finish_but(self, reported: &[&str]) {
        let known = self.known.borrow();
        for (name, _) in self.table.iter().filter(|(name, _)| !known.contains(&name.get_ref().as_ref())) {
            if reported.contains(&name.get_ref().as_ref()) {
                continue;
            }
            let help = match nearest(name.get_ref(), known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.sink.error(name.span(), format!("unknown key `{}` in {}", name.get_ref(), self.title)).help(help);
        }
    }
}

/// A number of any radix, from `least` to `most`.
pub fn number(value: &Spanned<DeValue<'_>>, what: &str, least: u32, most: u32, sink: &Sink) -> Option<At<u32>> {
    let DeValue::Integer(number) = value.get_ref() else {
        wrong_type(what, "a number", value.get_ref(), value.span(), sink);
        return None;
    };
    match u32::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if (least..=most).contains(&number) => Some(At::new(number, value.span())),
        _ => {
            let bounds = match number.radix() {
                16 => format!("{least:#x} to {most:#x}"),
                _ => format!("{least} to {most}"),
            };
            sink.error(value.span(), format!("{what} is {number}, out of bounds")).help(format!("it can be {bounds}"));
            None
        }
    }
}

/// A text.
pub fn text(value: &Spanned<DeValue<'_>>, what: &str, sink: &Sink) -> Option<At<String>> {
    match value.get_ref() {
        DeValue::String(text) => Some(At::new(text.to_string(), value.span())),
        other => {
            wrong_type(what, "a text in quotes", other, value.span(), sink);
            None
        }
    }
}

/// A text translated by `parse`.
pub fn parsed<T>(
    text: At<String>,
    help: &str,
    sink: &Sink,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<At<T>> {
    match parse(&text.value) {
        Ok(value) => Some(At::new(value, text.span)),
        Err(message) => {
            sink.error(text.span, message).help(help);
            None
        }
    }
}

fn wrong_type(what: &str, wanted: &str, got: &DeValue<'_>, span: Span, sink: &Sink) {
    let got = match got.type_str() {
        "string" => "text",
        "array" => "list",
        "boolean" => "truth value",
        other => other,
    };
    let article = if got.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    sink.error(span, format!("{what} is {article} {got}")).help(format!("it must be {wanted}"));
}
