//! The admin shell: what the commands do.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use policy::reach;
use policy::table::{Device, Kind, Label, Link, LinkKind, Table, setting};
use policy_domain::nodes::{home_path, memory_target, state};
use policy_domain::program::Program;
use policy_domain::shell::{COMMANDS, Command, Grid, PROMPT, Subject, bytes_text, parse, seconds_text};
use runtime::hypercall::{event_channel, platform, version};
use runtime::store::{Permission, Rights, Store};
use runtime::time::{Instant, now};
use runtime::{DomId, Errno, GrantRef, Port, console, info, print, println};
use xen_abi::event_channel as events;
use xen_abi::grant_table::GTF_READONLY;
use xen_abi::native::PAGE_SIZE;
use xen_abi::platform as abi;
use xen_abi::policy_table::{FLAG_CONTROL, FLAG_STORE};

use crate::rescue;
use crate::system::{Revival, Status, System, Wish};

/// Rows of a table at most: what shares a ring with the answers of other commands must have an end.
const ROWS_MAX: usize = 100;
/// How long the console may take to show a log.
const LOG_LIMIT: Duration = Duration::from_secs(2);
/// The exit code of `shutdown` with the argument `test-exit`; QEMU's exit status is twice that and one.
const TEST_EXIT_CODE: u32 = 16;
/// What the console has to show the last words.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The shell's state.
#[derive(Default)]
pub struct Shell {
    prompted: bool,
    /// The number of the log request that is out, and until when to wait for it.
    log: Option<(u32, Instant)>,
    log_requests: u32,
}

impl Shell {
    /// Shows the prompt.
    pub fn prompt(&mut self) {
        print!("{PROMPT}");
        self.prompted = true;
    }

    /// Says something that is no answer, around the prompt.
    pub fn interject(&mut self, line: &str) {
        let prompted = core::mem::take(&mut self.prompted);
        println!("{}{line}", if prompted { "\r\n" } else { "" });
        if prompted {
            self.prompt();
        }
    }

    /// When to be called again without any event.
    pub fn deadline(&self) -> Option<Instant> {
        self.log.map(|(_, deadline)| deadline)
    }

    /// Goes on after a wait for a log.
    pub fn look_for_log(&mut self, system: &System) {
        let Some((number, deadline)) = self.log else { return };
        let answered = log_directory(system)
            .and_then(|directory| Store::new().read_parsed::<u32>(&format!("{directory}/log-answer")).ok());
        if answered == Some(number) {
            self.log = None;
            self.prompt();
        } else if now() >= deadline {
            self.log = None;
            println!("the console domain does not answer");
            self.prompt();
        }
    }

    /// Takes what has been typed.
    pub fn serve(&mut self, system: &mut System) {
        while let Some(line) = console::read_line() {
            self.prompted = false;
            match parse(&line) {
                Ok(command) => self.run(system, command),
                Err(hint) => println!("{hint}"),
            }
            if self.log.is_none() {
                self.prompt();
            }
        }
    }

    fn run(&mut self, system: &mut System, command: Command) {
        let outcome = match command {
            Command::Nothing => Ok(()),
            Command::Help => help(),
            Command::Domains => domains(system),
            Command::Devices => devices(system),
            Command::Links => links(system),
            Command::Grants(subject) => grants(system, &subject),
            Command::Events(subject) => event_channels(system, &subject),
            Command::Log(name) => self.show_log(system, &name),
            Command::Destroy(name) => destroy(system, &name, Wish::Down),
            Command::Restart(name) => restart(system, &name),
            Command::Replace(name, image) => replace(system, &name, &image),
            Command::Memory(name, bytes) => set_memory(system, &name, bytes),
            Command::Version => about(system),
            Command::Shutdown => power(abi::POWER_OFF),
            Command::Reboot => power(abi::POWER_RESTART),
        };
        if let Err(why) = outcome {
            println!("{why}");
        }
    }

    /// Asks the console domain, which keeps the logs, to show one.
    fn show_log(&mut self, system: &System, name: &str) -> Outcome {
        if name != HYPERVISOR_LOG {
            find(system, name)?;
        }
        let directory =
            log_directory(system).ok_or("there is no console domain or no xenstore to reach it, and so no log")?;
        let console = system.console().ok_or("the console domain is gone, and the logs with it")?;
        self.log_requests += 1;
        let number = self.log_requests;
        let path = format!("{directory}/log-request");
        let store = Store::new();
        let written = store.write_display(&path, format_args!("{number} {name}")).and_then(|()| {
            let own = Permission::new(DomId::POLICY, Rights::None);
            store.set_permissions(&path, &[own, Permission::new(console, Rights::Read)])?;
            // A console domain that was started again has another directory.
            match store.watch(&format!("{directory}/log-answer"), "log") {
                Err(Errno::EEXIST) => Ok(()),
                other => other,
            }
        });
        written.map_err(|error| format!("the console domain cannot be asked: {error}"))?;
        self.log = Some((number, now() + LOG_LIMIT));
        Ok(())
    }
}

/// An error is a line for the administrator.
type Outcome = Result<(), String>;

/// What the console calls the hypervisor's own log.
const HYPERVISOR_LOG: &str = "hv";

/// Where requests for logs go: the policy domain's own console directory.
fn log_directory(system: &System) -> Option<String> {
    let console = system.console().filter(|_| system.has_store())?;
    Some(format!("{}/backend/console/0/0", home_path(console)))
}

fn show(grid: &Grid) {
    let lines = grid.lines();
    lines.iter().take(ROWS_MAX + 1).for_each(|line| println!("{line}"));
    if lines.len() > ROWS_MAX + 1 {
        println!("... and {} more", lines.len() - ROWS_MAX - 1);
    }
}

/// The label of a name, or what to type instead.
fn find(system: &System, name: &str) -> Result<Label, String> {
    let names = || system.table.domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>().join(", ");
    system.table.find(name).ok_or_else(|| format!("no domain `{name}`; there are: {}", names()))
}

/// The living domains that a subject means.
fn living(system: &System, subject: &Subject) -> Result<Vec<DomId>, String> {
    match subject {
        Subject::All => Ok(system.members.iter().filter_map(|member| member.alive()).collect()),
        Subject::Domain(name) => {
            let label = find(system, name)?;
            Ok(Vec::from([system.alive(label).ok_or_else(|| format!("`{name}` does not run"))?]))
        }
    }
}

fn help() -> Outcome {
    let commands = COMMANDS();
    let width = commands.iter().map(|(usage, _)| usage.len()).max().unwrap_or(0);
    commands.iter().for_each(|(usage, about)| println!("  {usage:<width$}  {about}"));
    println!("Ctrl-] then n, p or a number gives the keyboard to another domain; Ctrl-] s brings it back here.");
    Ok(())
}

fn domains(system: &System) -> Outcome {
    let mut grid = Grid::new(&["domain", "id", "state", "memory", "cpu", "hypercalls", "events", "ports", "devices"]);
    let mut reasons = Vec::new();
    for (label, domain) in system.table.labels() {
        let Some(member) = system.member(label) else { continue };
        let mut cells = Vec::from([domain.name.clone()]);
        let info = member
            .id
            .and_then(|id| platform::domain_info(u32::from(id.0)).ok().filter(|info| info.domid == u32::from(id.0)));
        match info {
            Some(info) => cells.extend([
                info.domid.to_string(),
                state_name(info.state).to_string(),
                bytes_text(info.pages * PAGE_SIZE),
                seconds_text(info.cpu_ns),
                info.hypercalls.to_string(),
                info.events_sent.to_string(),
                info.ports.to_string(),
                info.devices.to_string(),
            ]),
            None => {
                let none = || "-".to_string();
                let memory = bytes_text(domain.memory_pages * PAGE_SIZE);
                cells.extend([none(), "none".to_string(), memory, none(), none(), none(), none(), none()]);
            }
        }
        grid.row(cells);
        match &member.status {
            Status::Ended(why) => reasons.push(format!("{} ended: {why}", domain.name)),
            Status::Failed(why) => reasons.push(format!("{} was not started: {why}", domain.name)),
            Status::Absent | Status::Building | Status::Running => {}
        }
        if member.program.image(domain) != domain.image {
            reasons.push(format!("{} runs image `{}`", domain.name, member.program.image(domain)));
        }
        if member.record.restarts != 0 {
            reasons.push(format!("{} was started again {} times", domain.name, member.record.restarts));
        }
    }
    show(&grid);
    if let Ok(machine) = platform::machine_info() {
        let (promised, total) = (system.site().promised(), machine.frames_total);
        let free = machine.frames_free.saturating_sub(promised);
        println!(
            "{free} frames free of {total}, {} used by the hypervisor, {promised} promised to domains",
            machine.frames_hypervisor
        );
    }
    reasons.iter().for_each(|reason| println!("{reason}"));
    Ok(())
}

fn state_name(state: u32) -> &'static str {
    match state {
        abi::STATE_BUILDING => "building",
        abi::STATE_RUNNING => "running",
        abi::STATE_PAUSED => "paused",
        abi::STATE_DYING => "dying",
        _ => "?",
    }
}

fn devices(system: &System) -> Outcome {
    let mut grid = Grid::new(&["slot", "device", "class", "name", "driven by", "DMA faults"]);
    let mut missing: Vec<&Device> = system.table.devices.iter().collect();
    for function in platform::devices() {
        let selected = system.table.devices.get(function.selector as usize);
        let name = selected.map_or("", |device| device.name.as_str());
        missing.retain(|device| device.name != name);
        let owner = match function.owner {
            abi::OWNER_QUARANTINE => "nobody (quarantine)".to_string(),
            abi::OWNER_HYPERVISOR => "hypervisor".to_string(),
            owner => DomId::from_u32(owner).map_or_else(|| "?".to_string(), |id| system.name_of(id).to_string()),
        };
        grid.row([
            policy::Bdf(function.bdf as u16).to_string(),
            format!("{:04x}:{:04x}", function.vendor, function.device),
            format!("{:06x}", function.class),
            name.to_string(),
            owner,
            function.faults.to_string(),
        ]);
    }
    show(&grid);
    for device in missing {
        println!(
            "`{}` ({}) is missing, or the machine has several of it; `{}` would drive it",
            device.name,
            reach::selector(device),
            system.name(device.label)
        );
    }
    Ok(())
}

/// Both ends' states of a link in xenstore.
fn link_state(system: &System, link: &Link) -> String {
    if !system.has_store() {
        return "unknown without xenstore".to_string();
    }
    let both_run = system.alive(link.front).is_some() && system.alive(link.back).is_some();
    let Some(ends) = system.ends(link).filter(|_| both_run) else {
        return "an end does not run".to_string();
    };
    let read = |path: &str| Store::new().read_parsed::<u32>(&format!("{path}/state")).unwrap_or(0);
    match link.kind {
        LinkKind::Store | LinkKind::Channel => String::new(),
        LinkKind::Console => state::name(read(&ends.back_path)).to_string(),
        LinkKind::Block | LinkKind::Net => match (read(&ends.front_path), read(&ends.back_path)) {
            (front, back) if front == back => state::name(front).to_string(),
            (front, back) => format!("{} - {}", state::name(front), state::name(back)),
        },
    }
}

fn links(system: &System) -> Outcome {
    let mut grid = Grid::new(&["front end", "back end", "kind", "what", "state"]);
    let services = |link: &&Link| !matches!(link.kind, LinkKind::Store | LinkKind::Console);
    for link in system.table.links.iter().filter(services) {
        let (kind, what) = subject_of(system.table, link);
        grid.row([
            system.name(link.front).to_string(),
            system.name(link.back).to_string(),
            kind.to_string(),
            what,
            link_state(system, link),
        ]);
    }
    if grid.is_empty() {
        println!("no links beside those to xenstore and the console");
    } else {
        show(&grid);
        println!("and every domain's rings to xenstore and the console");
    }
    Ok(())
}

fn subject_of(table: &Table, link: &Link) -> (&'static str, String) {
    let parameter = |key| setting(&link.parameters, key).unwrap_or("?");
    let access = if link.read_only { "read-only" } else { "read-write" };
    match link.kind {
        LinkKind::Block => ("disk", format!("{} = {}, {access}", parameter("dev"), parameter("export"))),
        LinkKind::Net => ("network", parameter("mac").to_string()),
        LinkKind::Channel => ("channel", parameter("name").to_string()),
        LinkKind::Store | LinkKind::Console => ("service", reach::describe(table, link)),
    }
}

fn grants(system: &System, subject: &Subject) -> Outcome {
    let mut grid = Grid::new(&["domain", "reference", "page", "granted to", "access", "mapped"]);
    for id in living(system, subject)? {
        let mut next = Some(0);
        while let Some(grant) = next.and_then(|from| platform::grant_info(id, GrantRef(from)).ok()) {
            next = grant.gref.checked_add(1);
            let peer = DomId::from_u32(grant.peer).map_or("?", |peer| system.name_of(peer));
            let access = if grant.flags & u32::from(GTF_READONLY) != 0 { "read" } else { "write" };
            grid.row([
                system.name_of(id).to_string(),
                grant.gref.to_string(),
                format!("{:#x}", grant.gfn),
                peer.to_string(),
                access.to_string(),
                grant.mappings.to_string(),
            ]);
        }
    }
    if grid.is_empty() {
        println!("no grants in use");
    } else {
        show(&grid);
    }
    Ok(())
}

fn event_channels(system: &System, subject: &Subject) -> Outcome {
    let mut grid = Grid::new(&["domain", "port", "bound to"]);
    for id in living(system, subject)? {
        let label = (0..).map(Label).zip(&system.members).find(|(_, member)| member.id == Some(id));
        let limit = label.and_then(|(label, _)| system.entry(label)).map_or(0, |domain| domain.ports_max);
        for port in 1..limit {
            let Ok(status) = event_channel::status(id, Port(port)) else {
                continue;
            };
            let remote = || DomId::from_u32(u32::from(status.detail.dom)).map_or("?", |peer| system.name_of(peer));
            let bound = match status.status {
                events::EVTCHNSTAT_UNBOUND => format!("waits for {}", remote()),
                events::EVTCHNSTAT_INTERDOMAIN => format!("{} port {}", remote(), status.detail.port),
                events::EVTCHNSTAT_PIRQ => format!("interrupt {}", status.detail.number()),
                events::EVTCHNSTAT_VIRQ => format!("virtual interrupt {}", status.detail.number()),
                events::EVTCHNSTAT_IPI => "itself".to_string(),
                _ => continue,
            };
            grid.row([system.name_of(id).to_string(), port.to_string(), bound]);
        }
    }
    show(&grid);
    Ok(())
}

/// Ends a domain; `wish` says what becomes of it then.
fn destroy(system: &mut System, name: &str, wish: Wish) -> Outcome {
    let label = find(system, name)?;
    if system.entry(label).is_some_and(|domain| domain.flags.has(FLAG_CONTROL)) {
        return Err("the policy domain cannot destroy itself; `shutdown` ends everything".to_string());
    }
    if rescue::keeps(label) && rescue::decide(wish) {
        return Ok(());
    }
    let Some(id) = system.alive(label) else {
        // One that is to be started again does not run either.
        let waited = system.member_mut(label).and_then(|member| member.revival.take());
        waited.ok_or_else(|| format!("`{name}` does not run"))?;
        let told = if system.has_store() { system.unwire(label) } else { Ok(()) };
        system.check_store(&format!("links of `{name}`"), told);
        return Ok(());
    };
    platform::destroy(id).map_err(|error| format!("`{name}` cannot be destroyed: {error}"))?;
    if rescue::keeps(label) {
        rescue::wish(wish);
    }
    if let Some(member) = system.member_mut(label) {
        member.wish = wish;
    }
    Ok(())
}

fn restart(system: &mut System, name: &str) -> Outcome {
    let label = find(system, name)?;
    if system.entry(label).is_some_and(|domain| domain.flags.has(FLAG_STORE)) {
        return restart_xenstore(system, label, name);
    }
    if system.alive(label).is_some() {
        return destroy(system, name, Wish::Again);
    }
    if let Some(member) = system.member_mut(label) {
        member.record.forgive();
        member.revival = Some(Revival { due: now(), died: now(), gone: None });
    }
    Ok(())
}

/// Runs another image in a domain's place. What is wrong with it by its looks leaves the domain as it is.
fn replace(system: &mut System, name: &str, image: &str) -> Outcome {
    let label = find(system, name)?;
    let entry = system.entry(label).ok_or("it is not in the policy")?;
    if entry.flags.has(FLAG_CONTROL) {
        return Err("the policy domain cannot replace itself".to_string());
    }
    if entry.flags.has(FLAG_STORE) {
        return Err(format!("`{name}` keeps its image: what it hands over is for its like only"));
    }
    if entry.kind == Kind::Pvh {
        return Err(format!("`{name}` is a virtual machine, and keeps its kernel"));
    }
    Program::may_be(entry, image)?;
    system.site().image(entry, image).map_err(|why| format!("`{name}` stays as it is: {why}"))?;
    restart(system, name)?;
    if let Some(member) = system.member_mut(label) {
        member.program.replace(image);
    }
    Ok(())
}

/// Less makes no sense for any Linux; what it has no memory for, it kills.
const MEMORY_MIN: u64 = 16 << 20;

/// Asks a virtual machine's balloon driver for another size, as `xl mem-set` does.
fn set_memory(system: &System, name: &str, bytes: u64) -> Outcome {
    let label = find(system, name)?;
    let entry = system.entry(label).ok_or("it is not in the policy")?;
    if entry.kind != Kind::Pvh {
        return Err(format!("`{name}` is no virtual machine: it has what the policy gives it"));
    }
    let most = entry.memory_pages * PAGE_SIZE;
    if !(MEMORY_MIN..=most).contains(&bytes) {
        return Err(format!("`{name}` can have between {} and {}", bytes_text(MEMORY_MIN), bytes_text(most)));
    }
    let id = system.alive(label).ok_or_else(|| format!("`{name}` does not run"))?;
    if !system.has_store() {
        return Err(format!("`{name}` cannot be asked without xenstore"));
    }
    let written = Store::new().write_display(&memory_target(id), format_args!("{}", bytes / 1024));
    written.map_err(|error| format!("`{name}` cannot be asked: {error}"))?;
    println!("`{name}` is asked to do with {}; `domains` shows what it has", bytes_text(bytes));
    Ok(())
}

/// It can be started again while what it knew is kept for its successor and is true.
fn restart_xenstore(system: &mut System, label: Label, name: &str) -> Outcome {
    if !rescue::keeps(label) {
        return Err(format!("the policy has no `restart` for `{name}`: nothing of what it knows is kept for another"));
    }
    if system.alive(label).is_some() {
        return destroy(system, name, Wish::Again);
    }
    if system.unheard != 0 {
        return Err(format!(
            "others have died or come since `{name}` did, and it would not know; `reboot` starts all again"
        ));
    }
    rescue::revive();
    Ok(())
}

fn about(system: &System) -> Outcome {
    println!(
        "Bulkhead {}, domain `{}`, {} labels",
        env!("CARGO_PKG_VERSION"),
        info::name(),
        system.table.domains.len()
    );
    let machine = platform::machine_info().map_err(|error| format!("the hypervisor does not tell: {error}"))?;
    println!(
        "interface: Xen {}, platform_op {}",
        version::version().map_or_else(|_| "?".to_string(), |(major, minor)| format!("{major}.{minor}")),
        platform::version().unwrap_or(0)
    );
    println!(
        "memory: {} of {} free, the hypervisor has {}",
        bytes_text(machine.frames_free * PAGE_SIZE),
        bytes_text(machine.frames_total * PAGE_SIZE),
        bytes_text(machine.frames_hypervisor * PAGE_SIZE),
    );
    println!("CPUs: {}, {} MHz, up {}", machine.cpus, machine.tsc_khz / 1000, seconds_text(now().0));
    let on = |flag: u32| if flag == 0 { "off" } else { "on" };
    println!("DMA remapping: {}, interrupt remapping: {}", on(machine.iommu), on(machine.interrupt_remapping));
    Ok(())
}

fn power(action: u32) -> Outcome {
    println!("{}", if action == abi::POWER_RESTART { "restarting" } else { "shutting down" });
    // The console and the drivers get a moment to finish; nobody is waited for.
    runtime::time::sleep(LAST_WORDS);
    let test_exit = info::argument("test-exit").filter(|_| action == abi::POWER_OFF);
    if let Some(code) = test_exit {
        let code = code.parse().unwrap_or(TEST_EXIT_CODE);
        let why = platform::power(abi::POWER_DEBUG_EXIT, code).err();
        println!(
            "no exit by the emulator ({}); the hypervisor needs debug-exit on its command line",
            why.map_or_else(String::new, |why| why.to_string())
        );
    }
    platform::power(action, 0).map_err(|error| format!("the hypervisor cannot: {error}"))
}
