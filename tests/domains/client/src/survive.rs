//! A client that goes on while its driver domains are killed, and finds out whether anything was lost.

use crate::disk::open;
use crate::domain::Outcome as Verdict;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use frontends::block::{Direction, Disk, IN_FLIGHT_MAX, Outcome, RequestId};
use runtime::grant::{GrantedPages, quarantined_pages};
use runtime::pages::PAGE;
use runtime::time::now;
use runtime::{console, event, heap, info, println, store, verdict};

/// Blocks of a page that are written and read, from the start of the disk.
const BLOCKS: usize = 1024;
const SECTORS_PER_PAGE: u64 = 8;
/// Requests in flight.
const DEPTH: usize = 16;
/// Requests after which it says so.
const TELL: u64 = 256;
/// A request takes no longer than this, whatever happens to the driver domain.
const PATIENCE: Duration = Duration::from_secs(60);

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// The word number `index` of a block's content in its `version`. The test on the host computes the same.
fn word(block: usize, version: u64, index: usize) -> u64 {
    let mixed = (block as u64) << 40 ^ version << 12 ^ index as u64;
    mixed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Write(usize),
    Read(usize),
    Flush,
}

/// What is in flight, and what the disk must hold.
struct Model {
    disk: Disk,
    buffer: Rc<GrantedPages>,
    /// By page of the buffer: the request that uses it.
    busy: [Option<(RequestId, Work)>; DEPTH],
    versions: Vec<u64>,
    done: u64,
}

impl Model {
    fn submit(&mut self, page: usize, work: Work) -> Verdict {
        let request = match work {
            Work::Write(block) => {
                let version = self.versions[block] + 1;
                self.versions[block] = version;
                for index in 0..PAGE / 8 {
                    self.buffer.memory().write(page * PAGE + index * 8, &word(block, version, index).to_le_bytes());
                }
                self.transfer(Direction::Write, block, page)?
            }
            Work::Read(block) => {
                self.buffer.memory().write(page * PAGE, &[0xee; PAGE]);
                self.transfer(Direction::Read, block, page)?
            }
            Work::Flush => self.disk.flush().map_err(|error| error.to_string())?,
        };
        self.busy[page] = Some((request, work));
        Ok(())
    }

    fn transfer(&mut self, direction: Direction, block: usize, page: usize) -> Result<RequestId, String> {
        let sector = block as u64 * SECTORS_PER_PAGE;
        self.disk.submit(direction, sector, &self.buffer, page..page + 1).map_err(|error| error.to_string())
    }

    /// Takes what is done, and waits for at least one request.
    fn collect(&mut self) -> Verdict {
        self.disk.kick();
        let deadline = now() + PATIENCE;
        loop {
            let mut any = false;
            while let Some(completion) = self.disk.next_completion().map_err(|error| error.to_string())? {
                any = true;
                let same = |busy: &Option<(RequestId, Work)>| busy.is_some_and(|(id, _)| id == completion.request);
                let page = self.busy.iter().position(same).ok_or("an answer to what nobody asked")?;
                let (_, work) = self.busy[page].take().ok_or("an answer to what nobody asked")?;
                if completion.outcome != Outcome::Done {
                    return Err(format!("{work:?}: {:?}", completion.outcome));
                }
                if let Work::Read(block) = work {
                    self.check(block, page)?;
                }
                self.done += 1;
            }
            if any {
                return Ok(());
            }
            if !self.disk.wait(Some(deadline)).map_err(|error| error.to_string())? {
                return Err(format!("nothing is done after {} requests", self.done));
            }
        }
    }

    /// What was read must be what was written last.
    fn check(&self, block: usize, page: usize) -> Verdict {
        let mut bytes = [0; 8];
        for index in 0..PAGE / 8 {
            self.buffer.memory().read(page * PAGE + index * 8, &mut bytes);
            let version = self.versions[block];
            let wanted = if version == 0 { 0 } else { word(block, version, index) };
            if u64::from_le_bytes(bytes) != wanted {
                return Err(format!(
                    "block {block}, word {index}: not version {version}, after {} requests",
                    self.done
                ));
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Verdict {
        while self.busy.iter().any(Option::is_some) {
            self.collect()?;
        }
        Ok(())
    }
}

/// Does it and says how it went; then keeps the disk, for ever.
pub fn disk() -> Verdict {
    let seed = info::argument("seed").and_then(|text| text.parse().ok());
    let mut random = Random(seed.unwrap_or(1_u64).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let mut disk = open()?;
    let buffer = disk.buffer(DEPTH).map_err(|error| error.to_string())?;
    let mut model = Model { disk, buffer, busy: [None; DEPTH], versions: alloc::vec![0; BLOCKS], done: 0 };
    verdict::report("disk-survive", work(&mut model, &mut random));
    loop {
        // For any port: the console's has news when there is room for what is still to be said.
        event::wait(None).for_each(drop);
        while let Some(event) = store::next_event() {
            if model.disk.concerns(&event) {
                model.disk.hear().map_err(|error| error.to_string())?;
            }
        }
    }
}

/// Writes, reads and checks random blocks until a line is typed at its console; then reads all. It says how far it has come
/// every now and then: of its driver domain's death it sees nothing but that this takes longer.
fn work(model: &mut Model, random: &mut Random) -> Verdict {
    const { assert!(DEPTH <= IN_FLIGHT_MAX) };
    let (mut heap_before, mut told) = (None, 0);
    while console::read_line().is_none() {
        if model.done >= told + TELL {
            told = model.done;
            // Warm: what is allocated once has been.
            heap_before = heap_before.or(Some(heap::usage().0));
            println!("progress {told}");
        }
        while let Some(page) = model.busy.iter().position(Option::is_none) {
            let block = random.below(BLOCKS);
            let in_use =
                model.busy.iter().flatten().any(|(_, work)| [Work::Write(block), Work::Read(block)].contains(work));
            let work = match random.below(16) {
                _ if in_use => continue,
                0 => Work::Flush,
                1..8 => Work::Read(block),
                _ => Work::Write(block),
            };
            model.submit(page, work)?;
        }
        model.collect()?;
    }
    model.drain()?;
    for block in 0..BLOCKS {
        model.submit(0, Work::Read(block))?;
        model.drain()?;
    }
    model.submit(0, Work::Flush)?;
    model.drain()?;
    let heap_after = heap::usage().0;
    if quarantined_pages() != 0 {
        return Err(format!("{} pages are held back", quarantined_pages()));
    }
    if heap_before.is_some_and(|before| heap_after > before) {
        return Err(format!("the heap grew from {heap_before:?} to {heap_after} bytes"));
    }
    // The test on the host checks the image by these.
    for (block, versions) in model.versions.chunks(64).enumerate() {
        let text: Vec<String> = versions.iter().map(ToString::to_string).collect();
        println!("versions {} {}", block * 64, text.join(" "));
    }
    println!("{} requests were done, {} reconnections", model.done, model.disk.reconnections());
    Ok(())
}
