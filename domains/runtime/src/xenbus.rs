//! Split devices: how a front end in one domain and a back end in another find each other and agree.
//!
//! The policy domain writes two directories that point at each other, `device/<type>/<index>` in the front end's home and
//! `backend/<type>/<front end>/<index>` in the back end's. Each end publishes details and a state in its own, and
//! watches the other's state. [`Frontend`] and [`BackendBus`] do the dance, [`state`] has its rules.
//! `docs/xenbus.md` tells it in full.

pub mod back;
pub mod front;
pub mod state;

pub use back::{BackendBus, BackendDevice, BackendEvent, DeviceId};
pub use front::{Frontend, Peer};
pub use state::State;

use crate::store::Store;

/// Reads a `state` node; what is missing or makes no sense is `Unknown`.
fn read_state(store: &Store, directory: &str) -> State {
    match store.read(&alloc::format!("{directory}/state")) {
        Ok(text) => State::parse(&text),
        Err(_) => State::Unknown,
    }
}
