//! What the logic knows of a virtual CPU: what it waits for. Its registers are `hv`'s.

use crate::{ids::Port, sched::VcpuKey};

/// A vCPU that became runnable; `hv` tells the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the scheduler has to hear of it"]
pub struct Wake(pub VcpuKey);

/// What a vCPU waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wait {
    /// Nothing: it runs or could.
    #[default]
    No,
    /// An unmasked pending port.
    Blocked,
    /// A time: it polls no port.
    Timeout,
    /// This port, masked or not.
    Polling(Port),
    /// One of several: any port ends the wait, and the vCPU looks again. (So does Xen.)
    PollingSeveral,
}

impl Wait {
    /// Whether a port that became pending ends the wait even if it is masked.
    pub(super) fn polls(self, port: Port) -> bool {
        self == Wait::Polling(port) || self == Wait::PollingSeveral
    }
}

/// A virtual CPU.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// What the scheduler calls it.
    key: VcpuKey,
    /// What it waits for.
    pub wait: Wait,
    /// How far the batch of its interrupted hypercall has come. Kept here: guest memory would be the guest's to change.
    pub continuation: Option<crate::grant::Continuation>,
    /// Whether its `VcpuInfo` has moved to a frame of the domain's memory, which is pinned for that.
    pub(crate) info_moved: bool,
}

impl Vcpu {
    /// One that could run.
    pub(super) fn new(key: VcpuKey) -> Self {
        Self { key, wait: Wait::No, continuation: None, info_moved: false }
    }

    /// Ends its wait.
    #[inline(always)]
    pub(crate) fn wake(&mut self) -> Wake {
        self.wait = Wait::No;
        Wake(self.key)
    }
}
