//! The sealed policy: what the administrator allows, checked once, immutable afterwards, asked in constant time.
//!
//! The table comes from the `policy` compiler by way of the boot bundle (`xen_abi::policy_table` has the layout) and is
//! not trusted for that: `parse.rs` checks every count, index, text and overlap before anything is believed.

mod checks;
mod devices;
pub(crate) mod parse;

use alloc::vec::Vec;

pub use devices::Unresolved;
pub use parse::PolicyError;
pub use xen_abi::policy_table as table;

use crate::ids::Label;

/// Which labels may reach which: a row a label, one bit a label.
type Matrix = Vec<u128>;
const _: () = assert!(table::DOMAINS_MAX <= u128::BITS);

/// The policy in force.
#[derive(Debug)]
pub struct SealedPolicy {
    flags: u32,
    domains: Vec<table::Domain>,
    devices: Vec<table::Device>,
    links: Vec<table::Link>,
    ranges: Vec<table::Range>,
    text: Vec<u8>,
    /// By mapper: whose grants it may use.
    grants: Matrix,
    /// By label: with whom it may share event channels. Symmetric.
    events: Matrix,
}

impl SealedPolicy {
    /// Labels.
    pub fn labels(&self) -> usize {
        self.domains.len()
    }

    /// A label's entry.
    pub fn domain(&self, label: Label) -> Option<&table::Domain> {
        self.domains.get(usize::from(label.0))
    }

    /// Device selectors, in table order.
    pub fn devices(&self) -> &[table::Device] {
        &self.devices
    }

    /// Links, in table order.
    pub fn links(&self) -> &[table::Link] {
        &self.links
    }

    /// A text; empty when it is none.
    pub fn text(&self, text: table::Text) -> &str {
        self.text_at(text).unwrap_or_default()
    }

    fn text_at(&self, text: table::Text) -> Option<&str> {
        let start = text.offset as usize;
        core::str::from_utf8(self.text.get(start..start.saturating_add(text.bytes as usize))?).ok()
    }

    /// A label's name; empty for a label that is none.
    pub fn name(&self, label: Label) -> &str {
        let name = self.domain(label).and_then(|domain| domain.name.split(|&byte| byte == 0).next());
        core::str::from_utf8(name.unwrap_or_default()).unwrap_or_default()
    }

    /// The first label that has a flag (`FLAG_STORE`, `FLAG_CONSOLE`, `FLAG_LOG`).
    pub fn find_flag(&self, flag: u32) -> Option<Label> {
        let index = self.domains.iter().position(|domain| domain.flags & flag != 0)?;
        Some(Label(index as u16))
    }

    /// Whether a label has a flag (`FLAG_*`).
    pub fn has_flag(&self, label: Label, flag: u32) -> bool {
        self.domain(label).is_some_and(|domain| domain.flags & flag != 0)
    }

    /// Whether driver domains may run without an IOMMU.
    pub fn accepts_unprotected_dma(&self) -> bool {
        self.flags & table::ACCEPT_UNPROTECTED_DMA != 0
    }

    /// Whether `mapper` may map and copy what `grantor` grants to it. A label may use its own grants.
    pub fn may_share(&self, mapper: Label, grantor: Label) -> bool {
        mapper == grantor || bit(&self.grants, mapper, grantor)
    }

    /// Whose grants `mapper` may use: a bit a label.
    pub fn shares(&self, mapper: Label) -> u128 {
        let row = self.grants.get(usize::from(mapper.0));
        row.map_or(0, |row| row | 1_u128.wrapping_shl(mapper.0.into()))
    }

    /// Whether two labels may connect event channels. A label may with itself.
    pub fn may_event(&self, one: Label, other: Label) -> bool {
        one == other || bit(&self.events, one, other)
    }

    /// The I/O port ranges of a label.
    pub fn io_ports(&self, label: Label) -> &[table::Range] {
        self.domain(label).map_or(&[], |domain| self.run(domain.io_ports))
    }

    /// Whether a label may use an interrupt line.
    pub fn may_use_line(&self, label: Label, line: u32) -> bool {
        let lines = self.domain(label).map_or(&[][..], |domain| self.run(domain.irq_lines));
        lines.iter().any(|range| (range.first..=range.last).contains(&line))
    }

    fn run(&self, run: table::Run) -> &[table::Range] {
        self.run_at(run).unwrap_or_default()
    }

    fn run_at(&self, run: table::Run) -> Option<&[table::Range]> {
        let start = run.first as usize;
        self.ranges.get(start..start.saturating_add(run.count as usize))
    }
}

#[inline(always)]
fn bit(matrix: &Matrix, row: Label, column: Label) -> bool {
    let Some(row) = matrix.get(usize::from(row.0)).filter(|_| u32::from(column.0) < u128::BITS) else { return false };
    // By halves: a shift of all 128 bits is three instructions and a choice.
    let half = if column.0 < 64 { *row as u64 } else { (*row >> 64) as u64 };
    half & 1_u64.wrapping_shl(column.0.into()) != 0
}

#[cfg(test)]
pub(crate) mod tests;
