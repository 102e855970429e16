//! Messages of the xenstore protocol, as the client sees them. Pure.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use xen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XsdSockmsg};
use zerocopy::{FromBytes, IntoBytes};

use crate::ids::DomId;

/// Bytes of a message's head.
pub const HEAD_BYTES: usize = size_of::<XsdSockmsg>();

/// Something below a watched node changed (or the watch was just set).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed; relative if the watch was.
    pub path: String,
    /// As given to `watch`.
    pub token: String,
}

impl WatchEvent {
    /// Reads the payload of `XS_WATCH_EVENT`.
    pub fn parse(payload: &[u8]) -> Option<WatchEvent> {
        let mut parts = strings(payload).into_iter();
        Some(WatchEvent {
            path: parts.next()?,
            token: parts.next()?,
        })
    }
}

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Both.
    Both,
}

/// One entry of a node's permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain; in the first entry, the owner.
    pub domain: DomId,
    /// Its rights; in the first entry, those of all domains that are not listed.
    pub rights: Rights,
}

impl Permission {
    /// An entry.
    pub const fn new(domain: DomId, rights: Rights) -> Self {
        Self { domain, rights }
    }

    /// Reads `r3`.
    pub fn parse(text: &str) -> Option<Permission> {
        let rights = match text.as_bytes().first()? {
            b'n' => Rights::None,
            b'r' => Rights::Read,
            b'w' => Rights::Write,
            b'b' => Rights::Both,
            _ => return None,
        };
        Some(Permission {
            domain: DomId(text[1..].parse().ok()?),
            rights,
        })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain)
    }
}

/// The NUL-terminated strings of a payload; what is not UTF-8 is replaced.
pub fn strings(payload: &[u8]) -> Vec<String> {
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    if payload.is_empty() {
        return Vec::new();
    }
    payload
        .split(|&byte| byte == 0)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

/// The decimal number of a payload.
pub fn number(payload: &[u8]) -> Option<u32> {
    core::str::from_utf8(payload).ok()?.trim_end_matches('\0').parse().ok()
}

/// Splits a part of a list into its generation, the names, and whether it is the last.
pub fn directory_part(payload: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let end = payload.iter().position(|&byte| byte == 0)?;
    let (generation, names) = (&payload[..end], &payload[end + 1..]);
    // The last part ends with an empty name.
    let last = names.is_empty() || names == b"\0" || names.ends_with(b"\0\0");
    Some((
        generation,
        if last && !names.is_empty() {
            &names[..names.len() - 1]
        } else {
            names
        },
        last,
    ))
}

/// Puts a request together; `None`: too long.
pub fn request(kind: u32, id: u32, transaction: u32, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if bytes > XENSTORE_PAYLOAD_MAX {
        return None;
    }
    let head = XsdSockmsg {
        kind,
        req_id: id,
        tx_id: transaction,
        len: bytes as u32,
    };
    let mut message = Vec::with_capacity(HEAD_BYTES + bytes);
    message.extend_from_slice(head.as_bytes());
    parts.iter().for_each(|part| message.extend_from_slice(part));
    Some(message)
}

/// Takes messages out of a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

/// The stream makes no sense any more: a message is longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

impl Inbox {
    fn head(&self) -> Option<XsdSockmsg> {
        XsdSockmsg::read_from_prefix(&self.bytes).ok().map(|(head, _)| head)
    }

    /// Bytes that complete what is being received: of the head, then of the whole message. Never 0.
    pub fn wanted(&self) -> Result<usize, Garbled> {
        match self.head() {
            None => Ok(HEAD_BYTES - self.bytes.len()),
            Some(head) if head.len as usize > XENSTORE_PAYLOAD_MAX => Err(Garbled),
            Some(head) => Ok((HEAD_BYTES + head.len as usize).saturating_sub(self.bytes.len()).max(1)),
        }
    }

    /// Adds received bytes, at most as many as are wanted, and returns the message that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Option<(XsdSockmsg, Vec<u8>)> {
        self.bytes.extend_from_slice(bytes);
        let head = self.head()?;
        if self.bytes.len() < HEAD_BYTES + head.len as usize {
            return None;
        }
        let payload = self.bytes.split_off(HEAD_BYTES);
        self.bytes.clear();
        Some((head, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn messages_come_out_whole_however_they_come_in() {
        let mut stream = request(15, 0, 0, &[b"a\0t\0"]).unwrap();
        stream.extend(request(2, 7, 0, &[]).unwrap());
        stream.extend(request(2, 8, 1, &[b"value"]).unwrap());
        for step in 1..40 {
            let (mut inbox, mut out, mut at) = (Inbox::default(), Vec::new(), 0);
            while at < stream.len() {
                let count = inbox.wanted().unwrap().min(step).min(stream.len() - at);
                out.extend(inbox.push(&stream[at..at + count]));
                at += count;
            }
            let seen: Vec<_> = out
                .iter()
                .map(|(head, payload)| (head.req_id, payload.as_slice()))
                .collect();
            assert_eq!(seen, [(0, &b"a\0t\0"[..]), (7, b""), (8, b"value")]);
        }
    }

    #[test]
    fn an_impossible_length_garbles_the_stream() {
        let mut inbox = Inbox::default();
        let head = XsdSockmsg {
            len: 5000,
            ..Default::default()
        };
        assert!(inbox.push(head.as_bytes()).is_none());
        assert_eq!(inbox.wanted(), Err(Garbled));
        assert!(request(11, 1, 0, &[&[0; 4097]]).is_none());
    }

    #[test]
    fn permissions_survive_the_wire() {
        for text in ["n0", "r3", "w17", "b32751"] {
            assert_eq!(Permission::parse(text).unwrap().to_string(), text);
        }
        assert!(
            ["", "x1", "r", "r-1", "n99999"]
                .iter()
                .all(|text| Permission::parse(text).is_none())
        );
    }

    #[test]
    fn lists_are_split_at_their_ends() {
        assert_eq!(strings(b"a\0bc\0"), ["a", "bc"]);
        assert!(strings(b"").is_empty());
        assert_eq!(WatchEvent::parse(b"p\0"), None);
        assert_eq!(
            WatchEvent::parse(b"p\0t\0").unwrap(),
            WatchEvent {
                path: "p".into(),
                token: "t".into()
            }
        );
        assert_eq!(number(b"12\0"), Some(12));
    }

    #[test]
    fn the_last_part_of_a_list_is_told_from_the_others() {
        assert_eq!(directory_part(b"9\0a\0b\0"), Some((&b"9"[..], &b"a\0b\0"[..], false)));
        assert_eq!(directory_part(b"9\0a\0\0"), Some((&b"9"[..], &b"a\0"[..], true)));
        assert_eq!(directory_part(b"9\0\0"), Some((&b"9"[..], &b""[..], true)));
        assert_eq!(directory_part(b"9"), None);
        assert_eq!(strings(b"a\0"), ["a"]);
    }
}
