//! `io/xs_wire.h`: messages of xenstore and the ring page that carries them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Commands of the server's own.
pub const XS_CONTROL: u32 = 0;
/// List a node's children.
pub const XS_DIRECTORY: u32 = 1;
/// Read a node.
pub const XS_READ: u32 = 2;
/// Read a node's permissions.
pub const XS_GET_PERMS: u32 = 3;
/// Set a watch.
pub const XS_WATCH: u32 = 4;
/// Remove a watch.
pub const XS_UNWATCH: u32 = 5;
/// Begin a transaction.
pub const XS_TRANSACTION_START: u32 = 6;
/// End a transaction.
pub const XS_TRANSACTION_END: u32 = 7;
/// Tell of a new domain and its ring.
pub const XS_INTRODUCE: u32 = 8;
/// Tell that a domain is gone.
pub const XS_RELEASE: u32 = 9;
/// Home of a domain.
pub const XS_GET_DOMAIN_PATH: u32 = 10;
/// Write a node.
pub const XS_WRITE: u32 = 11;
/// Make an empty node.
pub const XS_MKDIR: u32 = 12;
/// Remove a node and all below it.
pub const XS_RM: u32 = 13;
/// Set a node's permissions.
pub const XS_SET_PERMS: u32 = 14;
/// From the server: a watch fired.
pub const XS_WATCH_EVENT: u32 = 15;
/// From the server: the request failed.
pub const XS_ERROR: u32 = 16;
/// Has a domain been introduced?
pub const XS_IS_DOMAIN_INTRODUCED: u32 = 17;
/// A domain resumes.
pub const XS_RESUME: u32 = 18;
/// Give a domain the rights of another.
pub const XS_SET_TARGET: u32 = 19;
/// Remove all own watches and transactions.
pub const XS_RESET_WATCHES: u32 = 21;
/// List a part of a node's children.
pub const XS_DIRECTORY_PART: u32 = 22;
/// First number that is no type.
pub const XS_TYPE_COUNT: u32 = 23;
/// No type.
pub const XS_INVALID: u32 = 0xffff;

/// Errors that the server may send, by name; others go as `EINVAL`.
pub const XSD_ERRORS: [crate::errno::Errno; 16] = {
    use crate::errno::Errno;
    [
        Errno::EINVAL,
        Errno::EACCES,
        Errno::EEXIST,
        Errno::EISDIR,
        Errno::ENOENT,
        Errno::ENOMEM,
        Errno::ENOSPC,
        Errno::EIO,
        Errno::ENOTEMPTY,
        Errno::ENOSYS,
        Errno::EROFS,
        Errno::EBUSY,
        Errno::EAGAIN,
        Errno::EISCONN,
        Errno::E2BIG,
        Errno::EPERM,
    ]
};

/// `struct xsd_sockmsg`: the head of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XsdSockmsg {
    /// `type`, `XS_*`.
    pub kind: u32,
    /// The client's own, echoed.
    pub req_id: u32,
    /// Transaction, 0 = none.
    pub tx_id: u32,
    /// Bytes that follow.
    pub len: u32,
}
layout!(XsdSockmsg, 16, req_id @ 4, tx_id @ 8, len @ 12);

/// Bytes of each ring.
pub const XENSTORE_RING_SIZE: usize = 1024;
/// Bytes of a message behind its head, at most.
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
/// Bytes of an absolute path, at most.
pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
/// Bytes of a path relative to the home, at most.
pub const XENSTORE_REL_PATH_MAX: usize = 2048;

/// [`XenstoreDomainInterface::server_features`]: the server can reconnect.
pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
/// [`XenstoreDomainInterface::server_features`]: the server tells errors.
pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
/// [`XenstoreDomainInterface::connection`]: in use.
pub const XENSTORE_CONNECTED: u32 = 0;
/// [`XenstoreDomainInterface::connection`]: to be emptied and used again.
pub const XENSTORE_RECONNECT: u32 = 1;
/// [`XenstoreDomainInterface::error`]: none.
pub const XENSTORE_ERROR_NONE: u32 = 0;
/// [`XenstoreDomainInterface::error`]: communication.
pub const XENSTORE_ERROR_COMM: u32 = 1;
/// [`XenstoreDomainInterface::error`]: an index is impossible.
pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
/// [`XenstoreDomainInterface::error`]: a message is impossible.
pub const XENSTORE_ERROR_PROTO: u32 = 3;

/// `struct xenstore_domain_interface`. Indexes run freely; a byte's place is index modulo ring size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenstoreDomainInterface {
    /// Requests.
    pub req: [u8; XENSTORE_RING_SIZE],
    /// Responses and watch events.
    pub rsp: [u8; XENSTORE_RING_SIZE],
    /// The server writes it.
    pub req_cons: u32,
    /// The client writes it.
    pub req_prod: u32,
    /// The client writes it.
    pub rsp_cons: u32,
    /// The server writes it.
    pub rsp_prod: u32,
    /// `XENSTORE_SERVER_FEATURE_*`.
    pub server_features: u32,
    /// [`XENSTORE_CONNECTED`], [`XENSTORE_RECONNECT`].
    pub connection: u32,
    /// `XENSTORE_ERROR_*`.
    pub error: u32,
}
layout!(XenstoreDomainInterface, 2076, rsp @ 1024, req_cons @ 2048, req_prod @ 2052, rsp_cons @ 2056, rsp_prod @ 2060,
    server_features @ 2064, connection @ 2068, error @ 2072);
