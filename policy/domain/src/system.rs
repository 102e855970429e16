//! What the policy domain knows: the sealed table, the bundle, and what has become of each label.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use policy::table::{Domain, Label, Table};
use policy_domain::bundle::Bundle;
use policy_domain::nodes::Ports;
use policy_domain::program::Program;
use policy_domain::ready::Ready;
use policy_domain::supervision::{Proof, Record, Watchdog};
use policy_domain::turns::Turns;
use runtime::errno::{Errno, Result};
use runtime::hypercall::platform;
use runtime::time::Instant;
use runtime::{DomId, info};
use xen_abi::policy_table::{FLAG_CONSOLE, FLAG_STORE};

/// What has become of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// No domain was made for it.
    Absent,
    /// Its domain exists and has not run yet.
    Building,
    /// Its domain runs.
    Running,
    /// Its domain ended, for this reason; the hypervisor may still be taking it apart.
    Ended(String),
    /// Its domain could not be built, for this reason.
    Failed(String),
}

/// A label and its domain.
#[derive(Debug)]
pub struct Member {
    /// The domain, from its making until it has been taken apart.
    pub id: Option<DomId>,
    /// The id of its last domain: the next one gets it too.
    pub last: Option<DomId>,
    /// Its nodes are in xenstore. They are while it lives, and while it is dead and comes again.
    pub wired: bool,
    /// Its ring ports.
    pub ports: Ports,
    /// What has become of it.
    pub status: Status,
    /// What it runs.
    pub program: Program,
    /// How often it has died.
    pub record: Record,
    /// What is to become of it when it ends.
    pub wish: Wish,
    /// It is dead and is to be started again.
    pub revival: Option<Revival>,
    /// Looks whether it still says anything, while it runs.
    pub watchdog: Option<Watchdog>,
    /// Whether it serves those whom its predecessor served.
    pub proof: Proof,
}

/// What is wanted of a domain that is about to end by the administrator's command, or by ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nobody wants it to end. If it does all the same, the policy says what follows.
    #[default]
    None,
    /// It is ended for what it did: as if it had died of that.
    Fault,
    /// Stay down.
    Down,
    /// Start again.
    Again,
}

/// A dead domain that is to be started again.
#[derive(Clone, Copy, Debug)]
pub struct Revival {
    /// Not before.
    pub due: Instant,
    /// When its death was noticed.
    pub died: Instant,
    /// When the hypervisor had taken it apart.
    pub gone: Option<Instant>,
}

impl Member {
    /// Its domain, if that is being built or runs.
    pub fn alive(&self) -> Option<DomId> {
        self.id.filter(|_| matches!(self.status, Status::Building | Status::Running))
    }
}

/// Everything.
pub struct System {
    /// The sealed policy.
    pub table: &'static Table,
    /// The images.
    pub bundle: Bundle<'static>,
    /// By label.
    pub members: Vec<Member>,
    /// What the system waits for to be ready; `None` once it is.
    pub ready: Option<Ready>,
    /// Who has to do something in the xenbus dance.
    pub turns: Turns,
    /// Domains that have died or come again while xenstore was lost, which it does not know of.
    pub unheard: u32,
    /// Xenstore has not answered in time: it is not asked again, so that nothing waits for it twice.
    pub store_lost: bool,
    /// What is to be said around the shell's prompt; before there is a shell, it is said at once.
    pub notes: Option<Vec<String>>,
}

impl System {
    /// Reads the sealed table out of the bundle.
    pub fn new() -> core::result::Result<Self, String> {
        let (start, archive) = (info::start_info(), info::bundle());
        let offset = start.policy_offset as usize;
        let bytes = archive.get(offset..).and_then(|rest| rest.get(..start.policy_bytes as usize));
        let bytes = bytes.ok_or("the hypervisor gave no policy table")?;
        let table = Table::decode(bytes).map_err(|error| format!("the policy table cannot be read: {error}"))?;
        let member = |domain| Member {
            id: None,
            last: None,
            wired: false,
            ports: Ports::default(),
            status: Status::Absent,
            program: Program::default(),
            record: Record::new(domain),
            wish: Wish::None,
            revival: None,
            watchdog: None,
            proof: Proof::default(),
        };
        let table: &'static Table = Box::leak(Box::new(table));
        let mut members: Vec<Member> = table.domains.iter().map(member).collect();
        if let Some(own) = members.first_mut() {
            (own.id, own.last) = (Some(DomId::POLICY), Some(DomId::POLICY));
            own.status = Status::Running;
        }
        let (ready, turns) = (Some(Ready::new(table)), Turns::new(table));
        Ok(System {
            table,
            bundle: Bundle::new(archive),
            members,
            ready,
            turns,
            unheard: 0,
            store_lost: false,
            notes: None,
        })
    }

    /// The member of a label.
    pub fn member(&self, label: Label) -> Option<&Member> {
        self.members.get(label.0 as usize)
    }

    /// The member of a label.
    pub fn member_mut(&mut self, label: Label) -> Option<&mut Member> {
        self.members.get_mut(label.0 as usize)
    }

    /// The living domain of a label.
    pub fn alive(&self, label: Label) -> Option<DomId> {
        self.member(label)?.alive()
    }

    /// The id by which a label's nodes in xenstore are found, if it has some.
    pub fn wired(&self, label: Label) -> Option<DomId> {
        self.member(label).and_then(|member| member.last.filter(|_| member.wired))
    }

    /// The label's entry in the policy.
    pub fn entry(&self, label: Label) -> Option<&Domain> {
        self.table.domain(label)
    }

    /// The label's name.
    pub fn name(&self, label: Label) -> &str {
        self.entry(label).map_or("?", |domain| domain.name.as_str())
    }

    /// The name of the domain of this id, for messages.
    pub fn name_of(&self, id: DomId) -> &str {
        let label = (0..).map(Label).zip(&self.members).find(|(_, member)| member.id == Some(id));
        label.map_or("?", |(label, _)| self.name(label))
    }

    /// The living domain that serves xenstore.
    pub fn store(&self) -> Option<DomId> {
        self.alive(self.table.flagged(FLAG_STORE)?)
    }

    /// Tells the administrator something that is no answer.
    pub fn note(&mut self, line: String) {
        match &mut self.notes {
            Some(notes) => notes.push(line),
            None => log::info!("{line}"),
        }
    }

    /// Whether xenstore can be asked.
    pub fn has_store(&self) -> bool {
        self.store().is_some() && !self.store_lost
    }

    /// Notes and reports the failure of a request to xenstore, if it is one; `what` begins the sentence.
    pub fn check_store<T>(&mut self, what: &str, result: Result<T>) {
        let Err(error) = result else { return };
        self.note(format!("error: {what}: xenstore answers {error}"));
        if matches!(error, Errno::ETIMEDOUT | Errno::ENOTCONN | Errno::EIO) && !self.store_lost {
            self.note("error: xenstore is lost; links do not change any more".to_string());
            self.store_lost = true;
        }
    }

    /// The living domain that serves the console.
    pub fn console(&self) -> Option<DomId> {
        self.alive(self.table.flagged(FLAG_CONSOLE)?)
    }

    /// Notes that a label will have no domain, and says so. Whoever waits for it need not wait longer.
    pub fn failed(&mut self, label: Label, why: String) {
        self.note(format!("error: domain `{}` was not started: {why}", self.name(label)));
        let id = self.member_mut(label).and_then(|member| {
            member.status = Status::Failed(why);
            member.id.take()
        });
        if let Some(id) = id
            && let Err(error) = platform::destroy(id)
        {
            self.note(format!("error: its remains (domain {id}) cannot be destroyed: {error}"));
        }
        self.give_up_waiting_for(label);
    }

    /// Takes the links of a label from what must be connected for the system to be ready.
    pub fn give_up_waiting_for(&mut self, label: Label) {
        if let Some(ready) = &mut self.ready {
            ready.without(self.table, label);
        }
    }
}
