//! Ethernet frames as far as a switch looks: addresses, and whether a sender may use the ones it uses.
//!
//! Works on a private copy of a frame's first bytes. The checks of a [`Guard`] are the administrator's: a vif sends
//! from its own MAC address only, and with `ip` given from that IPv4 address only, in IPv4 and in ARP. Other protocols
//! cannot be checked against an IPv4 address and are refused then, also inside a VLAN tag.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// Bytes of an Ethernet header.
pub const HEADER_BYTES: usize = 14;
/// Bytes of a frame at most: header, VLAN tag, 1500 bytes of payload. The check sequence is the device's.
pub const FRAME_MAX: usize = 1518;
/// How much of a frame [`Guard::check`] looks at: Ethernet, IPv4 with all options, UDP ports.
pub const HEAD_BYTES: usize = HEADER_BYTES + 60 + 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const PROTOCOL_UDP: u8 = 17;
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Group bit: multicast or broadcast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Can be a station's own address.
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Text that is no station's MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(BadMac)?;
            *byte = part
                .bytes()
                .try_fold(0u8, |value, digit| {
                    let digit = char::from(digit).to_digit(16)?;
                    Some(value << 4 | digit as u8)
                })
                .ok_or(BadMac)?;
        }
        let mac = Self(bytes);
        if parts.next().is_some() || !mac.is_station() { Err(BadMac) } else { Ok(mac) }
    }
}

/// The addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
}

/// Why a frame is dropped at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than a header, or than the header inside it.
    Runt,
    /// Longer than [`FRAME_MAX`].
    Giant,
    /// Not from the vif's MAC address.
    ForeignMac,
    /// Not from the vif's IPv4 address, or a protocol in which that cannot be checked.
    ForeignIp,
}

/// Addresses of the frame of `length` bytes that starts with `head`.
pub fn addresses(head: &[u8], length: usize) -> Result<Addresses, Refused> {
    if length > FRAME_MAX {
        return Err(Refused::Giant);
    }
    let bytes = head.get(..length.min(head.len())).unwrap_or(head);
    let destination = array(bytes, 0).ok_or(Refused::Runt)?;
    let source = array(bytes, 6).ok_or(Refused::Runt)?;
    array::<2>(bytes, 12).ok_or(Refused::Runt)?;
    Ok(Addresses { destination: Mac(destination), source: Mac(source) })
}

/// What a vif may send as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address, when the policy fixes one.
    pub ip: Option<Ipv4Addr>,
}

impl Guard {
    /// Checks the frame of `length` bytes that starts with `head` (at least [`HEAD_BYTES`] of it, or all).
    pub fn check(&self, head: &[u8], length: usize) -> Result<Addresses, Refused> {
        let addresses = addresses(head, length)?;
        if addresses.source != self.mac {
            return Err(Refused::ForeignMac);
        }
        if let Some(ip) = self.ip {
            let head = head.get(..length.min(head.len())).unwrap_or(head);
            match half(head, 12).ok_or(Refused::Runt)? {
                ETHERTYPE_IPV4 => check_ipv4(ip, head)?,
                ETHERTYPE_ARP => self.check_arp(ip, head)?,
                _ => return Err(Refused::ForeignIp),
            }
        }
        Ok(addresses)
    }

    /// RFC 826 for Ethernet and IPv4: the sender pair must be this vif's; 0.0.0.0 is a probe (RFC 5227).
    fn check_arp(&self, ip: Ipv4Addr, head: &[u8]) -> Result<(), Refused> {
        let arp = head.get(HEADER_BYTES..HEADER_BYTES + 28).ok_or(Refused::Runt)?;
        let sender_ip = Ipv4Addr::from(array::<4>(arp, 14).ok_or(Refused::Runt)?);
        let sender_mac = Mac(array(arp, 8).ok_or(Refused::Runt)?);
        let ethernet_ipv4 = arp.starts_with(&[0, 1, 8, 0, 6, 4]);
        let own = ethernet_ipv4 && sender_mac == self.mac && (sender_ip == ip || sender_ip.is_unspecified());
        if own { Ok(()) } else { Err(Refused::ForeignIp) }
    }
}

/// RFC 791: the source address; 0.0.0.0 only for a DHCP client's requests (RFC 2131).
fn check_ipv4(ip: Ipv4Addr, head: &[u8]) -> Result<(), Refused> {
    let packet = head.get(HEADER_BYTES..).ok_or(Refused::Runt)?;
    let first = *packet.first().ok_or(Refused::Runt)?;
    let header_bytes = usize::from(first & 0xf) * 4;
    if packet.len() < 20 || header_bytes < 20 || packet.len() < header_bytes {
        return Err(Refused::Runt);
    }
    let source = Ipv4Addr::from(array::<4>(packet, 12).ok_or(Refused::Runt)?);
    let version_4 = first >> 4 == 4;
    if version_4 && (source == ip || source.is_unspecified() && is_dhcp_request(packet, header_bytes)) {
        Ok(())
    } else {
        Err(Refused::ForeignIp)
    }
}

fn is_dhcp_request(packet: &[u8], header_bytes: usize) -> bool {
    const FRAGMENT: u16 = 0x3fff; // more fragments, or not the first
    packet.get(9) == Some(&PROTOCOL_UDP)
        && half(packet, 6).is_some_and(|flags| flags & FRAGMENT == 0)
        && half(packet, header_bytes) == Some(DHCP_CLIENT)
        && half(packet, header_bytes + 2) == Some(DHCP_SERVER)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    fn guard() -> Guard {
        Guard { mac: OWN, ip: Some(IP) }
    }

    fn frame(source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&PEER.0[..], &source.0, &ethertype.to_be_bytes(), payload].concat()
    }

    fn ipv4(source: Ipv4Addr, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(source.octets());
        packet.extend([255; 4]);
        packet.extend(rest);
        packet
    }

    fn arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac.0, &ip.octets(), &[0; 10]].concat()
    }

    fn check(frame: &[u8]) -> Result<Addresses, Refused> {
        guard().check(frame, frame.len())
    }

    #[test]
    fn a_packet_from_the_own_addresses_passes() {
        let passed = check(&frame(OWN, 0x0800, &ipv4(IP, 6, &[0; 20]))).unwrap();
        assert_eq!(passed, Addresses { destination: PEER, source: OWN });
        check(&frame(OWN, 0x0806, &arp(OWN, IP))).unwrap();
        check(&frame(OWN, 0x0806, &arp(OWN, Ipv4Addr::UNSPECIFIED))).unwrap();
    }

    #[test]
    fn a_foreign_mac_is_refused_in_the_header_and_in_arp() {
        assert_eq!(check(&frame(PEER, 0x0800, &ipv4(IP, 6, &[0; 20]))), Err(Refused::ForeignMac));
        assert_eq!(check(&frame(OWN, 0x0806, &arp(PEER, IP))), Err(Refused::ForeignIp));
    }

    #[test]
    fn a_foreign_ip_is_refused_in_ipv4_and_in_arp() {
        let other = Ipv4Addr::new(10, 0, 2, 2);
        assert_eq!(check(&frame(OWN, 0x0800, &ipv4(other, 6, &[0; 20]))), Err(Refused::ForeignIp));
        assert_eq!(check(&frame(OWN, 0x0806, &arp(OWN, other))), Err(Refused::ForeignIp));
    }

    #[test]
    fn what_cannot_be_checked_against_an_ipv4_address_is_refused() {
        for ethertype in [0x86dd, 0x8100, 0x88a8, 0x0842, 46] {
            assert_eq!(check(&frame(OWN, ethertype, &[0; 60])), Err(Refused::ForeignIp), "{ethertype:#x}");
        }
        let free = Guard { mac: OWN, ip: None };
        let ipv6 = frame(OWN, 0x86dd, &[0; 60]);
        free.check(&ipv6, ipv6.len()).unwrap();
    }

    #[test]
    fn a_dhcp_request_passes_without_an_address_and_nothing_else_does() {
        let request = |source: u16, target: u16| {
            let ports = [source.to_be_bytes(), target.to_be_bytes()].concat();
            check(&frame(OWN, 0x0800, &ipv4(Ipv4Addr::UNSPECIFIED, 17, &ports)))
        };
        request(68, 67).unwrap();
        assert_eq!(request(68, 53), Err(Refused::ForeignIp));
        assert_eq!(request(67, 67), Err(Refused::ForeignIp));
        let mut fragment = frame(OWN, 0x0800, &ipv4(Ipv4Addr::UNSPECIFIED, 17, &[0, 68, 0, 67]));
        fragment[20] = 0x20;
        assert_eq!(check(&fragment), Err(Refused::ForeignIp));
    }

    #[test]
    fn runts_and_giants_are_refused() {
        let whole = frame(OWN, 0x0800, &ipv4(IP, 6, &[]));
        for length in 0..whole.len() {
            assert_eq!(guard().check(&whole, length), Err(Refused::Runt), "{length}");
        }
        assert_eq!(guard().check(&whole, FRAME_MAX + 1), Err(Refused::Giant));
        guard().check(&whole, FRAME_MAX).unwrap();
    }

    #[test]
    fn a_mac_is_read_as_people_write_it() {
        assert_eq!("02:00:00:00:00:01".parse(), Ok(OWN));
        assert_eq!("52:54:00:AB:cd:ef".parse(), Ok(Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef])));
        assert_eq!(OWN.to_string(), "02:00:00:00:00:01");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:0g",
            "2:0:0:0:0:1",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_passes_a_guard_with_another_source(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), length in 0usize..2000
        ) {
            if let Ok(passed) = guard().check(&bytes, length) {
                prop_assert_eq!(passed.source, OWN);
                prop_assert!((HEADER_BYTES..=FRAME_MAX).contains(&length));
            }
        }

        #[test]
        fn an_own_ipv4_packet_with_any_bytes_changed_passes_only_with_the_own_address(
            at in 0usize..34, value in any::<u8>()
        ) {
            let mut bytes = frame(OWN, 0x0800, &ipv4(IP, 6, &[0; 40]));
            bytes[at] = value;
            if check(&bytes).is_ok() {
                prop_assert_eq!(&bytes[6..12], &OWN.0);
                prop_assert!(bytes[12..14] == [8, 0] && bytes[26..30] == IP.octets());
            }
        }
    }
}
