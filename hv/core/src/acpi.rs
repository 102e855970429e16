//! What is needed of ACPI's byte streams, and no crate gives: the S5 package of the DSDT, and a look at the MADT's lengths
//! before anything follows them.

/// The values for the SLP_TYP fields of PM1a and PM1b control that mean "soft off" (ACPI 6.5, 7.4.2.5), from the AML of
/// the DSDT: `Name (_S5, Package () { a, b, ... })`. Found by its bytes, without an interpreter, as small kernels do.
pub fn soft_off_types(aml: &[u8]) -> Option<(u8, u8)> {
    const NAME_OP: u8 = 0x08;
    const PACKAGE_OP: u8 = 0x12;
    let is_name = |window: &[u8]| matches!(window, [NAME_OP | b'\\', b'_', b'S', b'5', b'_', PACKAGE_OP]);
    let at = aml.windows(6).position(is_name)?;
    let package = aml.get(at.checked_add(6)?..)?;
    // PkgLength: the top two bits of the first byte tell how many bytes follow it (ACPI 6.5, 20.2.4).
    let length_bytes = usize::from(package.first()? >> 6).checked_add(1)?;
    let (elements, rest) = package.get(length_bytes..)?.split_first()?;
    let (first, rest) = small_integer(rest)?;
    let second = if *elements > 1 { small_integer(rest).map_or(first, |(value, _)| value) } else { first };
    (*elements > 0 && first < 8 && second < 8).then_some((first, second))
}

/// A byte-sized integer of AML and what follows it.
fn small_integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [0x0a, value, rest @ ..] => Some((*value, rest)),
        [value @ (0 | 1), rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}

/// Whether the entries of a MADT, `{ type: u8, length: u8, ... }`, can be walked: none is shorter than its head, or than
/// what is read of it, and the last one ends with the table.
pub fn entries_are_sound(mut entries: &[u8]) -> bool {
    while let [kind, length, ..] = entries {
        let minimum = match kind {
            1 => 12,
            2 => 10,
            _ => 2,
        };
        if *length < minimum {
            return false;
        }
        let Some(rest) = entries.get(usize::from(*length)..) else { return false };
        entries = rest;
    }
    entries.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_s5_package_is_found_in_all_its_spellings() {
        let zeros = [1, 8, b'_', b'S', b'5', b'_', 0x12, 6, 4, 0, 0, 0, 0];
        assert_eq!(soft_off_types(&zeros), Some((0, 0)));
        let bytes = [b'\\', b'_', b'S', b'5', b'_', 0x12, 8, 2, 0x0a, 5, 0x0a, 7];
        assert_eq!(soft_off_types(&bytes), Some((5, 7)));
        let long = [8, b'_', b'S', b'5', b'_', 0x12, 0x40, 1, 1, 0x0a, 5];
        assert_eq!(soft_off_types(&long), Some((5, 5)));
    }

    #[test]
    fn what_is_no_s5_package_is_none() {
        assert_eq!(soft_off_types(b"_S5_"), None);
        assert_eq!(soft_off_types(&[8, b'_', b'S', b'5', b'_', 0x12]), None);
        assert_eq!(soft_off_types(&[8, b'_', b'S', b'5', b'_', 0x12, 3, 0, 0]), None);
        assert_eq!(soft_off_types(&[8, b'_', b'S', b'5', b'_', 0x12, 3, 1, 0x0a, 9]), None);
    }

    #[test]
    fn entry_lists_must_end_where_the_table_does() {
        assert!(entries_are_sound(&[]));
        assert!(entries_are_sound(&[0, 4, 0, 0, 5, 2]));
        assert!(!entries_are_sound(&[0, 0, 0, 0]));
        assert!(!entries_are_sound(&[0, 5, 0, 0]));
        assert!(!entries_are_sound(&[0, 2, 7]));
        assert!(!entries_are_sound(&[1, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "too short for an I/O APIC");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = entries_are_sound(&bytes);
            let mut aml = std::vec![8, b'_', b'S', b'5', b'_', 0x12];
            aml.extend(&bytes);
            let _ = soft_off_types(&aml);
        }
    }
}
