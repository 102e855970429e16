//! What becomes of the dead: their peers are told, and where the policy says so they are started again.
//!
//! A death is told by `VIRQ_DOM_EXC`, twice: when it happens, and when the hypervisor has taken the domain apart. Only the
//! second makes a successor possible (a label has one domain), and only then has the hypervisor let go of what the dead
//! had mapped of its peers: device stopped, translations flushed, pages unmapped, in this order. `docs/restart.md` tells
//! it in full.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use policy::table::{Label, Link, LinkKind};
use policy_domain::nodes::state::CONNECTED;
use policy_domain::program::TRIAL;
use policy_domain::supervision::{Proof, Usage, Uselessness, Verdict, is_switched_off};
use runtime::hypercall::{event_channel, platform};
use runtime::store::Store;
use runtime::time::{Instant, now};
use runtime::{DomId, Port, console};
use xen_abi::event_channel::{EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_UNBOUND};
use xen_abi::platform::{DomainInfo, STATE_DYING};
use xen_abi::sched::SHUTDOWN_CRASH;

use crate::admin::Shell;
use crate::boot;
use crate::rescue;
use crate::system::{Member, Revival, Status, System, Wish};

/// Between two looks at a new image on trial.
const LOOK: Duration = Duration::from_millis(20);

/// How long to wait for what is left of a domain that could not be built.
const REMAINS: Duration = Duration::from_millis(2);

impl System {
    /// Some domain has died, or has been taken apart: finds out which, says why, and tells its peers.
    pub fn bury(&mut self, shell: &mut Shell) {
        let labels: Vec<Label> = self.table.labels().skip(1).map(|(label, _)| label).collect();
        for label in labels {
            let Some(id) = self.member(label).and_then(|member| member.id).filter(|_| !rescue::keeps(label)) else {
                continue;
            };
            let info = platform::domain_info(u32::from(id.0));
            let info = info.ok().filter(|info| info.domid == u32::from(id.0));
            let dying = info.as_ref().filter(|info| info.state == STATE_DYING);
            if self.alive(label).is_some() && (dying.is_some() || info.is_none()) {
                let why = dying.map_or_else(|| "see the hypervisor's log (`log hv`)".to_string(), why);
                let reason = dying.map_or(SHUTDOWN_CRASH, |info| info.reason);
                self.ended(label, id, (reason, why), shell);
            }
            if info.is_none()
                && let Some(member) = self.member_mut(label)
            {
                member.id = None;
                if let Some(revival) = &mut member.revival {
                    revival.gone = Some(now());
                }
            }
        }
    }

    /// A domain has ended: says so, and takes away what would make its peers wait for it.
    fn ended(&mut self, label: Label, id: DomId, (reason, mut text): (u32, String), shell: &mut Shell) {
        if self.console() == Some(id) {
            console::detach(); // what is said from now on goes to the hypervisor
        }
        let died = now();
        let trial = self.member_mut(label).is_some_and(|member| {
            let trial = member.program.ended();
            if trial && matches!(member.wish, Wish::None | Wish::Fault) {
                member.wish = Wish::Again;
            }
            trial
        });
        if trial {
            text.push_str(&format!("; its new image has failed, and gives way to `{}`", self.image_of(label)));
        }
        match self.sentence(label, died, reason) {
            Verdict::Again(due) => {
                text.push_str("; it is started again");
                if due > died {
                    text.push_str(&format!(" in {} ms", due.since(died).as_millis()));
                }
                self.plan(label, Revival { due, died, gone: None });
            }
            Verdict::Down(Some(reason)) => text.push_str(&format!("; {reason}")),
            Verdict::Down(None) => {}
        }
        shell.interject(&format!("domain `{}` ended: {text}", self.name(label)));
        if let Some(member) = self.member_mut(label) {
            member.status = Status::Ended(text);
        }
        if !self.comes_again(label) {
            self.give_up_waiting_for(label);
        }
        let result = match self.has_store() {
            true if self.comes_again(label) => self.unwire_front_ends(label),
            true => self.unwire(label),
            false => {
                self.unheard += 1;
                Ok(())
            }
        };
        self.check_store(&format!("what `{}` left behind", self.name(label)), result);
    }

    /// What is to be done about a death: what the administrator has just asked for, else what the policy says.
    fn sentence(&mut self, label: Label, died: Instant, reason: u32) -> Verdict {
        let switched_off = self.entry(label).is_some_and(|entry| is_switched_off(entry.kind, reason));
        let Some(member) = self.member_mut(label) else { return Verdict::Down(None) };
        match core::mem::take(&mut member.wish) {
            Wish::Down => Verdict::Down(None),
            Wish::Again => {
                member.record.forgive();
                member.proof = Proof::default();
                Verdict::Again(died)
            }
            Wish::None if switched_off => Verdict::Down(None),
            Wish::None | Wish::Fault => member.record.died(died),
        }
    }

    /// Ends a domain for what it did, or did not do. What becomes of it then is what becomes of any dead domain.
    fn end(&mut self, label: Label, id: DomId) {
        if let Some(member) = self.member_mut(label) {
            member.wish = Wish::Fault;
        }
        if let Err(error) = platform::destroy(id) {
            self.note(format!("error: it cannot be ended: {error}"));
        }
    }

    fn plan(&mut self, label: Label, revival: Revival) {
        if let Some(member) = self.member_mut(label) {
            member.revival = Some(revival);
        }
    }

    /// Whether a dead domain is going to be started again.
    pub fn comes_again(&self, label: Label) -> bool {
        self.member(label).is_some_and(|member| member.revival.is_some())
    }

    /// The image that a label's domain runs.
    pub fn image_of(&self, label: Label) -> &str {
        let image = self.entry(label).zip(self.member(label)).map(|(entry, member)| member.program.image(entry));
        image.unwrap_or("?")
    }

    /// Ends the trials of new images: whoever the old one served is served, or it takes too long.
    pub fn judge(&mut self, shell: &mut Shell) {
        let on_trial = |member: &Member| Some((member.alive()?, member.program.on_trial()?));
        let labels = (0..).map(Label).zip(&self.members);
        let trials: Vec<_> = labels.filter_map(|(label, member)| Some((label, on_trial(member)?))).collect();
        for (label, (id, until)) in trials {
            if self.serves(label, id, until) {
                shell.interject(&format!("domain `{}` runs image `{}` now", self.name(label), self.image_of(label)));
                if let Some(member) = self.member_mut(label) {
                    member.program.proven();
                }
            } else if until <= now() {
                let (name, image) = (self.name(label), self.image_of(label));
                shell.interject(&format!(
                    "domain `{name}` does not serve its front ends with image `{image}`: it is ended"
                ));
                self.end(label, id);
            }
        }
    }

    /// Ends successors that run for long enough and have not begun to serve anybody whom their predecessors served: by both
    /// ends' states these are connected, so nobody else would notice. That is a start that has failed, and counts as a death.
    pub fn end_the_useless(&mut self, shell: &mut Shell) {
        let time = now();
        let mut due = Vec::new();
        for (label, member) in (0..).map(Label).zip(&mut self.members) {
            if member.proof.is_due(time) && member.program.on_trial().is_none() {
                due.extend(member.alive().map(|id| (label, id)));
            }
        }
        for (label, id) in due {
            if !self.has_store() {
                // It could not be told of its front ends either.
                self.expect_service(label, time);
                continue;
            }
            let serves = !self.serves_nobody(label, id);
            let Some(member) = self.member_mut(label) else { continue };
            let uselessness = member.proof.judge(serves);
            let what = match uselessness {
                Uselessness::None => continue,
                Uselessness::End => "it is ended",
                Uselessness::Leave => "like those before it, and is left alone",
            };
            let (name, bound) = (self.name(label), TRIAL.as_secs());
            shell
                .interject(&format!("domain `{name}` does not serve its front ends {bound} s after its start: {what}"));
            if uselessness == Uselessness::End {
                self.end(label, id);
            }
        }
    }

    /// A successor has been started, which has to prove itself, if there could be another in its place.
    fn expect_service(&mut self, label: Label, time: Instant) {
        if let Some(member) = self.member_mut(label).filter(|member| member.record.may_come_again()) {
            member.proof.expect(time);
        }
    }

    /// Whether there are front ends that a back end would have to serve, and it serves none.
    fn serves_nobody(&self, label: Label, id: DomId) -> bool {
        let links = self.table.links.iter().filter(|link| link.back == label && is_served(link.kind));
        let ports = links.filter_map(|link| self.front_port(link));
        let mut waiting = false;
        for status in ports.filter_map(|(front, port)| event_channel::status(front, port).ok()) {
            match status.status {
                EVTCHNSTAT_INTERDOMAIN if status.detail.dom == id.0 => return false,
                EVTCHNSTAT_UNBOUND => waiting |= status.detail.dom == id.0,
                _ => {}
            }
        }
        waiting
    }

    /// Gives all who still have to prove themselves their time again: xenstore, which they need for it, was not there.
    pub fn begin_proofs_again(&mut self, time: Instant) {
        let owing = self.members.iter_mut().filter(|member| member.proof.due().is_some());
        owing.for_each(|member| member.proof.expect(time));
    }

    /// Whether a new domain, as a back end, is connected to all whom its predecessor was connected to. One that serves nobody
    /// has to live until its trial is over.
    fn serves(&self, label: Label, id: DomId, until: Instant) -> bool {
        let links = self.table.links.iter().filter(|link| link.back == label && is_served(link.kind));
        let mut connected = links.filter_map(|link| self.front_port(link)).peekable();
        match connected.peek() {
            None => until <= now(),
            Some(_) => connected.all(|(front, port)| {
                // One that is gone meanwhile is not waiting.
                event_channel::status(front, port)
                    .map_or(true, |status| status.status == EVTCHNSTAT_INTERDOMAIN && status.detail.dom == id.0)
            }),
        }
    }

    /// The port of a connected front end. Of those of a console only this domain's is looked at, which is always there first.
    fn front_port(&self, link: &Link) -> Option<(DomId, Port)> {
        if link.kind == LinkKind::Console {
            let own = self.member(link.front).filter(|_| link.front == Label::POLICY)?;
            return Some((DomId::POLICY, Port(own.ports.console?)));
        }
        let (ends, front) = (self.ends(link)?, self.alive(link.front)?);
        let store = Store::new();
        let state = |path: &str| store.read_parsed::<u32>(&format!("{path}/state")).ok();
        [&ends.front_path, &ends.back_path].iter().all(|path| state(path) == Some(CONNECTED)).then_some(())?;
        let mut ports = ["event-channel", "event-channel-rx", "queue-0/event-channel"].into_iter();
        let port = ports.find_map(|key| store.read_parsed(&format!("{}/{key}", ends.front_path)).ok())?;
        Some((front, Port(port)))
    }

    /// When something here wants attention without an event.
    pub fn next_supervision(&self) -> Option<Instant> {
        let trial = self.members.iter().any(|member| member.program.on_trial().is_some()).then(|| now() + LOOK);
        let running = self.members.iter().filter(|member| member.alive().is_some());
        let watchdogs = running.filter_map(|member| member.watchdog).map(|watchdog| watchdog.due);
        let due = watchdogs.chain(rescue::next()).chain(self.turns.next()).chain(self.next_revival());
        let proofs = self.members.iter().filter(|member| member.alive().is_some());
        due.chain(proofs.filter_map(|member| member.proof.due())).chain(trial).min()
    }

    /// Ends the domains that have been silent for longer than the policy lets them be.
    pub fn end_the_silent(&mut self, shell: &mut Shell) {
        let time = now();
        let mut silent = Vec::new();
        for (label, member) in (0..).map(Label).zip(&mut self.members) {
            let (Some(id), Some(watchdog)) = (member.alive(), &mut member.watchdog) else { continue };
            if watchdog.due <= time
                && let Ok(info) = platform::domain_info(u32::from(id.0))
                && watchdog.look(Usage { hypercalls: info.hypercalls, cpu_ns: info.cpu_ns }, time)
            {
                let bound = member.record.watchdog.unwrap_or_default();
                silent.push((label, format!("works without a hypercall for {} ms", bound.as_millis())));
            }
        }
        for number in self.turns.overdue(time) {
            if let Some(link) = self.table.links.get(number) {
                silent.push((link.back, format!("leaves `{}` waiting for a connection", self.name(link.front))));
            }
        }
        for (label, how) in silent {
            let Some(id) = self.alive(label) else { continue };
            shell.interject(&format!("domain `{}` {how}: it is ended", self.name(label)));
            self.end(label, id);
        }
    }

    /// When the next dead domain may be started again, of those that have been taken apart.
    fn next_revival(&self) -> Option<Instant> {
        let gone = self.members.iter().filter(|member| member.id.is_none());
        gone.filter_map(|member| member.revival).map(|revival| revival.due).min()
    }

    /// Starts again who is to be started again by now.
    pub fn revive_the_due(&mut self, shell: &mut Shell) {
        let time = now();
        let due = |member: &Member| member.revival.filter(|revival| member.id.is_none() && revival.due <= time);
        let labels = (0..).map(Label).zip(&self.members);
        let due: Vec<_> = labels.filter_map(|(label, member)| Some((label, due(member)?))).collect();
        for (label, revival) in due {
            self.revive(label, revival, shell);
        }
    }

    fn revive(&mut self, label: Label, revival: Revival, shell: &mut Shell) {
        if platform::domains().any(|info| info.label == label.0) {
            // What was built of it the last time is still being taken apart.
            return self.plan(label, Revival { due: now() + REMAINS, ..revival });
        }
        if let Some(member) = self.member_mut(label) {
            member.revival = None;
        }
        let begun = now();
        self.unheard += u32::from(!self.has_store());
        self.create(label);
        let devices = self.build(label, "");
        self.start(label);
        let started = now();
        let Some(id) = self.alive(label) else { return self.failed_again(label, revival) };
        if self.console() == Some(id) {
            boot::own_console_ring(self);
        }
        let announced_anew = self.wired(label).is_none();
        if announced_anew {
            self.wire(label)
        } else {
            self.wire_again(label);
            self.expect_service(label, now());
        }
        self.introduce(label);
        if self.console() == Some(id) {
            shell.prompt();
        }
        if announced_anew {
            self.watch_links();
        }
        if let Some(member) = self.member_mut(label) {
            member.record.restarts += 1;
        }
        let end = now();
        let us = |from: Instant, to: Instant| to.since(from).as_micros();
        let gone = revival.gone.unwrap_or(begun);
        shell.interject(&format!(
            "domain `{}` runs again, as domain {id}, {} us after its end at {} us: taken apart in {}, built in {}, its devices ready \
             in {}, announced in {}",
            self.name(label),
            us(revival.died, end),
            revival.died.0 / 1000,
            us(revival.died, gone),
            us(begun, started).saturating_sub(devices.as_micros()),
            devices.as_micros(),
            us(started, end),
        ));
    }

    /// It could not be built: that counts like a death, unless it is a new image's fault.
    fn failed_again(&mut self, label: Label, revival: Revival) {
        if self.member_mut(label).is_some_and(|member| member.program.not_started()) {
            self.note(format!("`{}` goes back to its image `{}`", self.name(label), self.image_of(label)));
            return self.plan(label, Revival { due: now(), ..revival });
        }
        match self.sentence(label, now(), SHUTDOWN_CRASH) {
            Verdict::Again(due) => self.plan(label, Revival { due, ..revival }),
            Verdict::Down(_) => {
                self.give_up_waiting_for(label);
                let result = if self.has_store() { self.unwire(label) } else { Ok(()) };
                self.check_store(&format!("links of `{}`", self.name(label)), result);
            }
        }
    }
}

/// Whether it shows from outside that a back end serves a link of this kind.
pub fn is_served(kind: LinkKind) -> bool {
    matches!(kind, LinkKind::Block | LinkKind::Net | LinkKind::Console)
}

/// Why a domain died, as the hypervisor has it.
pub fn why(info: &DomainInfo) -> String {
    let end = info.why.iter().position(|&byte| byte == 0).unwrap_or(info.why.len());
    let text = String::from_utf8_lossy(info.why.get(..end).unwrap_or_default()).into_owned();
    if text.is_empty() { format!("reason {}", info.reason) } else { text }
}
