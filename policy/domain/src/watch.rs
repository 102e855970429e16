//! The main loop: deaths, readiness, the administrator.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use policy::table::Label;
use policy_domain::nodes::home_path;
use policy_domain::ready::{End, Ready};
use runtime::errno::Result;
use runtime::event::{self, Channel};
use runtime::store::{self, Store, WatchEvent};
use runtime::time::{Instant, now};
use runtime::{Errno, console};

use crate::admin::Shell;
use crate::system::System;

/// How long after boot the system may take to be ready before the policy domain says what is missing.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Serves for ever.
pub fn serve(mut system: System, deaths: Option<Channel>) {
    let mut shell = Shell::default();
    system.notes = Some(Vec::new());
    let mut complaint_due = Some(Instant(0) + READY_LIMIT);
    system.announce(&mut shell);
    shell.prompt(); // one can look around while the rest comes up
    loop {
        let complaint = complaint_due.filter(|_| system.ready.is_some());
        let deadline = complaint.into_iter().chain(shell.deadline()).chain(system.next_supervision()).min();
        let ports: Vec<_> = event::wait(deadline).collect();
        // Before anybody asks it for something.
        system.attend_to_xenstore(&mut shell);
        for port in ports {
            if Some(port) == deaths.as_ref().map(Channel::port) {
                system.bury(&mut shell);
            } else if Some(port) == store::port() {
                system.links_changed();
            } else if Some(port) == console::port() {
                shell.serve(&mut system);
            }
        }
        system.attend_to_xenstore(&mut shell);
        system.end_the_silent(&mut shell);
        system.revive_the_due(&mut shell);
        system.judge(&mut shell);
        system.end_the_useless(&mut shell);
        shell.look_for_log(&system);
        system.announce(&mut shell);
        let notes = system.notes.as_mut().map(core::mem::take).unwrap_or_default();
        notes.iter().for_each(|note| shell.interject(note));
        if let Some(ready) = &system.ready
            && complaint_due.is_some_and(|due| now() >= due)
        {
            complaint_due = None;
            let missing = ready.missing(system.table);
            shell.interject(&format!("not ready after {} s; missing:", READY_LIMIT.as_secs()));
            missing.iter().for_each(|line| shell.interject(&format!("  {line}")));
        }
    }
}

/// Watches a node, if it is not watched already.
fn watch(path: &str, token: &str) -> Result<()> {
    match Store::new().watch(path, token) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

impl System {
    /// Whether the states of a link are of interest: it makes the system ready, or its back end is watched over.
    pub fn follows(&self, number: usize) -> bool {
        self.turns.follows(number) || self.ready.as_ref().is_some_and(|ready| ready.awaits(number))
    }

    /// Asks xenstore to tell of the states of both ends of each link of which they are of interest.
    /// May be called again, when a domain has been started again meanwhile.
    pub fn watch_links(&mut self) {
        for number in 0..self.table.links.len() {
            if self.follows(number) {
                let result = self.for_both_states(number, watch);
                self.check_store(&format!("watching link {number}"), result);
            }
        }
        let labels: Vec<Label> = self.ready.iter().flat_map(Ready::unannounced).collect();
        for label in labels {
            let result = self.for_announcement(label, watch);
            self.check_store(&format!("watching `{}`", self.name(label)), result);
        }
    }

    /// Does something with the node in which a domain announces that it is ready, and the token for its watch.
    fn for_announcement(&self, label: Label, act: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        match self.alive(label).filter(|_| self.has_store()) {
            Some(id) => act(&format!("{}/data/ready", home_path(id)), &format!("{}r", label.0)),
            None => Ok(()),
        }
    }

    /// Does something with the paths of both ends' states of a link, and the tokens for their watches.
    fn for_both_states(&self, number: usize, act: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        let Some(link) = self.table.links.get(number).filter(|_| self.has_store()) else {
            return Ok(());
        };
        let Some(ends) = self.ends(link) else { return Ok(()) };
        act(&format!("{}/state", ends.front_path), &format!("{number}f"))?;
        act(&format!("{}/state", ends.back_path), &format!("{number}b"))
    }

    fn links_changed(&mut self) {
        while let Some(event) = store::next_event() {
            self.link_changed(&event);
        }
    }

    /// Looks at the node that a watch event is about; its token says what that means.
    fn link_changed(&mut self, event: &WatchEvent) {
        let Some((number, what)) = event.token.split_at_checked(event.token.len().saturating_sub(1)) else {
            return;
        };
        let Ok(number) = number.parse::<u32>() else { return };
        let value: Result<u32> = Store::new().read_parsed(&event.path);
        let end = if what == "f" { End::Front } else { End::Back };
        if matches!(what, "f" | "b") {
            self.turns.note(number as usize, end, value.unwrap_or(0), now());
        }
        let Some(ready) = &mut self.ready else { return };
        match what {
            "f" | "b" => ready.note(number as usize, end, value.unwrap_or(0)),
            "r" if value == Ok(1) => {
                ready.announced(Label(number));
                let result = self.for_announcement(Label(number), |path, token| Store::new().unwatch(path, token));
                self.check_store(&format!("no longer watching `{}`", self.name(Label(number))), result);
            }
            _ => {}
        }
    }

    /// Says once that the system is ready, when it is.
    fn announce(&mut self, shell: &mut Shell) {
        if self.ready.as_ref().is_none_or(|ready| !ready.is_complete()) {
            return;
        }
        let awaited: Vec<usize> =
            self.ready.take().into_iter().flat_map(|ready| ready.links().collect::<Vec<_>>()).collect();
        let microseconds = now().0 / 1000;
        shell.interject(&format!("ready in {}.{:06} s", microseconds / 1_000_000, microseconds % 1_000_000));
        for number in awaited.into_iter().filter(|number| !self.turns.follows(*number)).collect::<Vec<_>>() {
            let result = self.for_both_states(number, |path, token| Store::new().unwatch(path, token));
            self.check_store(&format!("no longer watching link {number}"), result);
        }
    }
}
