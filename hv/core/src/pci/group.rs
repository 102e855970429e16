//! Isolation groups: functions that the IOMMU cannot keep apart, and that are therefore given away only together.
//!
//! Two functions are in one group when one could reach the other without passing the IOMMU, or could pose as it:
//!
//! - functions of one device, unless each has Access Control Services (they may talk inside the device);
//! - everything behind a bridge to conventional PCI (the bridge's requester id stands in for theirs);
//! - everything behind a PCI Express port without Access Control Services (it may route peer to peer).
//!
//! A group is named by its lowest function. PCI Express Base 5.0, 6.12.1.

use super::Bdf;

/// Functions considered at most.
pub const FUNCTIONS_MAX: usize = 256;

/// What kind of node in the tree a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// No bus behind it; a domain may have it.
    Endpoint,
    /// No bus behind it that concerns us; the hypervisor keeps it: host bridge, ISA bridge, an unknown header.
    Kept,
    /// A bridge.
    Bridge {
        /// The first bus behind it.
        secondary: u8,
        /// The last.
        subordinate: u8,
        /// It is a root port or switch port of PCI Express, not a bridge to a conventional PCI bus.
        express: bool,
    },
}

/// A function as enumeration found it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Where it is.
    pub bdf: Bdf,
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// class << 16 | subclass << 8 | programming interface.
    pub class: u32,
    /// Its place in the tree.
    pub node: Node,
    /// It keeps the traffic that passes through it apart: Access Control Services are there and on.
    pub access_control: bool,
}

impl Member {
    /// Whether a function lies behind this one.
    pub fn leads_to(&self, bdf: Bdf) -> bool {
        let Node::Bridge { secondary, subordinate, .. } = self.node else { return false };
        secondary > self.bdf.bus() && (secondary..=subordinate).contains(&bdf.bus())
    }

    /// Whether the IOMMU might not keep these two apart.
    fn joined(&self, other: &Self) -> bool {
        let inside_device = self.bdf.same_device(other.bdf) && !(self.access_control && other.access_control);
        let joins = |bridge: &Self, member: &Self| {
            let separates = bridge.access_control && matches!(bridge.node, Node::Bridge { express: true, .. });
            !separates && bridge.leads_to(member.bdf)
        };
        inside_device || joins(self, other) || joins(other, self)
    }
}

/// The group of each of `members`, as the index of its first member, in their order. Members beyond [`FUNCTIONS_MAX`] are
/// not considered: whoever enumerates stops there.
pub fn groups(members: &[Member]) -> [u16; FUNCTIONS_MAX] {
    let mut leaders: [u16; FUNCTIONS_MAX] = core::array::from_fn(|index| index as u16);
    for (a, one) in members.iter().enumerate() {
        for (b, other) in members.iter().enumerate().skip(a.saturating_add(1)) {
            if let (Some(&x), Some(&y)) = (leaders.get(a), leaders.get(b))
                && one.joined(other)
            {
                let joined = |leader: &&mut u16| **leader == x || **leader == y;
                leaders.iter_mut().filter(joined).for_each(|leader| *leader = x.min(y));
            }
        }
    }
    leaders
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn member(bdf: Bdf, node: Node, access_control: bool) -> Member {
        Member { bdf, vendor: 0x1af4, device: 0x1042, class: 0, node, access_control }
    }

    fn endpoint(bus: u8, device: u8, function: u8) -> Member {
        member(Bdf::new(bus, device, function), Node::Endpoint, false)
    }

    fn port(device: u8, secondary: u8, subordinate: u8, access_control: bool) -> Member {
        let node = Node::Bridge { secondary, subordinate, express: true };
        member(Bdf::new(0, device, 0), node, access_control)
    }

    fn together(members: &[Member], a: usize, b: usize) -> bool {
        let groups = groups(members);
        groups[a] == groups[b]
    }

    #[test]
    fn devices_in_slots_of_their_own_on_the_root_bus_are_apart() {
        assert!(!together(&[endpoint(0, 2, 0), endpoint(0, 3, 0)], 0, 1));
    }

    #[test]
    fn functions_of_one_device_are_together_unless_all_have_acs() {
        let mut pair = [endpoint(0, 0x1f, 2), endpoint(0, 0x1f, 3)];
        assert!(together(&pair, 0, 1));
        pair[0].access_control = true;
        assert!(together(&pair, 0, 1));
        pair[1].access_control = true;
        assert!(!together(&pair, 0, 1));
    }

    #[test]
    fn a_port_without_acs_joins_what_is_behind_it() {
        let tree = |acs| [port(1, 1, 3, acs), endpoint(2, 0, 0), endpoint(3, 0, 0), endpoint(4, 0, 0)];
        assert!(together(&tree(false), 1, 2));
        assert!(!together(&tree(false), 1, 3));
        assert!(!together(&tree(true), 1, 2));
    }

    #[test]
    fn a_conventional_bridge_joins_even_with_acs() {
        let node = Node::Bridge { secondary: 5, subordinate: 5, express: false };
        let bridge = member(Bdf::new(0, 0x1e, 0), node, true);
        let members = [bridge, endpoint(5, 1, 0), endpoint(5, 2, 0)];
        assert!(together(&members, 1, 2));
    }

    #[test]
    fn multifunction_root_ports_without_acs_join_their_subtrees() {
        let a = Member { bdf: Bdf::new(0, 1, 0), ..port(1, 1, 1, false) };
        let b = Member { bdf: Bdf::new(0, 1, 1), ..port(1, 2, 2, false) };
        assert!(together(&[a, b, endpoint(1, 0, 0), endpoint(2, 0, 0)], 2, 3));
    }

    #[test]
    fn a_bridge_that_claims_its_own_bus_joins_nothing() {
        assert!(!together(&[port(1, 0, 255, false), endpoint(0, 2, 0)], 0, 1));
    }

    proptest! {
        #[test]
        fn grouping_is_an_equivalence_that_contains_every_joined_pair(
            parts in proptest::collection::vec((0u8..4, 0u8..4, 0u8..3, 0u8..5, 0u8..5, 0u8..3, any::<bool>()), 0..20)
        ) {
            let members: Vec<Member> = parts.into_iter().map(|(bus, device, function, secondary, subordinate, kind, acs)| {
                let node = match kind {
                    0 => Node::Endpoint,
                    _ => Node::Bridge { secondary, subordinate, express: kind == 1 },
                };
                member(Bdf::new(bus, device, function), node, acs)
            }).collect();
            let groups = groups(&members);
            for (a, one) in members.iter().enumerate() {
                prop_assert!(usize::from(groups[a]) <= a);
                prop_assert_eq!(groups[usize::from(groups[a])], groups[a]);
                for (b, other) in members.iter().enumerate() {
                    if a != b && one.joined(other) {
                        prop_assert_eq!(groups[a], groups[b]);
                    }
                }
            }
        }
    }
}
