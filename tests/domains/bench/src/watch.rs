//! Watches a Linux in a virtual machine that measures itself (`tests/domains/load`): it says by an event where each sample
//! begins, and what all domains used between two of these is the sample. Time that nobody used, when the machine waited for its
//! devices, is in none, nor is what this domain used itself.

use crate::samples::{Report, Samples, forever};
use crate::usage::Usage;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::event::{self, Channel};
use runtime::hypercall::sched;
use runtime::{DomId, info};

/// Samples of each metric, as `load` takes them.
const SAMPLES: usize = 21;
/// A sample for a trace is so much smaller.
const TRACED: u64 = 16;

/// What one sample of a metric is said in.
#[derive(Clone, Copy)]
enum Unit {
    /// Instructions for each of so many things.
    Each(u64),
    /// Of so many pieces of 64 KiB, megabytes for 1e9 instructions.
    Bytes(u64),
}

impl Unit {
    fn items(self) -> u64 {
        let (Self::Each(items) | Self::Bytes(items)) = self;
        items
    }
}

/// What is measured, in this order.
const METRICS: [([&str; 3], Unit); 6] = [
    (split!("linux_block_read_4k_depth_1"), Unit::Each(512)),
    (split!("linux_block_read_4k_depth_16_each"), Unit::Each(512)),
    (split!("linux_block_read_4k_aio_depth_16_each"), Unit::Each(512)),
    (split!("linux_tcp_out_mb_per_1e9"), Unit::Bytes(64)),
    (split!("linux_tcp_to_host_mb_per_1e9"), Unit::Bytes(64)),
    (split!("linux_tcp_to_linux_mb_per_1e9"), Unit::Bytes(64)),
];

/// Measures until there is nothing more.
pub fn all() -> Result<Vec<Report>, String> {
    let domain = |key: &str| info::argument(key).and_then(|number| number.parse().ok()).map(DomId);
    let [guest, drivers @ ..] = ["guest", "block", "net"].map(domain);
    let guest = guest.ok_or("the arguments do not say which domain is the guest")?;
    let channel = Channel::listen(guest).map_err(|error| error.to_string())?;
    event::mask_all_but(&[channel.port()]);
    let mut reports = Vec::new();
    for (names, unit) in METRICS {
        let driver = drivers[usize::from(matches!(unit, Unit::Bytes(_)))].ok_or("it is not said who serves")?;
        while info::argument("forever") == Some(names[0]) {
            wait(&channel);
            forever(names[0], unit.items() / TRACED);
            channel.notify();
        }
        if info::argument("forever").is_none() {
            reports.extend(metric(names, unit, guest, driver, &channel)?);
        }
    }
    Ok(reports)
}

/// Waits for the guest's word.
fn wait(channel: &Channel) {
    while !event::take(channel.port()) {
        sched::block();
    }
}

fn metric(
    names: [&'static str; 3],
    unit: Unit,
    guest: DomId,
    driver: DomId,
    channel: &Channel,
) -> Result<Vec<Report>, String> {
    let mut samples = [const { Samples::new() }; 3];
    wait(channel);
    let mut before = Usage::read()?;
    channel.notify();
    for _ in 0..SAMPLES {
        wait(channel);
        let now = Usage::read()?;
        let used = now.since(&before, driver);
        let parts = [used.all - used.own, now.since(&before, guest).peer, used.peer];
        for (samples, ticks) in samples.iter_mut().zip(parts) {
            match unit {
                Unit::Each(items) => samples.add(ticks, items),
                // Bytes a thousand instructions are megabytes 1e9 instructions.
                Unit::Bytes(pieces) => samples.add(pieces * 65536 * 1000, ticks),
            }
        }
        before = now;
        channel.notify();
    }
    let mut names = names.into_iter();
    Ok(samples.into_iter().zip(&mut names).map(|(samples, name)| samples.report(name)).collect())
}
