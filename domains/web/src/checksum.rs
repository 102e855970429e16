//! The TCP checksum of outgoing frames, eight bytes at a time.
//!
//! The stack would sum two bytes at a time, which under software emulation costs more than all else it does to a full
//! segment.

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_TCP: u8 = 6;
/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;
const TCP_HEADER_MIN: usize = 20;

/// The ones' complement sum of `bytes` in network order, started with `sum` (RFC 1071).
fn sum(bytes: &[u8], sum: u64) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut total = sum;
    for word in words {
        let (added, carry) = total.overflowing_add(u64::from_le_bytes(*word));
        total = added + u64::from(carry);
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let (added, carry) = total.overflowing_add(u64::from_le_bytes(last));
    added + u64::from(carry)
}

/// Folds a sum to 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Fills in the TCP checksum of an Ethernet frame, if it is TCP over IPv4. The field must be zero.
pub fn fill_tcp(frame: &mut [u8]) {
    if frame.get(12..14) != Some(&ETHERTYPE_IPV4) {
        return;
    }
    let Some(packet) = frame.get_mut(ETHERNET_HEADER..) else {
        return;
    };
    let [version_and_length, _, total_high, total_low, _, _, _, _, _, protocol, ..] = *packet else {
        return;
    };
    let header = usize::from(version_and_length & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([total_high, total_low]));
    if protocol != PROTOCOL_TCP || total < header + TCP_HEADER_MIN {
        return;
    }
    let Some(addresses) = packet.get(12..20).map(|addresses| sum(addresses, 0)) else {
        return;
    };
    let Some(segment) = packet.get_mut(header..total) else {
        return;
    };
    let length = (segment.len() as u16).swap_bytes();
    let pseudo = addresses.wrapping_add(u64::from(length));
    let pseudo = pseudo + u64::from(pseudo < addresses);
    let pseudo = u64::from(fold(pseudo)) + u64::from(u16::from_be(u16::from(PROTOCOL_TCP)));
    let checksum = !fold(sum(segment, pseudo));
    if let Some(field) = segment.get_mut(CHECKSUM..CHECKSUM + 2) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Two bytes at a time, as RFC 1071 has it.
    fn plain(parts: &[&[u8]]) -> u16 {
        let mut sum = 0u32;
        for part in parts {
            for pair in part.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn frame(payload: &[u8], addresses: [u8; 8]) -> Vec<u8> {
        let mut frame = alloc::vec![0xee; 12];
        frame.extend_from_slice(&ETHERTYPE_IPV4);
        let total = (20 + 20 + payload.len()) as u16;
        frame.extend_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8, 1, 2, 0, 0, 64, 6, 3, 4]);
        frame.extend_from_slice(&addresses);
        frame.extend_from_slice(&[0, 80, 200, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 255, 255, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum(payload in proptest::collection::vec(any::<u8>(), 0..100), addresses: [u8; 8]) {
            let mut frame = frame(&payload, addresses);
            let segment = frame[34..].to_vec();
            let expected = plain(&[&addresses, &[0, 6], &(segment.len() as u16).to_be_bytes(), &segment]);
            fill_tcp(&mut frame);
            prop_assert_eq!(u16::from_be_bytes([frame[50], frame[51]]), expected);
        }

        #[test]
        fn other_frames_are_left_alone_and_none_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let before = frame.clone();
            fill_tcp(&mut frame);
            if frame.get(12..14) != Some(&ETHERTYPE_IPV4) {
                prop_assert_eq!(frame, before);
            }
        }
    }

    #[test]
    fn all_ones_fold_without_losing_carries() {
        let mut frame = frame(&[0xff; 1460], [0xff; 8]);
        let segment = frame[34..].to_vec();
        let expected = plain(&[&[0xff; 8], &[0, 6], &(segment.len() as u16).to_be_bytes(), &segment]);
        fill_tcp(&mut frame);
        assert_eq!(u16::from_be_bytes([frame[50], frame[51]]), expected);
    }
}
