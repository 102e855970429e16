//! The virtio structures of a PCI function: where its registers are inside its BARs.
//!
//! Virtio 1.2 section 4.1.4: vendor capabilities (id 0x09) in the ordinary capability list, each naming a BAR, an
//! offset and a length. The list comes from the device, so the walk is bounded and each structure is checked to lie
//! inside a memory BAR that is mapped in the domain.

/// Reads configuration space of one function. `None`: the hypervisor refused.
pub trait ConfigSpace {
    /// Reads `width` (1, 2 or 4) bytes at `offset`, which is aligned to it.
    fn read(&mut self, offset: u32, width: u32) -> Option<u32>;
}

/// A structure inside a BAR: checked to lie within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Number of the base address register.
    pub bar: usize,
    /// Bytes from its start, a multiple of 4.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
}

/// The structures that a modern virtio device must have, and its optional device configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structures {
    /// `struct virtio_pci_common_cfg`.
    pub common: Structure,
    /// Notification area.
    pub notify: Structure,
    /// Multiplier of `queue_notify_off`.
    pub notify_multiplier: u32,
    /// Device-specific configuration.
    pub device: Option<Structure>,
}

/// Why a function cannot be used as a modern virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapsError {
    /// The hypervisor refused a read of configuration space.
    ConfigRefused,
    /// The function has no capability list.
    NoCapabilities,
    /// The capability list does not end.
    EndlessList,
    /// No usable common configuration structure (a legacy-only device: use `disable-legacy=on`).
    NoCommon,
    /// No usable notification structure.
    NoNotify,
}

/// Bytes of `struct virtio_pci_common_cfg` as of virtio 1.0.
pub const COMMON_BYTES: u32 = 56;

const STATUS: u32 = 0x06;
const STATUS_CAPABILITIES: u32 = 1 << 4;
const CAPABILITIES_POINTER: u32 = 0x34;
const CAP_VENDOR: u32 = 0x09;
const CFG_COMMON: u32 = 1;
const CFG_NOTIFY: u32 = 2;
const CFG_DEVICE: u32 = 4;
/// The list lives in 192 bytes of configuration space, a capability takes at least 4.
const LIST_MAX: u32 = 48;

/// Walks the capability list of a function whose memory BARs have `bars` bytes; 0 for one that is out of reach.
pub fn find_structures(config: &mut impl ConfigSpace, bars: &[u64; 6]) -> Result<Structures, CapsError> {
    let mut read = |offset, width| config.read(offset, width).ok_or(CapsError::ConfigRefused);
    if read(STATUS, 2)? & STATUS_CAPABILITIES == 0 {
        return Err(CapsError::NoCapabilities);
    }
    let (mut common, mut notify, mut device) = (None, None, None);
    let mut at = read(CAPABILITIES_POINTER, 1)? & 0xfc;
    for _ in 0..LIST_MAX {
        if at < 0x40 {
            let (notify, notify_multiplier) = notify.ok_or(CapsError::NoNotify)?;
            return Ok(Structures { common: common.ok_or(CapsError::NoCommon)?, notify, notify_multiplier, device });
        }
        let head = read(at, 4)?;
        if head & 0xff == CAP_VENDOR && at <= 0xf0 {
            let kind = head >> 24;
            let length = (head >> 16) & 0xff;
            let place = locate(bars, read(at + 4, 4)? & 0xff, read(at + 8, 4)?, read(at + 12, 4)?);
            match (kind, place) {
                (CFG_COMMON, Some(place)) if place.bytes >= COMMON_BYTES => common = common.or(Some(place)),
                (CFG_NOTIFY, Some(place)) if length >= 20 && at <= 0xec => {
                    notify = notify.or(Some((place, read(at + 16, 4)?)));
                }
                (CFG_DEVICE, Some(place)) => device = device.or(Some(place)),
                _ => {}
            }
        }
        at = (head >> 8) & 0xfc;
    }
    Err(CapsError::EndlessList)
}

/// The structure at `offset` of BAR number `bar`, if it lies inside and is aligned for 32-bit access.
fn locate(bars: &[u64; 6], bar: u32, offset: u32, bytes: u32) -> Option<Structure> {
    let bar = bar as usize;
    let end = u64::from(offset) + u64::from(bytes);
    let inside = bytes != 0 && end <= *bars.get(bar)? && offset.is_multiple_of(4);
    inside.then_some(Structure { bar, offset, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fake([u8; 256]);

    impl ConfigSpace for Fake {
        fn read(&mut self, offset: u32, width: u32) -> Option<u32> {
            let at = offset as usize;
            let bytes = self.0.get(at..at + width as usize)?;
            Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
        }
    }

    impl Fake {
        fn capability(&mut self, at: usize, next: u8, kind: u8, bar: u8, offset: u32, bytes: u32) {
            self.0[at..at + 5].copy_from_slice(&[9, next, 20, kind, bar]);
            self.0[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            self.0[at + 12..at + 16].copy_from_slice(&bytes.to_le_bytes());
            self.0[at + 16..at + 20].copy_from_slice(&4u32.to_le_bytes());
        }

        fn usual() -> Self {
            let mut fake = Fake([0; 256]);
            fake.0[0x06] = 0x10;
            fake.0[0x34] = 0x40;
            fake.capability(0x40, 0x58, 1, 4, 0, 0x1000);
            fake.capability(0x58, 0x70, 2, 4, 0x3000, 0x1000);
            fake.capability(0x70, 0, 4, 4, 0x2000, 0x1000);
            fake
        }
    }

    fn bars() -> [u64; 6] {
        [0, 0, 0, 0, 0x4000, 0]
    }

    #[test]
    fn finds_the_structures_of_a_usual_device() {
        let found = find_structures(&mut Fake::usual(), &bars()).unwrap();
        assert_eq!(found.common, Structure { bar: 4, offset: 0, bytes: 0x1000 });
        assert_eq!(found.notify.offset, 0x3000);
        assert_eq!(found.notify_multiplier, 4);
        assert_eq!(found.device.unwrap().offset, 0x2000);
    }

    #[test]
    fn a_structure_that_leaves_its_bar_is_not_used() {
        let mut fake = Fake::usual();
        fake.capability(0x40, 0x58, 1, 4, 0x3ff0, 0x1000);
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::NoCommon));
        fake.capability(0x40, 0x58, 1, 4, 0xffff_fffc, 0xffff_ffff);
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::NoCommon));
    }

    #[test]
    fn a_structure_in_a_bar_that_does_not_exist_is_not_used() {
        let mut fake = Fake::usual();
        fake.capability(0x58, 0x70, 2, 6, 0, 0x1000);
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::NoNotify));
        fake.capability(0x58, 0x70, 2, 1, 0, 0x1000);
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::NoNotify));
    }

    #[test]
    fn a_list_that_bites_its_tail_ends_the_walk() {
        let mut fake = Fake::usual();
        fake.0[0x71] = 0x40;
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::EndlessList));
    }

    #[test]
    fn a_function_without_capabilities_is_refused() {
        let mut fake = Fake::usual();
        fake.0[0x06] = 0;
        assert_eq!(find_structures(&mut fake, &bars()), Err(CapsError::NoCapabilities));
    }

    proptest! {
        #[test]
        fn any_configuration_space_gives_structures_inside_the_bars_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 256), cap in any::<bool>()
        ) {
            let mut fake = Fake(bytes.try_into().unwrap());
            if cap {
                fake.0[0x06] |= 0x10;
            }
            if let Ok(found) = find_structures(&mut fake, &bars()) {
                for place in [Some(found.common), Some(found.notify), found.device].into_iter().flatten() {
                    prop_assert!(u64::from(place.offset) + u64::from(place.bytes) <= bars()[place.bar]);
                }
            }
        }
    }
}
