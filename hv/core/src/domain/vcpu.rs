//! What the logic knows of a virtual CPU: what it waits for. Its registers are `hv`'s.

use crate::ids::{Mfn, Port};
use crate::{events::Signal, sched::VcpuKey};

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
    /// To be started: it has not run yet, or has been stopped.
    Stopped,
    /// One of several: any port ends the wait, and the vCPU looks again. (So does Xen.)
    PollingSeveral,
}

impl Wait {
    /// Whether a port that became pending ends the wait.
    pub(crate) fn ends(self, port: Port, signal: Signal) -> bool {
        // By far the most frequent.
        if self == Wait::Blocked {
            return signal == Signal::Unmasked;
        }
        match self {
            Wait::No | Wait::Timeout | Wait::Blocked | Wait::Stopped => false,
            Wait::Polling(polled) => polled == port,
            Wait::PollingSeveral => true,
        }
    }
}

/// A virtual CPU.
#[derive(Clone, Debug, Default)]
pub struct Vcpu {
    /// What it waits for.
    pub wait: Wait,
    /// How far the batch of its interrupted hypercall has come. Kept here: guest memory would be the guest's to change.
    pub continuation: Option<crate::grant::Continuation>,
    /// The pinned frame that holds its registered `VcpuInfo`.
    pub(crate) info_frame: Option<Mfn>,
}
