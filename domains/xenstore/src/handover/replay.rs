//! Doing again what a predecessor has done.

use super::{Action, Record};
use crate::connection::{Start, State};
use crate::domid::DomId;
use crate::engine::{Engine, Rings};
use xen_abi::errno::Errno;
use xen_rings::store::Message;
use xen_rings::store::message::{HEAD_BYTES, parse_head};

/// The world as it was then: what was found out by asking it is in the record.
struct Then {
    memory_was_short: bool,
    attached: Option<Start>,
}

impl Rings for Then {
    fn attach(&mut self, _domain: DomId, port: u32) -> Result<Start, Errno> {
        self.attached.map(|start| Start { port, ..start }).ok_or(Errno::EINVAL)
    }

    fn detach(&mut self, _domain: DomId) {}

    fn memory_is_short(&mut self) -> bool {
        self.memory_was_short
    }
}

impl Engine {
    /// Does what `record` says. `None`: that cannot have been done.
    pub(super) fn replay(&mut self, record: &Record<'_>) -> Option<()> {
        let domain = record.domain;
        let connection = self.connections.get_mut(&domain).filter(|connection| connection.state == State::Active)?;
        if !connection.output_taken_up_to(record.output) {
            return None;
        }
        let input = connection.start.input.wrapping_add(record.bytes.len() as u32);
        if input != record.input {
            return None;
        }
        connection.start.input = input;
        match record.action {
            Action::Request { memory_was_short, attached } => {
                // It would not have been taken before the client had read.
                if connection.is_backed_up() {
                    return None;
                }
                let mut request = core::mem::take(&mut connection.partial);
                request.extend_from_slice(record.bytes);
                let head = parse_head(&request).ok()??;
                let payload = request.get(HEAD_BYTES..).filter(|payload| payload.len() == head.len as usize)?;
                self.request(domain, &Message { head, payload }, &mut Then { memory_was_short, attached });
            }
            Action::Part => {
                connection.partial.extend_from_slice(record.bytes);
                let head = parse_head(&connection.partial).ok()?;
                if head.is_some_and(|head| connection.partial.len() >= HEAD_BYTES + head.len as usize) {
                    return None;
                }
            }
            Action::Events(count) => {
                if connection.fill_with_events() != count {
                    return None;
                }
            }
            Action::CutOff => connection.cut_off(),
        }
        Some(())
    }
}
