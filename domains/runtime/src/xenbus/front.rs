//! A front end: finds its back end, publishes its rings, waits until it is connected.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;

use super::read_state;
use super::state::{FrontStep, State, front_step};
use crate::errno::{Errno, Result};
use crate::ids::DomId;
use crate::store::{self, Batch, Store, WatchEvent};
use crate::time::Instant;

/// One device as its client sees it.
///
/// ```text
/// let mut device = Frontend::open("vbd", 51712)?;
/// device.wait_for_backend(None)?;                     // its features can be read now
/// let ring = GrantedPages::allocate(1, device.backend(), Access::ReadWrite)?;
/// let channel = Channel::listen(device.backend())?;
/// device.publish(State::Initialised, &[("ring-ref", &ring.reference(0)), ("event-channel", &channel.port())])?;
/// device.wait_connected(None)?;
/// ```
#[derive(Debug)]
pub struct Frontend {
    path: String,
    backend: DomId,
    backend_path: String,
    state: State,
    token: String,
}

/// What has become of the back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It is where it was.
    There,
    /// It closes, or its domain has died. Another may take its place: [`Frontend::reopen`], and wait for it.
    Lost,
    /// Another is there: [`Frontend::reopen`].
    Replaced,
    /// Its domain is gone, and the policy gives the device no other.
    GivenUp,
}

/// The nodes of our own directory that the policy domain changes when the back end dies, besides its facts.
const FOLLOWED: [&str; 2] = ["backend", "online"];

impl Frontend {
    /// The indices of this domain's devices of a type (`vbd`, `vif`), ascending.
    pub fn list(kind: &str) -> Vec<u32> {
        let names = Store::new().list(&format!("device/{kind}")).unwrap_or_default();
        let mut indices: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        indices.sort_unstable();
        indices
    }

    /// Opens device `index` of type `kind`. `ENOENT`: there is none.
    pub fn open(kind: &str, index: u32) -> Result<Self> {
        let store = Store::new();
        let path = format!("device/{kind}/{index}");
        let (backend, backend_path) = backend_of(&store, &path)?;
        let token = format!("front:{kind}/{index}");
        for key in FOLLOWED {
            store.watch(&format!("{path}/{key}"), &token)?;
        }
        store.watch(&format!("{backend_path}/state"), &token)?;
        let mut device = Self { path, backend, backend_path, state: State::Initialising, token };
        device.set_state(State::Initialising)?;
        Ok(device)
    }

    /// The domain at the other end.
    pub fn backend(&self) -> DomId {
        self.backend
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The back end's state now.
    pub fn backend_state(&self) -> State {
        read_state(&Store::new(), &self.backend_path)
    }

    /// A node of the back end's directory, e.g. a feature or the size. Anything may be in it.
    pub fn backend_value<T: FromStr>(&self, key: &str) -> Result<T> {
        Store::new().read_parsed(&format!("{}/{key}", self.backend_path))
    }

    /// A node of our own directory, as the policy domain wrote it (`mac`).
    pub fn value<T: FromStr>(&self, key: &str) -> Result<T> {
        Store::new().read_parsed(&format!("{}/{key}", self.path))
    }

    /// Waits until the back end waits for us.
    pub fn wait_for_backend(&mut self, deadline: Option<Instant>) -> Result<()> {
        self.wait(deadline, FrontStep::Publish)
    }

    /// Writes our details and then the state that says that they are there: `Initialised`, for network devices
    /// `Connected`.
    pub fn publish(&mut self, state: State, details: &[(&str, &dyn Display)]) -> Result<()> {
        // The back end looks at them when it sees the state.
        let mut batch = Batch::new();
        details.iter().for_each(|(key, value)| batch.write(&format!("{}/{key}", self.path), value));
        Store::new().run(&batch)?;
        self.set_state(state)
    }

    /// Waits until the back end is connected, and says that we are too.
    pub fn wait_connected(&mut self, deadline: Option<Instant>) -> Result<()> {
        self.wait(deadline, FrontStep::Start)?;
        self.set_state(State::Connected)
    }

    /// Whether a watch event is about this device. If so, look at [`Frontend::peer`].
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        event.token == self.token
    }

    /// What has become of the back end.
    pub fn peer(&self) -> Peer {
        if self.value::<u32>("online") == Ok(0) {
            return Peer::GivenUp;
        }
        match self.value::<String>("backend") {
            Ok(path) if path != self.backend_path => Peer::Replaced,
            _ if front_step(self.state, self.backend_state()) == FrontStep::Close => Peer::Lost,
            _ => Peer::There,
        }
    }

    /// Says that we are done with the device.
    pub fn close(&mut self) -> Result<()> {
        self.set_state(State::Closed)
    }

    /// Starts over with the same device, and with whatever back end it has now.
    pub fn reopen(&mut self) -> Result<()> {
        let store = Store::new();
        let (backend, backend_path) = backend_of(&store, &self.path)?;
        if backend_path != self.backend_path {
            let _ = store.unwatch(&format!("{}/state", self.backend_path), &self.token); // it may be gone with its node
            store.watch(&format!("{backend_path}/state"), &self.token)?;
            (self.backend, self.backend_path) = (backend, backend_path);
        }
        self.set_state(State::Initialising)
    }

    fn set_state(&mut self, state: State) -> Result<()> {
        Store::new().write(&format!("{}/state", self.path), state.text())?;
        self.state = state;
        Ok(())
    }

    /// Waits for a step. `ECONNREFUSED`: the back end closes instead; `ETIMEDOUT`: the deadline passed. Watch events of
    /// others are put back.
    fn wait(&mut self, deadline: Option<Instant>, wanted: FrontStep) -> Result<()> {
        let mut others = Vec::new();
        let result = loop {
            match front_step(self.state, self.backend_state()) {
                step if step == wanted => break Ok(()),
                // A back end that is still closed from an earlier life announces itself when it sees us.
                FrontStep::Close if self.state != State::Initialising => break Err(Errno::ECONNREFUSED),
                _ => {}
            }
            match store::wait_event(deadline) {
                Some(event) if event.token == self.token => {}
                Some(event) => others.push(event),
                None => break Err(Errno::ETIMEDOUT),
            }
        };
        store::put_back(others);
        result
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        let store = Store::new();
        for key in FOLLOWED {
            let _ = store.unwatch(&format!("{}/{key}", self.path), &self.token);
        }
        let _ = store.unwatch(&format!("{}/state", self.backend_path), &self.token);
    }
}

/// Id and directory of the back end of the device at `path`: both of the same one, whoever replaces it meanwhile.
fn backend_of(store: &Store, path: &str) -> Result<(DomId, String)> {
    let directory = || store.read_text(&format!("{path}/backend"));
    let mut backend_path = directory()?;
    loop {
        let backend = store.read_parsed(&format!("{path}/backend-id"))?;
        let again = directory()?;
        if again == backend_path {
            return Ok((DomId::from_u32(backend).ok_or(Errno::EINVAL)?, backend_path));
        }
        backend_path = again;
    }
}
