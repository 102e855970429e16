//! The xenbus dance of a front end, one step at a time.

use core::fmt::Display;

use runtime::Errno;
use runtime::store::WatchEvent;
use runtime::time::now;
use runtime::xenbus::{Frontend, Peer, State};

/// How far an opening has come.
#[derive(Debug)]
enum Stage<R> {
    /// Nothing done; the device may not even exist.
    Start,
    /// The device was in use; its back end is lost.
    Lost(Frontend),
    /// The device exists; its back end is not ready.
    Found(Frontend),
    /// Rings and channel are published; the back end has to connect.
    Published(Frontend, R),
}

/// An opening of a device whose rings and channel are an `R`.
#[derive(Debug)]
pub struct Steps<R> {
    kind: &'static str,
    index: Option<u32>,
    stage: Stage<R>,
    /// How often the back end has closed instead of connecting.
    refusals: u32,
}

/// Refusals in a row that are not believed. Where a back end is replaced while we publish, its successor may see half of
/// what was meant for it, and half of what was not.
const REFUSALS_MAX: u32 = 4;

/// Why an opening has not come to its end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// There is no such device in xenstore.
    NoDevice,
    /// The back end is not there or not ready.
    Backend,
    /// The back end's domain is gone, and the policy does not start it again. An administrator may.
    GivenUp,
}

impl<R> Steps<R> {
    /// Of the device `index`, or of the first of its kind.
    pub fn new(kind: &'static str, index: Option<u32>) -> Self {
        Steps { kind, index, stage: Stage::Start, refusals: 0 }
    }

    /// Of a device that was in use and has lost its back end.
    pub fn again(kind: &'static str, device: Frontend) -> Self {
        Steps { kind, index: None, stage: Stage::Lost(device), refusals: 0 }
    }

    /// Whether a watch event is about the device.
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        match &self.stage {
            Stage::Start => false,
            Stage::Lost(device) | Stage::Found(device) | Stage::Published(device, _) => device.concerns(event),
        }
    }

    /// Goes on as far as possible without waiting. `make` allocates the rings for a back end, and `is_gone` tells whether
    /// it failed because there is no such domain any more; `publish` gives their
    /// details and the state that says that they are there. A back end that dies meanwhile is no error: its successor
    /// is waited for.
    pub fn step<E: From<Errno>>(
        &mut self,
        make: impl Fn(&Frontend) -> Result<R, E>,
        is_gone: impl Fn(&E) -> bool,
        publish: impl Fn(&R, &mut dyn FnMut(State, &[(&str, &dyn Display)]) -> Result<(), Errno>) -> Result<(), Errno>,
    ) -> Result<Result<(Frontend, R), Waiting>, E> {
        loop {
            match core::mem::replace(&mut self.stage, Stage::Start) {
                Stage::Start => {
                    let Some(index) = self.index.or_else(|| Frontend::list(self.kind).first().copied()) else {
                        return Ok(Err(Waiting::NoDevice));
                    };
                    match Frontend::open(self.kind, index) {
                        Ok(device) => self.stage = Stage::Found(device),
                        Err(Errno::ENOENT) => return Ok(Err(Waiting::NoDevice)),
                        Err(error) => return Err(error.into()),
                    }
                }
                Stage::Lost(mut device) => {
                    device.reopen()?;
                    self.stage = Stage::Found(device);
                }
                Stage::Found(mut device) => match device.peer() {
                    Peer::Replaced => {
                        self.refusals = 0;
                        self.stage = Stage::Lost(device);
                    }
                    Peer::GivenUp => {
                        self.stage = Stage::Found(device);
                        return Ok(Err(Waiting::GivenUp));
                    }
                    Peer::There | Peer::Lost => {
                        if device.wait_for_backend(Some(now())).is_err() {
                            // The wait takes all events about the device, those of another back end too.
                            let other = matches!(device.peer(), Peer::Replaced | Peer::GivenUp);
                            self.stage = Stage::Found(device);
                            if other {
                                continue;
                            }
                            return Ok(Err(Waiting::Backend));
                        }
                        let rings = match make(&device) {
                            // It has just died, and xenstore will tell.
                            Err(error) if is_gone(&error) => {
                                self.stage = Stage::Found(device);
                                return Ok(Err(Waiting::Backend));
                            }
                            made => made?,
                        };
                        publish(&rings, &mut |state, details| device.publish(state, details))?;
                        self.stage = Stage::Published(device, rings);
                    }
                },
                Stage::Published(mut device, rings) => match device.wait_connected(Some(now())) {
                    Ok(()) => return Ok(Ok((device, rings))),
                    Err(Errno::ETIMEDOUT) if device.peer() == Peer::There => {
                        self.stage = Stage::Published(device, rings);
                        return Ok(Err(Waiting::Backend));
                    }
                    // It has died, or another is there already.
                    Err(_) if device.backend_state() == State::Unknown || device.peer() == Peer::Replaced => {
                        drop(rings);
                        self.refusals = 0;
                        self.stage = Stage::Lost(device);
                    }
                    // It closed instead. Say that we are done with it, so that it can start over.
                    Err(error) => {
                        drop(rings);
                        device.close()?;
                        self.refusals += 1;
                        if self.refusals > REFUSALS_MAX {
                            return Err(error.into());
                        }
                        self.stage = Stage::Lost(device);
                    }
                },
            }
        }
    }
}
