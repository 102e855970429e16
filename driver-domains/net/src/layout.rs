//! How the bytes of a packet that is larger than a frame lie in its receiver's buffers, when it goes there as it is.
//!
//! The headers, and each piece of the sender's in a buffer of its own: that takes one copy a piece, where pages that are filled to
//! the end take two, as the sender's pages end elsewhere. They are filled if there are too many pieces.

/// Bytes of a buffer.
const PAGE: u16 = 4096;
/// Pieces behind the headers at most. netif has 18 slots with data, and a stock front end takes no more beside short headers.
const PIECES_MAX: usize = 17;

/// The layout.
#[derive(Clone, Debug)]
pub struct Layout {
    places: [u16; PIECES_MAX + 2],
    count: usize,
}

impl Layout {
    /// Of a packet of `bytes`, of which the first `head` are headers and come from elsewhere, and the others from `pieces`, none
    /// of them larger than a page.
    pub fn new(head: u16, bytes: u16, pieces: impl Iterator<Item = u16>) -> Self {
        let mut layout = Self { places: [0; PIECES_MAX + 2], count: 2 };
        layout.places[0] = head;
        for piece in pieces {
            let Some(place) = layout.places.get_mut(layout.count) else { return Self::filled(bytes) };
            *place = piece;
            layout.count += 1;
        }
        layout
    }

    fn filled(bytes: u16) -> Self {
        let mut layout = Self { places: [0; PIECES_MAX + 2], count: 1 + usize::from(bytes.div_ceil(PAGE)) };
        let mut left = bytes;
        for place in layout.places.iter_mut().enumerate().filter(|(number, _)| *number != 1).map(|(_, place)| place) {
            *place = left.min(PAGE);
            left -= *place;
        }
        layout
    }

    /// The bytes in each buffer. The second has none: it says how the packet is to be cut.
    pub fn places(&self) -> &[u16] {
        self.places.get(..self.count).unwrap_or(&self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_piece_has_a_buffer_of_its_own() {
        let pieces = [100, 4096, 4096, 7];
        assert_eq!(Layout::new(66, 66 + 8299, pieces.into_iter()).places(), [66, 0, 100, 4096, 4096, 7]);
    }

    #[test]
    fn too_many_pieces_fill_pages() {
        let layout = Layout::new(66, 66 + 18 * 500, std::iter::repeat_n(500, 18));
        assert_eq!(layout.places(), [4096, 0, 4096, 874]);
        assert_eq!(Layout::new(66, 66 + 17 * 500, std::iter::repeat_n(500, 17)).places().len(), 19);
    }

    proptest! {
        #[test]
        fn all_bytes_have_a_place_within_a_page(head in 54u16..134, pieces in proptest::collection::vec(1u16..=4096, 1..40)) {
            let bytes = pieces.iter().map(|&piece| usize::from(piece)).sum::<usize>() + usize::from(head);
            prop_assume!(bytes <= usize::from(u16::MAX));
            let layout = Layout::new(head, bytes as u16, pieces.iter().copied());
            let places = layout.places();
            prop_assert_eq!(places.iter().map(|&held| usize::from(held)).sum::<usize>(), bytes);
            prop_assert!(places.len() <= 19 && places[1] == 0 && places.iter().all(|&held| held <= PAGE));
            prop_assert!(places.iter().enumerate().all(|(number, &held)| number == 1 || held != 0));
        }
    }
}
