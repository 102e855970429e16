//! Joins pieces of memory that lie one behind the other: a device is told of fewer, longer ones.

/// Calls `with` for each run: address and bytes of pieces that touch, at most `bytes_max` in one unless a piece alone is
/// longer. Stops when `with` does.
pub fn for_each_run(
    pieces: impl IntoIterator<Item = (u64, u32)>,
    bytes_max: u32,
    mut with: impl FnMut(u64, u32) -> Option<()>,
) -> Option<()> {
    let mut pieces = pieces.into_iter();
    let Some((mut start, bytes)) = pieces.next() else {
        return Some(());
    };
    // One past the run's end. (Addresses end long before numbers do.)
    let mut end = start.saturating_add(bytes.into());
    for (next, more) in pieces {
        let longer = next.saturating_add(more.into());
        if next != end || longer - start > bytes_max.into() {
            with(start, (end - start) as u32)?;
            start = next;
        }
        end = longer;
    }
    with(start, (end - start) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(pieces: &[(u64, u32)], bytes_max: u32) -> Vec<(u64, u32)> {
        let mut runs = Vec::new();
        for_each_run(pieces.iter().copied(), bytes_max, |address, bytes| {
            runs.push((address, bytes));
            Some(())
        });
        runs
    }

    #[test]
    fn neighbours_join_up_to_the_limit() {
        let pieces = [(0x1000, 0x1000), (0x2000, 0x200), (0x3000, 0x1000), (0x4000, 0x1000)];
        assert_eq!(runs(&pieces, u32::MAX), [(0x1000, 0x1200), (0x3000, 0x2000)]);
        assert_eq!(runs(&pieces, 0x1000), pieces);
        assert_eq!(runs(&[(0x2000, 16), (0x1000, 16)], u32::MAX).len(), 2);
        assert!(runs(&[], 1).is_empty());
    }

    proptest! {
        #[test]
        fn runs_have_the_same_bytes_in_the_same_order(
            sizes in proptest::collection::vec((0u64..3, 1u32..50), 1..20), bytes_max in 1u32..200
        ) {
            let mut end = 0;
            let pieces: Vec<_> = sizes.iter().map(|&(gap, bytes)| {
                let address = end + gap;
                end = address + u64::from(bytes);
                (address, bytes)
            }).collect();
            let bytes = |runs: &[(u64, u32)]| -> Vec<u64> {
                runs.iter().flat_map(|&(address, bytes)| address..address + u64::from(bytes)).collect()
            };
            prop_assert_eq!(bytes(&pieces), bytes(&runs(&pieces, bytes_max)));
        }
    }
}
