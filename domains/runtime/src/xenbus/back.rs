//! Back ends of one type: finds the front ends, reads what they publish, connects and disconnects them.
//!
//! Configuration comes from the back end's own directory, which the policy domain writes and the front end cannot.
//! From the front end's directory come only ring references, an event channel and the protocol: numbers to be checked
//! by use. The front end may write anything, anywhere in its directory, at any moment.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Display};
use core::str::FromStr;

use super::read_state;
use super::state::{BackStep, State, back_step, begun_by_predecessor, state_when_released};
use crate::errno::{Errno, Result};
use crate::ids::DomId;
use crate::store::{Batch, Store, WatchEvent};

/// Which device of which front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    /// The domain that has the front end.
    pub frontend: DomId,
    /// Its number there.
    pub index: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.frontend, self.index)
    }
}

/// What the back end's driver has to do about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendEvent {
    /// A new device, or one that starts over: read its configuration, write features, call
    /// [`BackendBus::announce`] (or [`BackendBus::refuse`]).
    Found(DeviceId),
    /// A device that our predecessor of the same id served until it died, and whose front end does not know: read its
    /// configuration and its front end's details, map, bind, go on in the rings where the dead one left them, call
    /// [`BackendBus::connected`] (or [`BackendBus::refuse`], and the front end begins anew).
    Adopt(DeviceId),
    /// The front end has published its details: read them, map, bind, call [`BackendBus::connected`] (or
    /// [`BackendBus::refuse`]).
    Ready(DeviceId),
    /// The front end leaves: stop, unmap, unbind, call [`BackendBus::closed`]. May come more than once, and for a device
    /// that was never connected.
    Closing(DeviceId),
    /// The device is removed (its domain is gone): stop, unmap, unbind. The bus has forgotten it already.
    Gone(DeviceId),
}

/// One device of the bus.
#[derive(Debug)]
pub struct BackendDevice {
    id: DeviceId,
    path: String,
    frontend_path: String,
    state: State,
}

impl BackendDevice {
    /// A node of our own directory: what the policy says of the device.
    pub fn config<T: FromStr>(&self, key: &str) -> Result<T> {
        Store::new().read_parsed(&format!("{}/{key}", self.path))
    }

    /// Writes a node of our own directory: a feature, the size.
    pub fn write(&self, key: &str, value: impl Display) -> Result<()> {
        Store::new().write_display(&format!("{}/{key}", self.path), value)
    }

    /// Writes many of them.
    pub fn write_all(&self, nodes: &[(&str, &dyn Display)]) -> Result<()> {
        let mut batch = Batch::new();
        nodes.iter().for_each(|(key, value)| batch.write(&format!("{}/{key}", self.path), value));
        Store::new().run(&batch)
    }

    /// A node of the front end's directory. Anything may be in it.
    pub fn frontend_value<T: FromStr>(&self, key: &str) -> Result<T> {
        Store::new().read_parsed(&format!("{}/{key}", self.frontend_path))
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
        // Fails only when the directory is gone, which its watch tells too.
        let _ = Store::new().write(&format!("{}/state", self.path), state.text());
    }

    fn token(&self, kind: &str) -> String {
        format!("back-front:{kind}/{}", self.id)
    }
}

/// All devices of one type that this domain serves.
#[derive(Debug)]
pub struct BackendBus {
    kind: String,
    token: String,
    devices: BTreeMap<DeviceId, BackendDevice>,
}

impl BackendBus {
    /// Watches `backend/<kind>`. The first event comes at once.
    pub fn new(kind: &str) -> Result<Self> {
        let token = format!("back:{kind}");
        Store::new().watch(&format!("backend/{kind}"), &token)?;
        Ok(Self { kind: String::from(kind), token, devices: BTreeMap::new() })
    }

    /// A device of the bus.
    pub fn device(&self, id: DeviceId) -> Option<&BackendDevice> {
        self.devices.get(&id)
    }

    /// All devices.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, &BackendDevice)> {
        self.devices.iter().map(|(&id, device)| (id, device))
    }

    /// What a watch event means. An event that is not the bus's means nothing.
    pub fn on_watch(&mut self, event: &WatchEvent) -> Vec<BackendEvent> {
        let mut todo = Vec::new();
        if event.token == self.token {
            match parse_path(&self.kind, &event.path) {
                // What is written into it, by ourselves above all, says nothing of the device as such.
                Subject::Inside(id) if self.devices.contains_key(&id) => {}
                Subject::Device(id) | Subject::Inside(id) => self.look_at(id, &mut todo),
                Subject::Frontend(domain) => self.scan_frontend(domain, &mut todo),
                Subject::Bus => self.scan(&mut todo),
            }
        } else if let Some(id) = self.devices.values().find(|d| d.token(&self.kind) == event.token).map(|d| d.id) {
            self.step(id, &mut todo);
        }
        todo
    }

    /// The driver has written its features: let the front end come.
    pub fn announce(&mut self, id: DeviceId) -> Vec<BackendEvent> {
        self.set_and_step(id, State::InitWait)
    }

    /// The driver serves the device now.
    pub fn connected(&mut self, id: DeviceId) -> Vec<BackendEvent> {
        self.set_and_step(id, State::Connected)
    }

    /// The driver has let go of the device. `Found` follows when the front end starts over.
    pub fn closed(&mut self, id: DeviceId) -> Vec<BackendEvent> {
        let front = self.devices.get(&id).map(|device| read_state(&Store::new(), &device.frontend_path));
        match front.map(state_when_released) {
            // `Closing` follows again when the front end goes on.
            Some(State::Closing) | None => Vec::new(),
            Some(state) => self.set_and_step(id, state),
        }
    }

    /// The driver cannot serve the device: says why in its `error` node, and closes it.
    pub fn refuse(&mut self, id: DeviceId, why: &str) {
        if let Some(device) = self.devices.get_mut(&id) {
            log::warn!("{} {id}: {why}", self.kind);
            let _ = device.write("error", why);
            device.set_state(State::Closing);
            device.set_state(State::Closed);
        }
    }

    fn set_and_step(&mut self, id: DeviceId, state: State) -> Vec<BackendEvent> {
        let mut todo = Vec::new();
        if let Some(device) = self.devices.get_mut(&id) {
            device.set_state(state);
            self.step(id, &mut todo);
        }
        todo
    }

    fn scan(&mut self, todo: &mut Vec<BackendEvent>) {
        let store = Store::new();
        let mut frontends: Vec<DomId> = self.devices.keys().map(|id| id.frontend).collect();
        let listed = store.list(&format!("backend/{}", self.kind)).unwrap_or_default();
        frontends.extend(listed.iter().filter_map(|name| name.parse().ok()).map(DomId));
        frontends.sort_unstable();
        frontends.dedup();
        for domain in frontends {
            self.scan_frontend(domain, todo);
        }
    }

    fn scan_frontend(&mut self, frontend: DomId, todo: &mut Vec<BackendEvent>) {
        let listed = Store::new().list(&format!("backend/{}/{frontend}", self.kind)).unwrap_or_default();
        let mut indices: Vec<u32> = listed.iter().filter_map(|name| name.parse().ok()).collect();
        indices.extend(self.devices.keys().filter(|id| id.frontend == frontend).map(|id| id.index));
        indices.sort_unstable();
        indices.dedup();
        for index in indices {
            self.look_at(DeviceId { frontend, index }, todo);
        }
    }

    /// Something in our directory of a device changed: it is new, or removed, or it was our own writing.
    fn look_at(&mut self, id: DeviceId, todo: &mut Vec<BackendEvent>) {
        let store = Store::new();
        let path = format!("backend/{}/{id}", self.kind);
        let frontend_path = store.read_text(&format!("{path}/frontend"));
        match (frontend_path, self.devices.contains_key(&id)) {
            (Ok(frontend_path), false) => {
                // The policy domain writes a device's nodes in one transaction, so the states are there too.
                let begun = begun_by_predecessor(read_state(&store, &path), read_state(&store, &frontend_path));
                let state = begun.unwrap_or(State::Initialising);
                let device = BackendDevice { id, path, frontend_path, state };
                let _ = store.watch(&format!("{}/state", device.frontend_path), &device.token(&self.kind));
                self.devices.insert(id, device);
                match begun {
                    None => todo.push(BackendEvent::Found(id)),
                    Some(State::Connected) => todo.push(BackendEvent::Adopt(id)),
                    Some(_) => self.step(id, todo),
                }
            }
            (Err(Errno::ENOENT), true) => {
                if let Some(device) = self.devices.remove(&id) {
                    let _ = store.unwatch(&format!("{}/state", device.frontend_path), &device.token(&self.kind));
                    todo.push(BackendEvent::Gone(id));
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, id: DeviceId, todo: &mut Vec<BackendEvent>) {
        let Some(device) = self.devices.get_mut(&id) else {
            return;
        };
        match back_step(device.state, read_state(&Store::new(), &device.frontend_path)) {
            BackStep::Wait => {}
            // The driver was told by `Found` and answers with `announce`; a device that was closed starts over.
            BackStep::Announce if device.state == State::Closed => {
                device.set_state(State::Initialising);
                todo.push(BackendEvent::Found(id));
            }
            BackStep::Announce => {}
            BackStep::Connect => todo.push(BackendEvent::Ready(id)),
            BackStep::Close => {
                if device.state != State::Closing {
                    device.set_state(State::Closing);
                }
                todo.push(BackendEvent::Closing(id));
            }
        }
    }
}

/// What a path below `backend/<kind>` is about.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Bus,
    Frontend(DomId),
    Device(DeviceId),
    /// A node in a device's directory.
    Inside(DeviceId),
}

/// Reads a path, relative or absolute. What cannot be read is about the whole bus: look everywhere.
fn parse_path(kind: &str, path: &str) -> Subject {
    let mut parts = path.split('/').skip_while(|part| *part != "backend").skip(1);
    if parts.next() != Some(kind) {
        return Subject::Bus;
    }
    let Some(frontend) = parts.next().and_then(|part| part.parse().ok()).map(DomId) else {
        return Subject::Bus;
    };
    match (parts.next().map(str::parse), parts.next()) {
        (Some(Ok(index)), None) => Subject::Device(DeviceId { frontend, index }),
        (Some(Ok(index)), Some(_)) => Subject::Inside(DeviceId { frontend, index }),
        (Some(Err(_)), _) => Subject::Bus,
        (None, _) => Subject::Frontend(frontend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_bus_a_front_end_or_a_device() {
        let device = |frontend, index| Subject::Device(DeviceId { frontend: DomId(frontend), index });
        assert_eq!(parse_path("vbd", "backend/vbd"), Subject::Bus);
        assert_eq!(parse_path("vbd", "backend/vbd/5"), Subject::Frontend(DomId(5)));
        assert_eq!(parse_path("vbd", "backend/vbd/5/51712"), device(5, 51712));
        assert_eq!(parse_path("vbd", "/local/domain/3/backend/vbd/5/0"), device(5, 0));
        let inside = Subject::Inside(DeviceId { frontend: DomId(5), index: 0 });
        assert_eq!(parse_path("vbd", "/local/domain/3/backend/vbd/5/0/state"), inside);
        assert_eq!(parse_path("vbd", "backend/vif/5/0"), Subject::Bus);
        assert_eq!(parse_path("vbd", "backend/vbd/x/0"), Subject::Bus);
        assert_eq!(parse_path("vbd", "nonsense"), Subject::Bus);
    }
}
