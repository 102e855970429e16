//! What a server reads: requests, typed. A name of illegal form or a payload that lacks something is an error with the
//! number that the client gets; paths are not resolved and permissions not looked at here.

use xen_abi::errno::Errno;
use xen_abi::io::xs_wire as wire;

use super::message::Message;
use super::path::{Path, PathError};
use super::strings::{Strings, parse_decimal};

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `T`.
    Commit,
    /// `F`.
    Abort,
}

/// A request. `docs/misc/xenstore.txt` of Xen has the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Command and arguments of the server's own.
    Control(Strings<'a>),
    /// List children.
    Directory(Path<'a>),
    /// List children from a byte offset of the list on.
    DirectoryPart(Path<'a>, u64),
    /// Read a node.
    Read(Path<'a>),
    /// Read its permissions.
    GetPerms(Path<'a>),
    /// Set them; the entries are [`super::Permission`]s as text, at least one.
    SetPerms(Path<'a>, Strings<'a>),
    /// Watch a name, with a token.
    Watch(Path<'a>, &'a [u8]),
    /// Undo that.
    Unwatch(Path<'a>, &'a [u8]),
    /// Begin a transaction.
    TransactionStart,
    /// End the transaction that the message's head names.
    TransactionEnd(End),
    /// A new domain: its id, the frame of its ring (here: unused, its grant 1 is mapped), its port.
    Introduce {
        /// Domain id.
        domid: u16,
        /// Guest frame number of the ring.
        gfn: u64,
        /// The domain's event channel port.
        port: u32,
    },
    /// A domain is gone.
    Release(u16),
    /// Home of a domain.
    GetDomainPath(u16),
    /// Has it been introduced?
    IsDomainIntroduced(u16),
    /// It resumes.
    Resume(u16),
    /// Give the first the rights of the second.
    SetTarget(u16, u16),
    /// Write a node.
    Write(Path<'a>, &'a [u8]),
    /// Make a node.
    Mkdir(Path<'a>),
    /// Remove a node and all below it.
    Rm(Path<'a>),
    /// Remove the caller's watches and transactions.
    ResetWatches,
}

/// Why a message is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// No such type.
    Type(u32),
    /// An illegal name.
    Path(PathError),
    /// Something is missing or not what it must be.
    Payload,
}

impl RequestError {
    /// The error that the client gets.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            RequestError::Type(_) => Errno::ENOSYS,
            RequestError::Path(_) | RequestError::Payload => Errno::EINVAL,
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a message.
    pub fn parse(message: &Message<'a>) -> Result<Self, RequestError> {
        let mut fields = Fields(Strings::new(message.payload));
        let request = match message.head.kind {
            wire::XS_CONTROL => Request::Control(fields.0),
            wire::XS_DIRECTORY => Request::Directory(fields.path()?),
            wire::XS_DIRECTORY_PART => Request::DirectoryPart(fields.path()?, fields.number()?),
            wire::XS_READ => Request::Read(fields.path()?),
            wire::XS_GET_PERMS => Request::GetPerms(fields.path()?),
            wire::XS_SET_PERMS => Request::SetPerms(fields.path()?, fields.list()?),
            wire::XS_WATCH => Request::Watch(fields.path()?, fields.string()?),
            wire::XS_UNWATCH => Request::Unwatch(fields.path()?, fields.string()?),
            wire::XS_TRANSACTION_START => Request::TransactionStart,
            wire::XS_TRANSACTION_END => Request::TransactionEnd(fields.end()?),
            wire::XS_INTRODUCE => {
                Request::Introduce { domid: fields.domid()?, gfn: fields.number()?, port: fields.port()? }
            }
            wire::XS_RELEASE => Request::Release(fields.domid()?),
            wire::XS_GET_DOMAIN_PATH => Request::GetDomainPath(fields.domid()?),
            wire::XS_IS_DOMAIN_INTRODUCED => Request::IsDomainIntroduced(fields.domid()?),
            wire::XS_RESUME => Request::Resume(fields.domid()?),
            wire::XS_SET_TARGET => Request::SetTarget(fields.domid()?, fields.domid()?),
            wire::XS_WRITE => Request::Write(fields.path()?, fields.0.rest()),
            wire::XS_MKDIR => Request::Mkdir(fields.path()?),
            wire::XS_RM => Request::Rm(fields.path()?),
            wire::XS_RESET_WATCHES => Request::ResetWatches,
            kind => return Err(RequestError::Type(kind)),
        };
        Ok(request)
    }
}

/// Takes fields off a payload. What follows the last that is needed is ignored, as xenstored does.
struct Fields<'a>(Strings<'a>);

impl<'a> Fields<'a> {
    fn string(&mut self) -> Result<&'a [u8], RequestError> {
        self.0.next().ok_or(RequestError::Payload)
    }

    fn path(&mut self) -> Result<Path<'a>, RequestError> {
        Path::parse(self.string()?).map_err(RequestError::Path)
    }

    fn number(&mut self) -> Result<u64, RequestError> {
        parse_decimal(self.string()?).ok_or(RequestError::Payload)
    }

    fn domid(&mut self) -> Result<u16, RequestError> {
        u16::try_from(self.number()?).map_err(|_| RequestError::Payload)
    }

    fn port(&mut self) -> Result<u32, RequestError> {
        u32::try_from(self.number()?).map_err(|_| RequestError::Payload)
    }

    fn end(&mut self) -> Result<End, RequestError> {
        match self.string()? {
            b"T" => Ok(End::Commit),
            b"F" => Ok(End::Abort),
            _ => Err(RequestError::Payload),
        }
    }

    /// At least one string, each with its NUL.
    fn list(&mut self) -> Result<Strings<'a>, RequestError> {
        match self.0.rest().last() {
            Some(0) => Ok(self.0),
            _ => Err(RequestError::Payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::io::xs_wire::XsdSockmsg;

    fn parse(kind: u32, payload: &[u8]) -> Result<Request<'_>, RequestError> {
        let head = XsdSockmsg { kind, req_id: 1, tx_id: 0, len: payload.len() as u32 };
        Request::parse(&Message { head, payload })
    }

    #[test]
    fn requests_are_read() {
        let path = Path::Absolute("/a");
        assert_eq!(parse(wire::XS_READ, b"/a\0"), Ok(Request::Read(path)));
        assert_eq!(parse(wire::XS_WRITE, b"/a\0v\0v"), Ok(Request::Write(path, b"v\0v")));
        assert_eq!(parse(wire::XS_WRITE, b"/a\0"), Ok(Request::Write(path, b"")));
        assert_eq!(parse(wire::XS_WATCH, b"/a\0token\0"), Ok(Request::Watch(path, b"token")));
        assert_eq!(parse(wire::XS_TRANSACTION_END, b"T\0"), Ok(Request::TransactionEnd(End::Commit)));
        assert_eq!(
            parse(wire::XS_INTRODUCE, b"3\x004096\x0017\0"),
            Ok(Request::Introduce { domid: 3, gfn: 4096, port: 17 })
        );
        let Ok(Request::SetPerms(_, perms)) = parse(wire::XS_SET_PERMS, b"/a\0n0\0r3\0") else { panic!() };
        assert!(perms.eq([&b"n0"[..], b"r3"]));
    }

    #[test]
    fn payloads_that_lack_something_are_invalid() {
        for (kind, payload) in [
            (wire::XS_READ, &b"/a"[..]),
            (wire::XS_READ, b""),
            (wire::XS_READ, b"\0"),
            (wire::XS_WATCH, b"/a\0token"),
            (wire::XS_TRANSACTION_END, b"X\0"),
            (wire::XS_INTRODUCE, b"3\x004096\0"),
            (wire::XS_INTRODUCE, b"70000\x004096\x001\0"),
            (wire::XS_SET_PERMS, b"/a\0"),
            (wire::XS_SET_PERMS, b"/a\0n0"),
            (wire::XS_RELEASE, b"-1\0"),
        ] {
            assert_eq!(parse(kind, payload).map_err(RequestError::errno), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn types_that_are_no_requests_are_not_implemented() {
        for kind in [wire::XS_WATCH_EVENT, wire::XS_ERROR, 20, wire::XS_TYPE_COUNT, wire::XS_INVALID, u32::MAX] {
            assert_eq!(parse(kind, b"").map_err(RequestError::errno), Err(Errno::ENOSYS));
        }
    }
}
