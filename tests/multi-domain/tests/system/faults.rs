//! Each fault of the injector in driver domains beside `block` (`restart.rs`): found, contained, made up for.

use crate::policies::BASE;
use crate::restart::{
    BLOCK, EXPORT, NET, Outcome, busy_disk_under, client, finished, goes_on, inject, seeds, tail, upload,
};
use bulkhead_test::{Boot, Fault, Result, System, error, seconds};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xtask::machine::Network;
use xtask::target;

/// Rings are the first that these domains map.
const GARBAGE: Fault = Fault::Garbage { first_page: 0 };

/// A client of `net` that takes uploads.
fn sink() -> Result<System> {
    let nics = "nics = [{ from = \"net\", mac = \"52:54:00:00:01:0f\", ip = \"10.0.2.15\" }]";
    let policy = format!("{BASE}{NET}watchdog = \"500ms\"\n{}", client("tcp-sink", nics));
    let mut system = Boot::policy(&policy).image("client").network()?.injectable().start()?;
    system.wait_ready()?;
    system.wait_for("client| listening", seconds(30))?;
    Ok(system)
}

/// Its clients trust it with their frames and with nothing else: what it garbles, TCP's checksums find. Whatever comes of the
/// fault, a successor serves them.
#[test]
fn a_net_domain_with_corrupted_memory_or_rings_is_made_up_for() -> Result<()> {
    for fault in [Fault::CorruptPage, GARBAGE] {
        for seed in seeds() {
            let mut system = sink()?;
            let (http, more) = (system.http(), Arc::new(AtomicBool::new(true)));
            let going_on = more.clone();
            let transfer = std::thread::spawn(move || upload(http, &going_on));
            system.wait_for("client| receiving", seconds(60))?;
            let outcome = inject(&mut system, "net", fault, seed, seconds(5))?;
            let position = system.position();
            system.shell("restart net", seconds(30))?;
            system.wait_from(position, "domain `net` runs again", seconds(60))?;
            let position = system.position();
            let came = system.wait_from(position, "client| received", seconds(60));
            more.store(false, Ordering::Relaxed);
            if came.is_err() {
                return Err(error(&format!("nothing arrives after {fault:?}, {outcome:?}:\n{}", tail(&system))));
            }
            finished(transfer, &system)?;
            system.shutdown()?;
        }
    }
    Ok(())
}

/// Whether the client writes to its disk, without asking the console.
fn writes_on(image: &Path) -> Result<bool> {
    let before = fs::read(image)?;
    let end = Instant::now() + seconds(30);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        if fs::read(image)? != before {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A console that crashes or loops is replaced. One that goes wrong in another way may keep the administrator out; nobody
/// else stands still for it.
#[test]
fn a_console_domain_with_any_fault_stops_nobody_else() -> Result<()> {
    let base = BASE.replace("role = \"console\"", "role = \"console\"\nrestart = \"always\"\nwatchdog = \"500ms\"");
    for fault in [Fault::Crash, Fault::Wedge, Fault::CorruptPage, GARBAGE] {
        for seed in seeds() {
            let (mut system, image) = busy_disk_under(&format!("{base}{BLOCK}{EXPORT}"), "console-faults")?;
            let must_die = matches!(fault, Fault::Crash | Fault::Wedge);
            if must_die {
                let outcome = inject(&mut system, "console", fault, seed, seconds(60))?;
                assert!(matches!(outcome, Outcome::Replaced), "{fault:?}, seed {seed}: not found");
                goes_on(&mut system)?;
            } else {
                let what = system.injector(seed)?.inject("console", fault, seconds(60))?;
                println!("seed {seed}: {what}");
            }
            assert!(writes_on(&image)?, "the client stands still after {fault:?}, seed {seed}:\n{}", tail(&system));
            let failed: Vec<_> = system.verdicts().into_iter().filter(|verdict| !verdict.passed).collect();
            assert!(failed.is_empty(), "{fault:?}, seed {seed}: {failed:?}");
            match must_die {
                true => system.shutdown()?,
                false => drop(system),
            }
            fs::remove_file(&image)?;
        }
    }
    Ok(())
}

/// A successor that waits for ever before it has taken a ring over is noticed by nobody who looks at the states of both ends:
/// they say that all is well. The policy domain looks whether the rings' ports are bound.
#[test]
fn a_block_domain_that_waits_for_ever_before_it_serves_is_ended_and_replaced() -> Result<()> {
    let (mut system, image) = busy_disk_under(&format!("{BASE}{BLOCK}{EXPORT}"), "stalls")?;
    goes_on(&mut system)?;
    for seed in seeds() {
        // It may be too late: then it serves already, and waits in front of a request.
        let stalled = (0..20).any(|attempt| stall_successor(&mut system, seed * 100 + attempt).unwrap_or(false));
        assert!(stalled, "seed {seed}: it always served first, or was not found:\n{}", tail(&system));
        goes_on(&mut system)?;
    }
    assert!(system.verdicts().is_empty(), "the client has lost something: {:?}", system.verdicts());
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// `true`: the next block domain stood still before it served, was ended for it, and the one after it runs.
fn stall_successor(system: &mut System, seed: u64) -> Result<bool> {
    let position = system.position();
    system.type_text("restart block\r")?;
    system.wait_from(position, "domain `block` ended", seconds(30))?;
    let what = system.injector(seed)?.inject("block", Fault::Stall, seconds(60))?;
    let start = system.wait_from(position, "domain `block` runs again", seconds(60));
    if start.is_err() || system.text()[position..].contains(": goes on") {
        return Ok(false);
    }
    let ended = system.wait_from(position, "domain `block` does not serve its front ends", seconds(40));
    println!("seed {seed}: {what}: {ended:?}");
    if ended.is_err() && system.text()[position..].contains(": goes on") {
        return Ok(false);
    }
    ended?;
    let position = system.position();
    system.wait_from(position, "domain `block` runs again", seconds(60))?;
    Ok(true)
}

/// One that never says a word to its front ends, from the first start on, has as many starts as the policy allows.
#[test]
fn a_driver_domain_that_never_begins_to_serve_spends_its_budget() -> Result<()> {
    // `probe` is no disk driver: it rests.
    let block = BLOCK.replace("image = \"block\"", "image = \"probe\"\narguments = \"do=rest\"");
    let block = block.replace("\"always\"", "{ max = 2, within = \"10m\", backoff = \"10ms\" }");
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let policy = format!("{BASE}{block}{EXPORT}{}", client("disk-survive", disks));
    let image = target().join(format!("restart-mute-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    let mut system = Boot::policy(&policy).image("client").image("probe").disk(&image, true).start()?;
    let mut position = 0;
    for told in ["it is started again\n", "it is started again in 10 ms\n", "all that the policy allows\n"] {
        system.wait_from(position, "`block` leaves `client` waiting for a connection: it is ended", seconds(60))?;
        system.wait_from(position, told, seconds(30))?;
        position = system.position();
    }
    // It waits for a while longer, as an administrator may start another, and knows why.
    system.wait_for("VERDICT fail disk-survive: not connected: GivenUp", seconds(90))?;
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

/// The same of the console. One that stands still later keeps the administrator out, so each try has a system of its own.
#[test]
fn a_console_domain_that_waits_for_ever_before_it_serves_is_ended_and_replaced() -> Result<()> {
    let base = BASE.replace("role = \"console\"", "role = \"console\"\nrestart = \"always\"");
    for attempt in 0..10 {
        let (mut system, image) = busy_disk_under(&format!("{base}{BLOCK}{EXPORT}"), "mute-console")?;
        let position = system.position();
        system.type_text("restart console\r")?;
        system.wait_from(position, "domain `console` ended", seconds(30))?;
        let what = system.injector(seeds().start * 100 + attempt)?.inject("console", Fault::Stall, seconds(60))?;
        // The one that stands still, and the one after it.
        let end = Instant::now() + seconds(25);
        let starts = |system: &System| system.text()[position..].matches("domain `console` runs again").count();
        while starts(&system) < 2 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        let replaced = starts(&system) == 2;
        if replaced {
            println!("attempt {attempt}: {what}");
            assert!(system.shell("domains", seconds(30))?.contains("console was started again 2 times"));
            goes_on(&mut system)?;
            system.shutdown()?;
        }
        fs::remove_file(&image)?;
        if replaced {
            return Ok(());
        }
    }
    Err(error("it always served first, or was not found"))
}

/// An Ethernet frame that asks 10.0.2.15 for its address, from 10.0.2.2 (RFC 826).
fn who_has() -> Vec<u8> {
    let (own, all) = ([0x52, 0x55, 10, 0, 2, 2], [0xff; 6]);
    let ethernet = [&all[..], &own, &[0x08, 0x06]].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &[10, 0, 2, 2], &[0; 6], &[10, 0, 2, 15]].concat();
    [ethernet, arp, vec![0; 18]].concat()
}

/// The network takes no frames any more, so the card does not either, whatever it is given. Its driver finds that out, nobody
/// else stands still, and the next driver is served by it as soon as there is a network again.
#[test]
fn a_network_card_that_stops_answering_costs_its_driver_and_nobody_else_anything() -> Result<()> {
    let path = |end: &str| target().join(format!("deaf-{}-{end}", std::process::id()));
    let [image, local, remote] = ["image", "card", "network"].map(path);
    fs::write(&image, vec![0; 8 << 20])?;
    let network = UnixDatagram::bind(&remote)?;
    network.set_nonblocking(true)?;
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let sink = "[domain.sink]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do=tcp-sink\"\n\
         nics = [{ from = \"net\", mac = \"52:54:00:00:01:0f\", ip = \"10.0.2.15\" }]\n";
    let policy = format!("{BASE}{BLOCK}{EXPORT}{NET}{}{sink}", client("disk-survive", disks));
    let ends = Network::Datagram { local: local.clone(), remote: remote.clone() };
    let boot = Boot::policy(&policy).image("client").disk(&image, true);
    let mut system = boot.machine(|machine| machine.network = Some(ends)).start()?;
    system.wait_ready()?;
    system.wait_for("sink| listening", seconds(30))?;

    let position = system.position();
    // More answers than the host's socket and the card's queue hold, again and again.
    for _ in 0..100 {
        for _ in 0..20 {
            // QEMU may have no room just now; there is more to come.
            let _ = network.send_to(&who_has(), &local);
            std::thread::sleep(Duration::from_millis(1));
        }
        if system.text()[position..].contains("does not answer") {
            break;
        }
    }
    system.wait_from(position, "network card: the device does not answer", seconds(120))?;
    system.wait_from(position, "domain `net` runs again", seconds(60))?;
    goes_on(&mut system)?;

    let (mut frame, mut answered) = ([0; 2048], false);
    let end = Instant::now() + seconds(60);
    while !answered && Instant::now() < end {
        while network.recv(&mut frame).is_ok() {}
        network.send_to(&who_has(), &local).ok();
        std::thread::sleep(Duration::from_millis(200));
        // An answer to the one that asked: operation 2.
        answered = network.recv(&mut frame).is_ok() && frame[12..14] == [8, 6] && frame[20..22] == [0, 2];
    }
    assert!(answered, "there is no network any more:\n{}", tail(&system));
    assert!(system.verdicts().is_empty(), "{:?}", system.verdicts());
    system.shutdown()?;
    [image, local, remote].iter().try_for_each(fs::remove_file)?;
    Ok(())
}
/// The serial line takes no more characters, for as long as nobody reads what QEMU writes: the console waits, and is the only
/// one.
#[test]
fn a_serial_line_that_stops_answering_holds_up_the_console_only() -> Result<()> {
    let base = BASE.replace("role = \"console\"", "role = \"console\"\nrestart = \"always\"\nwatchdog = \"500ms\"");
    let (mut system, image) = busy_disk_under(&format!("{base}{BLOCK}{EXPORT}"), "line")?;
    goes_on(&mut system)?;
    let deaf = system.stop_reading();
    // Each answer is some hundred characters; the host's pipe holds 64 KiB.
    for _ in 0..60 {
        system.type_text(&"domains\r".repeat(10))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..5 {
        std::thread::sleep(seconds(2));
        assert!(writes_on(&image)?, "the client stands still");
    }
    drop(deaf);
    // Until the shell has got rid of what it keeps, what it says is dropped.
    system.wait_for("bytes of output dropped]", seconds(60))?;
    goes_on(&mut system)?;
    let domains = system.shell("domains", seconds(60))?;
    assert!(!domains.contains("was started again"), "somebody was blamed for it: {domains}");
    assert!(system.verdicts().is_empty(), "{:?}", system.verdicts());
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}
