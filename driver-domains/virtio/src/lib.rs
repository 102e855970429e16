//! Virtio for driver domains: a PCI transport over the hypervisor's config access, and a safe virtqueue.
//!
//! The `virtio-drivers` crate brings the names and the interface of a transport. The transport is ours, because a driver
//! domain differs from a bare machine: configuration space is read by hypercall, BARs are mapped by the hypervisor,
//! every queue wants its MSI-X vector before it is enabled, and the device must promise to go through the IOMMU. So is
//! the virtqueue: it costs a few dozen instructions a request, and the device's word counts for nothing in it.
//!
//! | module | what |
//! |---|---|
//! | [`caps`] | finds the virtio structures in configuration space, checked against the BARs (pure) |
//! | [`features`] | which feature bits are demanded, wanted and refused (pure) |
//! | [`dma`] | memory that a device may touch, as safe values |
//! | [`queue`] | a virtqueue whose used ring is not believed |
//! | `copies` | batched grant copies into and out of DMA memory (bare metal) |
//! | `pci` | the transport: registers, vectors, status (bare metal) |
//! | `hal` | DMA pages from the domain's own heap, VA = IOVA (bare metal) |
//!
//! The device is not trusted beyond what the IOMMU lets it reach: ids, lengths and offsets it gives are bounded
//! here, and whatever it does wrong ends as a [`queue::DeviceFault`] or an `InitError`, never as a panic.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

extern crate alloc;

pub mod caps;
pub mod dma;
pub mod features;
pub mod queue;

#[cfg(target_os = "none")]
pub mod copies;
#[cfg(target_os = "none")]
mod hal;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
mod pci;

#[cfg(target_os = "none")]
pub use hal::DomainHal;
#[cfg(target_os = "none")]
pub use pci::{DeviceId, InitError, PciTransport, find};

pub use virtio_drivers::transport::{DeviceType, Transport};
