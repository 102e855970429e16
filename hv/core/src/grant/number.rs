//! Sub-operation numbers. What is not here is not provided: it changes nothing.

use xen_abi::grant_table as abi;

crate::operation::operations! {
    /// A sub-operation of `HYPERVISOR_GRANT_TABLE_OP`.
    GnttabOp {
        /// `GnttabMapGrantRef`.
        Map = abi::GNTTABOP_MAP_GRANT_REF,
        /// `GnttabUnmapGrantRef`.
        Unmap = abi::GNTTABOP_UNMAP_GRANT_REF,
        /// `GnttabSetupTable`.
        SetupTable = abi::GNTTABOP_SETUP_TABLE,
        /// `GnttabCopy`.
        Copy = abi::GNTTABOP_COPY,
        /// `GnttabQuerySize`.
        QuerySize = abi::GNTTABOP_QUERY_SIZE,
        /// `GnttabSetVersion`.
        SetVersion = abi::GNTTABOP_SET_VERSION,
        /// `GnttabGetVersion`.
        GetVersion = abi::GNTTABOP_GET_VERSION,
    }
}
