//! The layer 2 switch: which ports get a frame.
//!
//! Nothing is learned. The policy says which MAC address is behind which vif; every other station is behind the
//! uplink. So no vif can draw another's traffic to itself, and there is no table for anyone to fill.

use crate::frame::{Addresses, Mac};

/// Vifs that one switch can have.
pub const PORTS_MAX: usize = 64;

/// Number of a vif's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortNumber(u8);

impl PortNumber {
    /// As an index below [`PORTS_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a frame came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// From the wire.
    Uplink,
    /// From a vif, its source checked by its guard.
    Vif(PortNumber),
}

/// Whether a vif may exchange frames with other vifs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// With the uplink and the other vifs of reach [`Reach::All`].
    All,
    /// With the uplink only.
    UplinkOnly,
}

/// The ports that get a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// It goes out to the wire.
    pub uplink: bool,
    vifs: u64,
}

impl Targets {
    /// Nobody gets it.
    pub fn is_empty(self) -> bool {
        !self.uplink && self.vifs == 0
    }

    /// The vifs that get it.
    pub fn vifs(self) -> impl Iterator<Item = PortNumber> {
        let mut left = self.vifs;
        core::iter::from_fn(move || {
            let lowest = left.trailing_zeros() as u8;
            left &= left.wrapping_sub(1);
            (usize::from(lowest) < PORTS_MAX).then_some(PortNumber(lowest))
        })
    }
}

/// A vif cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// All [`PORTS_MAX`] ports are taken.
    Full,
    /// Another vif, or the uplink, has this MAC address.
    DuplicateMac,
}

/// The switch: an uplink and up to [`PORTS_MAX`] vifs.
#[derive(Clone, Debug)]
pub struct Switch {
    ports: [Option<(Mac, Reach)>; PORTS_MAX],
    /// One past the highest port in use: as far as one must look.
    end: usize,
}

impl Default for Switch {
    fn default() -> Self {
        Self { ports: [None; PORTS_MAX], end: 0 }
    }
}

impl Switch {
    /// Connects a vif.
    pub fn add(&mut self, mac: Mac, reach: Reach) -> Result<PortNumber, AddError> {
        if self.find(mac).is_some() {
            return Err(AddError::DuplicateMac);
        }
        let free = self.ports.iter().position(Option::is_none).ok_or(AddError::Full)?;
        self.ports[free] = Some((mac, reach));
        self.end = self.end.max(free + 1);
        Ok(PortNumber(free as u8))
    }

    /// Disconnects a vif.
    pub fn remove(&mut self, port: PortNumber) {
        self.ports[port.index()] = None;
        self.end = self.ports.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    }

    /// Who gets a frame. An empty answer means that it is dropped.
    pub fn forward(&self, from: Ingress, addresses: Addresses) -> Targets {
        match from {
            Ingress::Uplink => self.targets_from_uplink(addresses),
            Ingress::Vif(port) => self.targets_from_vif(port, addresses),
        }
    }

    /// A frame from the wire that claims to come from a vif is a forgery or a loop. One to a station that is no vif
    /// is none of our business (the device may be promiscuous).
    fn targets_from_uplink(&self, Addresses { source, destination }: Addresses) -> Targets {
        if self.find(source).is_some() {
            Targets::default()
        } else if destination.is_group() {
            Targets { uplink: false, vifs: self.mask(|_| true) }
        } else {
            Targets { uplink: false, vifs: self.find(destination).map_or(0, |port| 1 << port.0) }
        }
    }

    /// A frame to a vif stays inside, also when the two may not talk: the wire must not carry it round.
    fn targets_from_vif(&self, port: PortNumber, Addresses { destination, .. }: Addresses) -> Targets {
        let talkative = self.reach(port) == Some(Reach::All);
        let peers = if talkative { self.mask(|reach| reach == Reach::All) & !(1 << port.0) } else { 0 };
        if destination.is_group() {
            Targets { uplink: true, vifs: peers }
        } else if let Some(target) = self.find(destination) {
            Targets { uplink: false, vifs: peers & 1 << target.0 }
        } else {
            Targets { uplink: true, vifs: 0 }
        }
    }

    fn reach(&self, port: PortNumber) -> Option<Reach> {
        self.ports.get(port.index()).copied().flatten().map(|(_, reach)| reach)
    }

    fn find(&self, mac: Mac) -> Option<PortNumber> {
        let at = self.ports[..self.end].iter().position(|port| port.is_some_and(|(own, _)| own == mac))?;
        Some(PortNumber(at as u8))
    }

    fn mask(&self, wanted: impl Fn(Reach) -> bool) -> u64 {
        let ports = self.ports[..self.end].iter().enumerate();
        ports.filter(|(_, port)| port.is_some_and(|(_, reach)| wanted(reach))).fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BROADCAST: Mac = Mac([0xff; 6]);
    const OUTSIDE: Mac = Mac([0x52, 0x55, 10, 0, 2, 2]);

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn go(switch: &Switch, from: Ingress, source: Mac, destination: Mac) -> (bool, Vec<usize>) {
        let targets = switch.forward(from, Addresses { source, destination });
        (targets.uplink, targets.vifs().map(PortNumber::index).collect())
    }

    fn three() -> (Switch, [PortNumber; 3]) {
        let mut switch = Switch::default();
        let ports = [1, 2, 3].map(|last| {
            let reach = if last == 3 { Reach::UplinkOnly } else { Reach::All };
            switch.add(mac(last), reach).unwrap()
        });
        (switch, ports)
    }

    #[test]
    fn unicast_from_the_wire_goes_to_its_vif_only() {
        let (switch, _) = three();
        assert_eq!(go(&switch, Ingress::Uplink, OUTSIDE, mac(2)), (false, vec![1]));
        assert_eq!(go(&switch, Ingress::Uplink, OUTSIDE, mac(9)), (false, vec![]));
    }

    #[test]
    fn broadcast_is_flooded_but_never_sent_back() {
        let (switch, ports) = three();
        assert_eq!(go(&switch, Ingress::Uplink, OUTSIDE, BROADCAST), (false, vec![0, 1, 2]));
        assert_eq!(go(&switch, Ingress::Vif(ports[0]), mac(1), BROADCAST), (true, vec![1]));
    }

    #[test]
    fn unknown_unicast_from_a_vif_goes_to_the_wire_only() {
        let (switch, ports) = three();
        assert_eq!(go(&switch, Ingress::Vif(ports[0]), mac(1), OUTSIDE), (true, vec![]));
    }

    #[test]
    fn vifs_talk_to_each_other_unless_isolated() {
        let (switch, ports) = three();
        assert_eq!(go(&switch, Ingress::Vif(ports[0]), mac(1), mac(2)), (false, vec![1]));
        assert_eq!(go(&switch, Ingress::Vif(ports[0]), mac(1), mac(3)), (false, vec![]));
        assert_eq!(go(&switch, Ingress::Vif(ports[2]), mac(3), mac(1)), (false, vec![]));
        assert_eq!(go(&switch, Ingress::Vif(ports[2]), mac(3), BROADCAST), (true, vec![]));
    }

    #[test]
    fn a_frame_to_oneself_goes_nowhere() {
        let (switch, ports) = three();
        assert_eq!(go(&switch, Ingress::Vif(ports[0]), mac(1), mac(1)), (false, vec![]));
    }

    #[test]
    fn a_frame_from_the_wire_in_a_vifs_name_is_dropped() {
        let (switch, _) = three();
        assert_eq!(go(&switch, Ingress::Uplink, mac(1), BROADCAST), (false, vec![]));
        assert_eq!(go(&switch, Ingress::Uplink, mac(1), mac(2)), (false, vec![]));
    }

    #[test]
    fn ports_are_limited_unique_and_used_again() {
        let mut switch = Switch::default();
        let ports: Vec<_> = (0..PORTS_MAX as u8).map(|last| switch.add(mac(last), Reach::All).unwrap()).collect();
        assert_eq!(switch.add(mac(200), Reach::All), Err(AddError::Full));
        assert_eq!(switch.add(mac(5), Reach::All), Err(AddError::DuplicateMac));
        assert_eq!(go(&switch, Ingress::Uplink, OUTSIDE, BROADCAST).1.len(), PORTS_MAX);
        switch.remove(ports[7]);
        assert_eq!(switch.add(mac(200), Reach::All), Ok(ports[7]));
    }

    proptest! {
        #[test]
        fn no_frame_returns_to_where_it_came_from(from in 0usize..3, source in 0u8..5, target in 0u8..5, group in any::<bool>()) {
            let (switch, ports) = three();
            let destination = if group { BROADCAST } else { mac(target) };
            let got = go(&switch, Ingress::Vif(ports[from]), mac(source), destination);
            prop_assert!(!got.1.contains(&from));
            let got = go(&switch, Ingress::Uplink, mac(source), destination);
            prop_assert!(!got.0);
        }
    }
}
