//! Writes to xenstore what the library says: homes and links, and takes them away again.

use alloc::format;
use alloc::vec::Vec;

use policy::table::{Label, Link, LinkKind};
use policy_domain::nodes::{self, Ends, Node, console_backend_path, console_port_path, home_path};
use policy_domain::writing::{self, Step};
use runtime::errno::{Errno, Result};
use runtime::store::{Batch, Permission, Rights, Store};
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
        for number in 0..self.table.links.len() {
            let concerns = |link: &Link| {
                // A console that was started again has no port yet, except this domain's.
                let console = link.kind == LinkKind::Console && link.front != Label::POLICY;
                link.front == label || link.back == label && !console
            };
            if self.table.links.get(number).is_some_and(concerns) {
                let result = self.write_link(number);
                self.check_store(&format!("link {number}"), result);
            }
        }
    }

    /// Tells all domains of a console domain that was started again. Each grants it its ring and makes a port, of which it
    /// tells in turn ([`System::console_port_told`]).
    pub fn call_to_the_console(&mut self, console: DomId) {
        let consoles = self.table.links.iter().filter(|link| link.kind == LinkKind::Console);
        let fronts: Vec<Label> = consoles.map(|link| link.front).filter(|front| *front != Label::POLICY).collect();
        for label in fronts {
            // What it had died with the old one; and the same number again is another port.
            if let Some(member) = self.member_mut(label) {
                member.ports.console = None;
            }
            let Some(id) = self.alive(label).filter(|_| self.has_store()) else { continue };
            let mut batch = Batch::new();
            batch.remove(&console_port_path(id));
            batch.write(&console_backend_path(id), console);
            let readers = [Permission::new(DomId::POLICY, Rights::None), Permission::new(id, Rights::Read)];
            batch.set_permissions(&console_backend_path(id), &readers);
            let result = Store::new().run(&batch).and_then(|()| {
                match Store::new().watch(&console_port_path(id), &format!("{}c", label.0)) {
                    Err(Errno::EEXIST) => Ok(()),
                    other => other,
                }
            });
            self.check_store(&format!("telling `{}` of the console", self.name(label)), result);
        }
    }

    /// A domain tells of its port for the console.
    pub fn console_port_told(&mut self, label: Label, port: u32) {
        let Some(member) = self.member_mut(label) else { return };
        if member.ports.console.replace(port) == Some(port) {
            return;
        }
        for number in 0..self.table.links.len() {
            let link = self.table.links.get(number);
            if link.is_some_and(|link| link.kind == LinkKind::Console && link.front == label) {
                let result = self.write_link(number);
                self.check_store(&format!("console of `{}`", self.name(label)), result);
            }
        }
    }

    fn write_home(&self, label: Label) -> Result<()> {
        let (Some(entry), Some(member)) = (self.entry(label), self.member(label)) else {
            return Ok(());
        };
        match member.alive().filter(|_| self.has_store()) {
            Some(id) => write(&nodes::home(entry, id, member.ports), &[&home_path(id)]),
            None => Ok(()),
        }
    }

    /// Both ends of a link, if both domains live.
    pub fn ends(&self, link: &Link) -> Option<Ends> {
        nodes::ends(link, self.alive(link.front)?, self.alive(link.back)?)
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
        write(&nodes::link(&self.table, link, &ends, port), old)
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

    /// Takes away what a dead domain had in xenstore, so that its peers notice: back ends see the device vanish, front
    /// ends see their back end vanish. Whether they may wait for another is told to them first.
    pub fn unwire(&self, label: Label, dead: DomId) -> Result<()> {
        let store = Store::new();
        self.unfollow(label, dead);
        let told = if self.comes_again(label) { Ok(()) } else { self.give_up_links(label) };
        // Its home goes, and all that it owns elsewhere.
        match store.release(dead) {
            Ok(()) | Err(Errno::ENOENT) => {} // it may have gone before it was introduced
            Err(error) => return Err(error),
        }
        for link in &self.table.links {
            if link.front == label
                && let Some(back) = self.alive(link.back)
                && let Some(ends) = nodes::ends(link, dead, back)
            {
                store.remove(ends.back_path.rsplit_once('/').map_or(&ends.back_path, |(parent, _)| parent))?;
            }
        }
        // Never introduced, it may still have a home.
        store.remove(&home_path(dead)).and(told)
    }

    /// Ends the watches on the states of a dead domain's links, as far as there are any.
    fn unfollow(&self, label: Label, dead: DomId) {
        for (number, link) in self.table.links.iter().enumerate().filter(|(number, _)| self.follows(*number)) {
            let id = |of: Label| if of == label { Some(dead) } else { self.alive(of) };
            let ends = id(link.front).zip(id(link.back)).and_then(|(front, back)| nodes::ends(link, front, back));
            if let Some(ends) = ends.filter(|_| link.front == label || link.back == label) {
                let _ = Store::new().unwatch(&format!("{}/state", ends.front_path), &format!("{number}f"));
                let _ = Store::new().unwatch(&format!("{}/state", ends.back_path), &format!("{number}b"));
            }
        }
    }

    /// Tells the front ends of a back end that is dead that there will be no other.
    pub fn give_up_links(&self, label: Label) -> Result<()> {
        let devices = |link: &&Link| matches!(link.kind, LinkKind::Block | LinkKind::Net | LinkKind::Channel);
        for link in self.table.links.iter().filter(|link| link.back == label).filter(devices) {
            if let Some(front) = self.alive(link.front)
                && let Some(ends) = nodes::ends(link, front, DomId::POLICY)
            {
                Store::new().write(&format!("{}/online", ends.front_path), "0")?;
            }
        }
        Ok(())
    }
}
