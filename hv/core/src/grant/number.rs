//! Sub-operation numbers. What is not here is not provided: it changes nothing.

use xen_abi::grant_table as abi;

use crate::error::Errno;

/// A sub-operation of `HYPERVISOR_GRANT_TABLE_OP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GnttabOp {
    /// `GnttabMapGrantRef`.
    Map,
    /// `GnttabUnmapGrantRef`.
    Unmap,
    /// `GnttabSetupTable`.
    SetupTable,
    /// `GnttabCopy`.
    Copy,
    /// `GnttabQuerySize`.
    QuerySize,
    /// `GnttabSetVersion`.
    SetVersion,
    /// `GnttabGetVersion`.
    GetVersion,
}

impl TryFrom<u64> for GnttabOp {
    type Error = Errno;

    #[inline]
    fn try_from(command: u64) -> Result<Self, Errno> {
        Ok(match command {
            abi::GNTTABOP_MAP_GRANT_REF => Self::Map,
            abi::GNTTABOP_UNMAP_GRANT_REF => Self::Unmap,
            abi::GNTTABOP_SETUP_TABLE => Self::SetupTable,
            abi::GNTTABOP_COPY => Self::Copy,
            abi::GNTTABOP_QUERY_SIZE => Self::QuerySize,
            abi::GNTTABOP_SET_VERSION => Self::SetVersion,
            abi::GNTTABOP_GET_VERSION => Self::GetVersion,
            _ => return Err(Errno::ENOSYS),
        })
    }
}
