//! Which function of the machine a device selector means: exactly one, or an error, never a guess.

use super::{SealedPolicy, table};
use crate::{ids::Bdf, pci::group::Member};
use core::fmt;

/// Why a selector selects no function on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unresolved<'a> {
    /// None matches.
    Missing,
    /// Two functions at least.
    Ambiguous(Bdf, Bdf),
    /// One function, which the selector of this name wants too.
    Contested(Bdf, &'a str),
}

impl fmt::Display for Unresolved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such device in this machine"),
            Self::Ambiguous(one, other) => write!(f, "both {one} and {other} match: name the slot in the policy"),
            Self::Contested(function, rival) => write!(f, "{function} is claimed by {rival} too"),
        }
    }
}

fn matches(selector: &table::Device, function: &Member) -> bool {
    let fits = |field: u32, value: u16| field == table::ANY || field == u32::from(value);
    fits(selector.vendor, function.vendor)
        && fits(selector.device, function.device)
        && fits(selector.bdf, function.bdf.0)
        && (function.class ^ selector.class) & selector.class_mask == 0
}

impl SealedPolicy {
    /// Resolves selector number `index` among the functions of the machine. For boot and for each assignment.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub fn resolve<'a>(
        &self,
        index: usize,
        functions: impl Iterator<Item = &'a Member>,
    ) -> Result<Bdf, Unresolved<'_>> {
        let selector = self.devices.get(index).ok_or(Unresolved::Missing)?;
        let mut found = functions.filter(|function| matches(selector, function));
        let function = found.next().ok_or(Unresolved::Missing)?;
        if let Some(second) = found.next() {
            return Err(Unresolved::Ambiguous(function.bdf, second.bdf));
        }
        let mut others = self.devices.iter().enumerate().filter(|(other, _)| *other != index);
        match others.find(|(_, device)| matches(device, function)) {
            Some((_, rival)) => Err(Unresolved::Contested(function.bdf, self.text(rival.name))),
            None => Ok(function.bdf),
        }
    }
}
