//! The rings of the domains: found through xenstore, mapped, served in turn.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use console_mux::mux::{InputMode, Mux, SourceId};
use runtime::event::Channel;
use runtime::grant::Mapping;
use runtime::store::Store;
use runtime::xenbus::State;
use runtime::{Access, DomId, GrantRef, Port};
use xen_rings::console::ConsoleBack;

/// Below this directory of our home the policy domain announces consoles.
pub const DIRECTORY: &str = "backend/console";
/// Bytes taken from one ring in a round.
const ROUND_BYTES: usize = 1024;
/// A domain of which this much waits for the line is not read for the moment.
const WAITING_MAX: usize = 4096;

/// A domain's ring.
struct Link {
    source: SourceId,
    ring: ConsoleBack<Mapping>,
    channel: Channel,
    /// The ring may have something.
    pending: bool,
}

/// What a domain's directory says.
struct Announced {
    name: String,
    colour: u8,
    mode: InputMode,
    reference: GrantRef,
    port: Port,
}

/// All of them. A directory that could not be served is remembered, so that it is not tried at each turn.
#[derive(Default)]
pub struct Links {
    serving: BTreeMap<DomId, Link>,
    refused: Vec<DomId>,
}

impl Links {
    /// Compares what is announced with what is served.
    pub fn scan(&mut self, mux: &mut Mux) {
        let names = Store::new().list(DIRECTORY).unwrap_or_default();
        let announced: Vec<DomId> = names.iter().filter_map(|name| DomId::from_u32(name.parse().ok()?)).collect();
        let gone: Vec<DomId> = self.serving.keys().copied().filter(|domain| !announced.contains(domain)).collect();
        for domain in gone {
            self.end(domain, mux);
        }
        self.refused.retain(|domain| announced.contains(domain));
        for domain in announced {
            self.look_at(domain, mux);
        }
    }

    /// Something about a domain has changed, or may have.
    pub fn look_at(&mut self, domain: DomId, mux: &mut Mux) {
        let known = self.serving.contains_key(&domain) || self.refused.contains(&domain);
        // What is announced as if nobody had looked yet is another domain's ring, though its id is that of the last.
        if known && state(domain) != State::Initialising {
            return;
        }
        self.end(domain, mux);
        self.refused.retain(|refused| *refused != domain);
        self.begin(domain, mux);
    }

    fn begin(&mut self, domain: DomId, mux: &mut Mux) {
        // Not all nodes are there yet: their coming calls us again.
        let Some(announced) = read(domain) else { return };
        let state = format!("{DIRECTORY}/{domain}/0/state");
        match connect(domain, &announced) {
            Ok((ring, channel)) => {
                let source = mux.source(&announced.name, announced.colour);
                mux.connected(source, announced.mode);
                if domain == DomId::POLICY {
                    mux.set_shell(source);
                }
                self.serving.insert(domain, Link { source, ring, channel, pending: true });
                let _ = Store::new().write(&state, State::Connected.text());
            }
            Err(why) => {
                mux.say(&format!("no console for {} ({domain}): {why}", announced.name));
                self.refused.push(domain);
                let _ = Store::new().write(&state, State::Closed.text());
            }
        }
    }

    /// A domain is gone: its last words, then no more.
    fn end(&mut self, domain: DomId, mux: &mut Mux) {
        let Some(mut link) = self.serving.remove(&domain) else {
            return;
        };
        let mut last = [0; ROUND_BYTES];
        // The ring holds two of these; nobody writes it any more, and if somebody did, this ends all the same.
        for _ in 0..3 {
            let count = link.ring.read(&mut last).unwrap_or(0);
            mux.output(link.source, &last[..count]);
        }
        mux.ended(link.source);
    }

    /// A port is pending; whether it was a ring's.
    pub fn notify(&mut self, port: Port) -> bool {
        let link = self.serving.values_mut().find(|link| link.channel.port() == port);
        link.map(|link| link.pending = true).is_some()
    }

    /// Takes a bounded amount from each ring and gives each its input. Whether there is more that could be taken at once.
    pub fn round(&mut self, mux: &mut Mux) -> bool {
        let mut more = false;
        let mut broken = Vec::new();
        for (&domain, link) in &mut self.serving {
            match link.round(mux) {
                Ok(again) => more |= again,
                Err(error) => broken.push((domain, error)),
            }
        }
        for (domain, error) in broken {
            if let Some(link) = self.serving.remove(&domain) {
                mux.output(link.source, format!("\n[console ring broken: {error}]\n").as_bytes());
                mux.ended(link.source);
                self.refused.push(domain);
                let _ = Store::new().write(&format!("{DIRECTORY}/{domain}/0/state"), State::Closed.text());
            }
        }
        more
    }
}

impl Link {
    fn round(&mut self, mux: &mut Mux) -> Result<bool, xen_rings::ring::RingError> {
        self.send_input(mux)?;
        if !self.pending || mux.waiting(self.source) > WAITING_MAX {
            return Ok(false);
        }
        let mut bytes = [0; ROUND_BYTES];
        let count = self.ring.read(&mut bytes)?;
        if count != 0 {
            self.channel.notify();
            mux.output(self.source, &bytes[..count]);
        }
        self.pending = count == ROUND_BYTES;
        Ok(self.pending)
    }

    fn send_input(&mut self, mux: &mut Mux) -> Result<(), xen_rings::ring::RingError> {
        let Some(input) = mux.input(self.source) else {
            return Ok(());
        };
        let mut sent = 0;
        while !input.is_empty() {
            let count = self.ring.write(input.as_slices().0)?;
            if count == 0 {
                break;
            }
            input.drain(..count);
            sent += count;
        }
        if sent != 0 {
            self.channel.notify();
        }
        Ok(())
    }
}

fn state(domain: DomId) -> State {
    State::parse(&Store::new().read(&format!("{DIRECTORY}/{domain}/0/state")).unwrap_or_default())
}

fn read(domain: DomId) -> Option<Announced> {
    let store = Store::new();
    let node = |key: &str| format!("{DIRECTORY}/{domain}/0/{key}");
    let mode = match store.read_text(&node("input")).as_deref() {
        Ok("raw") => InputMode::Raw,
        _ => InputMode::Line,
    };
    Some(Announced {
        name: store.read_text(&node("name")).ok().filter(|name| !name.is_empty())?,
        colour: store.read_parsed(&node("colour")).unwrap_or(0),
        mode,
        reference: GrantRef(store.read_parsed(&node("gref")).ok()?),
        port: Port(store.read_parsed(&node("port")).ok().filter(|&port| port != 0)?),
    })
}

fn connect(domain: DomId, announced: &Announced) -> Result<(ConsoleBack<Mapping>, Channel), String> {
    let page = Mapping::page_of(domain, announced.reference, Access::ReadWrite);
    let page = page.map_err(|error| format!("its ring cannot be mapped: {error}"))?;
    let ring = ConsoleBack::attach(page).map_err(|error| format!("its ring makes no sense: {error}"))?;
    let channel = Channel::connect(domain, announced.port);
    Ok((ring, channel.map_err(|error| format!("its port {} cannot be bound: {error}", announced.port))?))
}
