//! Cuts a TCP packet that is larger than a frame into frames: the segmentation that a front end has left to us.
//!
//! netif's `feature-gso-tcpv4`: a front end sends up to 64 KiB behind one set of headers, and says how many bytes of payload a
//! segment has. What it says is as hostile as anything that it says: sizes and headers are checked before a frame is
//! made, and what does not make sense makes none. Headers are those of the first segment; in each, lengths,
//! identification (RFC 6864), sequence number, flags and both checksums are set (RFC 791, RFC 9293).

use crate::checksum::{fold, sum};
use crate::frame::{FRAME_MAX, HEADER_BYTES};

/// Bytes of headers at most: Ethernet, IPv4 and TCP with all options.
pub const HEADERS_MAX: usize = HEADER_BYTES + 60 + 60;
/// Segments of a packet at most: one of 64 KiB with segments of 256 bytes, which is less than any real network has. A front end
/// gets no more frames than this out of one packet.
pub const SEGMENTS_MAX: usize = 256;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;
/// TCP flags of the last segment only: FIN, PSH.
const LAST_FLAGS: u8 = 0x01 | 0x08;
/// Of the first only: congestion window reduced.
const FIRST_FLAGS: u8 = 0x80;
/// Of none that can be cut: SYN, RST, URG.
const BAD_FLAGS: u8 = 0x02 | 0x04 | 0x20;

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSegmentation {
    /// It is not TCP over IPv4, or a fragment.
    NotTcp,
    /// Its headers are incomplete, or of a length that cannot be.
    Headers,
    /// A SYN, RST or urgent one.
    Flags,
    /// It has no payload.
    Empty,
    /// A segment would be no frame, or have nothing in it.
    SegmentBytes,
    /// More than [`SEGMENTS_MAX`].
    TooMany,
}

/// A checked packet and how it is cut.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// Ethernet, IPv4 and TCP headers, without what differs from segment to segment.
    headers: [u8; HEADERS_MAX],
    header_bytes: usize,
    /// Bytes of the IPv4 header.
    ip_bytes: usize,
    payload_bytes: usize,
    segment_bytes: usize,
    identification: u16,
    sequence: u32,
    flags: u8,
    /// Sums of the IPv4 header, and of pseudo header and TCP header, without what differs.
    ip_sum: u64,
    tcp_sum: u64,
}

/// The headers of a segment.
#[derive(Clone, Debug)]
pub struct Headers {
    bytes: [u8; HEADERS_MAX],
    length: usize,
}

impl Headers {
    /// Their bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Upper bound of the segments that a packet of `bytes` becomes, before anything is known of its headers.
pub fn segments_at_most(bytes: usize, segment_bytes: u16) -> usize {
    bytes.div_ceil(usize::from(segment_bytes).max(1))
}

impl Segmentation {
    /// Checks the packet of `bytes` bytes that begins with `head` (at least [`HEADERS_MAX`] of it, or all).
    pub fn new(head: &[u8], bytes: usize, segment_bytes: u16) -> Result<Self, BadSegmentation> {
        let head = head.get(..bytes.min(HEADERS_MAX)).unwrap_or(head);
        let ip = head.get(HEADER_BYTES..).ok_or(BadSegmentation::Headers)?;
        let &[version, _, _, _, id_high, id_low, fragment_high, fragment_low, _, protocol, ..] = ip else {
            return Err(BadSegmentation::Headers);
        };
        let whole = (u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff) == 0;
        if head.get(12..HEADER_BYTES) != Some(&ETHERTYPE_IPV4) || version >> 4 != 4 || protocol != TCP || !whole {
            return Err(BadSegmentation::NotTcp);
        }
        let ip_bytes = usize::from(version & 0xf) * 4;
        let tcp = ip.get(ip_bytes.max(20)..).ok_or(BadSegmentation::Headers)?;
        let &[_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags, ..] = tcp else {
            return Err(BadSegmentation::Headers);
        };
        let tcp_bytes = usize::from(offset >> 4) * 4;
        let header_bytes = HEADER_BYTES + ip_bytes + tcp_bytes;
        if ip_bytes < 20 || tcp_bytes < TCP_HEADER_BYTES || header_bytes > head.len() {
            return Err(BadSegmentation::Headers);
        }
        if flags & BAD_FLAGS != 0 {
            return Err(BadSegmentation::Flags);
        }
        let payload_bytes =
            bytes.checked_sub(header_bytes).filter(|&bytes| bytes != 0).ok_or(BadSegmentation::Empty)?;
        let segment_bytes = usize::from(segment_bytes);
        if segment_bytes == 0 || header_bytes + segment_bytes > FRAME_MAX {
            return Err(BadSegmentation::SegmentBytes);
        }
        if payload_bytes.div_ceil(segment_bytes) > SEGMENTS_MAX {
            return Err(BadSegmentation::TooMany);
        }
        let mut headers = [0; HEADERS_MAX];
        headers.iter_mut().zip(head.iter().take(header_bytes)).for_each(|(to, from)| *to = *from);
        let (ip_at, tcp_at) = (HEADER_BYTES, HEADER_BYTES + ip_bytes);
        // Length, identification and checksum; sequence number, flags and checksum.
        for range in [
            ip_at + 2..ip_at + 6,
            ip_at + 10..ip_at + 12,
            tcp_at + 4..tcp_at + 8,
            tcp_at + 13..tcp_at + 14,
            tcp_at + 16..tcp_at + 18,
        ] {
            headers.get_mut(range).into_iter().flatten().for_each(|byte| *byte = 0);
        }
        let part = |range: core::ops::Range<usize>| headers.get(range).map_or(0, sum);
        let pseudo = part(ip_at + 12..ip_at + 20) + u64::from(TCP);
        Ok(Self {
            ip_sum: part(ip_at..tcp_at),
            tcp_sum: pseudo + part(tcp_at..header_bytes),
            headers,
            header_bytes,
            ip_bytes,
            payload_bytes,
            segment_bytes,
            identification: u16::from_be_bytes([id_high, id_low]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            flags,
        })
    }

    /// Segments, 1 to [`SEGMENTS_MAX`].
    pub fn count(&self) -> usize {
        self.payload_bytes.div_ceil(self.segment_bytes)
    }

    /// Bytes of each segment's headers.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Where in the packet a segment's payload lies; not empty.
    pub fn payload(&self, segment: usize) -> core::ops::Range<usize> {
        let start = (segment * self.segment_bytes).min(self.payload_bytes);
        let end = (start + self.segment_bytes).min(self.payload_bytes);
        self.header_bytes + start..self.header_bytes + end
    }

    /// A segment's headers. `payload_sum` is the [`sum`] of its payload.
    pub fn headers(&self, segment: usize, payload_sum: u64) -> Headers {
        let payload = self.payload(segment);
        let (first, last) = (segment == 0, payload.end == self.header_bytes + self.payload_bytes);
        let mut flags = self.flags;
        if !last {
            flags &= !LAST_FLAGS;
        }
        if !first {
            flags &= !FIRST_FLAGS;
        }
        let tcp_bytes = (self.header_bytes - HEADER_BYTES - self.ip_bytes + payload.len()) as u16;
        let ip_length = tcp_bytes + self.ip_bytes as u16;
        let identification = self.identification.wrapping_add(segment as u16);
        let sequence = self.sequence.wrapping_add((payload.start - self.header_bytes) as u32);
        let ip_sum = !fold(self.ip_sum + u64::from(ip_length) + u64::from(identification));
        let tcp_sum = self.tcp_sum + u64::from(tcp_bytes) + u64::from(flags) + u64::from(sequence >> 16);
        let tcp_sum = !fold(tcp_sum + u64::from(sequence & 0xffff) + u64::from(fold(payload_sum)));
        let mut headers = Headers { bytes: self.headers, length: self.header_bytes };
        let (ip_at, tcp_at) = (HEADER_BYTES, HEADER_BYTES + self.ip_bytes);
        let mut put = |at: usize, value: &[u8]| {
            headers.bytes.get_mut(at..at + value.len()).into_iter().for_each(|place| place.copy_from_slice(value));
        };
        put(ip_at + 2, &ip_length.to_be_bytes());
        put(ip_at + 4, &identification.to_be_bytes());
        put(ip_at + 10, &ip_sum.to_be_bytes());
        put(tcp_at + 4, &sequence.to_be_bytes());
        put(tcp_at + 13, &[flags]);
        put(tcp_at + 16, &tcp_sum.to_be_bytes());
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;

    fn packet(ip_options: usize, tcp_options: usize, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![2; 12];
        packet.extend([
            8,
            0,
            0x45 + ip_options as u8,
            0,
            0,
            0,
            0xff,
            0xff,
            0x40,
            0,
            64,
            6,
            0,
            0,
            10,
            0,
            2,
            15,
            10,
            0,
            2,
            2,
        ]);
        packet.extend(vec![1; ip_options * 4]);
        packet.extend([0, 80, 0x12, 0x34, 0xff, 0xff, 0xff, 0x00, 9, 9, 9, 9]);
        packet.extend([(5 + tcp_options as u8) << 4, flags, 1, 0, 0xaa, 0xaa, 0, 0]);
        packet.extend(vec![1; tcp_options * 4]);
        packet.extend(payload);
        packet
    }

    /// The frames that a packet becomes.
    fn cut(packet: &[u8], segment_bytes: u16) -> Result<Vec<Vec<u8>>, BadSegmentation> {
        let head = &packet[..packet.len().min(HEADERS_MAX)];
        let cut = Segmentation::new(head, packet.len(), segment_bytes)?;
        let frame = |segment| {
            let payload = &packet[cut.payload(segment)];
            [cut.headers(segment, sum(payload)).bytes(), payload].concat()
        };
        Ok((0..cut.count()).map(frame).collect())
    }

    fn word(frame: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([frame[at], frame[at + 1]])
    }

    #[test]
    fn a_packet_becomes_frames_with_numbers_that_go_on() {
        let payload: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        let frames = cut(&packet(0, 3, 0x80 | 0x18 | 0x01, &payload), 1448).unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [66 + 1448, 66 + 1448, 66 + 104]);
        assert_eq!(frames.iter().map(|frame| word(frame, 18)).collect::<Vec<_>>(), [0xffff, 0, 1]);
        assert_eq!(frames.iter().map(|frame| frame[47]).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
        let sequences: Vec<u32> =
            frames.iter().map(|frame| u32::from(word(frame, 38)) << 16 | u32::from(word(frame, 40))).collect();
        assert_eq!(sequences, [0xffff_ff00, 1448 - 256, 2 * 1448 - 256]);
    }

    #[test]
    fn what_a_hostile_front_end_says_makes_no_frames() {
        let good = packet(0, 0, 0x10, &[7; 4000]);
        assert!(cut(&good, 1400).is_ok());
        assert_eq!(cut(&good, 0), Err(BadSegmentation::SegmentBytes));
        // Larger than a frame.
        assert_eq!(cut(&good, 1465), Err(BadSegmentation::SegmentBytes));
        assert_eq!(cut(&good, u16::MAX), Err(BadSegmentation::SegmentBytes));
        // A frame a byte.
        assert_eq!(cut(&good, 1), Err(BadSegmentation::TooMany));
        assert_eq!(cut(&packet(0, 0, 0x10, &[]), 1400), Err(BadSegmentation::Empty));
        for (at, value, why) in [
            (12, 0x86, BadSegmentation::NotTcp),
            (14, 0x65, BadSegmentation::NotTcp),
            (23, 17, BadSegmentation::NotTcp),
            (20, 0x20, BadSegmentation::NotTcp),
            (21, 1, BadSegmentation::NotTcp),
            (14, 0x44, BadSegmentation::Headers),
            (46, 0x40, BadSegmentation::Headers),
            (47, 0x12, BadSegmentation::Flags),
            (47, 0x14, BadSegmentation::Flags),
            (47, 0x30, BadSegmentation::Flags),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(cut(&bad, 1400), Err(why), "byte {at} = {value:#x}");
        }
        for length in 0..54 {
            assert_eq!(
                Segmentation::new(&good[..length], length, 1400).err(),
                Some(BadSegmentation::Headers),
                "{length}"
            );
        }
        // Headers of a length that the packet does not have.
        let mut short = packet(0, 0, 0x10, &[7; 8]);
        short[46] = 0xf0;
        assert_eq!(cut(&short, 1400), Err(BadSegmentation::Headers));
    }

    proptest! {
        #[test]
        fn frames_are_whole_and_their_payloads_make_up_the_packets(
            ip_options in 0usize..=10, tcp_options in 0usize..=10, payload in proptest::collection::vec(any::<u8>(), 1..9000),
            segment_bytes in 100u16..1600
        ) {
            let packet = packet(ip_options, tcp_options, 0x18, &payload);
            let headers = 54 + 4 * (ip_options + tcp_options);
            match cut(&packet, segment_bytes) {
                Ok(frames) => {
                    let mut together: Vec<u8> = vec![];
                    for frame in &frames {
                        prop_assert!(frame.len() <= FRAME_MAX);
                        prop_assert_eq!(usize::from(word(frame, 16)), frame.len() - HEADER_BYTES);
                        prop_assert_eq!(fold(sum(&frame[14..34 + 4 * ip_options])), 0xffff);
                        let transport = checksum::transport(frame).unwrap();
                        let at = transport.offset;
                        prop_assert_eq!(&frame[at..at + 2], &transport.value[..]);
                        together.extend(&frame[headers..]);
                    }
                    prop_assert!(frames.len() <= segments_at_most(packet.len(), segment_bytes));
                    prop_assert_eq!(together, payload);
                }
                Err(why) => {
                    prop_assert_eq!(why, BadSegmentation::SegmentBytes);
                    prop_assert!(headers + usize::from(segment_bytes) > FRAME_MAX);
                }
            }
        }

        #[test]
        fn any_bytes_make_frames_or_an_error(
            head in proptest::collection::vec(any::<u8>(), 0..HEADERS_MAX), bytes in 0usize..65536, segment_bytes in any::<u16>()
        ) {
            if let Ok(cut) = Segmentation::new(&head, bytes.max(head.len()), segment_bytes) {
                prop_assert!((1..=SEGMENTS_MAX).contains(&cut.count()));
                prop_assert!(cut.header_bytes() <= HEADERS_MAX);
            }
        }
    }
}
