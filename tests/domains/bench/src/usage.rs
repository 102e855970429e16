//! Who used the CPU: what the machine did for a whole path, and whose time it was.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::hypercall::platform;
use runtime::{DomId, info};

/// Ticks used until a moment.
pub struct Usage {
    /// Not idle, by anybody.
    busy: u64,
    domains: Vec<(u32, u64)>,
}

/// What came between two [`Usage`]s.
pub struct Used {
    /// By anybody, the hypervisor included.
    pub all: u64,
    /// While this domain was the current one.
    pub own: u64,
    /// While the peer was.
    pub peer: u64,
}

impl Usage {
    /// Until now. Asks the hypervisor, so the policy must let this domain observe.
    pub fn read() -> Result<Self, String> {
        let domains = platform::domains().map(|domain| (domain.domid, domain.cpu_ns)).collect();
        let machine = platform::machine_info().map_err(|error| error.to_string())?;
        Ok(Self { busy: runtime::time::ticks().wrapping_sub(machine.idle_ticks), domains })
    }

    fn of(&self, domid: u32) -> u64 {
        self.domains.iter().find(|(id, _)| *id == domid).map_or(0, |(_, ns)| *ns)
    }

    /// What was used since `earlier`. Under the instruction clock a nanosecond is a tick.
    pub fn since(&self, earlier: &Usage, peer: DomId) -> Used {
        let of = |id: u16| self.of(u32::from(id)).wrapping_sub(earlier.of(u32::from(id)));
        Used { all: self.busy.wrapping_sub(earlier.busy), own: of(info::own_domid()), peer: of(peer.0) }
    }
}
