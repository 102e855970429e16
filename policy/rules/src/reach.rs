//! Who can reach whom, and why: `explain` and `graph` over a compiled policy.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use xen_abi::policy_table::{FLAG_CONSOLE, FLAG_CONTROL, FLAG_STORE};

use crate::table::{Device, Kind, Label, Link, LinkKind, Table, setting};

/// A name that is no domain of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDomain {
    /// The name.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no domain `{}` in this policy; there are: {}", self.name, self.known.join(", "))
    }
}

impl core::error::Error for UnknownDomain {}

fn find(table: &Table, name: &str) -> Result<Label, UnknownDomain> {
    table.find(name).ok_or_else(|| UnknownDomain {
        name: name.to_string(),
        known: table.domains.iter().map(|domain| domain.name.clone()).collect(),
    })
}

/// Whether and why the domain named `a` can reach the one named `b`: directly by a link of theirs, or through domains
/// that would have to pass it on.
pub fn explain(table: &Table, a: &str, b: &str) -> Result<String, UnknownDomain> {
    let (from, to) = (find(table, a)?, find(table, b)?);
    if from == to {
        return Ok(format!("`{a}` is one domain: it reaches itself.\n"));
    }
    let direct: Vec<&Link> = table.links.iter().filter(|link| joins(link, from, to)).collect();
    let mut text = String::new();
    if !direct.is_empty() {
        text += &format!("`{a}` reaches `{b}` directly:\n");
        for link in &direct {
            text += &format!("  - {}\n", describe(table, link));
        }
    } else {
        text += &format!("`{a}` has no link to `{b}`: neither can signal the other or see a page of the other.\n");
    }
    let services = |label: Label| [FLAG_CONTROL, FLAG_STORE, FLAG_CONSOLE].iter().any(|flag| has(table, label, *flag));
    if direct.is_empty() {
        match path(table, from, to, |label| !services(label)) {
            Some(path) => text += &through(table, &path),
            None => match path(table, from, to, |_| true) {
                Some(path) => {
                    text += &through(table, &path);
                    text += "The services on that path keep their clients apart by xenstore permissions and by separate \
                             rings.\n";
                }
                None => text += "No chain of links joins them either.\n",
            },
        }
    }
    if has(table, from, FLAG_CONTROL) || has(table, to, FLAG_CONTROL) {
        text += "The policy domain builds every domain and can destroy it, but cannot read or write one that runs.\n";
    }
    Ok(text)
}

fn has(table: &Table, label: Label, flag: u32) -> bool {
    table.domain(label).is_some_and(|domain| domain.flags.has(flag))
}

fn joins(link: &Link, a: Label, b: Label) -> bool {
    (link.front, link.back) == (a, b) || (link.front, link.back) == (b, a)
}

fn name(table: &Table, label: Label) -> &str {
    table.domain(label).map_or("?", |domain| domain.name.as_str())
}

fn through(table: &Table, path: &[Label]) -> String {
    let names: Vec<&str> = path.iter().map(|&label| name(table, label)).collect();
    let between = names.get(1..names.len().saturating_sub(1)).unwrap_or_default();
    format!(
        "Indirectly: {}. What `{}` says arrives only if {} passes it on.\n",
        names.join(" - "),
        names.first().unwrap_or(&"?"),
        between.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and "),
    )
}

/// A shortest chain of links from `from` to `to`, whose inner domains all pass `inner`.
fn path(table: &Table, from: Label, to: Label, inner: impl Fn(Label) -> bool) -> Option<Vec<Label>> {
    let mut came_from: Vec<Option<Label>> = vec![None; table.domains.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(here) = queue.pop_front() {
        if here == to {
            let before = |at: &Label| came_from.get(at.0 as usize).copied().flatten();
            let mut path: Vec<Label> = core::iter::successors(Some(to), before).collect();
            path.reverse();
            return Some(path);
        }
        if here != from && !inner(here) {
            continue;
        }
        for link in &table.links {
            let next = match (link.front == here, link.back == here) {
                (true, _) => link.back,
                (_, true) => link.front,
                _ => continue,
            };
            if let Some(slot) = came_from.get_mut(next.0 as usize)
                && slot.is_none()
                && next != from
            {
                *slot = Some(here);
                queue.push_back(next);
            }
        }
    }
    None
}

/// One line about a link.
pub fn describe(table: &Table, link: &Link) -> String {
    let (front, back) = (name(table, link.front), name(table, link.back));
    let parameter = |key| setting(&link.parameters, key).unwrap_or("?");
    let access = if link.read_only { "read-only" } else { "read-write" };
    match link.kind {
        LinkKind::Store => format!("xenstore: `{front}` asks `{back}` through a ring page"),
        LinkKind::Console => format!("console: `{front}` prints through `{back}`, which passes input to it"),
        LinkKind::Block => format!(
            "block device: `{front}` has export `{}` of `{back}` as {}, {access}; `{back}` maps only pages that `{front}` grants it",
            parameter("export"),
            parameter("dev"),
        ),
        LinkKind::Net => format!(
            "network interface: `{front}` has port {} of `{back}`, MAC {}; `{back}` maps only pages that `{front}` grants it",
            parameter("handle"),
            parameter("mac"),
        ),
        LinkKind::Channel => {
            format!(
                "channel `{}`: `{front}` and `{back}` signal each other and map what the other grants",
                parameter("name")
            )
        }
    }
}

/// The domains, devices and links as a graph in the DOT language. Virtual machines have round corners; links to xenstore
/// and the console, which every domain has, are drawn thin.
pub fn graph(table: &Table) -> String {
    let mut text = String::from("digraph policy {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    text += "  edge [fontname=\"sans-serif\", fontsize=10];\n";
    for domain in &table.domains {
        let mebibytes = domain.memory_pages / 256;
        let kind = match domain.kind {
            Kind::Native => String::new(),
            Kind::Pvh => format!(", {} vCPU\\n{}\", style=\"rounded", domain.vcpus, domain.image.escape_default()),
        };
        text += &format!("  \"{}\" [label=\"{}\\n{mebibytes} MiB{kind}\"];\n", domain.name, domain.name);
    }
    for device in &table.devices {
        text += &format!(
            "  \"device {}\" [label=\"{}\\n{}\", shape=component];\n  \"{}\" -> \"device {}\" [arrowhead=none];\n",
            device.name,
            device.name,
            selector(device),
            name(table, device.label),
            device.name
        );
    }
    for link in &table.links {
        let style = match link.kind {
            LinkKind::Store | LinkKind::Console => "color=gray, style=dotted".to_string(),
            LinkKind::Block => {
                let access = if link.read_only { "ro" } else { "rw" };
                format!("label=\"{} ({access})\"", setting(&link.parameters, "export").unwrap_or("?"))
            }
            LinkKind::Net => format!("label=\"{}\"", setting(&link.parameters, "mac").unwrap_or("?")),
            LinkKind::Channel => {
                format!("label=\"{}\", dir=both", setting(&link.parameters, "name").unwrap_or("?"))
            }
        };
        text += &format!("  \"{}\" -> \"{}\" [{style}];\n", name(table, link.front), name(table, link.back));
    }
    text + "}\n"
}

/// What a selector asks for, e.g. `1af4:1042 at 00:03.0`.
pub fn selector(device: &Device) -> String {
    let id = |id: Option<u16>| id.map_or("*".to_string(), |id| format!("{id:04x}"));
    let mut text = format!("{}:{}", id(device.vendor), id(device.device));
    if let Some(class) = device.class {
        let digits = format!("{:06x}", class.value);
        let shown = 6 - (class.mask.trailing_zeros() as usize / 4).min(6);
        text += &format!(" class {}", &digits[digits.len() - 6..][..shown]);
    }
    if let Some(bdf) = device.bdf {
        text += &format!(" at {bdf}");
    }
    text
}
