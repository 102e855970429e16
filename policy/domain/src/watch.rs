//! The main loop: deaths, readiness, the administrator.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use policy::table::Label;
use policy_domain::nodes::home_path;
use policy_domain::ready::{End, Ready};
use runtime::errno::Result;
use runtime::event::{self, Channel};
use runtime::hypercall::platform;
use runtime::store::{self, Store, WatchEvent};
use runtime::time::{Instant, now};
use runtime::{DomId, console};
use xen_abi::platform::{DomainInfo, STATE_DYING};

use crate::admin::Shell;
use crate::system::{Status, System};

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
        let deadline = complaint_due.filter(|_| system.ready.is_some()).into_iter().chain(shell.deadline()).min();
        let ports: Vec<_> = event::wait(deadline).collect();
        for port in ports {
            if Some(port) == deaths.as_ref().map(Channel::port) {
                system.bury(&mut shell);
            } else if Some(port) == store::port() {
                system.links_changed();
            } else if Some(port) == console::port() {
                shell.serve(&mut system);
            }
        }
        shell.look_for_log(&system);
        system.announce(&mut shell);
        let notes = system.notes.as_mut().map(core::mem::take).unwrap_or_default();
        notes.iter().for_each(|note| shell.interject(note));
        if let Some(ready) = &system.ready
            && complaint_due.is_some_and(|due| now() >= due)
        {
            complaint_due = None;
            let missing = ready.missing(&system.table);
            shell.interject(&format!("not ready after {} s; missing:", READY_LIMIT.as_secs()));
            missing.iter().for_each(|line| shell.interject(&format!("  {line}")));
        }
    }
}

impl System {
    /// Asks xenstore to tell of the states of both ends of each link that makes the system ready.
    pub fn watch_links(&mut self) {
        for number in 0..self.table.links.len() {
            if self.ready.as_ref().is_some_and(|ready| ready.awaits(number)) {
                let result = self.for_both_states(number, |path, token| Store::new().watch(path, token));
                self.check_store(&format!("watching link {number}"), result);
            }
        }
        let labels: Vec<Label> = self.ready.iter().flat_map(Ready::unannounced).collect();
        for label in labels {
            let result = self.for_announcement(label, |path, token| Store::new().watch(path, token));
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
        let Some(ready) = &mut self.ready else { return };
        match what {
            "f" => ready.note(number as usize, End::Front, value.unwrap_or(0)),
            "b" => ready.note(number as usize, End::Back, value.unwrap_or(0)),
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
        for number in awaited {
            let result = self.for_both_states(number, |path, token| Store::new().unwatch(path, token));
            self.check_store(&format!("no longer watching link {number}"), result);
        }
    }

    /// Some domain has died, or has been taken apart: finds out which, says why, and tells its peers.
    fn bury(&mut self, shell: &mut Shell) {
        let labels: Vec<Label> = self.table.labels().skip(1).map(|(label, _)| label).collect();
        for label in labels {
            let Some(id) = self.member(label).and_then(|member| member.id) else {
                continue;
            };
            let info = platform::domain_info(u32::from(id.0));
            let info = info.ok().filter(|info| info.domid == u32::from(id.0));
            let dying = info.as_ref().filter(|info| info.state == STATE_DYING);
            if self.alive(label).is_some() && (dying.is_some() || info.is_none()) {
                let why = dying.map_or_else(|| "see the hypervisor's log (`log hv`)".to_string(), why);
                self.ended(label, id, why, shell);
            }
            if info.is_none()
                && let Some(member) = self.member_mut(label)
            {
                member.id = None;
            }
        }
    }

    /// A domain has ended: says so, and takes away what would make its peers wait for it.
    fn ended(&mut self, label: Label, id: DomId, why: String, shell: &mut Shell) {
        if self.console() == Some(id) {
            console::detach(); // what is said from now on goes to the hypervisor
        }
        shell.interject(&format!("domain `{}` ended: {why}", self.name(label)));
        if let Some(member) = self.member_mut(label) {
            member.status = Status::Ended(why);
        }
        self.give_up_waiting_for(label);
        if self.has_store() {
            let result = self.unwire(label, id);
            self.check_store(&format!("what `{}` left behind", self.name(label)), result);
        }
    }
}

/// Why a domain died, as the hypervisor has it.
fn why(info: &DomainInfo) -> String {
    let end = info.why.iter().position(|&byte| byte == 0).unwrap_or(info.why.len());
    let text = String::from_utf8_lossy(info.why.get(..end).unwrap_or_default()).into_owned();
    if text.is_empty() { format!("reason {}", info.reason) } else { text }
}
