//! A client of the block and net domains, well-behaved or not: `do=NAME` in its arguments says what it does.
//!
//! What it finds it reports verdict by verdict, under the name of what it does.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod disk_ring;
#[cfg(target_os = "none")]
mod nic;
#[cfg(target_os = "none")]
mod nic_ring;
#[cfg(target_os = "none")]
mod store;
#[cfg(target_os = "none")]
mod survive;
#[cfg(target_os = "none")]
mod tcp;

#[cfg(target_os = "none")]
mod domain {
    use crate::{disk, disk_ring, nic, nic_ring, store, survive, tcp};
    use alloc::string::String;
    use runtime::{event, info, verdict};

    runtime::entry!(main);

    /// A test's result: what went wrong, in words.
    pub type Outcome = Result<(), String>;

    fn main() {
        let what = info::argument("do").unwrap_or("nothing");
        let outcome = match what {
            "disk-write" => disk::write_and_flush(),
            "disk-read" => disk::read_much(),
            "disk-limits" => disk::limits(),
            "disk-error" => disk::device_error(),
            "disk-die" => disk::die_with_requests_in_flight(),
            "disk-survive" => survive::disk(),
            "store-survive" => store::survive(),
            "disk-broken-ring" => disk_ring::impossible_index(),
            "disk-flapping" => disk_ring::connect_again_and_again(),
            "disk-storm" => disk_ring::storm(),
            "tcp-sink" => tcp::sink(),
            "nic-forge" => nic::forge(),
            "nic-call" => nic::call(),
            "nic-listen" => nic::listen(),
            "nic-fragments" => nic_ring::fragments(),
            "nic-segments" => nic_ring::segments(),
            "nic-incomplete" => nic_ring::incomplete_packet(),
            "nic-deaf" => nic_ring::never_takes_frames(),
            other => Err(alloc::format!("nothing is called {other}")),
        };
        verdict::report(what, outcome);
        loop {
            event::wait(None).for_each(drop);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
