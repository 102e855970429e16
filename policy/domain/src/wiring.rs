//! Writes to xenstore what the library says: homes and links, and takes them away again.

use alloc::format;
use alloc::vec::Vec;

use policy::table::{Label, Link, LinkKind};
use policy_domain::nodes::{self, Ends, Node, home_path, state};
use policy_domain::writing::{self, Step};
use runtime::errno::{Errno, Result};
use runtime::store::{Batch, Permission, Rights, Store};
use runtime::time::now;
use runtime::{DomId, Port};

use crate::system::System;

/// Writes nodes, all at once for those who watch, in place of what is at or below `old`.
fn write(nodes: &[Node], old: &[&str]) -> Result<()> {
    let mut batch = Batch::new();
    old.iter().for_each(|path| batch.remove(path));
    for step in writing::steps(nodes, old) {
        match step {
            Step::Write(node) => batch.write(&node.path, &node.value),
            Step::Permissions(path, owner, readers) => {
                let readers = readers.iter().map(|&reader| Permission::new(reader, Rights::Read));
                let list: Vec<Permission> = [Permission::new(owner, Rights::None)].into_iter().chain(readers).collect();
                batch.set_permissions(path, &list);
            }
        }
    }
    Store::new().transaction(|store| store.run(&batch))
}

/// Whether a link is torn when this domain dies, and begins anew with its successor. What it has as a back end is not,
/// but for channels, whose protocol is not ours to know, and for this domain's own console, which speaks to the hypervisor
/// meanwhile. Its own console is told apart from the dead one's when it is there.
fn ends_with(link: &Link, label: Label) -> bool {
    let torn = link.kind == LinkKind::Channel || link.kind == LinkKind::Console && link.front == Label::POLICY;
    link.front == label && !is_console_of(link, label) || link.back == label && torn
}

/// Whether a link is that of a domain to the console.
fn is_console_of(link: &Link, label: Label) -> bool {
    link.kind == LinkKind::Console && link.front == label
}

/// Removes the back end's directory of a link.
fn remove_back_end(ends: &Ends) -> Result<()> {
    Store::new().remove(ends.back_path.rsplit_once('/').map_or(&ends.back_path, |(parent, _)| parent))
}

impl System {
    /// Writes the homes of all living domains, then the links between them.
    pub fn wire_all(&mut self) {
        let labels: Vec<Label> = self.table.labels().map(|(label, _)| label).collect();
        for label in labels {
            let result = self.write_home(label);
            self.check_store(&format!("home of `{}`", self.name(label)), result);
        }
        // A link's directories lie in both homes, so all homes come first.
        for number in 0..self.table.links.len() {
            let result = self.write_link(number);
            self.check_store(&format!("link {number}"), result);
        }
    }

    /// Writes the home of one domain, which has just been started, and its links to those that live.
    pub fn wire(&mut self, label: Label) {
        let result = self.write_home(label);
        self.check_store(&format!("home of `{}`", self.name(label)), result);
        self.write_links(|link| link.front == label || link.back == label);
    }

    /// The same for the successor of one whose nodes are there: its back ends find everything as it was left, and their front
    /// ends notice nothing. Its own front ends begin anew.
    pub fn wire_again(&mut self, label: Label) {
        let result = self.renew_home(label);
        self.check_store(&format!("home of `{}`", self.name(label)), result);
        self.write_links(|link| ends_with(link, label));
        let number = |(number, link): (usize, &Link)| (link.back == label).then_some(number);
        let served: Vec<usize> = self.table.links.iter().enumerate().filter_map(number).collect();
        served.into_iter().for_each(|number| self.turns.begin_again(number, now()));
    }

    fn write_links(&mut self, concerned: impl Fn(&Link) -> bool) {
        for number in 0..self.table.links.len() {
            if self.table.links.get(number).is_some_and(&concerned) {
                let result = self.write_link(number);
                self.check_store(&format!("link {number}"), result);
            }
        }
    }

    fn write_home(&mut self, label: Label) -> Result<()> {
        let Some((id, nodes)) = self.home(label) else { return Ok(()) };
        write(&nodes, &[&home_path(id)])?;
        if let Some(member) = self.member_mut(label) {
            member.wired = true;
        }
        Ok(())
    }

    /// Brings the home of a successor to the state of a new one, but for its back ends, and has the console look at its ring.
    fn renew_home(&self, label: Label) -> Result<()> {
        let Some((id, nodes)) = self.home(label) else { return Ok(()) };
        let (store, home) = (Store::new(), home_path(id));
        let (below, data) = (store.list(&home)?, store.list(&format!("{home}/data")).unwrap_or_default());
        let mut batch = Batch::new();
        nodes::leavings(&home, &nodes, &below, &data).iter().for_each(|path| batch.remove(path));
        for node in nodes.iter().filter(|node| node.path.ends_with("/port")) {
            batch.write(&node.path, &node.value);
        }
        let consoles = self.table.links.iter().filter(|link| is_console_of(link, label));
        for ends in consoles.filter_map(|link| self.ends(link)) {
            // In this order: the port is what tells the console.
            batch.write(&format!("{}/state", ends.back_path), state::INITIALISING);
            let port = self.member(label).and_then(|member| member.ports.console).unwrap_or(0);
            batch.write(&format!("{}/port", ends.back_path), port);
        }
        store.run(&batch)
    }

    /// The id and the nodes of a living domain's home.
    fn home(&self, label: Label) -> Option<(DomId, Vec<Node>)> {
        let (entry, member) = (self.entry(label)?, self.member(label)?);
        let id = member.alive().filter(|_| self.has_store())?;
        Some((id, nodes::home(entry, id, member.ports)))
    }

    /// Both ends of a link, if both domains have their nodes.
    pub fn ends(&self, link: &Link) -> Option<Ends> {
        nodes::ends(link, self.wired(link.front)?, self.wired(link.back)?)
    }

    fn write_link(&self, number: usize) -> Result<()> {
        let Some(link) = self.table.links.get(number).filter(|_| self.has_store()) else {
            return Ok(());
        };
        let Some(ends) = self.ends(link) else { return Ok(()) };
        let port = self.member(link.front).and_then(|member| member.ports.console);
        // What an end wrote there for a peer that is dead names that one as its reader, and names its grants.
        let old = [ends.front_path.as_str(), &ends.back_path];
        let old = if link.kind == LinkKind::Console { &old[1..] } else { &old };
        write(&nodes::link(self.table, link, &ends, port), old)
    }

    /// Tells xenstore of a domain, whose requests it takes from then on.
    pub fn introduce(&mut self, label: Label) {
        let Some(id) = self.alive(label).filter(|_| self.has_store()) else {
            return;
        };
        let Some((port, page)) =
            self.member(label).and_then(|member| Some((member.ports.store?, member.ports.pages.store)))
        else {
            return;
        };
        let result = Store::new().introduce(id, page, Port(port));
        self.check_store(&format!("introducing `{}`", self.name(label)), result);
    }

    /// Takes away what a dead domain that comes again had in xenstore as a front end, so that its back ends see the device
    /// vanish. What it has as a back end stays for its successor, and its front ends wait.
    pub fn unwire_front_ends(&self, label: Label) -> Result<()> {
        // From here on its ring is nobody's, until its successor is introduced.
        match self.wired(label).map(|dead| Store::new().disconnect(dead)) {
            None | Some(Ok(()) | Err(Errno::ENOENT)) => {} // it may have gone before it was introduced
            Some(Err(error)) => return Err(error),
        }
        for ends in self.table.links.iter().filter(|link| ends_with(link, label)).filter_map(|link| self.ends(link)) {
            remove_back_end(&ends)?;
        }
        Ok(())
    }

    /// Takes away what a dead domain that stays down had in xenstore, so that its peers notice: back ends see the device
    /// vanish, front ends see their back end vanish, and are told that there will be no other first.
    pub fn unwire(&mut self, label: Label) -> Result<()> {
        let Some(dead) = self.wired(label) else { return Ok(()) };
        let store = Store::new();
        self.unfollow(label);
        let told = self.give_up_links(label);
        // Its home goes, and all that it owns elsewhere.
        match store.release(dead) {
            Ok(()) | Err(Errno::ENOENT) => {} // it may have gone before it was introduced
            Err(error) => return Err(error),
        }
        for ends in self.table.links.iter().filter(|link| link.front == label).filter_map(|link| self.ends(link)) {
            remove_back_end(&ends)?;
        }
        if let Some(member) = self.member_mut(label) {
            member.wired = false;
        }
        // Never introduced, it may still have a home.
        store.remove(&home_path(dead)).and(told)
    }

    /// Ends the watches on the states of a dead domain's links, as far as there are any.
    fn unfollow(&self, label: Label) {
        for (number, link) in self.table.links.iter().enumerate().filter(|(number, _)| self.follows(*number)) {
            if let Some(ends) = self.ends(link).filter(|_| link.front == label || link.back == label) {
                let _ = Store::new().unwatch(&format!("{}/state", ends.front_path), &format!("{number}f"));
                let _ = Store::new().unwatch(&format!("{}/state", ends.back_path), &format!("{number}b"));
            }
        }
    }

    /// Tells the front ends of a back end that is dead that there will be no other.
    pub fn give_up_links(&self, label: Label) -> Result<()> {
        let devices = |link: &&Link| matches!(link.kind, LinkKind::Block | LinkKind::Net | LinkKind::Channel);
        for link in self.table.links.iter().filter(|link| link.back == label).filter(devices) {
            if let Some(front) = self.wired(link.front)
                && let Some(ends) = nodes::ends(link, front, DomId::POLICY)
            {
                Store::new().write(&format!("{}/online", ends.front_path), "0")?;
            }
        }
        Ok(())
    }
}
