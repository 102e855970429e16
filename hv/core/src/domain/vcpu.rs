//! What the logic knows of a virtual CPU: what it waits for. Its registers are `hv`'s.

use crate::ids::{DomId, Mfn, Port, Slot, VcpuId};

/// A vCPU that became runnable; `hv` tells the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the scheduler has to hear of it"]
pub struct Wake {
    /// Whose.
    pub domain: DomId,
    /// Its slot.
    pub slot: Slot,
    /// Which.
    pub vcpu: VcpuId,
}

/// The ports that a vCPU polls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollSet {
    /// None: it waits for a time.
    Empty,
    /// One.
    One(Port),
    /// Several: any port ends the wait, and the vCPU looks again. (So does Xen.)
    Several,
}

impl PollSet {
    /// The set of these ports.
    pub fn new(ports: &[Port]) -> Self {
        match ports {
            [] => PollSet::Empty,
            [port] => PollSet::One(*port),
            _ => PollSet::Several,
        }
    }
}

/// What a vCPU waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nothing: it runs or could.
    No,
    /// An unmasked pending port.
    Blocked,
    /// One of these ports, masked or not.
    Polling(PollSet),
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    /// What it waits for.
    pub wait: Wait,
    /// How far the batch of its interrupted hypercall has come. Kept here: guest memory would be the guest's to change.
    pub continuation: Option<crate::grant::Continuation>,
    /// The pinned frame that holds its registered `VcpuInfo`.
    pub(crate) info_frame: Option<Mfn>,
}

impl Vcpu {
    pub(crate) const NEW: Vcpu = Vcpu { wait: Wait::No, continuation: None, info_frame: None };

    /// A port became pending. Whether that ends the wait.
    #[inline]
    pub(crate) fn signal(&mut self, port: Port, unmasked: bool) -> bool {
        let wakes = match self.wait {
            Wait::No => false,
            Wait::Blocked => unmasked,
            Wait::Polling(PollSet::One(polled)) => polled == port,
            Wait::Polling(PollSet::Several) => true,
            Wait::Polling(PollSet::Empty) => false,
        };
        if wakes {
            self.wait = Wait::No;
        }
        wakes
    }
}
