//! Completes TCP and UDP checksums that a front end left to us.
//!
//! A netif front end may mark a packet `csum_blank`: the checksum field holds the sum of the pseudo header, the
//! rest is to be added by whoever puts the packet on a wire. IPv4 front ends need not ask before they do so. The
//! fields are found as Linux's back end does it: from the headers, as the protocol carries no offset.

use crate::frame::HEADER_BYTES;
use core::arch::x86_64::_addcarry_u64;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The frame is no TCP or UDP packet whose checksum could be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSummable;

/// Where a checksum goes and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Offset of the field in the frame.
    pub offset: usize,
    /// What to write there.
    pub value: [u8; 2],
}

/// The complete transport checksum of a frame, pseudo header included. The field's old content does not matter.
pub fn transport(frame: &[u8]) -> Result<Checksum, NotSummable> {
    let ethertype = frame.get(12..HEADER_BYTES).ok_or(NotSummable)?;
    let packet = frame.get(HEADER_BYTES..).ok_or(NotSummable)?;
    let (header_bytes, total, protocol, addresses) = if ethertype == ETHERTYPE_IPV4 {
        let header_bytes = usize::from(packet.first().ok_or(NotSummable)? & 0xf) * 4;
        let fragment = word(packet, 6).ok_or(NotSummable)? & 0x3fff;
        if header_bytes < 20 || fragment != 0 {
            return Err(NotSummable);
        }
        let total = usize::from(word(packet, 2).ok_or(NotSummable)?);
        (header_bytes, total, *packet.get(9).ok_or(NotSummable)?, packet.get(12..20))
    } else if ethertype == ETHERTYPE_IPV6 {
        let total = 40 + usize::from(word(packet, 4).ok_or(NotSummable)?);
        (40, total, *packet.get(6).ok_or(NotSummable)?, packet.get(8..40))
    } else {
        return Err(NotSummable);
    };
    let field = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return Err(NotSummable),
    };
    let addresses = addresses.ok_or(NotSummable)?;
    let segment = packet.get(header_bytes..total).filter(|segment| segment.len() >= field + 2).ok_or(NotSummable)?;
    let (before, after) = segment.split_at(field);
    let after = after.get(2..).ok_or(NotSummable)?;
    let sum = sum(addresses) + sum(before) + sum(after) + u64::from(protocol) + segment.len() as u64;
    let value = match !fold(sum) {
        0 if protocol == UDP => 0xffff, // RFC 768: zero would mean that there is none
        value => value,
    };
    Ok(Checksum { offset: HEADER_BYTES + header_bytes + field, value: value.to_be_bytes() })
}

/// Sum of big-endian 16-bit words, an odd last byte padded with zero; below 2^16.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut sum = Sum::default();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().for_each(|block| sum.add(block));
    sum.add_last(rest);
    sum.finish()
}

/// Bytes that [`Sum`] takes at a time.
pub const BLOCK: usize = 64;

/// A sum that grows. Words are added as they come, eight bytes a time, with the carry going round: the sum of
/// words whose bytes are swapped is the sum with its bytes swapped (RFC 1071).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes behind those of before, an even number of them.
    #[inline(always)]
    pub fn add(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<8>();
        let mut carry = 0;
        for &word in words {
            carry = _addcarry_u64(carry, self.0, u64::from_le_bytes(word), &mut self.0);
        }
        self.end_around(carry);
    }

    /// Adds the last bytes, however many.
    pub fn add_last(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        for &word in words.iter().chain([&last]) {
            let carry = _addcarry_u64(0, self.0, u64::from_le_bytes(word), &mut self.0);
            self.end_around(carry);
        }
    }

    #[inline(always)]
    fn end_around(&mut self, carry: u8) {
        let carry = _addcarry_u64(carry, self.0, 0, &mut self.0);
        self.0 = self.0.wrapping_add(carry.into());
    }

    /// The sum of big-endian words, below 2^16.
    pub fn finish(self) -> u64 {
        let halves = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        fold(halves).swap_bytes().into()
    }
}

/// The sum as one word, carries added.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(protocol: u8, segment: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + segment.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        frame.extend(segment);
        frame
    }

    /// The receiver's check: pseudo header and segment, checksum included, sum to all ones.
    fn verifies(frame: &[u8]) -> bool {
        let segment = &frame[34..];
        let pseudo = sum(&frame[26..34]) + u64::from(frame[23]) + segment.len() as u64;
        fold(pseudo + sum(segment)) == 0xffff
    }

    #[test]
    fn a_known_udp_datagram() {
        // 10.0.2.15:68 -> 10.0.2.2:67, 2 bytes of payload "hi".
        let frame = frame(17, &[0, 68, 0, 67, 0, 10, 0xaa, 0xaa, b'h', b'i']);
        let sum = transport(&frame).unwrap();
        assert_eq!(sum.offset, 40);
        let expected = !(0x0a00u32 + 0x020f + 0x0a00 + 0x0202 + 17 + 10 + 68 + 67 + 10 + 0x6869);
        assert_eq!(u16::from_be_bytes(sum.value), expected as u16);
    }

    #[test]
    fn what_is_no_tcp_or_udp_is_left_alone() {
        assert_eq!(transport(&frame(1, &[0; 40])), Err(NotSummable));
        assert_eq!(transport(&frame(6, &[0; 17])), Err(NotSummable));
        assert_eq!(transport(&[0; 60]), Err(NotSummable));
        let mut fragment = frame(17, &[0; 40]);
        fragment[21] = 1;
        assert_eq!(transport(&fragment), Err(NotSummable));
        let mut longer_than_it_is = frame(17, &[0; 40]);
        longer_than_it_is[16] = 0xff;
        assert_eq!(transport(&longer_than_it_is), Err(NotSummable));
    }

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_make_the_same_sum(bytes in proptest::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..300)) {
            let simple = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
            let (fast, simple) = (fold(sum(&bytes)), fold(simple));
            // Zero has two forms.
            prop_assert!(fast == simple || fast | simple == 0xffff && fast & simple == 0, "{} {}", fast, simple);
        }

        #[test]
        fn the_receiver_is_content(tcp in any::<bool>(), segment in proptest::collection::vec(any::<u8>(), 20..200)) {
            let mut frame = frame(if tcp { 6 } else { 17 }, &segment);
            let sum = transport(&frame).unwrap();
            frame[sum.offset..sum.offset + 2].copy_from_slice(&sum.value);
            prop_assert!(verifies(&frame));
        }

        #[test]
        fn any_bytes_give_an_offset_inside_the_frame_or_an_error(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120), six in any::<bool>()
        ) {
            if frame.len() > 14 {
                frame[12..14].copy_from_slice(if six { &ETHERTYPE_IPV6 } else { &ETHERTYPE_IPV4 });
            }
            if let Ok(sum) = transport(&frame) {
                prop_assert!(sum.offset + 2 <= frame.len());
            }
        }
    }
}
