//! One client's connection: requests in, responses out, one after the other.
//!
//! Nothing is read while a response is under way, so a client that sends and never reads costs one request head. File
//! bodies go through a buffer of [`CHUNK`] bytes that exists only while a file is being sent.

use super::request::{Persistence, Reader};
use super::respond::{Body, Response, refuse, respond};
use crate::site::{Read, Site};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes of a file that are read at once; reads start at multiples of it.
pub const CHUNK: usize = 32 * 1024;

/// Where a connection's bytes go.
pub trait Sink {
    /// Takes as many of `bytes` as there is room for; gives how many.
    fn write(&mut self, bytes: &[u8]) -> usize;
}

/// Where a connection stands after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for more of a request. Whether anything of one is there already tells idle clients from slow ones.
    WaitsForRequest,
    /// The sink is full.
    WaitsForRoom,
    /// The disk has to deliver first.
    WaitsForDisk,
    /// It has had its share for this turn and could go on.
    CouldGoOn,
    /// The last response is out; close it in good order.
    Finished,
    /// A body cannot be completed; the client must see that: cut it off.
    Broken,
}

/// A connection.
#[derive(Debug)]
pub struct Connection<F> {
    reader: Reader,
    sending: Option<Sending<F>>,
    finished: bool,
    /// Responses begun.
    pub responses: u64,
}

#[derive(Debug)]
struct Sending<F> {
    /// Bytes ready to go, and how many of them went.
    ready: Vec<u8>,
    sent: usize,
    file: Option<FileRest<F>>,
    persistence: Persistence,
}

#[derive(Debug)]
struct FileRest<F> {
    file: F,
    offset: u64,
    left: u64,
    /// Boxed: a connection that sends no file has none.
    buffer: Box<[u8]>,
    filled: usize,
    taken: usize,
}

impl<F> Default for Connection<F> {
    fn default() -> Self {
        Connection { reader: Reader::default(), sending: None, finished: false, responses: 0 }
    }
}

impl<F> Connection<F> {
    /// Bytes that it takes in now.
    #[must_use]
    pub fn input_room(&self) -> usize {
        if self.sending.is_some() || self.finished { 0 } else { self.reader.room() }
    }

    /// Takes in bytes; gives how many.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        self.reader.push(bytes.get(..self.input_room()).unwrap_or(bytes))
    }

    /// Whether a request or response is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.sending.is_some() || !self.reader.is_empty()
    }

    /// Goes on with whatever is possible, up to `chunks` reads of a file.
    pub fn advance<S: Site<File = F>>(&mut self, site: &mut S, sink: &mut impl Sink, mut chunks: usize) -> Progress {
        loop {
            if self.finished {
                return Progress::Finished;
            }
            let Some(sending) = &mut self.sending else {
                let Some(request) = self.reader.next_request() else {
                    return Progress::WaitsForRequest;
                };
                self.responses += 1;
                let response = match &request {
                    Ok(request) => respond(request, site),
                    Err(refused) => refuse(*refused),
                };
                self.sending = Some(Sending::new(response));
                continue;
            };
            match sending.advance(site, sink, &mut chunks) {
                Some(progress) => return progress,
                None => {
                    self.finished = sending.persistence == Persistence::Close;
                    self.sending = None;
                }
            }
        }
    }
}

impl<F> Sending<F> {
    fn new(response: Response<F>) -> Self {
        let Response { head: mut ready, body, persistence } = response;
        let file = match body {
            Body::Bytes(bytes) => {
                ready.extend_from_slice(&bytes);
                None
            }
            Body::File { file, offset, length } => {
                Some(FileRest { file, offset, left: length, buffer: Box::default(), filled: 0, taken: 0 })
            }
        };
        Sending { ready, sent: 0, file, persistence }
    }

    /// `None`: all is out.
    fn advance<S: Site<File = F>>(
        &mut self,
        site: &mut S,
        sink: &mut impl Sink,
        chunks: &mut usize,
    ) -> Option<Progress> {
        if self.sent < self.ready.len() {
            self.sent += sink.write(&self.ready[self.sent..]);
            if self.sent < self.ready.len() {
                return Some(Progress::WaitsForRoom);
            }
            self.ready = Vec::new();
            self.sent = 0;
        }
        self.file.as_mut()?.advance(site, sink, chunks)
    }
}

impl<F> FileRest<F> {
    fn advance<S: Site<File = F>>(
        &mut self,
        site: &mut S,
        sink: &mut impl Sink,
        chunks: &mut usize,
    ) -> Option<Progress> {
        loop {
            if self.taken < self.filled {
                self.taken += sink.write(&self.buffer[self.taken..self.filled]);
                if self.taken < self.filled {
                    return Some(Progress::WaitsForRoom);
                }
            }
            if self.left == 0 {
                return None;
            }
            if *chunks == 0 {
                return Some(Progress::CouldGoOn);
            }
            *chunks -= 1;
            if self.buffer.is_empty() {
                self.buffer = alloc::vec![0; CHUNK].into_boxed_slice();
            }
            let to_boundary = CHUNK - (self.offset % CHUNK as u64) as usize;
            let wanted = usize::try_from(self.left).map_or(to_boundary, |left| left.min(to_boundary));
            match site.read(&mut self.file, self.offset, &mut self.buffer[..wanted]) {
                Ok(Read::Bytes(count)) if (1..=wanted).contains(&count) => {
                    (self.filled, self.taken) = (count, 0);
                    self.offset += count as u64;
                    self.left -= count as u64;
                }
                Ok(Read::Later) => return Some(Progress::WaitsForDisk),
                Ok(Read::Bytes(_)) | Err(_) => return Some(Progress::Broken),
            }
        }
    }
}
