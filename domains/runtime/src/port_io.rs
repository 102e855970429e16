//! Port I/O from ring 3, for the one kind of driver that needs it (a 16550).
//!
//! A domain reaches exactly the ports that the sealed policy gives its label; an access to any other ends it.
//! No port reaches the memory of this domain behind Rust's back: devices that do DMA by legacy ports are behind the
//! IOMMU or not assigned at all. So the functions are safe to call.

/// An inclusive range of I/O ports, so that a driver cannot miscalculate its way out of its device.
#[derive(Clone, Copy, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports `first..=last`.
    pub const fn new(first: u16, last: u16) -> Self {
        assert!(first <= last);
        Self { first, last }
    }

    fn port(self, offset: u16) -> u16 {
        let port = self.first.saturating_add(offset);
        assert!(port <= self.last, "port {port:#x} is outside its device");
        port
    }

    /// Reads the byte register at `offset`.
    pub fn read_u8(self, offset: u16) -> u8 {
        let port = self.port(offset);
        #[cfg(target_os = "none")]
        // SAFETY: IN touches no memory and no flags; a port that is not ours raises #GP and ends the domain.
        unsafe {
            let value: u8;
            core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
            value
        }
        #[cfg(not(target_os = "none"))]
        {
            let _ = port;
            0xff
        }
    }

    /// Writes the byte register at `offset`.
    pub fn write_u8(self, offset: u16, value: u8) {
        let port = self.port(offset);
        #[cfg(target_os = "none")]
        // SAFETY: as for `read_u8`: OUT touches no memory of ours.
        unsafe {
            core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
        }
        #[cfg(not(target_os = "none"))]
        let _ = (port, value);
    }
}
