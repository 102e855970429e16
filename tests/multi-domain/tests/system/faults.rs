//! Each fault of the injector in driver domains beside `block` (`restart.rs`): found, contained, made up for.

use crate::policies::BASE;
use crate::restart::{
    BLOCK, EXPORT, NET, Outcome, busy_disk_under, client, finished, goes_on, inject, seeds, tail, upload,
};
use bulkhead_test::{Boot, Fault, Result, System, error, seconds};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
