//! A client whose driver domain is restarted while it reads: a line `OUTAGE last connected next` for each time, in
//! microseconds since boot: when it had its last page, when it was connected again, and when it had the next page.

use crate::samples::Report;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use frontends::block::{Direction, Opening, Outcome};
use runtime::time::now;
use runtime::{println, store};

/// Reads for ever.
pub fn read() -> Result<Vec<Report>, String> {
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
        let before = disk.reconnections();
        let mut connected = last;
        loop {
            if let Some(completion) = disk.next_completion().map_err(words)? {
                if completion.outcome != Outcome::Done {
                    return Err(alloc::format!("{:?}", completion.outcome));
                }
                break;
            }
            // Connected again is told by an event too.
            disk.wait(None).map_err(words)?;
            if disk.reconnections() != before && connected == last {
                connected = now();
            }
        }
        let next = now();
        if disk.reconnections() != before {
            println!("OUTAGE {} {} {}", last.0 / 1000, connected.0 / 1000, next.0 / 1000);
        }
        last = next;
    }
}
