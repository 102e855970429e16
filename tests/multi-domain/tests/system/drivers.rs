//! The block and net domains with clients that behave and that do not: `tests/domains/client` does it.

use crate::policies::BASE;
use bulkhead_test::{Boot, Result, System, seconds};
use gpt_disk_types::{Crc32, GptHeader, GptPartitionEntry, GptPartitionType, LbaLe, U32Le};
use std::fs;
use std::path::{Path, PathBuf};
use xtask::target;

pub const BLOCK: &str = r#"
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

pub const NET: &str = r#"
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
pub fn nic_client(what: &str, number: u8) -> String {
    let nics =
        format!("nics = [{{ from = \"net\", mac = \"52:54:00:00:01:{number:02x}\", ip = \"10.0.2.{number}\" }}]");
    client(what, &nics)
}

pub fn client(what: &str, more: &str) -> String {
    format!("[domain.{what}]\nimage = \"client\"\nmemory = \"8M\"\narguments = \"do={what}\"\n{more}\n")
}

/// A disk of zeros of its own for a test.
pub fn disk(name: &str) -> Result<PathBuf> {
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
fn a_partition_is_exported_and_nothing_around_it() -> Result<()> {
    let image = disk("partition")?;
    let first = partitioned(&image)?;
    let block = BLOCK.replace("\"whole\"", "2");
    for what in ["disk-write", "disk-limits"] {
        let policy = format!("{BASE}{block}{}", disk_client(what, false));
        let mut system = Boot::policy(&policy).image("client").disk(&image, true).start()?;
        system.expect_verdict(what, seconds(120))?;
        system.wait_for("2 partitions", seconds(20))?;
        system.shutdown()?;
    }
    let bytes = fs::read(&image)?;
    fs::remove_file(&image)?;
    let text = b"written by a domain, flushed, and found in the image";
    assert_eq!(&bytes[(first + 64) * 512..][..text.len()], text);
    Ok(())
}

/// Gives an image a partition table with two partitions; tells the first sector of the second one, of 4 MiB.
pub fn partitioned(image: &Path) -> Result<usize> {
    let mut bytes = fs::read(image)?;
    let blocks = (DISK_BYTES / 512) as u64;
    let mut array = vec![0; 128 * size_of::<GptPartitionEntry>()];
    let second = 4096;
    for (slot, (first, last)) in array.chunks_mut(128).zip([(2048, 4095), (second, second + 8191)]) {
        let entry = GptPartitionEntry {
            partition_type_guid: GptPartitionType::BASIC_DATA,
            starting_lba: LbaLe::from_u64(first),
            ending_lba: LbaLe::from_u64(last),
            ..GptPartitionEntry::default()
        };
        slot.copy_from_slice(bytemuck::bytes_of(&entry));
    }
    for (own, other, entries) in [(1, blocks - 1, 2), (blocks - 1, 1, blocks - 33)] {
        let mut header = GptHeader {
            my_lba: LbaLe::from_u64(own),
            alternate_lba: LbaLe::from_u64(other),
            first_usable_lba: LbaLe::from_u64(34),
            last_usable_lba: LbaLe::from_u64(blocks - 34),
            partition_entry_lba: LbaLe::from_u64(entries),
            number_of_partition_entries: U32Le::from_u32(128),
            partition_entry_array_crc32: Crc32(U32Le::from_u32(
                crc::Crc::<u32>::new(&Crc32::ALGORITHM).checksum(&array),
            )),
            ..GptHeader::default()
        };
        header.update_header_crc32();
        bytes[own as usize * 512..][..size_of::<GptHeader>()].copy_from_slice(bytemuck::bytes_of(&header));
        bytes[entries as usize * 512..][..array.len()].copy_from_slice(&array);
    }
    fs::write(image, bytes)?;
    Ok(second as usize)
}

#[test]
fn an_error_of_the_device_fails_the_request_and_nothing_else() -> Result<()> {
    let policy = format!("{BASE}{BLOCK}{}", disk_client("disk-error", false));
    // A disk on which writes to sector 64 find the host's file system full.
    let bad = r#"{"driver": "blkdebug", "node-name": "bad", "image": {"driver": "null-co", "size": 8388608, "read-zeroes": true},
        "inject-error": [{"event": "none", "iotype": "write", "errno": 28, "sector": 64, "once": false}]}"#;
    let device = "virtio-blk-pci,drive=bad,addr=0x3,disable-legacy=on,iommu_platform=on,werror=report";
    let boot = Boot::policy(&policy).image("client");
    let more = ["-blockdev", bad, "-device", device].map(String::from);
    let mut system = boot.machine(|machine| machine.more.extend(more)).start()?;
    system.expect_verdict("disk-error", seconds(120))?;
    system.shutdown()
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
fn packets_to_be_cut_are_cut_or_answered_as_failed() -> Result<()> {
    let mut system = with_network(&[nic_client("nic-segments", 15)])?;
    system.expect_verdict("nic-segments", seconds(120))?;
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
