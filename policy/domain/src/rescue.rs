//! Keeps xenstore alive.
//!
//! The others are started again by the main loop, which asks xenstore for all sorts of things on its way. For xenstore
//! itself that would not do: whoever waits for its answer is the one who has to start it again. So what that takes is
//! here, apart from [`System`], and is called from the wait of any request (`store::Keeper`) as well as from the main loop.
//!
//! The successor has the id of the dead, so that all rings and ports that are for it are good again, and finds what the dead
//! one knew in memory of this domain's that is granted to it. Nobody is told: only the main loop hears of it afterwards.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Acquire;
use core::time::Duration;

use policy::table::Label;
use policy_domain::handover;
use policy_domain::nodes::Ports;
use policy_domain::supervision::{Record, Usage, Verdict, Watchdog};
use runtime::errno::{Errno, Result};
use runtime::grant::{GrantError, GrantedPages};
use runtime::hypercall::platform;
use runtime::pages::{PAGE, Pages};
use runtime::store::{self, Keeper};
use runtime::time::{Instant, now};
use runtime::{Access, DomId, Local, Port, event};
use xen_abi::native::{HANDOVER_SELECTOR, HANDOVER_UNUSABLE};
use xen_abi::platform::{DomainInfo, STATE_DYING};

use crate::admin::Shell;
use crate::builder::{Reason, Site, step};
use crate::supervise::why;
use crate::system::{Status, System, Wish};

/// How long xenstore may leave a request of this domain unanswered.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How often to look while a request waits.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait for what is left of a domain.
const REMAINS: Duration = Duration::from_millis(2);

static RESCUE: Local<Option<Rescue>> = Local::new(None);

/// The memory by which one xenstore hands over to the next.
#[derive(Debug)]
pub struct Memory {
    pages: GrantedPages,
    /// The references of all of them.
    lists: GrantedPages,
}

impl Memory {
    /// For a xenstore with so many clients.
    pub fn new(xenstore: DomId, clients: usize) -> core::result::Result<Self, GrantError> {
        let pages = GrantedPages::allocate(handover::pages(clients), xenstore, Access::ReadWrite)?;
        let references: Vec<u8> = pages.references().iter().flat_map(|reference| reference.0.to_le_bytes()).collect();
        let mut lists = Pages::new(references.len().div_ceil(PAGE)).ok_or(GrantError::NoSpace)?;
        lists.as_mut_slice().iter_mut().zip(references).for_each(|(to, from)| *to = from);
        Ok(Memory { pages, lists: GrantedPages::new(lists, xenstore, Access::ReadOnly)? })
    }

    /// How xenstore is told of it.
    pub fn argument(&self) -> String {
        let lists: Vec<String> = self.lists.references().iter().map(|reference| reference.0.to_string()).collect();
        format!("handover={}+{}", lists.join(","), self.pages.references().len())
    }

    /// Whether a server has found that nobody can go on from there.
    fn is_unusable(&self) -> bool {
        self.pages.memory().u32_at(HANDOVER_SELECTOR).load(Acquire) == HANDOVER_UNUSABLE
    }
}

/// How xenstore is.
#[derive(Debug)]
enum Health {
    Runs {
        since: Instant,
    },
    Dead {
        /// Its successor is started no earlier.
        due: Instant,
        died: Instant,
    },
    /// Nobody succeeds it, for this reason.
    Lost(String),
}

#[derive(Debug)]
struct Rescue {
    label: Label,
    id: DomId,
    /// What it is built from.
    site: Site,
    arguments: String,
    memory: Memory,
    record: Record,
    watchdog: Option<Watchdog>,
    wish: Wish,
    health: Health,
    /// What the main loop has not heard of: lines, and the ports of a successor.
    news: Vec<String>,
    successor: Option<Ports>,
}

/// From now on the domain of `label`, which has just been started with `arguments`, is kept alive. `deaths` is the port
/// that tells of deaths.
pub fn keep(system: &mut System, label: Label, arguments: String, memory: Memory, deaths: Port) {
    let site = system.site();
    let Some(member) = system.member_mut(label) else { return };
    let Some(id) = member.alive() else { return };
    let (record, watchdog) = (core::mem::take(&mut member.record), member.watchdog.take());
    *RESCUE.borrow() = Some(Rescue {
        label,
        id,
        site,
        arguments,
        memory,
        record,
        watchdog,
        wish: Wish::None,
        health: Health::Runs { since: now() },
        news: Vec::new(),
        successor: None,
    });
    store::set_keeper(Keeper { port: deaths, look: look_for_request });
}

/// Looks after xenstore, for a request that waits since then.
fn look_for_request(since: Instant) -> Result<Instant> {
    RESCUE.borrow().as_mut().ok_or(Errno::ENOTCONN)?.look(Some(since))
}

/// Whether what becomes of this label is decided here.
pub fn keeps(label: Label) -> bool {
    RESCUE.borrow().as_ref().is_some_and(|rescue| rescue.label == label)
}

/// What the administrator wants to become of xenstore, which is ended by their command.
pub fn wish(wish: Wish) {
    if let Some(rescue) = RESCUE.borrow().as_mut() {
        rescue.wish = wish;
    }
}

/// If xenstore is dead and about to be started again: does what the administrator wants instead, now. `false`: it is not.
pub fn decide(wish: Wish) -> bool {
    let mut rescue = RESCUE.borrow();
    let Some(rescue) = rescue.as_mut() else { return false };
    let Health::Dead { died, .. } = rescue.health else { return false };
    match wish {
        Wish::Down => rescue.health = Health::Lost("destroyed while it was dead".to_string()),
        Wish::Again => {
            rescue.record.forgive();
            rescue.health = Health::Dead { due: now(), died };
        }
        Wish::None | Wish::Fault => {}
    }
    true
}

/// Starts xenstore again although it was to stay down.
pub fn revive() {
    if let Some(rescue) = RESCUE.borrow().as_mut() {
        rescue.record.forgive();
        let time = now();
        rescue.health = Health::Dead { due: time, died: time };
    }
}

/// Waits until xenstore exists; `false`: it will not. For whoever needs its id, not its answers.
pub fn settle() -> bool {
    loop {
        let mut rescue = RESCUE.borrow();
        let Some(rescue) = rescue.as_mut() else { return false };
        let Ok(until) = rescue.look(None) else { return false };
        if matches!(rescue.health, Health::Runs { .. }) {
            return true;
        }
        event::poll(&[], Some(until));
    }
}

/// When to look without any event.
pub fn next() -> Option<Instant> {
    let rescue = RESCUE.borrow();
    let rescue = rescue.as_ref()?;
    match rescue.health {
        Health::Runs { .. } => rescue.watchdog.map(|watchdog| watchdog.due),
        Health::Dead { due, .. } => Some(due.max(now() + REMAINS)),
        Health::Lost(_) => None,
    }
}

impl Rescue {
    /// Sees to it that xenstore lives, or will. When to look again; an error when it will not.
    fn look(&mut self, waiting_since: Option<Instant>) -> Result<Instant> {
        loop {
            let time = now();
            match self.health {
                Health::Runs { since } => {
                    let info = self.info();
                    if let Some(info) = info.as_ref().filter(|info| info.state != STATE_DYING) {
                        self.end_if_silent(info, waiting_since.map(|waiting| waiting.max(since)), time);
                        let looks = self.watchdog.map(|watchdog| watchdog.due);
                        return Ok(looks.into_iter().chain([time + LOOK]).min().unwrap_or(time));
                    }
                    self.ended(
                        info.as_ref().map_or_else(|| "see the hypervisor's log (`log hv`)".to_string(), why),
                        time,
                    );
                }
                Health::Dead { due, .. } if due > time => return Ok(due),
                Health::Dead { .. } if self.info().is_some() => return Ok(time + REMAINS),
                Health::Dead { died, .. } => self.succeed(died),
                Health::Lost(_) => return Err(Errno::ENOTCONN),
            }
        }
    }

    /// The hypervisor's facts of the domain of this id, if there is one.
    fn info(&self) -> Option<DomainInfo> {
        platform::domain_info(u32::from(self.id.0)).ok().filter(|info| info.domid == u32::from(self.id.0))
    }

    fn name(&self) -> &'static str {
        self.site.table.domain(self.label).map_or("?", |domain| domain.name.as_str())
    }

    /// Ends a xenstore that is in a loop, or does not answer.
    fn end_if_silent(&mut self, info: &DomainInfo, waiting_since: Option<Instant>, time: Instant) {
        let usage = Usage { hypercalls: info.hypercalls, cpu_ns: info.cpu_ns };
        let bound = self.record.watchdog.unwrap_or_default();
        let how = if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.due <= time && watchdog.look(usage, time)) {
            format!("works without a hypercall for {} ms", bound.as_millis())
        } else if waiting_since.is_some_and(|since| time.since(since) >= ANSWER_LIMIT) {
            format!("does not answer for {} s", ANSWER_LIMIT.as_secs())
        } else {
            return;
        };
        self.news.push(format!("domain `{}` {how}: it is ended", self.name()));
        if let Err(error) = platform::destroy(self.id) {
            self.news.push(format!("error: it cannot be ended: {error}"));
        }
    }

    fn ended(&mut self, mut text: String, died: Instant) {
        let verdict = match core::mem::take(&mut self.wish) {
            Wish::Down => Verdict::Down(None),
            Wish::Again => {
                self.record.forgive();
                Verdict::Again(died)
            }
            Wish::None | Wish::Fault => self.record.died(died),
        };
        let verdict = match verdict {
            Verdict::Again(_) if self.memory.is_unusable() => {
                Verdict::Down(Some("what it knew cannot be handed over".to_string()))
            }
            verdict => verdict,
        };
        self.health = match verdict {
            Verdict::Again(due) => {
                text.push_str("; it is started again");
                if due > died {
                    text.push_str(&format!(" in {} ms", due.since(died).as_millis()));
                }
                Health::Dead { due, died }
            }
            Verdict::Down(reason) => {
                reason.into_iter().for_each(|reason| text.push_str(&format!("; {reason}")));
                Health::Lost(text.clone())
            }
        };
        self.news.push(format!("domain `{}` ended: {text}", self.name()));
    }

    /// Starts a successor.
    fn succeed(&mut self, died: Instant) {
        let begun = now();
        match self.build() {
            Ok(ports) => {
                let started = now();
                self.health = Health::Runs { since: started };
                self.watchdog = self.record.watchdog.map(|bound| Watchdog::new(bound, started));
                self.record.restarts += 1;
                self.successor = Some(ports);
                self.news.push(format!(
                    "domain `{}` runs again, as domain {}, {} us after its end: built in {}",
                    self.name(),
                    self.id,
                    started.since(died).as_micros(),
                    started.since(begun).as_micros(),
                ));
            }
            Err(reason) => self.ended(format!("it was not started: {reason}"), now()),
        }
    }

    fn build(&self) -> core::result::Result<Ports, Reason> {
        let id = platform::create_successor(self.label.0, self.id).map_err(step("it cannot be created"))?;
        let image = self.site.table.domain(self.label).map_or("", |domain| domain.image.as_str());
        let filled = self.site.fill(self.label, id, image, &self.arguments);
        let built = filled.and_then(|ports| self.site.devices(self.label, id).map(|()| ports));
        let runs = built.and_then(|ports| platform::unpause(id).map(|()| ports).map_err(step("it cannot run")));
        if runs.is_err() {
            // What is left of it is waited for like for any dead one.
            let _ = platform::destroy(id);
        }
        runs
    }
}

impl System {
    /// Looks after xenstore, and hears what has become of it.
    pub fn attend_to_xenstore(&mut self, shell: &mut Shell) {
        let heard = RESCUE.borrow().as_mut().map(|rescue| {
            let _ = rescue.look(None); // what it comes to is in the news
            let lost = match &rescue.health {
                Health::Lost(reason) => Some(reason.clone()),
                _ => None,
            };
            let news = (core::mem::take(&mut rescue.news), rescue.successor.take(), lost);
            (rescue.label, rescue.record.restarts, news)
        });
        let Some((label, restarts, (lines, successor, lost))) = heard else { return };
        lines.iter().for_each(|line| shell.interject(line));
        let Some(member) = self.member_mut(label) else { return };
        member.record.restarts = restarts;
        match (lost, successor) {
            (Some(reason), _) if matches!(member.status, Status::Running) => {
                member.status = Status::Ended(reason);
                self.give_up_waiting_for(label);
            }
            (None, Some(ports)) => {
                (member.ports, member.status) = (ports, Status::Running);
                self.store_lost = false;
                self.turns.begin_all_again(now());
                self.begin_proofs_again(now());
                // Its own link to the console is that of any domain that comes again.
                let result = self.unwire_front_ends(label);
                self.check_store(&format!("what `{}` left behind", self.name(label)), result);
                self.wire_again(label);
            }
            _ => {}
        }
    }
}
