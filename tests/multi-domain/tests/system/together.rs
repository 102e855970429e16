//! Two domains die at the same time, or one dies while another starts. In the end everything is connected.

use crate::drivers;
use crate::policies::BASE;
use crate::restart::{
    BLOCK, NET, Random, client, expect_connected, expect_inventory, finished, goes_on, inventory, seeds, tail, upload,
};
use bulkhead_test::{Boot, Fault, Result, System, error, seconds};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds after which each has been started again: some memory is taken at the first time, for good.
const WARM: u64 = 6;

/// Seeds, at least so many that there are some when all is warm.
fn rounds() -> std::ops::Range<u64> {
    let seeds = seeds();
    seeds.start..seeds.end.max(seeds.start + WARM + 3)
}

/// Two driver domains, the console and xenstore, which all may come again, with clients that use them all the time.
struct Busy {
    system: System,
    image: PathBuf,
    transfer: JoinHandle<Result<u64>>,
    more: Arc<AtomicBool>,
    /// How often each domain has to have been started again by now.
    starts: BTreeMap<String, u32>,
}

/// How often a domain was started again, by the shell's list.
fn starts(domains: &str, name: &str) -> u32 {
    let words = format!("{name} was started again ");
    let count = domains.lines().find_map(|line| line.split_once(&words)?.1.split(' ').next()?.parse().ok());
    count.unwrap_or(0)
}

impl Busy {
    fn start(name: &str) -> Result<Self> {
        let image = drivers::disk(name)?;
        drivers::partitioned(&image)?;
        let export = |name: &str, partition: u32| {
            format!("[domain.block.export.{name}]\ndisk = \"disk\"\npartition = {partition}\n")
        };
        let exports = export("read", 1) + &export("written", 2);
        let again = |role: &str| format!("role = \"{role}\"\nrestart = \"always\"");
        let base = ["xenstore", "console"]
            .iter()
            .fold(BASE.to_owned(), |base, role| base.replace(&format!("role = \"{role}\""), &again(role)));
        let disk = |export| format!("disks = [{{ from = \"block\", export = \"{export}\", device = \"xvda\" }}]");
        let sink = "[domain.sink]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=tcp-sink\"\n\
             nics = [{ from = \"net\", mac = \"52:54:00:00:01:0f\", ip = \"10.0.2.15\" }]\n";
        let reader = format!(
            "[domain.reader]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=disk-read\"\n{}\n",
            disk("read")
        );
        let client = client("disk-survive", &disk("written"));
        let policy = format!("{base}{BLOCK}{exports}{NET}{client}{sink}{reader}");
        let boot = Boot::policy(&policy).image("client").disk(&image, true).network()?.injectable();
        let mut system = boot.start()?;
        system.wait_ready()?;
        system.expect_verdict("disk-read", seconds(120))?;
        system.wait_for("sink| listening", seconds(60))?;
        let (http, more) = (system.http(), Arc::new(AtomicBool::new(true)));
        let going_on = more.clone();
        let transfer = std::thread::spawn(move || upload(http, &going_on));
        system.wait_for("sink| received", seconds(60))?;
        Ok(Self { system, image, transfer, more, starts: BTreeMap::new() })
    }

    /// Waits until each of these runs again, and everybody is connected and served.
    fn recovers(&mut self, position: usize, names: &[&str], what: &str) -> Result<()> {
        for name in names {
            *self.starts.entry((*name).to_owned()).or_default() += 1;
        }
        let whole = |busy: &mut Self| {
            let system = &mut busy.system;
            if names.contains(&"console") {
                // Until then nobody hears what is typed.
                system.wait_from(position, "domain `console` runs again", seconds(60))?;
            }
            // What a console had to say that has died, about others too, may be lost.
            let end = Instant::now() + seconds(60);
            loop {
                let domains = system.shell("domains", seconds(60))?;
                if busy.starts.iter().all(|(name, count)| starts(&domains, name) >= *count) {
                    break;
                }
                assert!(Instant::now() < end, "{:?} are wanted:\n{domains}", busy.starts);
                std::thread::sleep(Duration::from_millis(100));
            }
            let position = system.position();
            // The reader has done with its disk long ago, and has not closed it.
            for front in ["client", "sink"] {
                expect_connected(system, front)?;
            }
            goes_on(system)?;
            // A TCP that has found the network down waits for ever longer before it tries again.
            system.wait_from(position, "sink| received", seconds(120))?;
            let domains = system.shell("domains", seconds(60))?;
            for name in ["xenstore", "console", "block", "net", "client", "sink"] {
                let runs = |line: &str| line.starts_with(name) && line.contains("running");
                assert!(domains.lines().any(runs), "{name} does not run:\n{domains}");
            }
            let failed = system.verdicts().into_iter().find(|verdict| !verdict.passed);
            failed.map_or(Ok(()), |verdict| Err(error(&format!("{}: {}", verdict.name, verdict.detail))))
        };
        whole(self).map_err(|why| error(&format!("{what}: {why:#}\n{}", tail(&self.system))))
    }

    /// What is in use. Block lets go of the reader, which has gone away without a word, at its next start only.
    fn inventory(&mut self) -> Result<(u64, usize)> {
        let position = self.system.position();
        self.system.type_text("restart block\r")?;
        self.recovers(position, &["block"], "before counting")?;
        inventory(&mut self.system)
    }

    /// Nothing was lost of what went through the network, and no frame or port since `before`.
    fn end(mut self, before: (u64, usize)) -> Result<()> {
        self.inventory()?;
        self.more.store(false, Ordering::Relaxed);
        finished(self.transfer, &self.system)?;
        expect_inventory(&mut self.system, before)?;
        self.system.shutdown()?;
        fs::remove_file(&self.image)?;
        Ok(())
    }
}

/// At the same moment, as the shell takes both commands before it looks at the dead, or soon one after the other.
#[test]
fn two_of_drivers_console_and_xenstore_that_die_at_the_same_time_are_both_replaced() -> Result<()> {
    // What is typed behind the console's end is lost, so that is the last.
    const PAIRS: [[&str; 2]; 6] = [
        ["block", "net"],
        ["net", "block"],
        ["block", "console"],
        ["net", "console"],
        ["xenstore", "block"],
        ["xenstore", "console"],
    ];
    let mut busy = Busy::start("two")?;
    let mut before = None;
    for seed in rounds() {
        let mut random = Random::new(seed);
        let pair = PAIRS[seed as usize % PAIRS.len()];
        let gap = random.below(4).checked_sub(1).map(|_| Duration::from_millis(random.below(60)));
        let position = busy.system.position();
        let [first, second] = pair.map(|name| format!("restart {name}\r"));
        match gap {
            None => busy.system.type_text(&format!("{first}{second}"))?,
            Some(gap) => {
                busy.system.type_text(&first)?;
                std::thread::sleep(gap);
                busy.system.type_text(&second)?;
            }
        }
        busy.recovers(position, &pair, &format!("seed {seed}: {pair:?}, {gap:?} between"))?;
        if seed + 1 == rounds().start + WARM {
            before = Some(busy.inventory()?);
        }
    }
    busy.end(before.ok_or_else(|| error("too few rounds"))?)
}

/// They are what a starting domain, its back ends and its front ends meet by.
#[test]
fn a_console_or_a_xenstore_that_dies_while_another_domain_starts_holds_it_up_for_a_moment() -> Result<()> {
    const STARTING: [&str; 3] = ["reader", "block", "net"];
    let mut busy = Busy::start("starting")?;
    let mut before = None;
    for seed in rounds() {
        let mut random = Random::new(seed);
        let starting = STARTING[seed as usize % STARTING.len()];
        let dying = ["console", "xenstore"][(seed as usize / STARTING.len()) % 2];
        let read = |system: &System| system.verdicts().iter().filter(|verdict| verdict.name == "disk-read").count();
        let position = busy.system.position();
        let known = read(&busy.system);
        busy.system.type_text(&format!("restart {starting}\r"))?;
        // What the console has not passed on when it dies is lost.
        busy.system.wait_from(position, &format!("domain `{starting}` ended"), seconds(60))?;
        let moment = Duration::from_millis(random.below(120));
        // At any instruction of what it has to do for the other, if it is seen at that.
        let crash = match random.below(2) {
            0 => None,
            _ => busy.system.injector(seed)?.inject(dying, Fault::Crash, seconds(2)).ok(),
        };
        let what = match crash {
            Some(what) => what,
            None => {
                std::thread::sleep(moment);
                busy.system.type_text(&format!("restart {dying}\r"))?;
                format!("{moment:?} later")
            }
        };
        let what = format!("seed {seed}: {dying} dies while {starting} starts, {what}");
        println!("{what}");
        busy.recovers(position, &[starting, dying], &what)?;
        if starting == "reader" {
            let end = Instant::now() + seconds(120);
            while read(&busy.system) == known {
                assert!(Instant::now() < end, "{what}: it is not served:\n{}", tail(&busy.system));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        if seed + 1 == rounds().start + WARM {
            before = Some(busy.inventory()?);
        }
    }
    busy.end(before.ok_or_else(|| error("too few rounds"))?)
}
