//! Messages of the xenstore protocol, as the client sees them. Pure.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use xen_rings::store::message::encode_head;

use crate::ids::DomId;

/// Something below a watched node changed (or the watch was just set).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed; relative if the watch was.
    pub path: String,
    /// As given to `watch`.
    pub token: String,
}

impl WatchEvent {
    pub(super) fn new(path: &str, token: &str) -> Self {
        Self { path: String::from(path), token: String::from(token) }
    }

    /// Reads the payload of `XS_WATCH_EVENT`.
    pub fn parse(payload: &[u8]) -> Option<WatchEvent> {
        let mut parts = strings(payload).into_iter();
        Some(WatchEvent { path: parts.next()?, token: parts.next()? })
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
        Some(Permission { domain: DomId(text[1..].parse().ok()?), rights })
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
    payload.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
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
    Some((generation, if last && !names.is_empty() { &names[..names.len() - 1] } else { names }, last))
}

/// Puts a request together; `None`: too long.
pub fn request(kind: u32, id: u32, transaction: u32, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let head = encode_head(kind, id, transaction, bytes)?;
    let mut message = Vec::with_capacity(head.len() + bytes);
    message.extend_from_slice(&head);
    parts.iter().for_each(|part| message.extend_from_slice(part));
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn requests_that_are_too_long_are_refused() {
        assert!(request(11, 1, 0, &[&[0; 4000], &[0; 97]]).is_none());
        assert_eq!(request(2, 7, 3, &[b"a", b"\0"]).unwrap().len(), 18);
    }

    #[test]
    fn permissions_survive_the_wire() {
        for text in ["n0", "r3", "w17", "b32751"] {
            assert_eq!(Permission::parse(text).unwrap().to_string(), text);
        }
        assert!(["", "x1", "r", "r-1", "n99999"].iter().all(|text| Permission::parse(text).is_none()));
    }

    #[test]
    fn lists_are_split_at_their_ends() {
        assert_eq!(strings(b"a\0bc\0"), ["a", "bc"]);
        assert!(strings(b"").is_empty());
        assert_eq!(WatchEvent::parse(b"p\0"), None);
        assert_eq!(WatchEvent::parse(b"p\0t\0").unwrap(), WatchEvent { path: "p".into(), token: "t".into() });
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
