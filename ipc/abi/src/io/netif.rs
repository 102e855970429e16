//! `io/netif.h`: requests and responses of a virtual network interface. "tx" and "rx" are seen from the front end.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ring::ring_entries;

/// Slots that a back end must take for one packet.
pub const XEN_NETIF_NR_SLOTS_MIN: usize = 18;
/// Bytes of a packet at most.
pub const XEN_NETIF_MAX_TX_SIZE: u32 = 0xffff;

/// [`NetifTxRequest::flags`]: the protocol checksum is to be filled in.
pub const NETTXF_CSUM_BLANK: u16 = 1;
/// [`NetifTxRequest::flags`]: the protocol checksum is known good.
pub const NETTXF_DATA_VALIDATED: u16 = 2;
/// [`NetifTxRequest::flags`]: the packet goes on in the next slot.
pub const NETTXF_MORE_DATA: u16 = 4;
/// [`NetifTxRequest::flags`]: the next slot is a [`NetifExtraInfo`].
pub const NETTXF_EXTRA_INFO: u16 = 8;

/// `struct netif_tx_request`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetifTxRequest {
    /// Grant of the page.
    pub gref: u32,
    /// Offset in the page.
    pub offset: u16,
    /// `NETTXF_*`.
    pub flags: u16,
    /// The front end's own, echoed.
    pub id: u16,
    /// First slot: bytes of the whole packet; further slots: bytes of this fragment.
    pub size: u16,
}
layout!(NetifTxRequest, 12, offset @ 4, flags @ 6, id @ 8, size @ 10);

/// [`NetifExtraInfo::kind`]: nothing.
pub const XEN_NETIF_EXTRA_TYPE_NONE: u8 = 0;
/// [`NetifExtraInfo::kind`]: segmentation offload.
pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
/// [`NetifExtraInfo::kind`]: join a multicast group.
pub const XEN_NETIF_EXTRA_TYPE_MCAST_ADD: u8 = 2;
/// [`NetifExtraInfo::kind`]: leave a multicast group.
pub const XEN_NETIF_EXTRA_TYPE_MCAST_DEL: u8 = 3;
/// [`NetifExtraInfo::kind`]: packet hash.
pub const XEN_NETIF_EXTRA_TYPE_HASH: u8 = 4;
/// First kind that does not exist.
pub const XEN_NETIF_EXTRA_TYPE_MAX: u8 = 5;
/// [`NetifExtraInfo::flags`]: another follows.
pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;
/// GSO type: none.
pub const XEN_NETIF_GSO_TYPE_NONE: u8 = 0;
/// GSO type: TCP over IPv4.
pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
/// GSO type: TCP over IPv6.
pub const XEN_NETIF_GSO_TYPE_TCPV6: u8 = 2;

/// `struct netif_extra_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetifExtraInfo {
    /// `type`, `XEN_NETIF_EXTRA_TYPE_*`.
    pub kind: u8,
    /// `XEN_NETIF_EXTRA_FLAG_MORE` or 0.
    pub flags: u8,
    /// By kind. GSO: segment size (2 bytes), GSO type, pad, features (2 bytes).
    pub u: [u16; 3],
}
layout!(NetifExtraInfo, 8, flags @ 1, u @ 2);

/// `struct netif_tx_response`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetifTxResponse {
    /// Of the request.
    pub id: u16,
    /// `NETIF_RSP_*`.
    pub status: i16,
}
layout!(NetifTxResponse, 4, status @ 2);

/// `struct netif_rx_request`: an empty page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetifRxRequest {
    /// The front end's own, echoed.
    pub id: u16,
    /// Zero.
    pub pad: u16,
    /// Grant of the page.
    pub gref: u32,
}
layout!(NetifRxRequest, 8, pad @ 2, gref @ 4);

/// [`NetifRxResponse::flags`]: the protocol checksum is known good.
pub const NETRXF_DATA_VALIDATED: u16 = 1;
/// [`NetifRxResponse::flags`]: the protocol checksum is not filled in.
pub const NETRXF_CSUM_BLANK: u16 = 2;
/// [`NetifRxResponse::flags`]: the packet goes on in the next slot.
pub const NETRXF_MORE_DATA: u16 = 4;
/// [`NetifRxResponse::flags`]: the next slot is a [`NetifExtraInfo`].
pub const NETRXF_EXTRA_INFO: u16 = 8;
/// [`NetifRxResponse::flags`]: segmentation prefix.
pub const NETRXF_GSO_PREFIX: u16 = 16;

/// `struct netif_rx_response`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetifRxResponse {
    /// Of the request.
    pub id: u16,
    /// Where in the page the data begins.
    pub offset: u16,
    /// `NETRXF_*`.
    pub flags: u16,
    /// Bytes, or a negative `NETIF_RSP_*`.
    pub status: i16,
}
layout!(NetifRxResponse, 8, offset @ 2, flags @ 4, status @ 6);

/// Sent or received.
pub const NETIF_RSP_OKAY: i16 = 0;
/// Failed.
pub const NETIF_RSP_ERROR: i16 = -1;
/// Dropped.
pub const NETIF_RSP_DROPPED: i16 = -2;
/// Answers a slot that was no request (extra info).
pub const NETIF_RSP_NULL: i16 = 1;

/// Bytes of a tx ring entry (`union netif_tx_sring_entry`).
pub const NETIF_TX_ENTRY_BYTES: usize = size_of::<NetifTxRequest>();
/// Bytes of an rx ring entry (`union netif_rx_sring_entry`).
pub const NETIF_RX_ENTRY_BYTES: usize = size_of::<NetifRxRequest>();
/// Entries of a tx ring of one page.
pub const NETIF_TX_RING_ENTRIES: u32 = ring_entries(4096, NETIF_TX_ENTRY_BYTES);
/// Entries of an rx ring of one page.
pub const NETIF_RX_RING_ENTRIES: u32 = ring_entries(4096, NETIF_RX_ENTRY_BYTES);
