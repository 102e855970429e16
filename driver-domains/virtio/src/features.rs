//! Feature negotiation: what a driver domain demands of every virtio device, and what it never takes.
//!
//! Virtio 1.2 section 6. Demanded: `VERSION_1`, the modern register and ring layout, and `ACCESS_PLATFORM`, the
//! device's promise that its DMA goes through the IOMMU. Without that promise its queues would name addresses of the
//! domain that the device would take for machine addresses.

/// The device follows virtio 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;
/// The device's DMA is translated and limited by the platform, that is by the IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// The queue code is wrong about event indexes that wrap in a batch; without them flags do the same job.
const EVENT_IDX: u64 = 1 << 29;
/// Indirect descriptors would be allocated from the heap for each request. They do not pay here: granted pages are
/// mapped side by side, so that even a large request is a single piece of I/O address space.
const INDIRECT_DESC: u64 = 1 << 28;
/// The packed ring is not what the queue code speaks.
const RING_PACKED: u64 = 1 << 34;

/// Why no set of features could be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureError {
    /// A legacy device.
    NotModern,
    /// The device would go round the IOMMU.
    BypassesIommu,
}

impl core::fmt::Display for FeatureError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::NotModern => "the device is not a virtio 1.0 device; QEMU: add disable-legacy=on",
            Self::BypassesIommu => {
                "the device does not offer VIRTIO_F_ACCESS_PLATFORM, its DMA would bypass the IOMMU; \
                 QEMU: add iommu_platform=on to the device"
            }
        })
    }
}

/// The features to write to a device that offers `offered`, for a driver that can use `wanted` beside the demanded.
pub fn negotiate(offered: u64, wanted: u64) -> Result<u64, FeatureError> {
    if offered & VERSION_1 == 0 {
        return Err(FeatureError::NotModern);
    }
    if offered & ACCESS_PLATFORM == 0 {
        return Err(FeatureError::BypassesIommu);
    }
    let refused = EVENT_IDX | INDIRECT_DESC | RING_PACKED;
    Ok(offered & (wanted & !refused) | VERSION_1 | ACCESS_PLATFORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_both_offered_and_wanted() {
        assert_eq!(negotiate(VERSION_1 | ACCESS_PLATFORM | 0b110, 0b011), Ok(VERSION_1 | ACCESS_PLATFORM | 0b010));
    }

    #[test]
    fn never_takes_event_indexes_indirect_descriptors_or_the_packed_ring() {
        assert_eq!(negotiate(u64::MAX, u64::MAX).unwrap() & (EVENT_IDX | INDIRECT_DESC | RING_PACKED), 0);
    }

    #[test]
    fn a_device_that_bypasses_the_iommu_is_refused_and_told_what_to_change() {
        let error = negotiate(VERSION_1, 0).unwrap_err();
        assert_eq!(error, FeatureError::BypassesIommu);
        assert!(error.to_string().contains("iommu_platform=on"));
    }

    #[test]
    fn a_legacy_device_is_refused() {
        assert_eq!(negotiate(ACCESS_PLATFORM, 0), Err(FeatureError::NotModern));
    }
}
