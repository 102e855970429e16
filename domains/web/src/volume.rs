//! The disk behind a cache with read-ahead.
//!
//! The file system library reads synchronously and wants its bytes at once, so [`Volume::read`] waits for the disk where
//! it must. To make that rare, sequential reads are recognised and the chunks behind them asked for early, and a caller
//! that knows where it will read next can ask first whether that is there ([`Volume::is_ready`]).

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use frontends::block::{Direction, Disk, DiskError, IN_FLIGHT_MAX, Outcome};
use runtime::grant::GrantedPages;
use runtime::pages::PAGE;
use runtime::store::WatchEvent;
use runtime::time::now;
use web::cache::{Cache, Lookup, Pattern, Streams};
use xen_rings::blkif::Segment;

/// Pages of a chunk.
const CHUNK_PAGES: usize = 16;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE;
const SECTOR_BYTES: usize = 512;
const SECTORS_PER_PAGE: u64 = (PAGE / SECTOR_BYTES) as u64;
/// Chunks that are asked for ahead of a sequential reader.
const READ_AHEAD: u64 = 3;
/// Chunks in the cache: at least so many, for as many readers as there are connections.
const CHUNKS_MIN: usize = 16;
/// And at most so many.
const CHUNKS_MAX: usize = 384;
/// How long the disk may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a request in flight is part of.
#[derive(Clone, Copy)]
struct Load {
    slot: usize,
}

/// The state of a slot's loading.
#[derive(Clone, Copy, Default)]
struct Progress {
    requests: usize,
    failed: bool,
}

/// A disk with a cache.
pub struct Volume {
    disk: Option<Disk>,
    bytes: u64,
    pages_per_request: usize,
    buffers: Vec<Rc<GrantedPages>>,
    cache: Cache,
    progress: Vec<Progress>,
    /// By request slot.
    loads: [Option<Load>; IN_FLIGHT_MAX],
    streams: Streams,
    unseen: bool,
    /// It kept a reader waiting too long and has not answered anything since: nobody else waits for it.
    stuck: bool,
    /// Where the last read ended.
    pub last_end: Option<u64>,
    /// Why the last read failed, until somebody takes it.
    pub error: Option<String>,
}

impl Volume {
    /// Takes over an open disk. The cache gets up to a third of the free heap.
    pub fn new(mut disk: Disk) -> Result<Self, DiskError> {
        let (_, free) = runtime::heap::usage();
        let chunks = (free / 3 / CHUNK_BYTES).clamp(CHUNKS_MIN, CHUNKS_MAX);
        let buffers = (0..chunks).map(|_| disk.buffer(CHUNK_PAGES)).collect::<Result<Vec<_>, _>>()?;
        let facts = disk.facts();
        Ok(Volume {
            disk: Some(disk),
            bytes: facts.sectors.saturating_mul(SECTOR_BYTES as u64),
            pages_per_request: facts.pages_max.min(CHUNK_PAGES),
            buffers,
            cache: Cache::new(chunks),
            progress: alloc::vec![Progress::default(); chunks],
            loads: [None; IN_FLIGHT_MAX],
            streams: Streams::default(),
            unseen: false,
            stuck: false,
            last_end: None,
            error: None,
        })
    }

    /// Bytes of the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hears of a watch event. An error ends the connection to the disk.
    pub fn hear(&mut self, event: &WatchEvent) -> Result<(), DiskError> {
        match self.disk.as_mut().filter(|disk| disk.concerns(event)) {
            Some(disk) => {
                let before = disk.reconnections();
                let heard = disk.hear();
                if disk.reconnections() != before {
                    log::info!("the disk's domain was started again; what was asked for is asked for again");
                    self.stuck = false;
                }
                heard
            }
            None => Ok(()),
        }
    }

    /// Gives the disk up; every read fails from now on.
    pub fn close(&mut self) {
        if let Some(disk) = self.disk.take() {
            disk.close();
        }
        self.buffers.clear();
    }

    /// Whether the disk is still in use.
    pub fn is_open(&self) -> bool {
        self.disk.is_some()
    }

    /// Fills `destination` from byte `start` of the disk. Waits for the disk where the cache does not help.
    pub fn read(&mut self, start: u64, destination: &mut [u8]) -> Result<(), String> {
        let result = self.copy_out(start, destination);
        if let Err(why) = &result {
            self.error = Some(why.clone());
        }
        result
    }

    fn copy_out(&mut self, start: u64, destination: &mut [u8]) -> Result<(), String> {
        let end = start.checked_add(destination.len() as u64).filter(|&end| end <= self.bytes);
        let end = end.ok_or_else(|| String::from("a read past the end of the disk"))?;
        if self.streams.note(start, end) == Pattern::Sequential {
            let next = end.div_ceil(CHUNK_BYTES as u64);
            for chunk in next..next + READ_AHEAD {
                self.ask_for(chunk);
            }
        }
        let mut at = start;
        let mut rest = destination;
        while !rest.is_empty() {
            let offset = (at % CHUNK_BYTES as u64) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(CHUNK_BYTES - offset));
            let slot = self.wait_for(at / CHUNK_BYTES as u64)?;
            let buffer = self.buffers.get(slot).ok_or_else(gone)?;
            buffer.memory().read(offset, now);
            at += now.len() as u64;
            rest = later;
        }
        self.last_end = Some(end);
        Ok(())
    }

    /// Whether a read of one chunk at `start` would not wait. If it would, what it needs is asked for.
    pub fn is_ready(&mut self, start: u64) -> bool {
        let chunk = start / CHUNK_BYTES as u64;
        match self.cache.look_up(chunk) {
            Lookup::Ready(_) => true,
            Lookup::Loading => false,
            Lookup::Absent => !self.ask_for(chunk),
        }
    }

    /// Shows the back end what was asked for.
    pub fn kick(&mut self) {
        if core::mem::take(&mut self.unseen)
            && let Some(disk) = &mut self.disk
        {
            disk.kick();
        }
    }

    /// Takes in what the disk has delivered. An error ends the connection to the disk.
    pub fn collect(&mut self) -> Result<(), DiskError> {
        while let Some(disk) = &mut self.disk {
            let Some(completion) = disk.next_completion()? else {
                break;
            };
            let Some(load) = self.loads.get_mut(completion.request.slot()).and_then(Option::take) else {
                continue;
            };
            let Some(progress) = self.progress.get_mut(load.slot) else {
                continue;
            };
            progress.requests = progress.requests.saturating_sub(1);
            progress.failed |= completion.outcome != Outcome::Done;
            match *progress {
                Progress { requests: 0, failed: false } => self.cache.loaded(load.slot),
                Progress { requests: 0, failed: true } => self.cache.failed(load.slot),
                _ => {}
            }
        }
        Ok(())
    }

    /// The slot of `chunk`, once it is loaded.
    fn wait_for(&mut self, chunk: u64) -> Result<usize, String> {
        let deadline = now() + PATIENCE;
        let mut asked = false;
        loop {
            self.collect().map_err(|error| error.to_string())?;
            match self.cache.look_up(chunk) {
                Lookup::Ready(slot) => return Ok(slot),
                Lookup::Absent if asked => return Err("the disk reports an error".into()),
                Lookup::Absent => asked = self.ask_for(chunk),
                // Once it was seen loading, absence means that the load failed.
                Lookup::Loading => asked = true,
            }
            self.kick();
            let disk = self.disk.as_mut().ok_or_else(gone)?;
            if self.stuck || !disk.wait(Some(deadline)).map_err(|error| error.to_string())? {
                self.stuck = true;
                return Err("the disk does not answer".into());
            }
        }
    }

    /// Asks for a chunk that is neither there nor on its way; `false`: not possible now, or not needed.
    fn ask_for(&mut self, chunk: u64) -> bool {
        let start = chunk.saturating_mul(CHUNK_BYTES as u64);
        if start >= self.bytes || self.cache.look_up(chunk) != Lookup::Absent {
            return false;
        }
        let requests = CHUNK_PAGES.div_ceil(self.pages_per_request);
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.free() >= requests) else {
            return false;
        };
        let Some(slot) = self.cache.claim(chunk) else {
            return false;
        };
        let (Some(buffer), Some(progress)) = (self.buffers.get(slot), self.progress.get_mut(slot)) else {
            return false;
        };
        *progress = Progress::default();
        let sectors = (self.bytes - start).min(CHUNK_BYTES as u64) / SECTOR_BYTES as u64;
        let segments = segments(buffer, sectors);
        let mut sector = start / SECTOR_BYTES as u64;
        for part in segments.chunks(self.pages_per_request) {
            match disk.submit_segments(Direction::Read, sector, part) {
                Ok(request) => {
                    progress.requests += 1;
                    if let Some(place) = self.loads.get_mut(request.slot()) {
                        *place = Some(Load { slot });
                    }
                }
                Err(error) => {
                    log::warn!("a read cannot be submitted: {error}");
                    progress.failed = true;
                    break;
                }
            }
            sector += part.len() as u64 * SECTORS_PER_PAGE;
        }
        if progress.requests == 0 {
            self.cache.failed(slot);
        }
        self.unseen = true;
        progress.requests > 0
    }
}

fn gone() -> String {
    "the disk is gone".into()
}

/// The first `sectors` sectors of a chunk's pages.
fn segments(buffer: &GrantedPages, sectors: u64) -> Vec<Segment> {
    let mut left = sectors;
    let mut segments = Vec::with_capacity(CHUNK_PAGES);
    for reference in buffer.references() {
        let here = left.min(SECTORS_PER_PAGE);
        let last = (here as u8).wrapping_sub(1);
        let Some(segment) = Segment::new(reference.0, 0, last).filter(|_| here > 0) else {
            break;
        };
        segments.push(segment);
        left -= here;
    }
    segments
}
