//! Requests to a disk through the ordinary front end.

use crate::domain::Outcome as Verdict;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use frontends::block::{Direction, Disk, Opening, Outcome};
use runtime::grant::GrantedPages;
use runtime::pages::PAGE;
use runtime::store::{self, Store};
use runtime::time::now;
use runtime::{Access, DomId, event};
use xen_rings::blkif::Segment;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the writing test writes, in sectors; the host looks at it afterwards.
const PLACE: u64 = 64;

/// Opens the first disk.
pub fn open() -> Result<Disk, String> {
    let mut opening = Opening::new(None);
    let deadline = now() + PATIENCE;
    loop {
        match opening.step().map_err(|error| error.to_string())? {
            Ok(disk) => return Ok(disk),
            Err(waiting) if now() > deadline => return Err(format!("not connected: {waiting:?}")),
            Err(_) => drop(store::wait_event(Some(now() + Duration::from_millis(200)))),
        }
    }
}

/// The domain that serves the first disk.
pub fn backend() -> Result<DomId, String> {
    let index = runtime::xenbus::Frontend::list("vbd").first().copied().ok_or("no disk")?;
    let id = Store::new().read_parsed(&format!("device/vbd/{index}/backend-id"));
    id.ok().and_then(DomId::from_u32).ok_or(String::from("no back end"))
}

/// Waits for `count` requests.
fn wait(disk: &mut Disk, count: usize) -> Result<Vec<Outcome>, String> {
    let deadline = now() + PATIENCE;
    let mut outcomes = Vec::new();
    disk.kick();
    while outcomes.len() < count {
        match disk.next_completion().map_err(|error| error.to_string())? {
            Some(completion) => outcomes.push(completion.outcome),
            None if event::poll(&[disk.port()], Some(deadline)) => {}
            None => return Err(format!("{} of {count} requests are done in time", outcomes.len())),
        }
    }
    Ok(outcomes)
}

fn expect(disk: &mut Disk, what: &str, wanted: Outcome) -> Verdict {
    let got = wait(disk, 1)?;
    if got == [wanted] { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

fn transfer(disk: &mut Disk, direction: Direction, sector: u64, pages: &GrantedPages) -> Verdict {
    let count = pages.memory().len() / PAGE;
    disk.submit(direction, sector, pages, 0..count).map_err(|error| error.to_string())?;
    expect(disk, "an ordinary request", Outcome::Done)
}

fn buffer(disk: &mut Disk, pages: usize) -> Result<Rc<GrantedPages>, String> {
    disk.buffer(pages).map_err(|error| error.to_string())
}

fn fill(pages: &GrantedPages, seed: u8) {
    for index in 0..pages.memory().len() / 8 {
        let word = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(seed);
        pages.memory().write(index * 8, &word.to_le_bytes());
    }
}

fn same(one: &GrantedPages, other: &GrantedPages) -> Verdict {
    let (mut left, mut right) = ([0; 512], [0; 512]);
    for offset in (0..one.memory().len()).step_by(512) {
        one.memory().read(offset, &mut left);
        other.memory().read(offset, &mut right);
        if left != right {
            return Err(format!("byte {offset} and on differ"));
        }
    }
    Ok(())
}

/// Writes with direct and indirect requests and with parts of pages, flushes, reads it all back.
pub fn write_and_flush() -> Verdict {
    let mut disk = open()?;
    for pages in [1, 11, 40.min(disk.facts().pages_max)] {
        let (out, back) = (buffer(&mut disk, pages)?, buffer(&mut disk, pages)?);
        fill(&out, pages as u8);
        transfer(&mut disk, Direction::Write, PLACE, &out)?;
        transfer(&mut disk, Direction::Read, PLACE, &back)?;
        same(&out, &back)?;
    }
    parts_of_pages(&mut disk)?;
    let text = buffer(&mut disk, 1)?;
    text.memory().write(0, b"written by a domain, flushed, and found in the image");
    transfer(&mut disk, Direction::Write, PLACE, &text)?;
    disk.flush().map_err(|error| error.to_string())?;
    expect(&mut disk, "flush", Outcome::Done)
}

/// Sectors 2 to 4 of one page and 1 to 1 of another, which do not join.
fn parts_of_pages(disk: &mut Disk) -> Verdict {
    let (out, back) = (buffer(disk, 2)?, buffer(disk, 2)?);
    fill(&out, 77);
    let segments = |pages: &GrantedPages| {
        let first = Segment::new(pages.reference(0).0, 2, 4);
        let second = Segment::new(pages.reference(1).0, 1, 1);
        first.into_iter().chain(second).collect::<Vec<_>>()
    };
    for (direction, pages) in [(Direction::Write, &out), (Direction::Read, &back)] {
        let place = PLACE + 1000;
        disk.submit_segments(direction, place, &segments(pages)).map_err(|error| error.to_string())?;
        expect(disk, "parts of pages", Outcome::Done)?;
    }
    let (mut left, mut right) = ([0; 512], [0; 512]);
    for offset in [1024, 1536, 2048, PAGE + 512] {
        out.memory().read(offset, &mut left);
        back.memory().read(offset, &mut right);
        if left != right {
            return Err(format!("part of a page at {offset} differs"));
        }
    }
    back.memory().read(2560, &mut right);
    if right == [0; 512] { Ok(()) } else { Err(String::from("more was read than asked for")) }
}

/// Reads with the ring always full.
pub fn read_much() -> Verdict {
    let mut disk = open()?;
    let pages = buffer(&mut disk, 32)?;
    let sectors = disk.facts().sectors;
    for round in 0..100u64 {
        let count = disk.free();
        for request in 0..count as u64 {
            let sector = (round * 977 + request * 131) * 8 % (sectors - 256);
            disk.submit(Direction::Read, sector, &pages, 0..1 + (request as usize) % 32)
                .map_err(|error| error.to_string())?;
        }
        let outcomes = wait(&mut disk, count)?;
        if outcomes.iter().any(|&outcome| outcome != Outcome::Done) {
            return Err(format!("round {round}: {outcomes:?}"));
        }
    }
    Ok(())
}

/// What must be refused, each time with the disk in order afterwards.
pub fn limits() -> Verdict {
    let mut disk = open()?;
    let page = buffer(&mut disk, 1)?;
    let sectors = disk.facts().sectors;
    let whole = |reference: u32| [Segment::page(reference)];
    let own = page.reference(0).0;
    let protected = GrantedPages::allocate(1, backend()?, Access::ReadOnly).map_err(|error| error.to_string())?;
    let protected = protected.reference(0).0;
    let mut cases = Vec::from([
        ("one sector past the end", Direction::Read, sectors - 7, own, Outcome::Failed),
        ("at the end", Direction::Read, sectors, own, Outcome::Failed),
        ("far past the end", Direction::Read, u64::MAX - 3, own, Outcome::Failed),
        ("the last page", Direction::Read, sectors - 8, own, Outcome::Done),
        ("a grant that does not exist", Direction::Read, 0, 30_000, Outcome::Failed),
        ("reading into a page granted read-only", Direction::Read, 0, protected, Outcome::Failed),
    ]);
    if disk.facts().read_only {
        cases.push(("writing to a read-only export", Direction::Write, 0, own, Outcome::Failed));
    } else {
        cases.push(("writing from a page granted read-only", Direction::Write, 8, protected, Outcome::Done));
    }
    for (what, direction, sector, reference, wanted) in cases {
        disk.submit_segments(direction, sector, &whole(reference)).map_err(|error| error.to_string())?;
        expect(&mut disk, what, wanted)?;
        transfer(&mut disk, Direction::Read, 0, &page)?;
    }
    if disk.facts().read_only {
        disk.flush().map_err(|error| error.to_string())?;
        expect(&mut disk, "flushing a read-only export", Outcome::Failed)?;
    }
    Ok(())
}

/// Dies while the device writes into its pages.
pub fn die_with_requests_in_flight() -> Verdict {
    let mut disk = open()?;
    let pages = buffer(&mut disk, 32)?;
    for request in 0..disk.free() as u64 {
        disk.submit(Direction::Read, request * 256, &pages, 0..32).map_err(|error| error.to_string())?;
    }
    disk.kick();
    runtime::crash()
}

/// The device reports an error for one sector (the host makes it): the request fails, and only that one.
pub fn device_error() -> Verdict {
    let mut disk = open()?;
    let page = buffer(&mut disk, 1)?;
    for (what, sector, wanted) in [
        ("before it", 0, Outcome::Done),
        ("the bad sector", PLACE, Outcome::Failed),
        ("the bad sector again", PLACE, Outcome::Failed),
        ("behind it", PLACE + 64, Outcome::Done),
    ] {
        disk.submit(Direction::Write, sector, &page, 0..1).map_err(|error| error.to_string())?;
        expect(&mut disk, what, wanted)?;
    }
    transfer(&mut disk, Direction::Read, PLACE, &page)
}
