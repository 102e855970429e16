//! Is the system up? It is when every link between domains that start at boot is connected, and every domain whose
//! policy says `ready = "announced"` has announced it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use policy::table::{Domain, Label, LinkKind, READY_ANNOUNCED, READY_SETTING, Table, setting};
use xen_abi::policy_table::FLAG_AUTOSTART;

use crate::nodes::state;

/// Which end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client.
    Front,
    /// The server.
    Back,
}

/// The links to wait for, with the states of their ends.
#[derive(Debug, Default)]
pub struct Ready {
    awaited: Vec<Awaited>,
    unannounced: Vec<Label>,
}

#[derive(Debug)]
struct Awaited {
    link: usize,
    front: u32,
    back: u32,
}

impl Ready {
    /// Waits for the block and network links between domains that start at boot. Channels have protocols of their own,
    /// and need not tell of themselves in xenstore.
    pub fn new(table: &Table) -> Self {
        let starts = |label| table.domain(label).is_some_and(|domain| domain.flags.has(FLAG_AUTOSTART));
        let links = table.links.iter().enumerate().filter(|(_, link)| {
            matches!(link.kind, LinkKind::Block | LinkKind::Net) && starts(link.front) && starts(link.back)
        });
        let announces = |domain: &Domain| setting(&domain.config, READY_SETTING) == Some(READY_ANNOUNCED);
        let unannounced = table.labels().filter(|(label, domain)| starts(*label) && announces(domain));
        Ready {
            awaited: links.map(|(link, _)| Awaited { link, front: 0, back: 0 }).collect(),
            unannounced: unannounced.map(|(label, _)| label).collect(),
        }
    }

    /// The domains that are to announce themselves and have not.
    pub fn unannounced(&self) -> impl Iterator<Item = Label> {
        self.unannounced.iter().copied()
    }

    /// Notes that a domain has announced itself.
    pub fn announced(&mut self, label: Label) {
        self.unannounced.retain(|other| *other != label);
    }

    /// Link number `link` must be connected before the system is ready.
    pub fn awaits(&self, link: usize) -> bool {
        self.awaited.iter().any(|awaited| awaited.link == link)
    }

    /// All links that must be connected.
    pub fn links(&self) -> impl Iterator<Item = usize> {
        self.awaited.iter().map(|awaited| awaited.link)
    }

    /// Notes the state of one end of link number `link`.
    pub fn note(&mut self, link: usize, end: End, state: u32) {
        if let Some(awaited) = self.awaited.iter_mut().find(|awaited| awaited.link == link) {
            match end {
                End::Front => awaited.front = state,
                End::Back => awaited.back = state,
            }
        }
    }

    /// Gives up links of a domain that failed or died: the system is not going to be whole, and what remains can be.
    pub fn without(&mut self, table: &Table, label: Label) {
        let concerns =
            |link: usize| table.links.get(link).is_some_and(|link| link.front == label || link.back == label);
        self.awaited.retain(|awaited| !concerns(awaited.link));
        self.announced(label);
    }

    /// Everything is connected.
    pub fn is_complete(&self) -> bool {
        self.awaited.iter().all(Awaited::is_connected) && self.unannounced.is_empty()
    }

    /// What is not connected or announced yet, a line each.
    pub fn missing(&self, table: &Table) -> Vec<String> {
        let open = self.awaited.iter().filter(|awaited| !awaited.is_connected());
        let silent = self.unannounced.iter().filter_map(|label| table.domain(*label));
        open.filter_map(|awaited| awaited.describe(table))
            .chain(silent.map(|domain| format!("`{}` has not announced that it is ready", domain.name)))
            .collect()
    }
}

impl Awaited {
    fn is_connected(&self) -> bool {
        (self.front, self.back) == (state::CONNECTED, state::CONNECTED)
    }

    fn describe(&self, table: &Table) -> Option<String> {
        let link = table.links.get(self.link)?;
        let (front, back) = (&table.domain(link.front)?.name, &table.domain(link.back)?.name);
        let (kind, key) = match link.kind {
            LinkKind::Block => ("disk", "dev"),
            _ => ("network interface", "handle"),
        };
        Some(format!(
            "{kind} {} of `{front}`: `{front}` is {}, `{back}` is {}",
            setting(&link.parameters, key).unwrap_or("?"),
            state::name(self.front),
            state::name(self.back),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Table {
        policy::load("demo.toml", include_str!("../../demo.toml")).unwrap().table().clone()
    }

    fn link(table: &Table, kind: LinkKind) -> usize {
        table.links.iter().position(|link| link.kind == kind).unwrap()
    }

    #[test]
    fn ready_when_both_ends_of_every_link_are_connected() {
        let table = demo();
        let mut ready = Ready::new(&table);
        let (block, net) = (link(&table, LinkKind::Block), link(&table, LinkKind::Net));
        assert_eq!(ready.missing(&table).len(), 3);
        for (link, end) in [(block, End::Front), (block, End::Back), (net, End::Front)] {
            assert!(!ready.is_complete());
            ready.note(link, end, state::CONNECTED);
        }
        assert_eq!(
            ready.missing(&table),
            [
                "network interface 0 of `web`: `web` is connected, `net` is absent",
                "`web` has not announced that it is ready"
            ]
        );
        ready.note(net, End::Back, 2);
        assert!(!ready.is_complete());
        ready.note(net, End::Back, state::CONNECTED);
        assert!(!ready.is_complete());
        ready.announced(table.find("web").unwrap());
        assert!(ready.is_complete());
    }

    #[test]
    fn a_dead_domain_is_not_waited_for() {
        let table = demo();
        let mut ready = Ready::new(&table);
        ready.without(&table, table.find("web").unwrap());
        assert!(ready.is_complete());
    }

    #[test]
    fn a_system_without_links_is_ready_at_once() {
        assert!(Ready::new(&Table::default()).is_complete());
    }
}
