//! The PCI transport (virtio 1.2 section 4.1) of a driver domain.
//!
//! Differs from the stock one of `virtio-drivers` in what a domain needs: configuration space comes by hypercall and is
//! never written to size BARs, each queue has its MSI-X vector before it is enabled, notify addresses are computed
//! once, and features are negotiated with the checks of [`crate::features`].

use crate::caps::{self, CapsError, ConfigSpace, Structure};
use crate::features::{self, FeatureError};
use crate::mmio::Window;
use alloc::vec::Vec;
use core::fmt;
use runtime::device::Device;
use runtime::errno::Errno;
use runtime::event::Channel;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Offsets in `struct virtio_pci_common_cfg`, virtio 1.2 section 4.1.4.3.
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_VECTOR: usize = 16;
    pub const NUM_QUEUES: usize = 18;
    pub const DEVICE_STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

const VENDOR: u16 = 0x1af4;
const TRANSITIONAL: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;
const MODERN_BASE: u16 = 0x1040;
const SUBSYSTEM_ID: u32 = 0x2e;
const COMMAND: u32 = 0x04;
const COMMAND_MASTER: u32 = 1 << 2;
/// `VIRTIO_MSI_NO_VECTOR`.
const NO_VECTOR: u16 = 0xffff;
/// Queues whose notify address is kept; more than any driver here uses.
const QUEUES_MAX: u16 = 16;
/// How often a status register is looked at for a reset to end.
const RESET_POLLS: u32 = 1_000_000;

/// Names a device of this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// bus << 8 | device << 3 | function.
    pub bdf: u32,
    /// The policy's device entry that selected it.
    pub selector: u32,
}

impl DeviceId {
    /// The name of a device.
    pub fn of(device: &Device) -> Self {
        let facts = device.facts();
        Self { bdf: facts.bdf, selector: facts.selector }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bdf = self.bdf;
        write!(out, "{:02x}:{:02x}.{}", bdf >> 8 & 0xff, bdf >> 3 & 0x1f, bdf & 7)
    }
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// Its configuration space describes no usable modern virtio device.
    Capabilities(CapsError),
    /// No common set of features.
    Features(FeatureError),
    /// It did not accept the features that it had offered.
    FeaturesNotAccepted,
    /// It did not come out of reset.
    ResetHangs,
    /// The hypervisor does not let it do DMA.
    NoDma,
    /// A register lies outside its structure, or a queue's notify address outside the notification area.
    BadLayout,
    /// The hypervisor refused an interrupt vector.
    Vector(Errno),
    /// The device refused an interrupt vector, or has none.
    NoVector,
}

impl fmt::Display for InitError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(error) => write!(out, "not a usable virtio device: {error:?}"),
            Self::Features(error) => error.fmt(out),
            Self::FeaturesNotAccepted => out.write_str("the device refused the features that it had offered"),
            Self::ResetHangs => out.write_str("the device does not come out of reset"),
            Self::NoDma => {
                out.write_str("it may do no DMA: without an IOMMU to confine it the hypervisor keeps it off the bus")
            }
            Self::BadLayout => out.write_str("the device's registers lie outside of what it describes"),
            Self::Vector(error) => write!(out, "the hypervisor refused an interrupt vector: {error:?}"),
            Self::NoVector => out.write_str("the device takes no MSI-X vector"),
        }
    }
}

/// The virtio devices of this domain that have type `wanted`.
pub fn find(wanted: DeviceType) -> Vec<Device> {
    runtime::device::devices().filter(|device| device_type(device) == Some(wanted)).collect()
}

fn device_type(device: &Device) -> Option<DeviceType> {
    let facts = device.facts();
    if facts.vendor != VENDOR {
        return None;
    }
    let number = if TRANSITIONAL.contains(&facts.device) {
        device.config_read(SUBSYSTEM_ID, 2).ok()?
    } else {
        u32::from(facts.device.checked_sub(MODERN_BASE)?)
    };
    DeviceType::try_from(number).ok()
}

struct HypervisorConfig<'a>(&'a Device);

impl ConfigSpace for HypervisorConfig<'_> {
    fn read(&mut self, offset: u32, width: u32) -> Option<u32> {
        self.0.config_read(offset, width).ok()
    }
}

/// A virtio device of this domain.
#[derive(Debug)]
pub struct PciTransport {
    function: Device,
    kind: DeviceType,
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    device: Option<Window>,
    /// By queue: offset in the notification area.
    notify_offsets: [Option<u32>; QUEUES_MAX as usize],
    /// By queue: MSI-X vector.
    vectors: [u16; QUEUES_MAX as usize],
    /// The device did not take a vector or has an impossible notify offset; found by [`PciTransport::check_queues`].
    queue_fault: Option<InitError>,
}

impl PciTransport {
    /// Opens and resets a device that [`find`] found. Each device can be opened once.
    pub fn open(device: &Device) -> Result<Self, InitError> {
        let bars = core::array::from_fn(|index| device.registers(index).map_or(0, |bar| bar.bytes() as u64));
        let found = caps::find_structures(&mut HypervisorConfig(device), &bars).map_err(InitError::Capabilities)?;
        let window = |structure: Structure| {
            let bar = device.registers(structure.bar).ok()?;
            Window::new(bar, structure)
        };
        let mut transport = Self {
            function: *device,
            kind: device_type(device).ok_or(InitError::BadLayout)?,
            common: window(found.common).ok_or(InitError::BadLayout)?,
            notify: window(found.notify).ok_or(InitError::BadLayout)?,
            notify_multiplier: found.notify_multiplier,
            device: found.device.and_then(window),
            notify_offsets: [None; QUEUES_MAX as usize],
            vectors: [NO_VECTOR; QUEUES_MAX as usize],
            queue_fault: None,
        };
        // First the reset, then bus mastering: until then a device that was driven before may have old rings.
        transport.reset()?;
        let_it_do_dma(device)?;
        Ok(transport)
    }

    /// Which device this is.
    pub fn id(&self) -> DeviceId {
        DeviceId::of(&self.function)
    }

    /// Resets the device: it forgets its queues and does no more DMA.
    pub fn reset(&mut self) -> Result<(), InitError> {
        self.set_status(DeviceStatus::empty());
        for _ in 0..RESET_POLLS {
            if self.get_status().is_empty() {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(InitError::ResetHangs)
    }

    /// First half of the initialisation: agrees on features. Returns the agreed ones.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64, InitError> {
        let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        self.set_status(DeviceStatus::ACKNOWLEDGE);
        self.set_status(known);
        let agreed = features::negotiate(self.read_device_features(), wanted).map_err(|error| {
            self.set_status(known | DeviceStatus::FAILED);
            InitError::Features(error)
        })?;
        self.write_driver_features(agreed);
        self.set_status(known | DeviceStatus::FEATURES_OK);
        if self.get_status().contains(DeviceStatus::FEATURES_OK) {
            Ok(agreed)
        } else {
            self.set_status(known | DeviceStatus::FAILED);
            Err(InitError::FeaturesNotAccepted)
        }
    }

    /// Gives `queue` a vector of its own, as an event channel. Before the queue is set up.
    pub fn queue_interrupt(&mut self, queue: u16, vector: u16) -> Result<Channel, InitError> {
        let slot = self.vectors.get_mut(usize::from(queue)).ok_or(InitError::NoVector)?;
        if u32::from(vector) >= self.function.facts().msix_vectors {
            return Err(InitError::NoVector);
        }
        let channel = self.function.interrupt(vector).map_err(InitError::Vector)?;
        *slot = vector;
        Ok(channel)
    }

    /// Last part of the initialisation, after the queues are set up: lets the device go.
    pub fn start(&mut self) -> Result<(), InitError> {
        match self.queue_fault {
            Some(fault) => Err(fault),
            None => {
                self.finish_init();
                Ok(())
            }
        }
    }

    /// The device says that it cannot go on.
    pub fn needs_reset(&self) -> bool {
        self.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }

    /// Selects a queue for the `QUEUE_*` registers, if the device has it.
    fn select(&self, queue: u16) -> bool {
        let exists = self.common.get_u16(common::NUM_QUEUES).is_some_and(|count| queue < count);
        exists && queue < QUEUES_MAX && self.common.set_u16(common::QUEUE_SELECT, queue).is_some()
    }

    fn set_address(&self, offset: usize, address: u64) {
        self.common.set_u32(offset, address as u32);
        self.common.set_u32(offset + 4, (address >> 32) as u32);
    }

    /// Sets the selected queue's vector and finds its notify address.
    fn prepare(&self, queue: u16) -> Result<u32, InitError> {
        let vector = self.vectors.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR);
        self.common.set_u16(common::QUEUE_VECTOR, vector);
        if self.common.get_u16(common::QUEUE_VECTOR) != Some(vector) {
            return Err(InitError::NoVector);
        }
        let number = u32::from(self.common.get_u16(common::QUEUE_NOTIFY_OFF).ok_or(InitError::BadLayout)?);
        let offset = number.checked_mul(self.notify_multiplier).ok_or(InitError::BadLayout)?;
        let usable = self.notify.place(offset as usize, 2).is_some();
        usable.then_some(offset).ok_or(InitError::BadLayout)
    }
}

/// Switches bus mastering on: only now, as before the reset the device may remember queues of an earlier life.
fn let_it_do_dma(device: &Device) -> Result<(), InitError> {
    let command = device.config_read(COMMAND, 2).map_err(|_| InitError::NoDma)?;
    // A refusal shows in what is read back.
    let _ = device.config_write(COMMAND, 2, command | COMMAND_MASTER);
    match device.config_read(COMMAND, 2) {
        Ok(command) if command & COMMAND_MASTER != 0 => Ok(()),
        _ => Err(InitError::NoDma),
    }
}

impl Transport for PciTransport {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |number: u32| {
            self.common.set_u32(common::DEVICE_FEATURE_SELECT, number);
            u64::from(self.common.get_u32(common::DEVICE_FEATURE).unwrap_or(0))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (number, half) in [features as u32, (features >> 32) as u32].into_iter().enumerate() {
            self.common.set_u32(common::DRIVER_FEATURE_SELECT, number as u32);
            self.common.set_u32(common::DRIVER_FEATURE, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        let size = if self.select(queue) { self.common.get_u16(common::QUEUE_SIZE) } else { None };
        size.unwrap_or(0).into()
    }

    fn notify(&mut self, queue: u16) {
        if let Some(&Some(offset)) = self.notify_offsets.get(usize::from(queue)) {
            self.notify.set_u16(offset as usize, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.common.get_u8(common::DEVICE_STATUS).unwrap_or(0).into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.common.set_u8(common::DEVICE_STATUS, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        if !self.select(queue) {
            self.queue_fault = Some(InitError::BadLayout);
            return;
        }
        self.common.set_u16(common::QUEUE_SIZE, size as u16);
        self.set_address(common::QUEUE_DESC, descriptors);
        self.set_address(common::QUEUE_DRIVER, driver);
        self.set_address(common::QUEUE_DEVICE, device);
        match self.prepare(queue) {
            Ok(offset) => {
                if let Some(slot) = self.notify_offsets.get_mut(usize::from(queue)) {
                    *slot = Some(offset);
                }
                self.common.set_u16(common::QUEUE_ENABLE, 1);
            }
            Err(fault) => self.queue_fault = Some(fault),
        }
    }

    /// A modern device forgets a queue only by reset.
    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue) && self.common.get_u16(common::QUEUE_ENABLE) == Some(1)
    }

    /// With MSI-X there is nothing to acknowledge.
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        self.common.get_u8(common::CONFIG_GENERATION).unwrap_or(0).into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let device = self.device.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        let mut value = T::new_zeroed();
        for (at, byte) in value.as_mut_bytes().iter_mut().enumerate() {
            *byte = device.get_u8(offset.saturating_add(at)).ok_or(Error::ConfigSpaceTooSmall)?;
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<(), Error> {
        let device = self.device.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        for (at, &byte) in value.as_bytes().iter().enumerate() {
            device.set_u8(offset.saturating_add(at), byte).ok_or(Error::ConfigSpaceTooSmall)?;
        }
        Ok(())
    }
}

impl PciTransport {
    /// Turns configuration-change interrupts off, as they are not used: a device that fails says so in its status.
    pub fn no_config_interrupt(&mut self) {
        self.common.set_u16(common::CONFIG_VECTOR, NO_VECTOR);
    }
}
