//! The 16550 on the serial line (National Semiconductor PC16550D data sheet), by ports and an interrupt line.
//!
//! The interrupt is edge-triggered on PC hardware: whatever it stood for is served until nothing is left, else the next
//! edge never comes. Where the interrupt cannot be had, the main loop looks now and then.

use runtime::Port;
use runtime::event::Channel;
use runtime::hypercall::physdev;
use runtime::port_io::PortRange;

/// Register offsets.
mod register {
    /// Receive buffer, transmit holding register.
    pub const DATA: u16 = 0;
    /// Interrupt enable register.
    pub const INTERRUPT_ENABLE: u16 = 1;
    /// Interrupt identification register (read), FIFO control register (write).
    pub const INTERRUPT_ID: u16 = 2;
    pub const FIFO_CONTROL: u16 = 2;
    /// Line control register; its top bit turns DATA and INTERRUPT_ENABLE into the divisor.
    pub const LINE_CONTROL: u16 = 3;
    /// Modem control register.
    pub const MODEM_CONTROL: u16 = 4;
    /// Line status register.
    pub const LINE_STATUS: u16 = 5;
    /// Scratch register: keeps what is written.
    pub const SCRATCH: u16 = 7;
}

const RECEIVE_INTERRUPT: u8 = 1;
const TRANSMIT_INTERRUPT: u8 = 2;
const NOTHING_PENDING: u8 = 1;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// Bytes that fit the transmit FIFO when it is empty.
pub const FIFO_BYTES: usize = 16;

/// The device.
pub struct Serial {
    ports: PortRange,
    interrupt: Option<(Channel, u32)>,
    enabled: u8,
}

impl Serial {
    /// Sets up the device for 115200 baud, 8N1. `None`: there is none at this port.
    pub fn new(base: u16, irq: u32) -> Option<Self> {
        let ports = PortRange::new(base, base.checked_add(7)?);
        ports.write_u8(register::SCRATCH, 0x5a);
        if ports.read_u8(register::SCRATCH) != 0x5a {
            return None;
        }
        ports.write_u8(register::INTERRUPT_ENABLE, 0);
        ports.write_u8(register::LINE_CONTROL, 0x80);
        ports.write_u8(register::DATA, 1);
        ports.write_u8(register::INTERRUPT_ENABLE, 0);
        ports.write_u8(register::LINE_CONTROL, 0x03);
        // FIFOs on, and not cleared: the hypervisor's last words may still be in one, the first keys in the other.
        ports.write_u8(register::FIFO_CONTROL, 0x01);
        // DTR, RTS, and OUT2, which lets the interrupt out on a PC.
        ports.write_u8(register::MODEM_CONTROL, 0x0b);
        let interrupt = physdev::map_line(irq).and_then(|pirq| Ok((Channel::pirq(pirq)?, pirq)));
        let interrupt = interrupt.inspect_err(|error| log::warn!("serial: no interrupt {irq}: {error}; polling")).ok();
        let mut serial = Self { ports, interrupt, enabled: 0 };
        serial.enable(RECEIVE_INTERRUPT);
        Some(serial)
    }

    /// The interrupt's port; `None`: look now and then.
    pub fn port(&self) -> Option<Port> {
        self.interrupt.as_ref().map(|(channel, _)| channel.port())
    }

    /// Ends an interrupt, after everything was served that it stood for. Whether there is something again: the line can
    /// have stayed high in between, and no further edge would tell.
    #[must_use = "what is still pending must be served now"]
    pub fn end_interrupt(&mut self) -> bool {
        if let Some((_, pirq)) = &self.interrupt {
            let _ = physdev::eoi(*pirq);
        }
        // Reading takes back a transmit interrupt; a receive interrupt stays until the data is read.
        let _ = self.ports.read_u8(register::INTERRUPT_ID);
        self.ports.read_u8(register::INTERRUPT_ID) & NOTHING_PENDING == 0
    }

    /// Takes a byte that was received.
    pub fn receive(&mut self) -> Option<u8> {
        let ready = self.ports.read_u8(register::LINE_STATUS) & DATA_READY != 0;
        ready.then(|| self.ports.read_u8(register::DATA))
    }

    /// Whether [`FIFO_BYTES`] bytes can be sent.
    pub fn can_transmit(&self) -> bool {
        self.ports.read_u8(register::LINE_STATUS) & TRANSMITTER_EMPTY != 0
    }

    /// Sends bytes, at most [`FIFO_BYTES`], after [`Serial::can_transmit`] said yes.
    pub fn transmit(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.ports.write_u8(register::DATA, byte);
        }
    }

    /// Asks for an interrupt when the transmitter is empty, as long as there is more to send.
    pub fn more_to_send(&mut self, waiting: usize) {
        self.enable(if waiting == 0 { RECEIVE_INTERRUPT } else { RECEIVE_INTERRUPT | TRANSMIT_INTERRUPT });
    }

    fn enable(&mut self, interrupts: u8) {
        if self.enabled != interrupts {
            self.enabled = interrupts;
            self.ports.write_u8(register::INTERRUPT_ENABLE, interrupts);
        }
    }
}
