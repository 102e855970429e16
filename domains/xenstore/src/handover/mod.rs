//! What the server hands over to its successor, should it die at its next instruction.
//!
//! The memory is the policy domain's, granted to whoever is xenstore, so it outlives this domain. It holds the whole state
//! as it was at some moment (a *snapshot*) and everything that the server has done since (the *log*), by which a
//! successor does the same again: what the engine does depends on nothing else. All that a record says is true from the
//! moment on when the log's tail has moved behind it, which is a single store; before, it has not happened.
//!
//! | bytes | |
//! |---|---|
//! | 0 | magic number and version of the format |
//! | 8 | which half is valid: 1 or 2; 0: none yet; `HANDOVER_UNUSABLE`: nobody shall start from here, which the policy domain looks for |
//! | 12, 16 | where the log of each half ends, from the start of the half |
//! | 20, 24 | the request in progress: its place in its client's stream; client and how many servers have begun it |
//! | 64 | first half: length and sum of the snapshot, the snapshot, the records |
//! | | second half |
//!
//! When the log is full a new snapshot goes into the other half, and the selector follows: a single store again.

pub mod bytes;
mod replay;
pub mod snapshot;

use crate::connection::Start;
use crate::domid::DomId;
use crate::engine::Engine;
use crate::quota;
use alloc::vec::Vec;
use bytes::{Reader, Sum, Writer};
use core::fmt;
use xen_abi::native::{HANDOVER_SELECTOR as SELECTOR_AT, HANDOVER_UNUSABLE as UNUSABLE};
use xen_rings::memory::SharedMemory;
use xen_rings::store::message::MESSAGE_BYTES_MAX;

/// "XSHO", and the version of the format behind it.
const MAGIC: u32 = u32::from_le_bytes(*b"XSHO");
const VERSION: u32 = 1;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 4;
const TAILS_AT: [usize; 2] = [12, 16];
const ATTEMPT_PLACE_AT: usize = 20;
const ATTEMPT_AT: usize = 24;
const HALVES_AT: usize = 64;
/// Length and sum of a snapshot.
const SNAPSHOT_HEAD: usize = 8;

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request was carried out.
    Request {
        /// Memory was short when it was asked for.
        memory_was_short: bool,
        /// The ring that it attached.
        attached: Option<Start>,
    },
    /// A part of a request was taken, whose rest had not come.
    Part,
    /// So many events went into the output.
    Events(u32),
    /// The client is not served any more.
    CutOff,
}

/// One step of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which client it is about.
    pub domain: DomId,
    /// What was done.
    pub action: Action,
    /// Where its stream of requests has been read to, this included.
    pub input: u32,
    /// Where its stream of replies had been read to, at least, when this was done.
    pub output: u32,
    /// What was taken from the ring for this.
    pub bytes: &'a [u8],
}

const RECORD_HEAD: usize = 32;
const KIND_REQUEST: u8 = 1;
const KIND_PART: u8 = 2;
const KIND_EVENTS: u8 = 3;
const KIND_CUT_OFF: u8 = 4;
const FLAG_SHORT: u8 = 1;
const FLAG_ATTACHED: u8 = 2;

impl Record<'_> {
    /// The head, with the sum over it and the bytes that follow.
    fn head(&self) -> [u8; RECORD_HEAD] {
        let (kind, flags, numbers) = match self.action {
            Action::Request { memory_was_short, attached } => {
                let flags = u8::from(memory_was_short) * FLAG_SHORT + u8::from(attached.is_some()) * FLAG_ATTACHED;
                let start = attached.unwrap_or_default();
                (KIND_REQUEST, flags, [start.port, start.input, start.output])
            }
            Action::Part => (KIND_PART, 0, [0; 3]),
            Action::Events(count) => (KIND_EVENTS, 0, [count, 0, 0]),
            Action::CutOff => (KIND_CUT_OFF, 0, [0; 3]),
        };
        let [domain_low, domain_high] = self.domain.0.to_le_bytes();
        let [length_low, length_high, ..] = (self.bytes.len() as u32).to_le_bytes();
        let mut head = [0; RECORD_HEAD];
        head[4..10].copy_from_slice(&[kind, flags, domain_low, domain_high, length_low, length_high]);
        for (place, number) in head[12..].chunks_exact_mut(4).zip([self.input, self.output].iter().chain(&numbers)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = record_sum(&head, self.bytes);
        head[..4].copy_from_slice(&sum.to_le_bytes());
        head
    }

    /// Bytes that it takes in the log.
    const fn size(&self) -> usize {
        RECORD_HEAD + self.bytes.len().next_multiple_of(8)
    }
}

/// The sum of a record, whose own place in the head is zero.
fn record_sum(head: &[u8; RECORD_HEAD], bytes: &[u8]) -> u32 {
    let mut sum = Sum::default();
    sum.add(head);
    sum.add(bytes);
    sum.value()
}

/// Reads the next record; its bytes go to `bytes`.
fn next_record<'b, M: SharedMemory>(from: &mut Reader<'_, M>, bytes: &'b mut Vec<u8>) -> Option<Record<'b>> {
    let mut head: [u8; RECORD_HEAD] = from.array()?;
    let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (sum, input, output) = (number(0)?, number(12)?, number(16)?);
    let numbers = [number(20)?, number(24)?, number(28)?];
    let [_, _, _, _, kind, flags, domain_low, domain_high, length_low, length_high, ..] = head;
    let length = usize::from(u16::from_le_bytes([length_low, length_high]));
    if length > MESSAGE_BYTES_MAX {
        return None;
    }
    bytes.resize(length, 0);
    from.fill(bytes)?;
    let mut padding = [0; 8];
    from.fill(padding.get_mut(..length.next_multiple_of(8) - length)?)?;
    head[..4].fill(0);
    if record_sum(&head, bytes) != sum {
        return None;
    }
    let action = match kind {
        KIND_REQUEST => {
            let [port, input, output] = numbers;
            let attached = (flags & FLAG_ATTACHED != 0).then_some(Start { port, input, output });
            Action::Request { memory_was_short: flags & FLAG_SHORT != 0, attached }
        }
        KIND_PART => Action::Part,
        KIND_EVENTS => Action::Events(numbers[0]),
        KIND_CUT_OFF => Action::CutOff,
        _ => return None,
    };
    Some(Record { domain: DomId(u16::from_le_bytes([domain_low, domain_high])), action, input, output, bytes })
}

/// Why nobody can go on from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is too little memory for anything.
    TooSmall,
    /// It is of another version, or of something else.
    Foreign,
    /// An earlier server said so.
    GivenUp,
    /// The snapshot is damaged.
    Snapshot,
    /// The log is damaged, this many bytes into its half.
    Log(usize),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::TooSmall => f.write_str("it is too small"),
            Unusable::Foreign => f.write_str("it is no hand-over memory of this version"),
            Unusable::GivenUp => f.write_str("it was given up"),
            Unusable::Snapshot => f.write_str("its snapshot is damaged"),
            Unusable::Log(at) => write!(f, "its log is damaged at {at}"),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// Nobody has served yet.
    Nothing,
    /// A predecessor, which was here.
    State(Engine),
}

/// The memory, and where in it the log ends.
#[derive(Debug)]
pub struct Handover<M> {
    memory: M,
    /// The half in use, 0 or 1.
    half: usize,
    half_bytes: usize,
    /// Where the next record goes and where none goes any more, from the start of the half.
    tail: usize,
    limit: usize,
}

impl<M: SharedMemory> Handover<M> {
    /// Looks at the memory, and takes up what a predecessor has left there. `memory_quota` is that of each client.
    ///
    /// # Errors
    /// What is there cannot be made sense of, and says so from now on.
    pub fn open(memory: M, memory_quota: usize) -> Result<(Self, Found), Unusable> {
        let half_bytes = (memory.bytes().saturating_sub(HALVES_AT) / 2) & !7;
        if half_bytes < 2 * (RECORD_HEAD + MESSAGE_BYTES_MAX) {
            return Err(Unusable::TooSmall);
        }
        let mut handover = Handover { memory, half: 1, half_bytes, tail: 0, limit: 0 };
        match handover.read(memory_quota) {
            Ok(found) => Ok((handover, found)),
            Err(why) => {
                handover.give_up();
                Err(why)
            }
        }
    }

    fn read(&mut self, memory_quota: usize) -> Result<Found, Unusable> {
        let memory = &self.memory;
        self.half = match memory.load_u32(SELECTOR_AT) {
            // The selector is written last.
            0 => return Ok(Found::Nothing),
            _ if (memory.load_u32(MAGIC_AT), memory.load_u32(VERSION_AT)) != (MAGIC, VERSION) => {
                return Err(Unusable::Foreign);
            }
            UNUSABLE => return Err(Unusable::GivenUp),
            1 => 0,
            2 => 1,
            _ => return Err(Unusable::Foreign),
        };
        let start = self.start(self.half);
        let tail = TAILS_AT.get(self.half).map_or(0, |&at| memory.load_u32(at) as usize);
        let (length, sum) = (memory.load_u32(start) as usize, memory.load_u32(start + 4));
        let log = length.checked_next_multiple_of(8).and_then(|length| length.checked_add(SNAPSHOT_HEAD));
        let log = log.filter(|log| *log <= tail && tail <= self.half_bytes).ok_or(Unusable::Snapshot)?;
        let mut snapshot = Reader::new(memory, start + SNAPSHOT_HEAD, start + SNAPSHOT_HEAD + length);
        if snapshot.sum() != sum {
            return Err(Unusable::Snapshot);
        }
        let mut engine = snapshot::decode(memory_quota, &mut snapshot).ok_or(Unusable::Snapshot)?;
        let (mut records, mut bytes, mut at) =
            (Reader::new(memory, start + log, start + tail), Vec::with_capacity(MESSAGE_BYTES_MAX), log);
        while !records.is_done() {
            let record = next_record(&mut records, &mut bytes).ok_or(Unusable::Log(at))?;
            engine.replay(&record).ok_or(Unusable::Log(at))?;
            at += record.size();
        }
        (self.tail, self.limit) = (tail, self.limit_behind(log));
        Ok(Found::State(engine))
    }

    fn start(&self, half: usize) -> usize {
        HALVES_AT + half * self.half_bytes
    }

    /// Where the log ends at the latest that begins at `log`: replaying takes time, so it does not get longer than needed.
    fn limit_behind(&self, log: usize) -> usize {
        self.half_bytes.min(log.saturating_add(quota::LOG_BYTES))
    }

    /// Makes what was done last true; `engine` has done it. `false`: there is no room for the state any more, and from now
    /// on nobody can take over.
    #[must_use]
    pub fn note(&mut self, record: &Record<'_>, engine: &Engine) -> bool {
        if record.size() > self.limit.saturating_sub(self.tail) {
            return self.take_snapshot(engine);
        }
        let at = self.start(self.half) + self.tail;
        self.memory.write(at, &record.head());
        self.memory.write(at + RECORD_HEAD, record.bytes);
        self.tail += record.size();
        self.store_tail(self.half, self.tail);
        true
    }

    fn store_tail(&self, half: usize, tail: usize) {
        if let Some(&at) = TAILS_AT.get(half) {
            self.memory.store_u32(at, tail as u32);
        }
    }

    /// Writes all of `engine` into the half that is not in use, and goes on there. `false`: as for [`Handover::note`].
    #[must_use]
    pub fn take_snapshot(&mut self, engine: &Engine) -> bool {
        let half = 1 - self.half;
        let start = self.start(half);
        let mut out = Writer::new(&self.memory, start + SNAPSHOT_HEAD, start + self.half_bytes);
        snapshot::encode(engine, &mut out);
        let Some((length, sum)) = out.finish() else {
            self.give_up();
            return false;
        };
        self.memory.store_u32(start, length as u32);
        self.memory.store_u32(start + 4, sum);
        let log = (SNAPSHOT_HEAD + length).next_multiple_of(8);
        self.store_tail(half, log);
        self.memory.store_u32(MAGIC_AT, MAGIC);
        self.memory.store_u32(VERSION_AT, VERSION);
        self.memory.store_u32(SELECTOR_AT, half as u32 + 1);
        (self.half, self.tail, self.limit) = (half, log, self.limit_behind(log));
        true
    }

    /// Nobody shall start from here.
    fn give_up(&mut self) {
        self.memory.store_u32(MAGIC_AT, MAGIC);
        self.memory.store_u32(VERSION_AT, VERSION);
        self.memory.store_u32(SELECTOR_AT, UNUSABLE);
    }

    /// The request of `domain` whose first new byte is at `place` is begun: gives how many servers have begun it, this one
    /// included. All but this one have died of it.
    pub fn begin(&mut self, domain: DomId, place: u32) -> u32 {
        let attempt = self.memory.load_u32(ATTEMPT_AT);
        let same = attempt >> 16 == u32::from(domain.0) && self.memory.load_u32(ATTEMPT_PLACE_AT) == place;
        let count = if same { (attempt & 0xffff).min(0xfffe) + 1 } else { 1 };
        if !same {
            // Else the count of another request would be this one's if this server died between the two.
            self.memory.store_u32(ATTEMPT_AT, 0);
            self.memory.store_u32(ATTEMPT_PLACE_AT, place);
        }
        self.memory.store_u32(ATTEMPT_AT, u32::from(domain.0) << 16 | count);
        count
    }
}
