//! What serves a virtual machine that measures: an echo, and a page that it may map and copy from.
//!
//! The machine's kernel speaks no xenbus. It makes a port for us as its first, behind its two rings', and tries which of our
//! references it can map.

use crate::samples::Report;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::grant::GrantedPages;
use runtime::hypercall::{event_channel, sched};
use runtime::{Access, DomId, Port, event, info};

/// The machine's port for us.
const PORT: Port = Port(3);

/// Serves for ever.
pub fn serve() -> Result<Vec<Report>, String> {
    let guest = info::argument("guest").and_then(|number| number.parse().ok()).map(DomId);
    let guest = guest.ok_or("the arguments do not say which domain is the guest")?;
    let _pages = GrantedPages::allocate(1, guest, Access::ReadWrite).map_err(|error| error.to_string())?;
    let port = loop {
        match event_channel::bind_interdomain(guest, PORT) {
            Ok(port) => break port,
            Err(_) => sched::give_way(),
        }
    };
    event::mask_all_but(&[port]);
    loop {
        while !event::take(port) {
            sched::block();
        }
        // The guest notices when it hears nothing.
        let _ = event_channel::send(port);
    }
}
