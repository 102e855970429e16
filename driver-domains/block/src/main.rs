//! The block domain: drives virtio disks and serves them, whole or by partition, to front ends over blkif.
//!
//! Data goes between the front end's pages and the device without a copy: the pages are mapped by grant, which puts
//! them into the device's I/O address space too, and unmapped when the device is done. What a front end may see of
//! which disk, and whether it may write, comes from nodes that the policy domain writes.
//!
//! Anything typed at its console prints what it has done so far.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod batch;
#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod service;
#[cfg(target_os = "none")]
mod vbd;

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
            log::error!("cannot look for front ends: {error:?}");
            runtime::crash();
        }
    };
    /// How often the devices' status is looked at while they work but nothing happens.
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut progress = Progress::Idle;
    // Set anew only when it has passed: neither the clock nor the timer is touched for each request.
    let mut deadline = now() + PATIENCE;
    loop {
        let events = match progress {
            Progress::Busy => event::pending(),
            Progress::Idle => event::wait(service.gathers_until().or(service.is_busy().then_some(deadline))),
        };
        let mut silent = progress == Progress::Idle;
        for port in events {
            silent = false;
            if console::port() == Some(port) && console::read_line().is_some() {
                service.print_counters();
            }
            service.on_event(port);
        }
        if silent && now() >= deadline {
            service.check_devices();
            deadline = now() + PATIENCE;
        }
        progress = service.run();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
