//! Which function of the machine a device selector means: exactly one, or an error, never a guess.

use super::{SealedPolicy, table};
use crate::ids::Bdf;

/// What enumeration knows of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Where it is.
    pub bdf: Bdf,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// class << 16 | subclass << 8 | programming interface.
    pub class: u32,
}

/// What a selector selects on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// This function, and no other selector wants it.
    One(Bdf),
    /// Nothing; `optional` says whether the system goes on without.
    Missing {
        /// [`table::Device::optional`].
        optional: bool,
    },
    /// Two functions at least.
    Ambiguous(Bdf, Bdf),
    /// One function, which another selector wants too.
    Contested(Bdf, usize),
}

fn matches(selector: &table::Device, function: &Function) -> bool {
    let fits = |field: u32, value: u16| field == table::ANY || field == u32::from(value);
    fits(selector.vendor, function.vendor)
        && fits(selector.device, function.device)
        && fits(selector.bdf, function.bdf.0)
        && (function.class ^ selector.class) & selector.class_mask == 0
}

impl SealedPolicy {
    /// Resolves selector number `index` among the functions of the machine. For boot and for each assignment.
    pub fn resolve<'a>(&self, index: usize, functions: impl Iterator<Item = &'a Function>) -> Resolution {
        let Some(selector) = self.devices.get(index) else {
            return Resolution::Missing { optional: true };
        };
        let mut found = functions.filter(|function| matches(selector, function));
        let Some(function) = found.next() else {
            return Resolution::Missing { optional: selector.optional != 0 };
        };
        if let Some(second) = found.next() {
            return Resolution::Ambiguous(function.bdf, second.bdf);
        }
        let mut others = self.devices.iter().enumerate().filter(|(other, _)| *other != index);
        match others.find(|(_, device)| matches(device, function)) {
            Some((rival, _)) => Resolution::Contested(function.bdf, rival),
            None => Resolution::One(function.bdf),
        }
    }
}
