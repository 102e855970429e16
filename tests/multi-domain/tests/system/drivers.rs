//! The block and net domains with clients that behave and that do not: `tests/domains/client` does it.

use crate::policies::BASE;
use bulkhead_test::{Boot, Result, System, seconds};
use std::fs;
use std::path::PathBuf;
use xtask::target;

const BLOCK: &str = r#"
[device.disk]
vendor = 0x1af4
device = 0x1042
[domain.block]
image = "block"
memory = "32M"
devices = ["disk"]
[domain.block.export.all]
disk = "disk"
partition = "whole"
"#;

const NET: &str = r#"
[device.nic]
vendor = 0x1af4
device = 0x1041
[domain.net]
image = "net"
memory = "32M"
devices = ["nic"]
"#;

/// Bytes of the tests' disks.
const DISK_BYTES: usize = 8 << 20;

/// A client of the block domain that does `what`.
fn disk_client(what: &str, read_only: bool) -> String {
    let disks =
        format!("disks = [{{ from = \"block\", export = \"all\", device = \"xvda\", read-only = {read_only} }}]");
    client(what, &disks)
}

/// A client of the net domain that does `what`, its addresses made from `number`.
fn nic_client(what: &str, number: u8) -> String {
    let nics =
        format!("nics = [{{ from = \"net\", mac = \"52:54:00:00:01:{number:02x}\", ip = \"10.0.2.{number}\" }}]");
    client(what, &nics)
}

fn client(what: &str, more: &str) -> String {
    format!("[domain.{what}]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do={what}\"\n{more}\n")
}

/// A disk of zeros of its own for a test.
fn disk(name: &str) -> Result<PathBuf> {
    let path = target().join(format!("drivers-{name}-{}.img", std::process::id()));
    fs::write(&path, vec![0; DISK_BYTES])?;
    Ok(path)
}

fn with_disk(clients: &[String], name: &str) -> Result<(System, PathBuf)> {
    let image = disk(name)?;
    let policy = format!("{BASE}{BLOCK}{}", clients.concat());
    let system = Boot::policy(&policy).image("client").disk(&image, true).start()?;
    Ok((system, image))
}

fn with_network(clients: &[String]) -> Result<System> {
    let policy = format!("{BASE}{NET}{}", clients.concat());
    Boot::policy(&policy).image("client").network()?.start()
}

#[test]
fn what_a_domain_writes_and_flushes_is_in_the_image() -> Result<()> {
    let (mut system, image) = with_disk(&[disk_client("disk-write", false)], "write")?;
    system.expect_verdict("disk-write", seconds(120))?;
    system.shutdown()?;
    let bytes = fs::read(&image)?;
    fs::remove_file(&image)?;
    let text = b"written by a domain, flushed, and found in the image";
    assert_eq!(&bytes[64 * 512..][..text.len()], text);
    assert!(bytes[..64 * 512].iter().all(|&byte| byte == 0), "something before the place was written");
    Ok(())
}

#[test]
fn requests_outside_the_export_or_against_its_rights_are_refused() -> Result<()> {
    for (name, read_only) in [("limits", false), ("limits-ro", true)] {
        let (mut system, image) = with_disk(&[disk_client("disk-limits", read_only)], name)?;
        system.expect_verdict("disk-limits", seconds(120))?;
        system.shutdown()?;
        fs::remove_file(&image)?;
    }
    Ok(())
}

#[test]
fn a_client_that_breaks_its_ring_or_dies_with_requests_in_flight_hurts_no_other() -> Result<()> {
    let clients = ["disk-broken-ring", "disk-die", "disk-flapping", "disk-storm", "disk-read"];
    let clients = clients.map(|what| disk_client(what, true));
    let (mut system, image) = with_disk(&clients, "hostile")?;
    for what in ["disk-broken-ring", "disk-flapping", "disk-storm", "disk-read"] {
        system.expect_verdict(what, seconds(180))?;
    }
    system.wait_for("peer moved its index", seconds(20))?;
    system.wait_ready()?;
    let domains = system.shell("domains", seconds(30))?;
    assert!(domains.contains("block"), "block is gone:\n{domains}");
    let dead = domains.lines().find(|line| line.starts_with("disk-die "));
    assert!(dead.is_none_or(|line| !line.contains("dying")), "a dead domain's pages are still held:\n{domains}");
    system.shutdown()?;
    fs::remove_file(&image)?;
    Ok(())
}

#[test]
fn forged_frames_go_nowhere_and_honest_ones_are_answered() -> Result<()> {
    let mut system = with_network(&[nic_client("nic-forge", 15)])?;
    system.expect_verdict("nic-forge", seconds(120))?;
    system.wait_for("frame refused: ForeignMac", seconds(20))?;
    system.wait_for("frame refused: ForeignIp", seconds(20))?;
    system.shutdown()
}

#[test]
fn vifs_hear_each_other_and_one_that_takes_nothing_hurts_no_other() -> Result<()> {
    let clients = [nic_client("nic-deaf", 15), nic_client("nic-listen", 16), nic_client("nic-call", 17)];
    let mut system = with_network(&clients)?;
    for what in ["nic-deaf", "nic-listen", "nic-call"] {
        system.expect_verdict(what, seconds(120))?;
    }
    system.shutdown()
}

#[test]
fn a_packet_may_come_in_any_pieces_and_bad_ones_are_answered_as_failed() -> Result<()> {
    let mut system = with_network(&[nic_client("nic-fragments", 15), nic_client("nic-incomplete", 16)])?;
    for what in ["nic-fragments", "nic-incomplete"] {
        system.expect_verdict(what, seconds(120))?;
    }
    system.wait_for("incomplete packet", seconds(20))?;
    system.shutdown()
}
