//! The net domain: drives a virtio network card and switches frames between it and the vifs of front ends.
//!
//! A frame is copied once on its way from or to a front end, by the hypervisor, and checked only after that. Who may
//! send as whom comes from nodes that the policy domain writes; no table is learned. A vif that does not take its
//! frames loses them, and nobody else notices.
//!
//! Anything typed at its console prints what it has done so far.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod buffers;
#[cfg(target_os = "none")]
mod nic;
#[cfg(target_os = "none")]
mod service;
#[cfg(target_os = "none")]
mod traffic;
#[cfg(target_os = "none")]
mod vif;

#[cfg(target_os = "none")]
runtime::entry!(domain);

#[cfg(target_os = "none")]
fn domain() {
    use core::time::Duration;
    use runtime::time::now;
    use runtime::{console, event};
    use service::{Progress, Service};

    let mut service = match Service::new() {
        Ok(service) => service,
        Err(error) => {
            log::error!("cannot serve: {error:?}");
            runtime::crash();
        }
    };
    /// How long nothing may happen before the card's status is looked at.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// The same when it has frames to send.
    const PATIENCE_BUSY: Duration = Duration::from_secs(10);
    let mut progress = Progress::Idle;
    // Set anew only when it has passed: neither the clock nor the timer is touched for each batch.
    let mut deadline = now() + PATIENCE;
    loop {
        let events = match progress {
            Progress::Busy => event::pending(),
            Progress::Idle => event::wait(Some(deadline)),
        };
        let mut silent = progress == Progress::Idle;
        for port in events {
            silent = false;
            if console::port() == Some(port) && console::read_line().is_some() {
                service.print_counters();
            }
            service.on_event(port);
        }
        if silent {
            service.check_card();
            deadline = now() + if service.is_busy() { PATIENCE_BUSY } else { PATIENCE };
        }
        progress = service.run();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
