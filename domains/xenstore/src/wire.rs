//! The message format: a 16-byte header (`xsd_sockmsg`), then up to 4096 bytes of payload.

use crate::error::Error;
use alloc::vec::Vec;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a payload at most (`XENSTORE_PAYLOAD_MAX`). A longer one ends the connection.
pub const PAYLOAD_MAX: usize = 4096;

/// The request and reply types (`enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are those of the public header without its prefix")]
pub enum Op {
    Control = 0,
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    MakeDirectory = 12,
    Remove = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    IsDomainIntroduced = 17,
    Resume = 18,
    SetTarget = 19,
    ResetWatches = 21,
    DirectoryPart = 22,
}

impl Op {
    /// The type with this number, or `None` for a number that means nothing to this server.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Op::Control,
            1 => Op::Directory,
            2 => Op::Read,
            3 => Op::GetPerms,
            4 => Op::Watch,
            5 => Op::Unwatch,
            6 => Op::TransactionStart,
            7 => Op::TransactionEnd,
            8 => Op::Introduce,
            9 => Op::Release,
            10 => Op::GetDomainPath,
            11 => Op::Write,
            12 => Op::MakeDirectory,
            13 => Op::Remove,
            14 => Op::SetPerms,
            15 => Op::WatchEvent,
            16 => Op::Error,
            17 => Op::IsDomainIntroduced,
            18 => Op::Resume,
            19 => Op::SetTarget,
            21 => Op::ResetWatches,
            22 => Op::DirectoryPart,
            _ => return None,
        })
    }
}

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type's number, which may be none of [`Op`].
    pub op: u32,
    /// Echoed in the reply.
    pub request: u32,
    /// The transaction that it belongs to, 0 for none.
    pub transaction: u32,
    /// Bytes of payload.
    pub bytes: u32,
}

impl Header {
    /// Reads a header from its bytes on the wire.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        Header {
            op: word(0),
            request: word(4),
            transaction: word(8),
            bytes: word(12),
        }
    }

    /// Appends the header's bytes on the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in [self.op, self.request, self.transaction, self.bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// Splits a payload that is a sequence of NUL-terminated strings. The last must be terminated too.
pub fn strings(payload: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let body = payload.strip_suffix(b"\0").ok_or(Error::Invalid)?;
    Ok(body.split(|&byte| byte == 0).collect())
}

/// A payload that is exactly `N` NUL-terminated strings.
pub fn exactly<const N: usize>(payload: &[u8]) -> Result<[&[u8]; N], Error> {
    strings(payload)?.try_into().map_err(|_| Error::Invalid)
}

/// A payload that starts with one NUL-terminated string; gives it and what follows.
pub fn leading(payload: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let end = payload.iter().position(|&byte| byte == 0).ok_or(Error::Invalid)?;
    Ok((&payload[..end], &payload[end + 1..]))
}

/// A decimal number without sign.
pub fn parse_number(text: &[u8]) -> Result<u64, Error> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Error::Invalid);
    }
    core::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Error::Invalid)
}

/// Collects the bytes of a client's messages. It asks for no byte beyond the message that it is in, so that a client
/// whose replies are not taken leaves its further requests in the ring.
#[derive(Debug, Default)]
pub struct Assembler {
    header: Option<Header>,
    bytes: Vec<u8>,
}

/// A client broke the message format; there is no way to find the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Assembler {
    /// Bytes missing to the end of the header or payload that is being collected; never 0.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.header {
            None => HEADER_BYTES.saturating_sub(self.bytes.len()),
            Some(header) => (header.bytes as usize).saturating_sub(self.bytes.len()),
        }
    }

    /// Takes at most [`Assembler::wanted`] bytes from the front of `input`, advances it, and gives a message when one
    /// is complete.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<(Header, Vec<u8>)>, Malformed> {
        loop {
            let (now, later) = input.split_at(self.wanted().min(input.len()));
            self.bytes.extend_from_slice(now);
            *input = later;
            if self.wanted() > 0 {
                return Ok(None);
            }
            match self.header.take() {
                Some(header) => return Ok(Some((header, core::mem::take(&mut self.bytes)))),
                None => {
                    let bytes = self.bytes.as_slice().try_into().map_err(|_| Malformed)?;
                    let header = Header::decode(bytes);
                    self.bytes.clear();
                    if header.bytes as usize > PAYLOAD_MAX {
                        return Err(Malformed);
                    }
                    self.header = Some(header);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(op: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Header {
            op,
            request: 7,
            transaction: 0,
            bytes: payload.len() as u32,
        }
        .encode(&mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        let mut stream = message(2, b"name\0");
        stream.extend(message(6, b""));
        stream.extend(message(11, &[0xff; PAYLOAD_MAX]));
        for piece in 1..40 {
            let mut assembler = Assembler::default();
            let mut seen = Vec::new();
            for mut bytes in stream.chunks(piece) {
                while !bytes.is_empty() {
                    if let Some((header, payload)) = assembler.take(&mut bytes).unwrap() {
                        seen.push((header.op, payload.len()));
                    }
                }
            }
            assert_eq!(seen, [(2, 5), (6, 0), (11, PAYLOAD_MAX)], "pieces of {piece}");
        }
    }

    #[test]
    fn s4_an_oversize_payload_is_malformed() {
        for bytes in [PAYLOAD_MAX as u32 + 1, u32::MAX] {
            let mut wire = Vec::new();
            Header {
                op: 2,
                request: 0,
                transaction: 0,
                bytes,
            }
            .encode(&mut wire);
            assert_eq!(Assembler::default().take(&mut &wire[..]), Err(Malformed));
        }
    }

    #[test]
    fn operation_numbers_round_trip() {
        let known = (0..100).filter_map(Op::from_number).collect::<Vec<_>>();
        assert_eq!(known.len(), 22);
        assert!(known.iter().all(|&op| Op::from_number(op as u32) == Some(op)));
    }

    #[test]
    fn string_payloads() {
        assert_eq!(strings(b"a\0\0"), Ok([&b"a"[..], b""].to_vec()));
        assert_eq!(strings(b"a"), Err(Error::Invalid));
        assert_eq!(exactly::<2>(b"a\0b\0"), Ok([&b"a"[..], b"b"]));
        assert_eq!(exactly::<1>(b"a\0b\0"), Err(Error::Invalid));
        assert_eq!(leading(b"a\0b"), Ok((&b"a"[..], &b"b"[..])));
        assert_eq!(parse_number(b"18446744073709551616"), Err(Error::Invalid));
        assert_eq!(parse_number(b"+1"), Err(Error::Invalid));
    }
}
