//! What a driver domain may write into its device's configuration space: a closed list.
//!
//! Everything not named here is refused, whatever the value: BARs, MSI and MSI-X control (the hypervisor programs
//! interrupts), power states and function-level reset (it resets), expansion ROM, link and error control (a device must
//! not be made to signal errors that stop the machine), and vendor capabilities (virtio's type 5 is a window through
//! configuration space to the BAR pages that are not mapped).

use crate::error::Errno;
pub use pci_types::CommandRegister as Command;

/// Bytes of a function's configuration space.
pub const CONFIG_BYTES: u32 = 4096;

/// A checked place in configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    offset: u16,
    /// Of its value, not shifted.
    mask: u32,
}

impl Field {
    /// `None`: there is no such width, or the offset is not aligned to it or not below [`CONFIG_BYTES`].
    pub fn new(offset: u32, bytes: u32) -> Option<Self> {
        let mask = match bytes {
            1 => 0xff,
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => return None,
        };
        (offset < CONFIG_BYTES && offset.is_multiple_of(bytes)).then_some(Self { offset: offset as u16, mask })
    }

    /// The aligned double word that holds it.
    pub const fn dword(self) -> u16 {
        self.offset & !3
    }

    const fn shift(self) -> u32 {
        (self.offset as u32 & 3) * 8
    }

    /// The field's value in that double word.
    pub const fn extract(self, dword: u32) -> u32 {
        dword >> self.shift() & self.mask
    }
}

const COMMAND_STATUS: u16 = 0x04;
const CACHE_LINE_LATENCY: u16 = 0x0c;
const INTERRUPT_LINE: u16 = 0x3c;

/// Status register, in the upper half of its double word: the bits that a one clears.
const STATUS_CLEARABLE: u32 = 0xf900 << 16;

/// Judges the write of `value` to `field` while its double word reads `current`. For a device that a domain owns. Answers
/// the whole double word to write at [`Field::dword`]; `None`: nothing, and the caller is told that it worked.
///
/// `denied` are bits of the command register that must not be set: for bus mastering, when no IOMMU confines the device or
/// it has lost the right. Else that goes on and off. Memory decoding goes on but not off: the hypervisor masks a
/// storming interrupt in the MSI-X table, and that lies in a BAR. The interrupt pin goes off but not on: it may be shared.
///
/// # Errors
/// `EPERM`: it is not one of those.
pub fn judge_write(field: Field, value: u32, current: u32, denied: Command) -> Result<Option<u32>, Errno> {
    const MAY_SET: Command = Command::MEMORY_ENABLE.union(Command::BUS_MASTER_ENABLE).union(Command::INTERRUPT_DISABLE);
    const MAY_CLEAR: Command = Command::BUS_MASTER_ENABLE;
    let lanes = field.mask << field.shift();
    let new = value << field.shift() & lanes;
    match field.dword() {
        COMMAND_STATUS => {
            let [current, wanted, lanes] = [current, new, lanes].map(|dword| Command::from_bits_retain(dword as u16));
            let current = current.difference(denied);
            let changed = (wanted ^ current) & lanes;
            if !MAY_SET.difference(denied).contains(changed & wanted) || !MAY_CLEAR.contains(changed.difference(wanted))
            {
                return Err(Errno::EPERM);
            }
            Ok(Some(u32::from((current ^ changed).bits()) | new & STATUS_CLEARABLE))
        }
        // Cache line size and latency timer mean nothing on PCI Express; drivers write them all the same.
        CACHE_LINE_LATENCY if lanes & 0xffff_0000 == 0 => Ok(None),
        INTERRUPT_LINE if lanes & 0xffff_ff00 == 0 => Ok(None),
        _ => Err(Errno::EPERM),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    /// For a device that may master the bus.
    fn judge(field: Field, value: u32, current: u32) -> Result<Option<u32>, Errno> {
        judge_write(field, value, current, Command::empty())
    }

    fn field(offset: u32, bytes: u32) -> Field {
        Field::new(offset, bytes).unwrap()
    }

    #[test]
    fn fields_are_aligned_and_inside() {
        assert!(Field::new(4092, 4).is_some());
        for (offset, bytes) in [(4096, 1), (2, 4), (1, 2), (0, 3), (0, 0), (0, 8), (u32::MAX, 1)] {
            assert_eq!(Field::new(offset, bytes), None, "{offset:#x} {bytes}");
        }
        assert_eq!(field(6, 2).extract(0x1234_5678), 0x1234);
        assert_eq!(field(7, 1).extract(0x1234_5678), 0x12);
    }

    #[test]
    fn decoding_and_bus_mastering_can_be_switched_on_and_bus_mastering_off() {
        let command = field(4, 2);
        assert_eq!(judge(command, 0x0406, 0x0010_0400), Ok(Some(0x0406)));
        assert_eq!(judge(command, 0x0402, 0x0010_0406), Ok(Some(0x0402)));
    }

    #[test]
    fn bus_mastering_that_is_denied_cannot_be_switched_on_by_any_width() {
        let judge = |offset, bytes, value, current| {
            judge_write(field(offset, bytes), value, current, Command::BUS_MASTER_ENABLE)
        };
        assert_eq!(judge(4, 1, 0x06, 0x402), Err(Errno::EPERM));
        assert_eq!(judge(4, 2, 0x0406, 0x402), Err(Errno::EPERM));
        assert_eq!(judge(4, 4, 0x0406, 0x402), Err(Errno::EPERM));
        assert_eq!(judge(4, 2, 0x0402, 0x402), Ok(Some(0x402)));
        // Nor does it stay on by a write of something else.
        assert_eq!(judge(4, 2, 0x0406, 0x406), Err(Errno::EPERM));
        assert_eq!(judge(6, 2, 0, 0x406), Ok(Some(0x402)));
    }

    #[test]
    fn memory_decoding_stays_on_and_the_interrupt_pin_stays_off() {
        assert_eq!(judge(field(4, 2), 0x0400, 0x0010_0406), Err(Errno::EPERM));
        assert_eq!(judge(field(4, 2), 0x0006, 0x0010_0406), Err(Errno::EPERM));
    }

    #[test]
    fn no_other_command_bit_changes() {
        for bit in (0..16).filter(|bit| ![1, 2, 10].contains(bit)) {
            assert_eq!(judge(field(4, 2), 1 << bit | 0x402, 0x402), Err(Errno::EPERM), "set {bit}");
            assert_eq!(judge(field(4, 2), 0x402, 1 << bit | 0x402), Err(Errno::EPERM), "clear {bit}");
        }
    }

    #[test]
    fn status_bits_are_cleared_by_ones_and_by_nothing_else() {
        assert_eq!(judge(field(6, 2), 0xffff, 0xf910_0406), Ok(Some(0xf900_0406)));
        // A write of the command half alone clears no status.
        assert_eq!(judge(field(4, 2), 0x0406, 0xf910_0406), Ok(Some(0x0406)));
        assert_eq!(judge(field(4, 4), 0x2000_0406, 0xf910_0406), Ok(Some(0x2000_0406)));
    }

    #[test]
    fn harmless_leftovers_of_conventional_pci_are_ignored() {
        assert_eq!(judge(field(0x0c, 1), 16, 0), Ok(None));
        assert_eq!(judge(field(0x0d, 1), 64, 0), Ok(None));
        assert_eq!(judge(field(0x3c, 1), 11, 0), Ok(None));
        // BIST, and the interrupt pin, are not.
        assert_eq!(judge(field(0x0c, 4), 0x4000_0010, 0), Err(Errno::EPERM));
        assert_eq!(judge(field(0x3c, 2), 0x010b, 0), Err(Errno::EPERM));
    }

    proptest! {
        #[test]
        fn nothing_outside_the_list_is_ever_written(
            offset in 0u32..4096, bytes in prop::sample::select(&[1u32, 2, 4][..]), value: u32, current: u32,
            denied in prop::sample::select(std::vec![Command::empty(), Command::BUS_MASTER_ENABLE])
        ) {
            if let Some(field) = Field::new(offset, bytes) {
                match judge_write(field, value, current, denied) {
                    Ok(Some(dword)) => {
                        prop_assert_eq!(field.dword(), COMMAND_STATUS);
                        let changed = (dword ^ current) & 0xffff;
                        prop_assert_eq!(changed & !0x406, 0);
                        prop_assert_eq!(dword >> 16 & !0xf900, 0);
                        prop_assert!(denied.is_empty() || dword & 0x4 == 0);
                    }
                    Ok(None) => prop_assert!([0x0c, 0x0d, 0x3c].contains(&offset)),
                    Err(why) => prop_assert_eq!(why, Errno::EPERM),
                }
            }
        }
    }
}
