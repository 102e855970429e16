//! Driver domains die at any moment, and their clients go on.

use crate::policies::{BASE, probe};
use bulkhead_test::{Boot, Fault, Http, Response, Result, System, error, read_response, seconds};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xtask::target;

/// Times that a driver domain is killed; `BULKHEAD_KILLS` says otherwise.
const KILLS: u32 = 20;

fn kills() -> u32 {
    kills_or(KILLS)
}

/// `BULKHEAD_KILLS`, or as many as are usual.
pub fn kills_or(usual: u32) -> u32 {
    std::env::var("BULKHEAD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// `BULKHEAD_SEED`, for another run of moments.
pub fn seed() -> u64 {
    std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

pub const BLOCK: &str = r#"
[device.disk]
vendor = 0x1af4
device = 0x1042
[domain.block]
image = "block"
memory = "16M"
devices = ["disk"]
restart = "always"
"#;

pub const EXPORT: &str = r#"
[domain.block.export.all]
disk = "disk"
partition = "whole"
"#;

/// xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

pub fn client(what: &str, more: &str) -> String {
    format!("[domain.client]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do={what} seed={}\"\n{more}\n", seed())
}

/// What must be as it was when all is over: free frames, and each domain's ports in use.
pub fn inventory(system: &mut System) -> Result<(u64, usize)> {
    let domains = system.shell("domains", seconds(30))?;
    let frames = domains.lines().find_map(|line| line.split_once(" frames free")?.0.trim().parse().ok());
    // Other lines may come between, or into the middle of one, of which the beginning is there twice then.
    let events = system.shell("events", seconds(30))?;
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse::<u32>().ok()?))
    };
    let ports = events.lines().filter_map(port).collect::<BTreeSet<_>>().len();
    Ok((frames.ok_or_else(|| error("no frames in the list of domains"))?, ports))
}

/// No fewer free frames than before, and as many ports. Before, requests were in flight, whose mappings take a page table
/// or two; and the last restart may not be over yet.
pub fn expect_inventory(system: &mut System, before: (u64, usize)) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = inventory(system)?;
        if let Some(failed) = system.verdicts().iter().find(|verdict| !verdict.passed) {
            return Err(error(&format!("the client has failed after all: {}", failed.detail)));
        }
        if now.0 >= before.0 && now.1 == before.1 {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(error(&format!("frames or ports leaked: {before:?} before, {now:?} now:\n{}", tail(system))));
        }
    }
}

/// Restarts `name` at random moments, so often as wanted. Every other time the successor gets to run, and dies some time later;
/// the other times it may be in the middle of being built. Then the client is told that it has seen enough.
fn kill_until_verdict(system: &mut System, name: &str, verdict: &str) -> Result<()> {
    let mut random = Random::new(seed());
    for killed in 1..=kills() {
        let position = system.position();
        system.shell(&format!("restart {name}"), seconds(30))?;
        if killed % 2 == 0 {
            system.wait_from(position, "runs again", seconds(30))?;
        }
        if killed % 4 == 0 && goes_on(system).is_err() {
            return Err(error(&hangs(system, killed)?));
        }
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    system.guest_again("client")?.type_line("enough")?;
    system.leave_guest()?;
    system.expect_verdict(verdict, seconds(120)).map(drop)
}

/// The client says that it gets on.
pub fn goes_on(system: &mut System) -> Result<()> {
    let position = system.position();
    system.wait_from(position, "client| progress", seconds(60)).map(drop)
}

/// Restarts a domain, and waits until the client gets on with its successor.
fn restart_and_go_on(system: &mut System, name: &str) -> Result<()> {
    let position = system.position();
    system.shell(&format!("restart {name}"), seconds(30))?;
    system.wait_from(position, &format!("domain `{name}` runs again"), seconds(30))?;
    goes_on(system)
}

/// What a person would look at.
fn hangs(system: &mut System, killed: u32) -> Result<String> {
    let mut facts = String::new();
    for command in ["links", "events", "domains", "domains", "grants client"] {
        facts += &system.shell(command, seconds(30))?;
    }
    Ok(format!("the client hangs after {killed} kills:\n{facts}\n{}", tail(system)))
}

pub fn tail(system: &System) -> String {
    let text = system.text();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The word that the client writes.
fn word(block: u64, version: u64, index: u64) -> u64 {
    (block << 40 ^ version << 12 ^ index).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The image holds of each block the version that the client wrote last, and nothing else.
pub fn check_image(image: &PathBuf, log: &[String]) -> Result<()> {
    let bytes = fs::read(image)?;
    let mut checked = 0;
    for line in log.iter().filter_map(|line| line.strip_prefix("versions ")) {
        let mut numbers = line.split(' ').filter_map(|number| number.parse::<u64>().ok());
        let first = numbers.next().unwrap_or(0);
        for (block, version) in (first..).zip(numbers) {
            let page = &bytes[block as usize * 4096..][..4096];
            for (index, content) in (0..).zip(page.chunks_exact(8)) {
                let wanted = if version == 0 { 0 } else { word(block, version, index) };
                assert_eq!(content, wanted.to_le_bytes(), "block {block}, word {index} is not version {version}");
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 1024, "the client told of too few blocks");
    assert!(bytes[1024 * 4096..].iter().all(|&byte| byte == 0), "something behind the blocks was written");
    Ok(())
}

#[test]
fn a_block_domain_is_killed_again_and_again_and_its_client_loses_nothing() -> Result<()> {
    let image = target().join(format!("restart-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let policy = format!("{BASE}{BLOCK}{EXPORT}{}", client("disk-survive", disks));
    let mut system = Boot::policy(&policy).image("client").disk(&image, true).start()?;
    system.wait_ready()?;
    // Once before counting: some memory is taken at the first time, for good.
    goes_on(&mut system)?;
    restart_and_go_on(&mut system, "block")?;
    let before = inventory(&mut system)?;
    kill_until_verdict(&mut system, "block", "disk-survive")?;
    expect_inventory(&mut system, before)?;
    let log = system.log("client");
    assert!(log.iter().any(|line| line.ends_with("requests were done, 0 reconnections")), "it was not adopted");
    system.shutdown()?;
    check_image(&image, &log)?;
    fs::remove_file(&image)?;
    Ok(())
}

pub const NET: &str = r#"
[device.nic]
vendor = 0x1af4
device = 0x1041
[domain.net]
image = "net"
memory = "16M"
devices = ["nic"]
restart = "always"
"#;

/// Restarts `net` at random moments, so often as wanted. Two times of three it gets to serve its client before it dies
/// again, for a while: a network that is down most of the time is no network for TCP, whose patience doubles each time.
fn kill_net(system: &mut System) -> Result<()> {
    let mut random = Random::new(seed());
    for killed in 0..kills() {
        let position = system.position();
        system.shell("restart net", seconds(30))?;
        if killed % 3 != 2 {
            system.wait_from(position, "net| vif", seconds(30))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_millis(random.below(300)));
    }
    Ok(())
}

/// What a transfer came to, with what the machine had to say if it failed.
pub fn finished<T>(transfer: std::thread::JoinHandle<Result<T>>, system: &System) -> Result<T> {
    let result = transfer.join().map_err(|_| error("the transfer panicked"))?;
    result.map_err(|why| error(&format!("{why:#}; verdicts: {:?}:\n{}", system.verdicts(), tail(system))))
}

pub fn byte(at: u64) -> u8 {
    ((at >> 3).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (8 * (at & 7))) as u8
}

/// Sends a megabyte at a time for as long as `more` says so, and expects to hear that all came as it was sent.
pub fn upload(http: Http, more: &AtomicBool) -> Result<u64> {
    let mut stream = http.connect()?;
    let (mut sent, mut piece) = (0, vec![0; 1 << 20]);
    while more.load(Ordering::Relaxed) {
        for (at, value) in (sent..).zip(piece.iter_mut()) {
            *value = byte(at);
        }
        stream.write_all(&piece)?;
        sent += piece.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer != format!("{sent} good\n") {
        return Err(error(&format!("{sent} bytes were sent; the domain says {answer:?}")));
    }
    Ok(sent)
}

#[test]
fn a_net_domain_is_killed_again_and_again_and_an_upload_arrives_whole() -> Result<()> {
    let nics = "nics = [{ from = \"net\", mac = \"52:54:00:00:01:0f\", ip = \"10.0.2.15\" }]";
    let policy = format!("{BASE}{NET}{}", client("tcp-sink", nics));
    let mut system = Boot::policy(&policy).image("client").network()?.start()?;
    system.wait_ready()?;
    system.wait_for("client| listening", seconds(30))?;
    let position = system.position();
    system.shell("restart net", seconds(30))?;
    system.wait_from(position, "domain `net` runs again", seconds(30))?;
    system.wait_from(position, "net| vif", seconds(30))?;
    let before = inventory(&mut system)?;
    let (http, more) = (system.http(), Arc::new(AtomicBool::new(true)));
    let going_on = more.clone();
    let transfer = std::thread::spawn(move || upload(http, &going_on));
    // A handshake that the interface dies in is QEMU's affair: see docs/restart.md.
    system.wait_for("client| receiving", seconds(30))?;
    kill_net(&mut system)?;
    more.store(false, Ordering::Relaxed);
    let sent = finished(transfer, &system)?;
    assert!(sent > 1 << 20, "only {sent} bytes were sent");
    expect_inventory(&mut system, before)?;
    system.shutdown()
}

/// The demo's page, on a connection of its own. `None`: nothing at all comes on it. That happens to one whose handshake falls
/// into a restart (`docs/restart.md`), and whoever asks again gets it.
fn download(http: &Http) -> Result<Option<Response>> {
    let mut stream = http.connect()?;
    stream.set_read_timeout(Some(seconds(15)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bulkhead\r\nConnection: close\r\n\r\n")?;
    match stream.peek(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        _ => read_response(&mut BufReader::new(stream), false).map(Some),
    }
}

#[test]
fn a_net_domain_is_killed_again_and_again_and_downloads_arrive_whole() -> Result<()> {
    let mut system = Boot::policy_file("policy/demo.toml")?.demo_disk()?.network()?.start()?;
    system.wait_ready()?;
    let expected = fs::read(xtask::root().join("site/index.html"))?;
    let (http, more) = (system.http(), Arc::new(AtomicBool::new(true)));
    let going_on = more.clone();
    let transfer = std::thread::spawn(move || -> Result<(u32, u32)> {
        let (mut downloads, mut unanswered) = (0, 0);
        // The kills may be over before the first connection has given up waiting.
        while going_on.load(Ordering::Relaxed) || downloads == 0 && unanswered < 3 {
            let Some(page) = download(&http)? else {
                unanswered += 1;
                continue;
            };
            if page.status != 200 || page.body != expected {
                return Err(error(&format!("a page is not what it should be, status {}", page.status)));
            }
            downloads += 1;
        }
        Ok((downloads, unanswered))
    });
    kill_net(&mut system)?;
    more.store(false, Ordering::Relaxed);
    let (downloads, unanswered) = finished(transfer, &system)?;
    assert!(downloads > 0);
    assert!(unanswered <= kills() / 5, "{unanswered} of {} connections were never answered", downloads + unanswered);
    system.shutdown()
}

/// Seeds of each fault; `BULKHEAD_SEEDS` says otherwise.
const SEEDS: u64 = 1;

pub fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("BULKHEAD_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    seed()..seed() + count
}

/// What a fault has come to.
#[derive(Debug)]
pub enum Outcome {
    /// The domain died of it, or was ended for it, and another took its place.
    Replaced,
    /// Nothing came of it.
    Survived,
}

/// Puts a fault into a driver domain that is at work, and sees what comes of it within `limit`. The others must be well.
pub fn inject(system: &mut System, name: &str, fault: Fault, seed: u64, limit: Duration) -> Result<Outcome> {
    let position = system.position();
    let what = system.injector(seed)?.inject(name, fault, seconds(60))?;
    let outcome = match system.wait_from(position, &format!("domain `{name}` ended"), limit) {
        Ok(why) => {
            println!("seed {seed}: {what}: {why}");
            system.wait_from(position, &format!("domain `{name}` runs again"), seconds(60))?;
            Outcome::Replaced
        }
        Err(_) => {
            println!("seed {seed}: {what}: nothing came of it");
            Outcome::Survived
        }
    };
    let domains = system.shell("domains", seconds(30))?;
    for other in ["policy", "xenstore", "console", "client", name] {
        let runs = |line: &str| line.starts_with(other) && line.contains("running");
        assert!(domains.lines().any(runs), "{other} does not run after {what}:\n{domains}");
    }
    Ok(outcome)
}

/// A disk and a client that reads and writes without an end.
fn busy_disk(name: &str) -> Result<(System, PathBuf)> {
    busy_disk_under(&format!("{BASE}{BLOCK}watchdog = \"500ms\"\n{EXPORT}"), name)
}

/// The same under a policy of everything but the client.
pub fn busy_disk_under(policy: &str, name: &str) -> Result<(System, PathBuf)> {
    let image = target().join(format!("restart-{name}-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let policy = format!("{policy}{}", client("disk-survive", disks));
    let mut system = Boot::policy(&policy).image("client").disk(&image, true).injectable().start()?;
    system.wait_ready()?;
    Ok((system, image))
}

/// Crashes and loops are found and made up for, and the client has lost nothing. It says so by going on.
#[test]
fn a_block_domain_that_crashes_or_hangs_is_replaced() -> Result<()> {
    let (mut system, image) = busy_disk("faults")?;
    for fault in [Fault::Crash, Fault::Wedge] {
        for seed in seeds() {
            let outcome = inject(&mut system, "block", fault, seed, seconds(60))?;
            assert!(matches!(outcome, Outcome::Replaced), "{fault:?}, seed {seed}: not found");
            goes_on(&mut system)?;
        }
    }
    assert!(system.verdicts().is_empty(), "the client has lost something: {:?}", system.verdicts());
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// Memory of the driver's own, or what it shares, is overwritten. Its clients trust it with their data, so theirs may be
/// lost; but whatever it does, it is only it that has to be replaced, and its client is told or goes on.
#[test]
fn a_block_domain_with_corrupted_memory_or_rings_harms_its_clients_at_most() -> Result<()> {
    // Behind the places for requests: 128 of 64 pages.
    let garbage = Fault::Garbage { first_page: 128 * 64 };
    for fault in [Fault::CorruptPage, garbage] {
        for seed in seeds() {
            let (mut system, image) = busy_disk("corrupted")?;
            let outcome = inject(&mut system, "block", fault, seed, seconds(8))?;
            let position = system.position();
            system.shell("restart block", seconds(30))?;
            system.wait_from(position, "domain `block` runs again", seconds(60))?;
            let (position, end) = (system.position(), Instant::now() + seconds(30));
            while system.verdicts().is_empty() && !system.text()[position..].contains("client| progress") {
                if Instant::now() > end {
                    return Err(error(&format!("the client hangs after {fault:?}, {outcome:?}:\n{}", tail(&system))));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            system.shutdown()?;
            fs::remove_file(&image)?;
        }
    }
    Ok(())
}

#[test]
fn a_net_domain_that_crashes_or_hangs_is_replaced_and_an_upload_arrives_whole() -> Result<()> {
    let nics = "nics = [{ from = \"net\", mac = \"52:54:00:00:01:0f\", ip = \"10.0.2.15\" }]";
    let policy = format!("{BASE}{NET}watchdog = \"500ms\"\n{}", client("tcp-sink", nics));
    let mut system = Boot::policy(&policy).image("client").network()?.injectable().start()?;
    system.wait_ready()?;
    system.wait_for("client| listening", seconds(30))?;
    let (http, more) = (system.http(), Arc::new(AtomicBool::new(true)));
    let going_on = more.clone();
    let transfer = std::thread::spawn(move || upload(http, &going_on));
    for fault in [Fault::Crash, Fault::Wedge] {
        for seed in seeds() {
            let outcome = inject(&mut system, "net", fault, seed, seconds(60))?;
            assert!(matches!(outcome, Outcome::Replaced), "{fault:?}, seed {seed}: not found");
            let position = system.position();
            let came = system.wait_from(position, "client| received", seconds(60));
            more.store(came.is_ok(), Ordering::Relaxed);
            came?;
        }
    }
    more.store(false, Ordering::Relaxed);
    finished(transfer, &system)?;
    system.shutdown()
}

#[test]
fn a_domain_that_has_spent_its_budget_stays_down_and_all_are_told() -> Result<()> {
    let image = target().join(format!("restart-budget-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let client = client("disk-survive", disks);
    let block = BLOCK.replace("\"always\"", "{ max = 2, within = \"10m\", backoff = \"50ms\" }");
    let policy = format!("{BASE}{block}{EXPORT}{client}");
    let mut system = Boot::policy(&policy).image("client").disk(&image, true).injectable().start()?;
    system.wait_ready()?;
    for death in 0..3 {
        let position = system.position();
        system.injector(seed() + death)?.inject("block", Fault::Crash, seconds(60))?;
        let told = match death {
            0 => "it is started again\n",
            1 => "it is started again in 50 ms\n",
            _ => "all that the policy allows\n",
        };
        system.wait_from(position, told, seconds(30))?;
        if death < 2 {
            system.wait_from(position, "domain `block` runs again", seconds(30))?;
            goes_on(&mut system)?;
        }
    }
    system.wait_for("VERDICT fail disk-survive: its domain is gone and is not started again", seconds(30))?;
    let domains = system.shell("domains", seconds(30))?;
    assert!(domains.contains("block ended") && domains.contains("all that the policy allows"), "{domains}");
    let devices = system.shell("devices", seconds(30))?;
    assert!(devices.lines().any(|line| line.contains("disk") && line.contains("quarantine")), "{devices}");
    // An administrator gives it a new budget.
    let position = system.position();
    system.shell("restart block", seconds(30))?;
    system.wait_from(position, "domain `block` runs again", seconds(30))?;
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

#[test]
fn a_disk_that_stops_answering_for_a_while_costs_its_driver_and_no_request() -> Result<()> {
    let (mut system, image) = busy_disk("deaf")?;
    let limit = |bytes| {
        format!(
            r#"{{"execute": "block_set_io_throttle", "arguments": {{"device": "disk0", "bps": {bytes}, "bps_rd": 0,
            "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}}}}"#
        )
        .replace('\n', " ")
    };
    let position = system.position();
    system.qmp()?.execute(&limit(1))?;
    system.wait_from(position, "the device does not answer", seconds(90))?;
    system.qmp()?.execute(&limit(0))?;
    system.wait_from(position, "domain `block` runs again", seconds(60))?;
    goes_on(&mut system)?;
    assert!(system.verdicts().is_empty(), "the client has lost something: {:?}", system.verdicts());
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// The console dies and comes back: what domains say meanwhile waits for it, and the shell answers again.
#[test]
fn a_console_domain_is_killed_again_and_again_and_the_others_are_heard_after_it() -> Result<()> {
    let image = target().join(format!("restart-console-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let client = client("disk-survive", disks);
    let base = BASE.replace("role = \"console\"", "role = \"console\"\nrestart = \"always\"");
    let mut system =
        Boot::policy(&format!("{base}{BLOCK}{EXPORT}{client}")).image("client").disk(&image, true).start()?;
    system.wait_ready()?;
    let mut before = None;
    for round in 0..(kills() / 4).max(2) {
        let position = system.position();
        system.type_text("restart console\r")?;
        system.wait_from(position, "domain `console` runs again", seconds(30))?;
        // Both at the same time, every now and then.
        let position = system.position();
        system.shell("restart block", seconds(30))?;
        if round % 4 == 3 {
            system.type_text("restart console\r")?;
            system.wait_from(position, "domain `console` runs again", seconds(30))?;
        }
        goes_on(&mut system)?;
        // Warm from the first round on.
        match before {
            None => before = Some(inventory(&mut system)?),
            Some(before) => expect_inventory(&mut system, before)?,
        }
    }
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// The links of `front` are connected, soon.
pub fn expect_connected(system: &mut System, front: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let links = system.shell("links", seconds(30))?;
        let mut states = links.lines().filter(|line| line.starts_with(front)).map(|line| line.trim_end());
        if states.all(|line| line.ends_with(" connected")) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(error(&format!("{links}\n{}", tail(system))));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A system whose xenstore comes again, with a disk that is worked with and a client that asks xenstore all the time.
fn busy_store(name: &str) -> Result<(System, PathBuf)> {
    let image = target().join(format!("restart-{name}-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let client = client("disk-survive", disks).replace("kills=", "kills=1000000 instead-of=");
    let asker = format!(
        "[domain.asker]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=store-survive rounds={} seed={}\"\n",
        100 * kills().max(5),
        seed()
    );
    let base = BASE.replace("role = \"xenstore\"", "role = \"xenstore\"\nrestart = \"always\"\nwatchdog = \"500ms\"");
    let policy = format!("{base}{BLOCK}{EXPORT}{client}{asker}");
    let mut system = Boot::policy(&policy).image("client").disk(&image, true).injectable().start()?;
    system.wait_ready()?;
    Ok((system, image))
}

/// Xenstore dies at any instruction, also of what it does for the restart of another: that is announced all the same, no
/// request of a client is lost or done twice, and nobody is told anything.
#[test]
fn xenstore_is_killed_again_and_again_and_nobody_notices() -> Result<()> {
    let (mut system, image) = busy_store("store")?;
    // Once before counting: some memory is taken at the first time, for good.
    for name in ["block", "xenstore"] {
        let position = system.position();
        system.shell(&format!("restart {name}"), seconds(30))?;
        system.wait_from(position, &format!("domain `{name}` runs again"), seconds(30))?;
    }
    // It answers, so it has bound all its ports; and the disk is in use again, so that what it takes is counted.
    let position = system.position();
    expect_connected(&mut system, "client")?;
    system.wait_from(position, "client| progress", seconds(60))?;
    let before = inventory(&mut system)?;
    let (mut random, mut killed) = (Random::new(seed()), 0);
    let end = Instant::now() + Duration::from_secs(120 + 3 * u64::from(kills()));
    while killed < kills() / 2 || system.verdicts().iter().all(|known| known.name != "store-survive") {
        if Instant::now() > end {
            return Err(error(&format!("not done after {killed} kills:\n{}", hangs(&mut system, killed)?)));
        }
        let position = system.position();
        // Every third time while another is started again.
        let other = random.below(3) == 0;
        if other {
            system.type_text("restart block\r")?;
        }
        let done = system.verdicts().iter().any(|known| known.name == "store-survive");
        if random.below(2) == 0 || done {
            system.shell("restart xenstore", seconds(30))?;
        } else {
            let mut injector = system.injector(seed() * 1000 + u64::from(killed))?;
            // It may have nothing to do any more: the client is at its end.
            let _ = injector.inject("xenstore", Fault::Crash, seconds(10));
            system.shell("restart xenstore", seconds(30))?;
        }
        killed += 1;
        system.wait_from(position, "domain `xenstore` runs again", seconds(30))?;
        if other {
            system.wait_from(position, "domain `block` runs again", seconds(30))?;
        }
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    system.expect_verdict("store-survive", seconds(60))?;
    expect_connected(&mut system, "client")?;
    expect_inventory(&mut system, before)?;
    // Both may be dead at once: then the other's ring is gone when the new xenstore looks for it.
    let text = system.text();
    let cut_off = |line: &&str| line.contains("is served no more") && !line.contains("its ring is not there any more");
    let cut_off: Vec<&str> = text.lines().filter(cut_off).collect();
    assert!(cut_off.is_empty(), "{cut_off:#?}");
    println!("{killed} kills");
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// Also while the first homes and links are written, and before there is a shell.
#[test]
fn a_xenstore_that_dies_while_the_system_boots_holds_it_up_for_a_moment() -> Result<()> {
    for seed in seeds() {
        let xenstore = "role = \"xenstore\"\nrestart = \"always\"";
        let base = BASE.replace("role = \"xenstore\"", xenstore);
        let probes: String = (0..12).map(|number| probe(&format!("probe{number}"), "nothing", "")).collect();
        let mut system = Boot::policy(&format!("{base}{probes}")).image("probe").injectable().start()?;
        system.wait_for("hv: boot:", seconds(30))?;
        for death in 0..2 {
            // The second may find it idle already.
            let died = system.injector(seed * 10 + death)?.inject("xenstore", Fault::Crash, seconds(10));
            assert!(death != 0 || died.is_ok(), "it was never seen at work");
        }
        system.wait_ready()?;
        let domains = system.shell("domains", seconds(30))?;
        let runs = |name: &str| domains.lines().any(|line| line.starts_with(name) && line.contains("running"));
        assert!(runs("xenstore") && (0..12).all(|number| runs(&format!("probe{number} "))), "{domains}");
        assert!(domains.contains("xenstore was started again"), "{domains}");
        system.shutdown()?;
    }
    Ok(())
}

/// A xenstore that gets into a loop is ended, by the watchdog or by the request that waits for it.
#[test]
fn a_xenstore_that_hangs_is_replaced() -> Result<()> {
    let (mut system, image) = busy_store("store-hangs")?;
    for seed in seeds() {
        let position = system.position();
        let what = system.injector(seed)?.inject("xenstore", Fault::Wedge, seconds(60))?;
        system.wait_from(position, "domain `xenstore` works without a hypercall", seconds(60))?;
        system.wait_from(position, "domain `xenstore` runs again", seconds(30))?;
        println!("seed {seed}: {what}");
    }
    system.expect_verdict("store-survive", seconds(120))?;
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

#[test]
fn a_xenstore_that_has_spent_its_budget_stays_down_until_it_is_wanted() -> Result<()> {
    let xenstore = "role = \"xenstore\"\nrestart = { max = 1, within = \"10m\" }";
    let base = BASE.replace("role = \"xenstore\"", xenstore);
    let asker =
        "[domain.asker]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=store-survive rounds=1000000\"\n";
    let mut system = Boot::policy(&format!("{base}{asker}")).image("client").injectable().start()?;
    system.wait_ready()?;
    for told in ["it is started again\n", "all that the policy allows\n"] {
        let position = system.position();
        system.injector(seed())?.inject("xenstore", Fault::Crash, seconds(60))?;
        system.wait_from(position, told, seconds(30))?;
        if told.starts_with("it is") {
            system.wait_from(position, "domain `xenstore` runs again", seconds(30))?;
        }
    }
    let domains = system.shell("domains", seconds(30))?;
    assert!(domains.contains("xenstore ended") && domains.contains("all that the policy allows"), "{domains}");
    // Whoever waits for an answer gets it from the next one.
    let position = system.position();
    system.shell("restart xenstore", seconds(30))?;
    system.wait_from(position, "domain `xenstore` runs again", seconds(30))?;
    let position = system.position();
    system.wait_from(position, "asker| round", seconds(60))?;
    // But not when others have changed since, of which it would not know.
    system.shell("destroy xenstore", seconds(30))?;
    system.wait_from(position, "domain `xenstore` ended", seconds(30))?;
    system.shell("destroy asker", seconds(30))?;
    system.wait_from(position, "domain `asker` ended", seconds(30))?;
    let answer = system.shell("restart xenstore", seconds(30))?;
    assert!(answer.contains("`reboot` starts all again"), "{answer}");
    assert!(system.verdicts().is_empty(), "{:?}", system.verdicts());
    system.shutdown()
}
