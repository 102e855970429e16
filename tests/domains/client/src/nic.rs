//! Frames through the ordinary front end.

use crate::disk::PATIENCE;
use crate::domain::Outcome;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use frontends::net::{Nic, Opening, Takes};
use runtime::event;
use runtime::store;
use runtime::time::now;

const BROADCAST: [u8; 6] = [0xff; 6];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Opens the first interface.
pub fn open(takes: Takes) -> Result<Nic, String> {
    let mut opening = Opening::new(None).taking(takes);
    let deadline = now() + PATIENCE;
    loop {
        match opening.step().map_err(|error| error.to_string())? {
            Ok(nic) => return Ok(nic),
            Err(waiting) if now() > deadline => return Err(format!("not connected: {waiting:?}")),
            Err(_) => drop(store::wait_event(Some(now() + Duration::from_millis(200)))),
        }
    }
}

/// Our own IPv4 address.
pub fn address(nic: &Nic) -> Result<Ipv4Addr, String> {
    let text = nic.configured_address().ok_or("no `ip` for us")?;
    text.parse().map_err(|_| format!("`{text}` is no address"))
}

/// A broadcast ARP request.
pub fn arp_request(mac: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [&BROADCAST[..], &mac, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &mac, &ip.octets(), &[0; 6], &target.octets()].concat()
}

fn send(nic: &mut Nic, frame: &[u8]) -> Outcome {
    if !nic.send(frame).map_err(|error| error.to_string())? {
        return Err(String::from("no room to send"));
    }
    nic.flush();
    Ok(())
}

/// Waits for a frame that fits; others are passed over.
pub fn receive(nic: &mut Nic, patience: Duration, fits: impl Fn(&[u8]) -> bool) -> Result<bool, String> {
    let deadline = now() + patience;
    let mut frame = Vec::new();
    loop {
        while nic.receive(&mut frame).map_err(|error| error.to_string())? {
            if fits(&frame) {
                return Ok(true);
            }
        }
        nic.flush();
        nic.collect_sent().map_err(|error| error.to_string())?;
        if !event::poll(&[nic.port()], Some(deadline)) {
            return Ok(false);
        }
    }
}

fn is_arp_reply_of(gateway: Ipv4Addr) -> impl Fn(&[u8]) -> bool {
    move |frame| frame.get(20..22) == Some(&[0, 2]) && frame.get(28..32) == Some(&gateway.octets())
}

/// Forged frames get no answer, the honest one between them does.
pub fn forge() -> Outcome {
    let mut nic = open(Takes::Frames)?;
    let (mac, ip) = (nic.mac(), address(&nic)?);
    let other_mac = [mac[0], mac[1], mac[2], mac[3], mac[4], mac[5] ^ 1];
    let other_ip = Ipv4Addr::new(10, 0, 2, 99);
    let forged = [arp_request(other_mac, ip, GATEWAY), arp_request(mac, other_ip, GATEWAY)];
    for frame in &forged {
        send(&mut nic, frame)?;
    }
    // Frames keep their order, so an answer to a forged one would come before that to the honest one.
    send(&mut nic, &arp_request(mac, ip, GATEWAY))?;
    let answered = |frame: &[u8]| is_arp_reply_of(GATEWAY)(frame);
    if !receive(&mut nic, PATIENCE, answered)? {
        return Err(String::from("the honest request was not answered"));
    }
    if receive(&mut nic, Duration::from_millis(500), answered)? {
        return Err(String::from("a forged request was answered too"));
    }
    Ok(())
}

/// Calls out by broadcast until the gateway answers, again and again for a while.
pub fn call() -> Outcome {
    let mut nic = open(Takes::Frames)?;
    let request = arp_request(nic.mac(), address(&nic)?, GATEWAY);
    for _ in 0..50 {
        send(&mut nic, &request)?;
        if !receive(&mut nic, PATIENCE, is_arp_reply_of(GATEWAY))? {
            return Err(String::from("the gateway does not answer"));
        }
        runtime::time::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Hears another vif's broadcast.
pub fn listen() -> Outcome {
    let mut nic = open(Takes::Frames)?;
    let own = nic.mac();
    let other = |frame: &[u8]| frame.get(..6) == Some(&BROADCAST) && frame.get(6..12) != Some(&own);
    if receive(&mut nic, PATIENCE, other)? { Ok(()) } else { Err(String::from("heard nobody")) }
}
