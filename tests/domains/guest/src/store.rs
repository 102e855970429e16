//! A client of xenstore that waits for each answer, and knows of no watches.

use crate::hypercall::{call, with};
use crate::tasks::{Failure, check};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use xen_abi::event_channel::{EVTCHNOP_SEND, EvtchnSend};
use xen_abi::hvm::{HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, HVMOP_GET_PARAM, XenHvmParam};
use xen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XS_DIRECTORY, XS_READ, XS_RM, XS_WRITE};
use xen_abi::sched::SCHEDOP_YIELD;
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_HVM_OP, HYPERVISOR_SCHED_OP};

/// A word of memory that no Rust object lives in.
pub fn word_at(address: u64) -> &'static AtomicU32 {
    // SAFETY: callers name memory of the guest outside of this program; others that see it access it by whole words too.
    unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(address as usize)) }
}

fn byte_at(address: u64) -> &'static AtomicU8 {
    // SAFETY: as above.
    unsafe { AtomicU8::from_ptr(core::ptr::with_exposed_provenance_mut(address as usize)) }
}

/// Lets others run.
pub fn give_way() {
    call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD, 0, 0, 0, 0]);
}

/// Tells whoever is behind a port.
pub fn send(port: u32) {
    with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port });
}

/// Text of an answer.
pub struct Text {
    bytes: [u8; 256],
    length: usize,
}

impl Text {
    /// Up to the first NUL.
    pub fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

// The ring's indices (Xen public `io/xs_wire.h`).
const REQUESTS: (u64, u64, u64) = (0, 2 * XENSTORE_RING_SIZE as u64, 2 * XENSTORE_RING_SIZE as u64 + 4);
const REPLIES: (u64, u64, u64) = (XENSTORE_RING_SIZE as u64, REQUESTS.1 + 8, REQUESTS.1 + 12);

/// The connection.
pub struct Store {
    page: u64,
    port: u32,
    request: u32,
}

impl Store {
    /// Finds the ring.
    pub fn new() -> Result<Self, Failure> {
        let parameter = |index| {
            let mut op = XenHvmParam { domid: DOMID_SELF, index, ..Default::default() };
            check(with(HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &mut op) == 0, "no xenstore").map(|()| op.value)
        };
        let page = parameter(HVM_PARAM_STORE_PFN)? << 12;
        Ok(Self { page, port: parameter(HVM_PARAM_STORE_EVTCHN)? as u32, request: 0 })
    }

    fn put(&mut self, byte: u8) {
        let (ring, cons, prod) = REQUESTS;
        let at = word_at(self.page + prod).load(Ordering::Relaxed);
        while at.wrapping_sub(word_at(self.page + cons).load(Ordering::Acquire)) as usize >= XENSTORE_RING_SIZE {
            send(self.port);
            give_way();
        }
        byte_at(self.page + ring + u64::from(at) % XENSTORE_RING_SIZE as u64).store(byte, Ordering::Relaxed);
        word_at(self.page + prod).store(at.wrapping_add(1), Ordering::Release);
    }

    fn take(&mut self) -> u8 {
        let (ring, cons, prod) = REPLIES;
        let at = word_at(self.page + cons).load(Ordering::Relaxed);
        while at == word_at(self.page + prod).load(Ordering::Acquire) {
            send(self.port);
            give_way();
        }
        let byte = byte_at(self.page + ring + u64::from(at) % XENSTORE_RING_SIZE as u64).load(Ordering::Relaxed);
        word_at(self.page + cons).store(at.wrapping_add(1), Ordering::Release);
        byte
    }

    /// A request; `None` for an error.
    fn ask(&mut self, kind: u32, parts: &[&[u8]]) -> Option<Text> {
        self.request += 1;
        let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
        for word in [kind, self.request, 0, length] {
            word.to_le_bytes().into_iter().for_each(|byte| self.put(byte));
        }
        parts.iter().flat_map(|part| part.iter()).for_each(|&byte| self.put(byte));
        send(self.port);
        let mut head = [0; 4];
        for word in &mut head {
            *word = u32::from_le_bytes([(); 4].map(|()| self.take()));
        }
        let mut text = Text { bytes: [0; 256], length: 0 };
        for _ in 0..head[3] {
            let byte = self.take();
            if let Some(place) = text.bytes.get_mut(text.length) {
                (*place, text.length) = (byte, text.length + 1);
            }
        }
        (head[0] == kind).then_some(text)
    }

    /// A node's content.
    pub fn read(&mut self, path: &str) -> Option<Text> {
        self.ask(XS_READ, &[path.as_bytes(), b"\0"])
    }

    /// The first name below a node.
    pub fn first(&mut self, path: &str) -> Option<Text> {
        self.ask(XS_DIRECTORY, &[path.as_bytes(), b"\0"]).filter(|text| text.length > 0)
    }

    /// Writes a node; whether that was allowed.
    pub fn write(&mut self, path: &str, value: &str) -> bool {
        self.ask(XS_WRITE, &[path.as_bytes(), b"\0", value.as_bytes()]).is_some()
    }

    /// Removes a node.
    pub fn remove(&mut self, path: &str) -> bool {
        self.ask(XS_RM, &[path.as_bytes(), b"\0"]).is_some()
    }
}
