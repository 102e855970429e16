//! Whole paths: a block request and a packet, from the client to the device and back.

use crate::samples::{Report, Samples, forever};
use crate::usage::{Usage, Used};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use frontends::block::{self, Direction, Disk, Outcome};
use frontends::net::{self, Nic};
use runtime::grant::GrantedPages;
use runtime::store::{self, Store};
use runtime::time::{Instant, now};
use runtime::xenbus::Frontend;
use runtime::{DomId, event};

/// Samples of each path.
const SAMPLES: usize = 40;
/// Requests or packets in a sample.
const ITEMS: u64 = 320;
/// The same for a trace: a few times as many as are in flight.
const TRACED: u64 = 32;

fn soon() -> Instant {
    now() + Duration::from_secs(60)
}

fn words(error: impl ToString) -> String {
    error.to_string()
}

/// Who serves the first device of a kind.
fn backend(kind: &str) -> Result<DomId, String> {
    let index = Frontend::list(kind).first().copied().ok_or("no device")?;
    let id = Store::new().read_parsed(&format!("device/{kind}/{index}/backend-id")).map_err(words)?;
    DomId::from_u32(id).ok_or(String::from("no back end"))
}

/// Runs `work`, which moves as many items as it is told, again and again: what each costs the machine, and whose time
/// that was.
fn measure(
    names: [&'static str; 3],
    peer: DomId,
    mut work: impl FnMut(u64) -> Result<(), String>,
) -> Result<[Report; 3], String> {
    work(ITEMS)?;
    while forever(names[0], TRACED) {
        work(TRACED)?;
    }
    let mut samples = [const { Samples::new() }; 3];
    for _ in 0..SAMPLES {
        let before = Usage::read()?;
        work(ITEMS)?;
        let Used { all, own, peer } = Usage::read()?.since(&before, peer);
        samples.iter_mut().zip([all, own, peer]).for_each(|(samples, ticks)| samples.add(ticks, ITEMS));
    }
    let [all, own, served] = samples;
    Ok([all.report(names[0]), own.report(names[1]), served.report(names[2])])
}

/// A metric and the parts of it that ran while the client and the driver domain were current.
macro_rules! split {
    ($name:literal) => {
        [$name, concat!($name, ".client"), concat!($name, ".driver")]
    };
}

/// The disk.
pub fn disk() -> Result<Vec<Report>, String> {
    let mut opening = block::Opening::new(None);
    let mut disk = loop {
        match opening.step().map_err(words)? {
            Ok(disk) => break disk,
            Err(_) => drop(store::wait_event(Some(now() + Duration::from_millis(200)))),
        }
    };
    let peer = backend("vbd")?;
    event::mask_all_but(&[disk.port()]);
    let pages = disk.buffer(16 * 16).map_err(words)?;
    let (read, write) = (Direction::Read, Direction::Write);
    let mut reports = Vec::new();
    for (names, direction, depth, count) in [
        (split!("block_read_4k_depth_1"), read, 1, 1),
        (split!("block_read_4k_depth_16_each"), read, 16, 1),
        (split!("block_read_64k_depth_16_each"), read, 16, 16),
        (split!("block_write_4k_depth_1"), write, 1, 1),
        (split!("block_write_4k_depth_16_each"), write, 16, 1),
    ] {
        let work = |items| transfer(&mut disk, direction, &pages, items, depth, count);
        reports.extend(measure(names, peer, work)?);
    }
    Ok(reports)
}

/// Moves `items` requests of `count` pages, `depth` of them in flight.
fn transfer(
    disk: &mut Disk,
    direction: Direction,
    pages: &GrantedPages,
    items: u64,
    depth: usize,
    count: usize,
) -> Result<(), String> {
    let (mut submitted, mut done) = (0, 0);
    loop {
        event::take(disk.port());
        while let Some(completion) = disk.next_completion().map_err(words)? {
            if completion.outcome != Outcome::Done {
                return Err(format!("a request failed: {:?}", completion.outcome));
            }
            done += 1;
        }
        if done == items {
            return Ok(());
        }
        while submitted < items && submitted - done < depth as u64 {
            let place = (submitted as usize % depth) * count;
            let sector = submitted * 8 * count as u64;
            disk.submit(direction, sector, pages, place..place + count).map_err(words)?;
            submitted += 1;
        }
        // A back end that never answers is the harness's to notice: nothing else wakes this domain.
        disk.kick_and_block();
    }
}

/// The network.
pub fn nic() -> Result<Vec<Report>, String> {
    let (mut nic, mut other) = (open_nic(0)?, open_nic(1)?);
    let peer = backend("vif")?;
    event::mask_all_but(&[nic.port(), other.port()]);
    let (out, across) = (datagram(&nic, GATEWAY)?, datagram(&nic, other.mac())?);
    let mut reports = Vec::new();
    reports.extend(measure(split!("udp_out_1400_each"), peer, |items| send(&mut nic, &out, items))?);
    let work = |items| pass(&mut nic, &mut other, &across, items);
    reports.extend(measure(split!("udp_out_and_in_1400_each"), peer, work)?);
    Ok(reports)
}

fn open_nic(index: u32) -> Result<Nic, String> {
    let mut opening = net::Opening::new(Some(index));
    loop {
        match opening.step().map_err(words)? {
            Ok(nic) => return Ok(nic),
            Err(_) => drop(store::wait_event(Some(now() + Duration::from_millis(200)))),
        }
    }
}

/// The gateway of QEMU's user network has this address.
const GATEWAY: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// An Ethernet frame with a UDP datagram of 1,400 bytes to the gateway's discard port, or to a station that throws it
/// away.
fn datagram(nic: &Nic, station: [u8; 6]) -> Result<Vec<u8>, String> {
    const BYTES: u16 = 1400;
    let source: core::net::Ipv4Addr =
        nic.configured_address().and_then(|text| text.parse().ok()).ok_or("no address")?;
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(20 + 8 + BYTES).to_be_bytes());
    (ip[8], ip[9]) = (64, 17);
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&[10, 0, 2, 2]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let udp = [&9u16.to_be_bytes()[..], &9u16.to_be_bytes(), &(8 + BYTES).to_be_bytes(), &[0, 0]].concat();
    Ok([&station[..], &nic.mac(), &[8, 0], &ip, &udp, &[0x55; BYTES as usize]].concat())
}

/// Sends `items` frames and waits until all of them are taken.
fn send(nic: &mut Nic, frame: &[u8], items: u64) -> Result<(), String> {
    let (mut sent, limit) = (0, soon());
    let room = nic.room();
    while sent < items || nic.room() < room {
        let before = sent;
        // A batch as an application fills it: some frames, then the back end is told.
        while sent < items && sent - before < 32 && nic.send(frame).map_err(words)? {
            sent += 1;
        }
        nic.flush();
        nic.collect_sent().map_err(words)?;
        if sent == before && nic.room() < room && !event::take(nic.port()) {
            runtime::hypercall::sched::block();
        }
        if now() > limit {
            return Err(String::from("frames are not taken"));
        }
    }
    Ok(())
}

/// Sends `items` frames from one interface to the other and waits until all of them have come: the switch's way from vif
/// to vif, both ends of it in this domain.
fn pass(from: &mut Nic, to: &mut Nic, frame: &[u8], items: u64) -> Result<(), String> {
    let (mut sent, mut received, limit) = (0, 0, soon());
    let mut came = Vec::with_capacity(net::FRAME_MAX);
    while received < items {
        event::take(from.port());
        event::take(to.port());
        let before = (sent, received);
        from.collect_sent().map_err(words)?;
        while to.receive(&mut came).map_err(words)? {
            received += u64::from(came.len() == frame.len());
        }
        to.flush();
        // No more under way than the other end has buffers for.
        while sent < items && sent - received < 32 && from.send(frame).map_err(words)? {
            sent += 1;
        }
        from.flush();
        if before == (sent, received) {
            runtime::hypercall::sched::block();
        }
        if now() > limit {
            return Err(String::from("frames do not come"));
        }
    }
    Ok(())
}
