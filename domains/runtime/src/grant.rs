//! Sharing memory on purpose: granting own pages, mapping others', copying between.
//!
//! - [`GrantedPages`]: own pages that a peer may map. They come back as ordinary memory only after every grant was
//!   revoked while nobody had it mapped.
//! - [`Mapping`]: a peer's pages, mapped as one run of addresses (in a driver domain also for its devices).
//! - [`places`]: the same for data that only devices look at, many requests at once.
//! - [`copy`]: bytes out of or into a peer's page without mapping it.

pub mod copy;
mod map;
mod own;
pub mod places;
mod table;
mod window;

pub use map::{MapError, Mapping};
pub use own::{GrantedPages, grant_own_console_ring, grant_own_store_ring, quarantined_pages};

use core::fmt;

use xen_abi::grant_table as abi;

/// A `GNTST_*` other than okay: why a grant operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// No such domain, or not allowed to share with it.
    BadDomain,
    /// No such reference, or it grants nothing to us.
    BadReference,
    /// No such mapping.
    BadHandle,
    /// The address cannot be used.
    BadAddress,
    /// Refused: e.g. a writable mapping of a read-only grant.
    Denied,
    /// The copy crosses a page or has no length.
    BadCopy,
    /// Out of table space or mappings.
    NoSpace,
    /// Busy for the moment.
    Again,
    /// Anything else.
    Other(i16),
}

impl GrantError {
    /// Reads a status.
    pub fn check(status: i16) -> Result<(), GrantError> {
        Err(match status {
            abi::GNTST_OKAY => return Ok(()),
            abi::GNTST_BAD_DOMAIN => Self::BadDomain,
            abi::GNTST_BAD_GNTREF => Self::BadReference,
            abi::GNTST_BAD_HANDLE => Self::BadHandle,
            abi::GNTST_BAD_VIRT_ADDR | abi::GNTST_BAD_DEV_ADDR | abi::GNTST_BAD_PAGE => Self::BadAddress,
            abi::GNTST_PERMISSION_DENIED => Self::Denied,
            abi::GNTST_BAD_COPY_ARG => Self::BadCopy,
            abi::GNTST_NO_SPACE | abi::GNTST_NO_DEVICE_SPACE => Self::NoSpace,
            abi::GNTST_EAGAIN => Self::Again,
            other => Self::Other(other),
        })
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadDomain => f.write_str("no such domain, or not linked to it"),
            Self::BadReference => f.write_str("the reference grants nothing to us"),
            Self::BadHandle => f.write_str("no such mapping"),
            Self::BadAddress => f.write_str("address unusable"),
            Self::Denied => f.write_str("permission denied"),
            Self::BadCopy => f.write_str("copy crosses a page or has no length"),
            Self::NoSpace => f.write_str("no table space"),
            Self::Again => f.write_str("busy"),
            Self::Other(status) => write!(f, "grant status {status}"),
        }
    }
}

impl core::error::Error for GrantError {}
