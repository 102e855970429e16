//! Who used the CPU: what the machine did for a whole path, and whose time it was.

use alloc::string::String;
use alloc::vec::Vec;
use runtime::hypercall::platform;
use runtime::{DomId, info};

/// Ticks used by each domain until a moment.
pub struct Usage(Vec<(u32, u64)>);

/// What came between two [`Usage`]s.
pub struct Used {
    /// By all domains, what the hypervisor did while they were current included.
    pub all: u64,
    /// While this domain was the current one.
    pub own: u64,
    /// While the peer was.
    pub peer: u64,
}

impl Usage {
    /// Until now. Asks the hypervisor, so the policy must let this domain observe.
    pub fn read() -> Result<Self, String> {
        let domains: Vec<_> = platform::domains().map(|domain| (domain.domid, domain.cpu_ns)).collect();
        if domains.is_empty() { Err(String::from("this domain may not observe")) } else { Ok(Self(domains)) }
    }

    fn of(&self, domid: u32) -> u64 {
        self.0.iter().find(|(id, _)| *id == domid).map_or(0, |(_, ns)| *ns)
    }

    /// What was used since `earlier`. Under the instruction clock a nanosecond is a tick.
    pub fn since(&self, earlier: &Usage, peer: DomId) -> Used {
        let of = |id: u32| self.of(id).wrapping_sub(earlier.of(id));
        let all = self.0.iter().map(|&(id, _)| of(id)).fold(0, u64::wrapping_add);
        Used { all, own: of(info::own_domid().into()), peer: of(peer.0.into()) }
    }
}
