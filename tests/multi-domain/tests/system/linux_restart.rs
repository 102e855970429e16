//! Driver domains die under a stock Linux, which notices nothing but a pause.

use crate::linux::{BOOT, Disk, boot, complaints, forward, policy, power_off};
use crate::restart::{self, Random, expect_inventory, inventory, kills_or, seed, tail};
use bulkhead_test::{Boot, Guest, Result, System, error, seconds};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Times that a driver domain is killed; `BULKHEAD_KILLS` says otherwise.
const KILLS: u32 = 5;

/// The demo's policy, in which drivers and the console are started again.
fn restarting() -> Result<String> {
    let again = |line: &str| format!("restart = \"always\"\n{line}");
    let lines = ["devices = [\"disk\", \"disk2\"]", "devices = [\"nic\"]", "irqs = [4]"];
    let changes = lines.map(|line| (line, again(line)));
    policy(&changes.each_ref().map(|(old, new)| (*old, new.as_str())))
}

/// Kills a driver domain at random moments, so often as wanted. Two of three times its successor gets to serve for a while;
/// the third time it may be in the middle of being built.
fn kill(system: &mut System, name: &str) -> Result<()> {
    let mut random = Random::new(seed());
    for killed in 0..kills_or(KILLS) {
        let position = system.position();
        system.shell(&format!("restart {name}"), seconds(60))?;
        if killed % 3 != 2 {
            system.wait_from(position, &format!("domain `{name}` runs again"), seconds(60))?;
            std::thread::sleep(Duration::from_millis(random.below(1500)));
        } else {
            std::thread::sleep(Duration::from_millis(random.below(60)));
        }
    }
    Ok(())
}

/// What is in use when a driver domain has just been started again and nothing is asked of it: its page tables for requests,
/// which stay once they are there, are those of none.
fn inventory_of_new(system: &mut System, name: &str) -> Result<(u64, usize)> {
    let position = system.position();
    system.shell(&format!("restart {name}"), seconds(60))?;
    system.wait_from(position, &format!("domain `{name}` runs again"), seconds(60))?;
    std::thread::sleep(seconds(2));
    inventory(system)
}

/// Frames that the hypervisor's own heap may have grown by meanwhile: fewer than there are kills.
const HEAP_FRAMES: u64 = 4;

/// As much is in use as before. Linux writes what it has kept back when it likes: then a new domain has page tables for
/// requests after all, and is asked to start again.
fn expect_inventory_of_new(system: &mut System, name: &str, before: (u64, usize)) -> Result<()> {
    let mut now = before;
    for _ in 0..5 {
        now = inventory_of_new(system, name)?;
        if now.0 + HEAP_FRAMES >= before.0 && now.1 == before.1 {
            return Ok(());
        }
    }
    Err(error(&format!("frames or ports leaked: {before:?} before, {now:?} now:\n{}", tail(system))))
}

/// What Linux says when a device of its has failed it.
fn failures(guest: &mut Guest<'_>) -> Result<String> {
    let bad = "I/O error|EXT4-fs (error|warning)|JBD2|xen[-_]netfront|xen[-_]blkfront.*(fail|disabled)|blk_update|blocked for more";
    let quiet = "Initialising Xen virtual ethernet|netfront.*backend supports";
    Ok(guest.attempt(&format!("dmesg | grep -E '{bad}' | grep -vE '{quiet}'"), seconds(60))?.text)
}

/// Files that the guest writes one after the other, and bytes of each.
const FILES: u64 = 4;
const FILE_BYTES: usize = 1 << 18;

/// What is in the file that was written in a round: its line again and again.
fn content(round: u64) -> Vec<u8> {
    let line = format!("{} {round}\n", seed());
    line.bytes().cycle().take(FILE_BYTES).collect()
}

/// Writes with fsync, drops what is cached, and reads again, for as long as there is no file /stop.
fn disk_work() -> String {
    let seed = seed();
    format!(
        "(i=0; while [ ! -e /stop ]; do i=$((i + 1)); f=/mnt/f$((i % {FILES})); \
         yes \"{seed} $i\" | head -c {FILE_BYTES} > /new; dd if=/new of=$f bs=32k conv=fsync 2>/dev/null || echo $i failed >> /bad; \
         echo 3 > /proc/sys/vm/drop_caches; cmp /new $f || echo $i differs >> /bad; echo $i > /round; done) & sleep 0"
    )
}

/// The number that a command has printed. A console that has just been replaced may break a line of others before it.
fn number(said: &str) -> Result<u64> {
    let number = said.lines().rev().find_map(|line| line.trim().parse().ok());
    number.ok_or_else(|| error(&format!("no number: {said:?}")))
}

/// The same with a native client in the place of `web`, which writes to the first disk and checks it.
fn with_native_client(policy: &str) -> Result<String> {
    let missing = || error("policy/linux.toml has changed");
    let (before, rest) = policy.split_once("[domain.web]").ok_or_else(missing)?;
    let (_, after) = rest.split_once("ready = \"announced\"\n").ok_or_else(missing)?;
    let disks = "disks = [{ from = \"block\", export = \"site\", device = \"xvda\" }]";
    let writable = before.replacen("\nread-only = true", "", 1);
    assert_ne!(writable, before);
    Ok(format!("{writable}{}{after}", restart::client("disk-survive", disks)))
}

#[test]
fn a_linux_and_a_native_client_write_and_read_their_disks_while_the_drivers_are_killed() -> Result<()> {
    let (disk, native) = (Disk::new("killed")?, Disk::new("native")?);
    fs::write(&native.0, vec![0; 8 << 20])?;
    let policy = with_native_client(&restarting()?)?;
    let boot = Boot::policy(&policy).image("client").disk(&native.0, true).disk(&disk.0, true);
    let mut system = boot.network()?.start()?;
    let mut guest = system.guest("linux", BOOT)?;
    guest.run("mkfs.ext4 -q /dev/xvda && mount /dev/xvda /mnt", seconds(120))?;
    system.leave_guest()?;
    // Once before counting: some memory is taken at the first time, for good.
    let position = system.position();
    system.type_text("restart console\r")?;
    system.wait_from(position, "domain `console` runs again", seconds(60))?;
    let before = inventory_of_new(&mut system, "block")?;
    let mut guest = system.guest_again("linux")?;
    guest.run(&disk_work(), seconds(30))?;
    guest.run("until [ -e /round ]; do usleep 100000; done", seconds(120))?;
    system.leave_guest()?;
    kill(&mut system, "block")?;
    // The guest's console is adopted too: its shell goes on.
    let position = system.position();
    system.type_text("restart console\r")?;
    system.wait_from(position, "domain `console` runs again", seconds(60))?;
    let mut guest = system.guest_again("linux")?;
    let reached = number(&guest.run("cat /round", seconds(120))?)?;
    let on = format!("until [ $(cat /round) -gt {reached} ]; do usleep 100000; done; touch /stop; wait; cat /round");
    let rounds = number(&guest.run(&on, seconds(120))?)?;
    assert_eq!(guest.run("touch /bad; cat /bad; sync", seconds(120))?, "");
    system.leave_guest()?;
    expect_inventory_of_new(&mut system, "block", before)?;
    system.guest_again("client")?.type_line("enough")?;
    system.leave_guest()?;
    system.expect_verdict("disk-survive", seconds(120))?;
    let log = system.log("client");
    assert!(log.iter().any(|line| line.ends_with("requests were done, 0 reconnections")), "it was not adopted");
    let mut guest = system.guest_again("linux")?;
    guest.run("umount /mnt", seconds(120))?;
    assert_eq!(failures(&mut guest)?, "");
    assert_eq!(complaints(&mut guest)?, "");
    power_off(&mut system, "linux")?;
    system.shutdown()?;
    println!("{} kills, {rounds} files of 256 KiB written and read", kills_or(KILLS) + 2);
    restart::check_image(&native.0, &log)?;
    check_image(&disk.0, rounds)
}

/// The file system is whole, and each file is what was written last.
fn check_image(image: &Path, rounds: u64) -> Result<()> {
    let check = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(image).output()?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}{}", String::from_utf8_lossy(&check.stderr));
    for round in (rounds.saturating_sub(FILES) + 1).max(1)..=rounds {
        let cat = format!("cat /f{}", round % FILES);
        let found = Command::new("/sbin/debugfs").args(["-R", &cat]).arg(image).output()?.stdout;
        assert!(found == content(round), "the file of round {round} has {} other bytes", found.len());
    }
    Ok(())
}

/// To the guest: bytes from a seed for as long as `more` says so. Answers their sum.
fn send(mut stream: TcpStream, more: Arc<AtomicBool>, count: Arc<AtomicU64>) -> JoinHandle<Result<String>> {
    std::thread::spawn(move || {
        let (mut random, mut sum, mut piece) = (Random::new(seed()), Sha256::new(), vec![0; 16 << 10]);
        while more.load(Ordering::Relaxed) {
            piece.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.below(u64::MAX).to_le_bytes()));
            stream.write_all(&piece)?;
            sum.update(&piece);
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // Until the other side has it all.
        stream.read_to_end(&mut vec![])?;
        Ok(format!("{:x}", sum.finalize()))
    })
}

/// From the guest: all that comes. Answers its sum.
fn receive(mut stream: TcpStream, count: Arc<AtomicU64>) -> JoinHandle<Result<String>> {
    std::thread::spawn(move || {
        let (mut sum, mut piece) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(format!("{:x}", sum.finalize())),
                bytes => {
                    sum.update(&piece[..bytes]);
                    count.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            }
        }
    })
}

/// Waits until a transfer has got further by so much.
fn flows(count: &AtomicU64, system: &mut System) -> Result<()> {
    let from = count.load(Ordering::Relaxed);
    for _ in 0..1200 {
        if count.load(Ordering::Relaxed) > from + (1 << 18) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(error(&format!("nothing moves behind byte {from}:\n{}", tail(system))))
}

/// What Linux says of a receive buffer that it gets back unused: those that the dead domain had begun to answer for (docs/restart.md).
/// It posts them again.
const HANDED_BACK: [&str; 2] = ["net eth0: rx->offset: 0, size: -1", "net_ratelimit: "];

/// Milliseconds between two pings.
const PING_MS: u64 = 50;

/// The longest time without an answer to a ping, in milliseconds: an answer comes so long after its ping as it says.
fn longest_silence(replies: &str) -> Option<u64> {
    let number = |line: &str, key: &str| line.split_once(key)?.1.split(' ').next()?.parse::<f64>().ok();
    let arrival = |line: &str| Some(number(line, "seq=")? as u64 * PING_MS + number(line, "time=")? as u64);
    let arrivals: Vec<u64> = replies.lines().filter_map(arrival).collect();
    arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max()
}

#[test]
fn a_linux_sends_and_receives_while_the_network_driver_is_killed() -> Result<()> {
    let disk = Disk::new("killed-net")?;
    let mut system = boot(&restarting()?, &disk.0)?;
    let ports = [forward(&system, "tcp", 5000)?, forward(&system, "tcp", 5001)?];
    let mut guest = system.guest("linux", BOOT)?;
    // The terminal is no input for what runs beside the shell: it would be stopped when something is typed.
    let work = "mkfifo /hold /copy; nc -l -p 5000 <> /hold | sha256sum > /to & sha256sum < /copy > /from & \
        (while [ ! -e /stop ]; do head -c 65536 /dev/urandom; done) | tee /copy | nc -l -p 5001 & \
        sleep 1";
    guest.run(work, seconds(60))?;
    guest.run(&format!("ping -i 0.0{PING_MS} 10.0.2.2 > /replies & echo $! > /ping"), seconds(60))?;
    system.leave_guest()?;
    let connect = |port| TcpStream::connect(("127.0.0.1", port));
    let (more, sent, received) = (Arc::new(AtomicBool::new(true)), Arc::default(), Arc::default());
    let sending = send(connect(ports[0])?, more.clone(), Arc::clone(&sent));
    let receiving = receive(connect(ports[1])?, Arc::clone(&received));
    // A handshake that the interface dies in is QEMU's affair: see docs/restart.md.
    flows(&sent, &mut system)?;
    flows(&received, &mut system)?;
    let before = inventory_of_new(&mut system, "net")?;
    kill(&mut system, "net")?;
    flows(&sent, &mut system)?;
    flows(&received, &mut system)?;
    more.store(false, Ordering::Relaxed);
    let mut guest = system.guest_again("linux")?;
    guest.run("touch /stop; kill $(cat /ping)", seconds(60))?;
    let ended = |transfer: JoinHandle<Result<String>>| transfer.join().map_err(|_| error("a transfer panicked"))?;
    // In bounded time, to say what is the matter otherwise.
    let wait = "s=0; until [ -s /to -a -s /from -o $s = 90 ]; do s=$((s + 1)); sleep 1; done; [ -s /to -a -s /from ]";
    if guest.attempt(wait, seconds(240))?.status != 0 {
        let state =
            guest.attempt("ls -l /to /from; netstat -tn; ifconfig eth0; ps; tail -n 3 /replies", seconds(60))?;
        let counts = (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
        return Err(error(&format!("a transfer does not end, {counts:?} bytes:\n{}", state.text)));
    }
    assert_eq!(guest.run("cut -d' ' -f1 < /to", seconds(30))?, ended(sending)?, "to the guest");
    assert_eq!(guest.run("cut -d' ' -f1 < /from", seconds(30))?, ended(receiving)?, "from the guest");
    let replies = guest.run("grep seq= /replies | sed 's/.*seq=/seq=/'", seconds(120))?;
    assert_eq!(failures(&mut guest)?, "");
    let complaints = complaints(&mut guest)?;
    let is_handed_back = |line: &&str| HANDED_BACK.iter().any(|text| line.contains(text));
    let (handed_back, complaints): (Vec<_>, Vec<_>) = complaints.lines().partition(is_handed_back);
    assert!(complaints.is_empty(), "{complaints:?}");
    system.leave_guest()?;
    expect_inventory_of_new(&mut system, "net", before)?;
    power_off(&mut system, "linux")?;
    let mib = |count: &AtomicU64| count.load(Ordering::Relaxed) >> 20;
    let silence = longest_silence(&replies).ok_or_else(|| error("no ping was answered"))?;
    assert!(silence < 20_000, "no ping was answered for {silence} ms");
    println!(
        "{} kills; {} MiB to the guest, {} MiB from it; no ping was answered for {silence} ms at most; {} lines of buffers handed back",
        kills_or(KILLS) + 1,
        mib(&sent),
        mib(&received),
        handed_back.len()
    );
    system.shutdown()
}

/// How a life of a Linux ends, and what the policy domain says of it.
const ENDS: [(&str, &str); 3] = [
    ("", "destroyed by the policy domain; it is started again"),
    ("reboot -f", "restart; it is started again"),
    ("echo c > /proc/sysrq-trigger", "crashed; it is started again"),
];

/// As under Xen with `on_crash = "restart"` and `on_reboot = "restart"`: a new boot, of which the driver domains see front ends that begin anew.
#[test]
fn a_linux_that_is_restarted_reboots_or_crashes_boots_anew_with_its_devices() -> Result<()> {
    let disk = Disk::new("reborn")?;
    let changes = [("[domain.linux]\n", "[domain.linux]\nrestart = \"always\"\n")];
    let mut system = boot(&policy(&changes)?, &disk.0)?;
    let (mut position, mut before, mut lives) = (0, None, String::new());
    for life in 0..=ENDS.len() {
        let mut guest = system.guest_from(position, "linux", BOOT)?;
        if life == 0 {
            guest.run("mkfs.ext4 -q /dev/xvda", seconds(120))?;
        }
        guest.run("mount /dev/xvda /mnt && touch /mnt/lives", seconds(120))?;
        assert_eq!(guest.run("cat /mnt/lives", seconds(60))?, lives.trim_end(), "what earlier lives have written");
        guest.run(&format!("echo {life} >> /mnt/lives; sync"), seconds(120))?;
        lives += &format!("{life}\n");
        let page = guest.run("wget -q -O - http://10.0.2.15/", seconds(120))?;
        assert!(page.contains("<html"), "the web domain's page: {page}");
        assert_eq!(failures(&mut guest)?, "");
        assert_eq!(complaints(&mut guest)?, "");
        system.leave_guest()?;
        match before {
            None => before = Some(inventory(&mut system)?),
            Some((frames, ports)) => expect_inventory(&mut system, (frames - HEAP_FRAMES, ports))?,
        }
        let Some((command, told)) = ENDS.get(life) else { break };
        position = system.position();
        if command.is_empty() {
            system.shell("restart linux", seconds(60))?;
        } else {
            system.guest_again("linux")?.type_line(command)?;
            system.wait_from(position, "domain `linux` ended", seconds(60))?;
            system.leave_guest()?;
        }
        let why = system.wait_from(position, "domain `linux` ended: ", seconds(60))?;
        println!("{why}");
        assert!(why.contains(told), "{why}");
        system.wait_from(position, "domain `linux` runs again", seconds(60))?;
    }
    system.guest_again("linux")?.run("umount /mnt", seconds(120))?;
    system.leave_guest()?;
    let position = system.position();
    power_off(&mut system, "linux")?;
    // That was no death.
    assert!(system.shell("domains", seconds(60))?.contains("linux ended: power off"));
    assert!(!system.text()[position..].contains("runs again"));
    let check = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&disk.0).output()?;
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    system.shutdown()
}
