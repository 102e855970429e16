//! What a client reads: replies to its requests, errors by name, and watch events in between.

use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{XS_ERROR, XS_WATCH_EVENT};

use super::message::Message;
use super::strings::Strings;

/// A watch has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// The node that changed, absolute or relative as the watch was.
    pub path: &'a [u8],
    /// The watch's token.
    pub token: &'a [u8],
}

/// Why a reply is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The server says no.
    Refused(Errno),
    /// The server answered another request or with another type. Its fault.
    Mismatch,
    /// The server sent a payload that cannot be. Its fault.
    Payload,
}

impl Message<'_> {
    /// Whether this is a watch event rather than a reply.
    #[must_use]
    pub const fn is_watch_event(&self) -> bool {
        self.head.kind == XS_WATCH_EVENT
    }
}

impl<'a> WatchEvent<'a> {
    /// Reads a watch event.
    pub fn parse(message: &Message<'a>) -> Result<Self, ReplyError> {
        if !message.is_watch_event() {
            return Err(ReplyError::Mismatch);
        }
        let mut strings = Strings::new(message.payload);
        match (strings.next(), strings.next()) {
            (Some(path), Some(token)) => Ok(Self { path, token }),
            _ => Err(ReplyError::Payload),
        }
    }
}

/// Checks that a message answers the request of this type and id, and returns its payload.
pub fn check_reply<'a>(message: &Message<'a>, kind: u32, req_id: u32) -> Result<&'a [u8], ReplyError> {
    if message.head.req_id != req_id {
        return Err(ReplyError::Mismatch);
    }
    match message.head.kind {
        XS_ERROR => Err(parse_error(message.payload).map_or(ReplyError::Payload, ReplyError::Refused)),
        answered if answered == kind => Ok(message.payload),
        _ => Err(ReplyError::Mismatch),
    }
}

/// Reads an error's name. A name that no header has counts as [`Errno::EINVAL`].
fn parse_error(payload: &[u8]) -> Option<Errno> {
    let name = core::str::from_utf8(Strings::new(payload).next()?).ok()?;
    Some(Errno::from_name(name).unwrap_or(Errno::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::io::xs_wire::{XS_READ, XS_WRITE, XsdSockmsg};

    fn message(kind: u32, payload: &[u8]) -> Message<'_> {
        Message { head: XsdSockmsg { kind, req_id: 7, tx_id: 0, len: payload.len() as u32 }, payload }
    }

    #[test]
    fn replies_must_fit_their_requests() {
        assert_eq!(check_reply(&message(XS_READ, b"v"), XS_READ, 7), Ok(&b"v"[..]));
        assert_eq!(check_reply(&message(XS_READ, b"v"), XS_READ, 8), Err(ReplyError::Mismatch));
        assert_eq!(check_reply(&message(XS_WRITE, b"v"), XS_READ, 7), Err(ReplyError::Mismatch));
        assert_eq!(check_reply(&message(XS_ERROR, b"ENOENT\0"), XS_READ, 7), Err(ReplyError::Refused(Errno::ENOENT)));
        assert_eq!(check_reply(&message(XS_ERROR, b"EODD\0"), XS_READ, 7), Err(ReplyError::Refused(Errno::EINVAL)));
        assert_eq!(check_reply(&message(XS_ERROR, b"ENOENT"), XS_READ, 7), Err(ReplyError::Payload));
    }

    #[test]
    fn watch_events_have_a_path_and_a_token() {
        let event = WatchEvent::parse(&message(XS_WATCH_EVENT, b"/a\0t\0"));
        assert_eq!(event, Ok(WatchEvent { path: b"/a", token: b"t" }));
        assert_eq!(WatchEvent::parse(&message(XS_WATCH_EVENT, b"/a\0t")), Err(ReplyError::Payload));
        assert_eq!(WatchEvent::parse(&message(XS_READ, b"/a\0t\0")), Err(ReplyError::Mismatch));
    }
}
