//! A client whose driver domain is restarted while it reads, and which notices nothing but a page that takes long: a line
//! `OUTAGE last next` for each, in microseconds since boot: when it had the page before, and when it had this one.

use crate::samples::Report;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use frontends::block::{Direction, Opening, Outcome};
use runtime::time::now;
use runtime::{info, println, store};

/// Reads for ever. A page that takes longer than the argument `long` says, in microseconds, is told of.
pub fn read() -> Result<Vec<Report>, String> {
    let long = info::argument("long").and_then(|text| text.parse().ok()).ok_or("`long` is missing")?;
    let long = Duration::from_micros(long);
    let words = |error: frontends::block::DiskError| error.to_string();
    let mut opening = Opening::new(None);
    let mut disk = loop {
        match opening.step().map_err(words)? {
            Ok(disk) => break disk,
            Err(_) => drop(store::wait_event(Some(now() + Duration::from_millis(200)))),
        }
    };
    let page = disk.buffer(1).map_err(words)?;
    println!("BENCH-READY");
    let mut last = now();
    loop {
        disk.submit(Direction::Read, 0, &page, 0..1).map_err(words)?;
        disk.kick();
        let completion = loop {
            match disk.next_completion().map_err(words)? {
                Some(completion) => break completion,
                None => disk.wait(None).map_err(words)?,
            };
        };
        if completion.outcome != Outcome::Done {
            return Err(alloc::format!("{:?}", completion.outcome));
        }
        let next = now();
        if next.since(last) > long {
            println!("OUTAGE {} {}", last.0 / 1000, next.0 / 1000);
        }
        last = next;
    }
}
