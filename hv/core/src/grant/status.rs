//! `GNTST_*`: what an item of a grant call answers.

use xen_abi::grant_table as abi;

use crate::error::Errno;
use crate::space::MapError;

/// Why a grant operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i16)]
pub enum Status {
    /// Bad flags, or the entry grants something else or to someone else.
    GeneralError = abi::GNTST_GENERAL_ERROR,
    /// No such domain.
    BadDomain = abi::GNTST_BAD_DOMAIN,
    /// No such reference.
    BadGntref = abi::GNTST_BAD_GNTREF,
    /// No such handle.
    BadHandle = abi::GNTST_BAD_HANDLE,
    /// `host_addr` is not a place to map at, or not where it is mapped.
    BadVirtAddr = abi::GNTST_BAD_VIRT_ADDR,
    /// `dev_bus_addr` is not where it is mapped.
    BadDevAddr = abi::GNTST_BAD_DEV_ADDR,
    /// By the policy, or not the caller's to do.
    PermissionDenied = abi::GNTST_PERMISSION_DENIED,
    /// The frame is not ordinary memory of the granting domain.
    BadPage = abi::GNTST_BAD_PAGE,
    /// A copy crosses a page's end.
    BadCopyArg = abi::GNTST_BAD_COPY_ARG,
    /// Handles, page tables, counters or memory are used up.
    NoSpace = abi::GNTST_NO_SPACE,
}

impl From<MapError> for Status {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Occupied | MapError::Vacant | MapError::BadAddress => Status::BadVirtAddr,
            MapError::NoMemory => Status::NoSpace,
        }
    }
}

/// Of finding a domain, or growing its table.
impl From<Errno> for Status {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ESRCH => Status::BadDomain,
            Errno::ENOMEM => Status::NoSpace,
            _ => Status::GeneralError,
        }
    }
}

impl Status {
    /// The status field of a result: 0, or the negative number.
    pub fn of<T>(result: &Result<T, Status>) -> i16 {
        match result {
            Ok(_) => abi::GNTST_OKAY,
            Err(status) => *status as i16,
        }
    }
}
