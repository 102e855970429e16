//! Matching the policy's device selectors to the functions that the machine has.
//!
//! A selector must match exactly one function: none and two are errors, never a guess. Two selectors must not match the
//! same function.

use super::Bdf;
use core::fmt;
use xen_abi::policy_table::{ANY, Device};

/// What a selector can ask of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it is.
    pub bdf: Bdf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// class << 16 | subclass << 8 | programming interface.
    pub class: u32,
}

/// Why a selector selects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectError {
    /// No function matches.
    Missing,
    /// Two functions match; there may be more.
    Ambiguous(Bdf, Bdf),
    /// Another selector, this one, matches the same function.
    Claimed(Bdf, usize),
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such device in this machine"),
            Self::Ambiguous(one, other) => {
                write!(
                    f,
                    "both {one} and {other} match: name the slot or more of the identity in the policy"
                )
            }
            Self::Claimed(bdf, by) => write!(f, "{bdf} is claimed by device entry {by} too"),
        }
    }
}

/// Whether `selector` asks for this function.
pub fn matches(selector: &Device, function: &Identity) -> bool {
    let asks = |wanted: u32, is: u32| wanted == ANY || wanted == is;
    asks(selector.vendor, u32::from(function.vendor))
        && asks(selector.device, u32::from(function.device))
        && asks(selector.bdf, u32::from(function.bdf.0))
        && (selector.class ^ function.class) & selector.class_mask == 0
}

/// The one function that `selectors[index]` selects. `functions` are those that may be given away.
pub fn resolve(
    selectors: &[Device],
    index: usize,
    functions: impl Iterator<Item = Identity> + Clone,
) -> Result<Bdf, SelectError> {
    let selector = selectors.get(index).ok_or(SelectError::Missing)?;
    let mut found = functions.filter(|function| matches(selector, function));
    let one = found.next().ok_or(SelectError::Missing)?;
    if let Some(other) = found.next() {
        return Err(SelectError::Ambiguous(one.bdf, other.bdf));
    }
    match selectors
        .iter()
        .enumerate()
        .find(|(other, entry)| *other != index && matches(entry, &one))
    {
        Some((other, _)) => Err(SelectError::Claimed(one.bdf, other)),
        None => Ok(one.bdf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtio(slot: u8, device: u16, class: u32) -> Identity {
        Identity {
            bdf: Bdf::new(0, slot, 0),
            vendor: 0x1af4,
            device,
            class,
        }
    }

    fn any() -> Device {
        Device {
            vendor: ANY,
            device: ANY,
            bdf: ANY,
            ..Device::default()
        }
    }

    fn functions() -> [Identity; 3] {
        [
            virtio(2, 0x1041, 0x02_0000),
            virtio(3, 0x1042, 0x01_0000),
            virtio(4, 0x1042, 0x01_0000),
        ]
    }

    #[test]
    fn exactly_one_match_is_the_device() {
        let net = Device {
            vendor: 0x1af4,
            device: 0x1041,
            ..any()
        };
        assert_eq!(resolve(&[net], 0, functions().into_iter()), Ok(Bdf::new(0, 2, 0)));
        let by_class = Device {
            class: 0x02_0000,
            class_mask: 0xff_0000,
            ..any()
        };
        assert_eq!(resolve(&[by_class], 0, functions().into_iter()), Ok(Bdf::new(0, 2, 0)));
    }

    #[test]
    fn two_matches_are_an_error_until_the_slot_decides() {
        let disk = Device {
            vendor: 0x1af4,
            device: 0x1042,
            ..any()
        };
        let error = SelectError::Ambiguous(Bdf::new(0, 3, 0), Bdf::new(0, 4, 0));
        assert_eq!(resolve(&[disk], 0, functions().into_iter()), Err(error));
        let second = Device { bdf: 4 << 3, ..disk };
        assert_eq!(resolve(&[second], 0, functions().into_iter()), Ok(Bdf::new(0, 4, 0)));
    }

    #[test]
    fn no_match_and_no_such_entry_are_missing() {
        let gone = Device {
            vendor: 0x8086,
            ..any()
        };
        assert_eq!(resolve(&[gone], 0, functions().into_iter()), Err(SelectError::Missing));
        assert_eq!(resolve(&[], 0, functions().into_iter()), Err(SelectError::Missing));
        // Identity first: a slot with another device in it is no match.
        let moved = Device {
            vendor: 0x1af4,
            device: 0x1041,
            bdf: 3 << 3,
            ..any()
        };
        assert_eq!(resolve(&[moved], 0, functions().into_iter()), Err(SelectError::Missing));
    }

    #[test]
    fn a_device_claimed_twice_goes_to_nobody() {
        let net = Device {
            vendor: 0x1af4,
            device: 0x1041,
            ..any()
        };
        let class = Device {
            class: 0x02_0000,
            class_mask: 0xff_0000,
            ..any()
        };
        let both = [net, class];
        assert_eq!(
            resolve(&both, 0, functions().into_iter()),
            Err(SelectError::Claimed(Bdf::new(0, 2, 0), 1))
        );
        assert_eq!(
            resolve(&both, 1, functions().into_iter()),
            Err(SelectError::Claimed(Bdf::new(0, 2, 0), 0))
        );
    }
}
