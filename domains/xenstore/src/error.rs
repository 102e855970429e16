//! What a request can fail with, and the text that goes over the wire for it (`xsd_errors` of Xen's `io/xs_wire.h`).

/// Why a request was refused. Every one of these is the fault of the client that sent it, or its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Malformed arguments or path.
    Invalid,
    /// The client may not do this to that node.
    Access,
    /// There is one already.
    Exists,
    /// There is none.
    NotFound,
    /// The memory quota of the client's domain is used up.
    NoMemory,
    /// Another quota of the client's domain is used up.
    NoSpace,
    /// Not a request that this server knows.
    NotImplemented,
    /// A transaction inside a transaction.
    Busy,
    /// The transaction read something that has changed since; do it again.
    Again,
    /// The reply or the argument does not fit, or too many watches.
    TooBig,
    /// Ownership is given away by privileged domains only.
    NotPermitted,
}

impl Error {
    /// The name that stands in the reply.
    #[must_use]
    pub fn wire_name(self) -> &'static str {
        match self {
            Error::Invalid => "EINVAL",
            Error::Access => "EACCES",
            Error::Exists => "EEXIST",
            Error::NotFound => "ENOENT",
            Error::NoMemory => "ENOMEM",
            Error::NoSpace => "ENOSPC",
            Error::NotImplemented => "ENOSYS",
            Error::Busy => "EBUSY",
            Error::Again => "EAGAIN",
            Error::TooBig => "E2BIG",
            Error::NotPermitted => "EPERM",
        }
    }
}
