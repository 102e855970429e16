//! The policy language: from TOML text to a [`Table`], with errors that a person can act on.
//!
//! Four steps, one file each: `parse` (text to a [`spec::Spec`]: known keys, types, syntax of single values), `resolve`
//! (names to labels, links, rules that involve several domains), `machine` (does it fit this machine and these
//! images), and the encoding in [`crate::table`].

mod diagnostics;
mod machine;
mod parse;
mod reader;
mod resolve;
mod spec;
mod suggest;
mod units;

#[cfg(test)]
mod tests;

pub use diagnostics::{Diagnostic, Errors};
pub use machine::{ImageInfo, Machine, PciFunction};

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::reach;
use crate::table::{Kind, Table};
use diagnostics::Sink;

/// A policy file that has passed every check that needs no machine.
#[derive(Clone, Debug)]
pub struct Policy {
    path: String,
    text: String,
    spec: spec::Spec,
    table: Table,
    bytes: Vec<u8>,
}

/// What a virtual machine boots. The bundle has the kernel under the name that the policy writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest<'a> {
    /// The domain's name.
    pub domain: &'a str,
    /// `kernel`.
    pub kernel: &'a str,
    /// `initrd`.
    pub initrd: Option<&'a str>,
    /// The name of the initrd in the bundle.
    pub initrd_file: Option<String>,
}

/// Reads a policy. `path` is only for messages; `text` is the file's content.
pub fn load(path: &str, text: &str) -> Result<Policy, Errors> {
    let sink = Sink::default();
    let spec = parse::parse(text, &sink);
    let table = resolve::resolve(&spec, &sink);
    let bytes = match (sink.is_empty(), table.encode()) {
        (true, Ok(bytes)) => bytes,
        (true, Err(error)) => {
            sink.error(0..0, format!("the policy does not fit into its compiled table: {error}"));
            return Err(sink.into_errors(path, text));
        }
        (false, _) => return Err(sink.into_errors(path, text)),
    };
    Ok(Policy { path: path.into(), text: text.into(), spec, table, bytes })
}

impl Policy {
    /// Checks the policy against the machine it is to run on and the images at hand (by the names that `image` keys
    /// use): images exist, memory suffices, every device selector matches exactly one function.
    pub fn check(&self, machine: &Machine, images: &[ImageInfo]) -> Result<(), Errors> {
        let sink = Sink::default();
        machine::check(&self.spec, machine, images, &sink);
        if sink.is_empty() { Ok(()) } else { Err(sink.into_errors(&self.path, &self.text)) }
    }

    /// The compiled table, as the bundle carries it in `policy.table`.
    pub fn compile(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The compiled table in readable form.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The names of the programs that the bundle must carry, each once, the policy domain's first. Kernels of virtual
    /// machines are not among them: see [`Policy::guests`].
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let mut seen: Vec<&str> = Vec::new();
        for program in
            self.spec.domains.iter().filter(|domain| domain.kind == Kind::Native).flat_map(spec::Domain::programs)
        {
            if !seen.contains(&program.value.as_str()) {
                seen.push(&program.value);
            }
        }
        seen.into_iter()
    }

    /// The virtual machines: what each boots.
    pub fn guests(&self) -> impl Iterator<Item = Guest<'_>> {
        self.spec.domains.iter().filter(|domain| domain.kind == Kind::Pvh).map(|domain| Guest {
            domain: &domain.name.value,
            kernel: &domain.image.value,
            initrd: domain.initrd.as_ref().map(|initrd| initrd.value.as_str()),
            initrd_file: domain.initrd_file(),
        })
    }

    /// Bytes of memory that a machine must have for all domains that start at boot.
    pub fn memory_needed(&self, images: &[ImageInfo]) -> u64 {
        machine::memory_needed(&self.spec, images)
    }

    /// Whether and why the domain named `a` can reach the one named `b`, directly or through others.
    pub fn explain(&self, a: &str, b: &str) -> Result<String, Errors> {
        reach::explain(&self.table, a, b).map_err(|unknown| Errors::without_place(&self.path, unknown.to_string()))
    }

    /// The domains, devices and links as a graph in the DOT language.
    pub fn graph(&self) -> String {
        reach::graph(&self.table)
    }
}
