//! The table parser: what it accepts, each thing it refuses, and anything at all.

use std::string::ToString;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::ids::Bdf;
use crate::pci::group::{Member, Node};
use crate::testing::{TableBuilder, link, seal};

fn error(table: &TableBuilder) -> PolicyError {
    SealedPolicy::parse(&table.bytes()).unwrap_err()
}

/// An error after one change to a table of three labels.
fn refused(change: impl FnOnce(&mut TableBuilder)) -> PolicyError {
    let mut table = TableBuilder::new(3);
    change(&mut table);
    error(&table)
}

fn run(first: u32, count: u32) -> table::Run {
    table::Run { first, count }
}

fn range(first: u32, last: u32) -> table::Range {
    table::Range { first, last }
}

#[test]
fn a_good_table_answers_questions() {
    let mut table = TableBuilder::new(3);
    table.text = b"images/d0hello".to_vec();
    table.domains[0].image = table::Text { offset: 0, bytes: 9 };
    table.domains[2].flags |= table::FLAG_LOG | table::FLAG_STORE;
    table.domains[2].io_ports = run(0, 1);
    table.domains[2].irq_lines = run(1, 1);
    table.ranges = [range(0x3f8, 0x3ff), range(4, 4)].to_vec();
    let policy = table.policy();
    assert_eq!(policy.labels(), 3);
    assert_eq!(policy.name(Label(1)), "d1");
    assert_eq!((policy.name(Label(2)), policy.name(Label(3))), ("d2", ""));
    assert_eq!(policy.text(policy.domain(Label(0)).unwrap().image), "images/d0");
    assert_eq!(policy.find_flag(table::FLAG_STORE), Some(Label(2)));
    let [ports] = policy.io_ports(Label(2)) else { panic!("one range") };
    assert_eq!((ports.first, ports.last), (0x3f8, 0x3ff));
    assert!(policy.io_ports(Label(1)).is_empty() && policy.io_ports(Label(9)).is_empty());
    assert!(policy.may_use_line(Label(2), 4) && !policy.may_use_line(Label(0), 4));
    assert!(!policy.accepts_unprotected_dma());
}

#[test]
fn only_links_open_ways_and_only_in_their_direction() {
    let mut table = TableBuilder::new(4);
    table.links =
        [table::Link { front: 1, back: 2, kind: table::LINK_BLOCK, ..table::Link::default() }, link(1, 3)].to_vec();
    let policy = table.policy();
    let (front, back, other) = (Label(1), Label(2), Label(3));
    assert!(policy.may_event(front, back) && policy.may_event(back, front));
    assert!(policy.may_share(back, front), "the back end maps what the front end grants");
    assert!(!policy.may_share(front, back), "and not the other way round");
    assert!(policy.may_share(front, other) && policy.may_share(other, front), "a channel goes both ways");
    assert!(!policy.may_event(back, other) && !policy.may_share(back, other), "links do not add up");
    assert!(policy.may_event(other, other) && policy.may_share(other, other));
    assert!(!policy.may_event(front, Label(200)) && !policy.may_share(Label(200), front), "no such label");
}

#[test]
fn damage_is_told_apart() {
    let good = TableBuilder::new(2).bytes();
    let parse = |bytes: &[u8]| SealedPolicy::parse(bytes).unwrap_err();
    assert_eq!(parse(b""), PolicyError::Size);
    assert_eq!(parse(&good[..40]), PolicyError::Size);
    assert_eq!(parse(&good[..good.len() - 1]), PolicyError::Size);
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(parse(&longer), PolicyError::Size);
    for index in 16..good.len() {
        let mut damaged = good.clone();
        damaged[index] ^= 1;
        let error = parse(&damaged);
        assert!(matches!(error, PolicyError::Checksum | PolicyError::Size), "byte {index}: {error}");
    }
    let mut magic = good.clone();
    magic[7] = b'2';
    assert_eq!(parse(&magic), PolicyError::Magic);
    let mut version = good;
    version[8] = 9;
    assert_eq!(parse(&version), PolicyError::Version(9));
}

#[test]
fn counts_that_do_not_fit_the_file_are_refused() {
    for field in [24, 28, 32, 36, 40] {
        for value in [1u32, 0x7f, 0xffff, u32::MAX] {
            let mut bytes = TableBuilder::new(2).bytes();
            let count = u32::from_le_bytes(bytes[field..field + 4].try_into().unwrap());
            bytes[field..field + 4].copy_from_slice(&count.wrapping_add(value).to_le_bytes());
            seal(&mut bytes);
            let error = SealedPolicy::parse(&bytes).unwrap_err();
            assert!(matches!(error, PolicyError::Size | PolicyError::Counts), "{field} {value}: {error}");
        }
    }
    assert_eq!(error(&TableBuilder::new(0)), PolicyError::Counts);
    assert_eq!(error(&TableBuilder::new(129)), PolicyError::Counts);
}

#[test]
fn domains_out_of_bounds_are_refused() {
    use PolicyError::{Flags, Limits, Name, Reference, Role};
    assert_eq!(refused(|table| table.header.flags = 2), Flags);
    assert_eq!(refused(|table| table.domains[1].flags = 1 << 20), Flags);
    assert_eq!(refused(|table| table.domains[1].name = table.domains[0].name), Name(1));
    assert_eq!(refused(|table| table.domains[1].name = [0; 32]), Name(1));
    assert_eq!(refused(|table| table.domains[1].name = [b'a'; 32]), Name(1));
    assert_eq!(refused(|table| table.domains[1].name[..2].copy_from_slice(b"1x")), Name(1));
    assert_eq!(refused(|table| table.domains[1].name[5] = b'x'), Name(1));
    assert_eq!(refused(|table| table.domains[0].flags = 0), Role(0));
    assert_eq!(refused(|table| table.domains[1].flags = table::FLAG_CONTROL), Role(1));
    assert_eq!(refused(|table| table.domains[0].kind = table::KIND_PVH), Role(0));
    let two_stores = |table: &mut TableBuilder| {
        table.domains[1].flags = table::FLAG_STORE;
        table.domains[2].flags = table::FLAG_STORE;
    };
    assert_eq!(refused(two_stores), Role(2));
    let limits: [fn(&mut table::Domain); 12] = [
        |domain| domain.kind = 2,
        |domain| domain.memory_pages = 0,
        |domain| domain.memory_pages = u64::MAX,
        |domain| domain.vcpus = 0,
        |domain| domain.vcpus = 2,
        |domain| domain.weight = 0,
        |domain| domain.weight = 65536,
        |domain| domain.cap = 101,
        |domain| domain.ports_max = 0,
        |domain| domain.ports_max = 4097,
        |domain| domain.grant_frames_max = 65,
        |domain| domain.grant_maps_max = 65536,
    ];
    for (index, limit) in limits.iter().enumerate() {
        assert_eq!(refused(|table| limit(&mut table.domains[2])), Limits(2), "limit {index}");
    }
    let text = table::Text { offset: 1, bytes: u32::MAX };
    assert_eq!(refused(|table| table.domains[1].image = text), Reference(1));
    let not_utf8 = |table: &mut TableBuilder| {
        table.text = [0xff].to_vec();
        table.domains[1].arguments = table::Text { offset: 0, bytes: 1 };
    };
    assert_eq!(refused(not_utf8), Reference(1));
    assert_eq!(refused(|table| table.domains[1].io_ports = run(0, 1)), Reference(1));
    assert_eq!(refused(|table| table.domains[1].irq_lines = run(u32::MAX, 1)), Reference(1));
}

#[test]
fn ranges_are_claimed_once_and_never_the_hypervisors() {
    let claims = |ranges: &[table::Range], one: table::Run, two: table::Run| {
        refused(|table| {
            table.ranges = ranges.to_vec();
            table.domains[1].io_ports = one;
            table.domains[2].io_ports = two;
        })
    };
    let none = run(0, 0);
    assert_eq!(claims(&[range(9, 8)], run(0, 1), none), PolicyError::Range(0));
    assert_eq!(claims(&[range(9, 0x1_0000)], run(0, 1), none), PolicyError::Range(0));
    assert_eq!(claims(&[range(0, u32::MAX)], run(0, 1), none), PolicyError::Range(0));
    assert_eq!(claims(&[range(0x3f8, 0x3ff)], run(0, 1), run(0, 1)), PolicyError::Range(0));
    assert_eq!(claims(&[range(0x3f8, 0x3ff), range(0x3ff, 0x400)], run(0, 1), run(1, 1)), PolicyError::Range(1));
    for taken in [0x00, 0x20, 0x43, 0x87, 0x92, 0xa1, 0xb2, 0xc0, 0xf4, 0x510, 0x514, 0x51b, 0x600, 0x67f, 0xcf8, 0xcfc]
    {
        assert_eq!(claims(&[range(taken, taken)], run(0, 1), none), PolicyError::Range(0), "{taken:#x}");
    }
    for (first, last, what) in table::HYPERVISOR_PORTS {
        assert_eq!(claims(&[range(first, last)], run(0, 1), none), PolicyError::Range(0), "{what}");
        assert_eq!(claims(&[range(last, last + 1)], run(0, 1), none), PolicyError::Range(0), "{what}");
    }
    let line = |table: &mut TableBuilder| {
        table.ranges = [range(4, 4)].to_vec();
        table.domains[1].irq_lines = run(0, 1);
        table.domains[2].irq_lines = run(0, 1);
    };
    assert_eq!(refused(line), PolicyError::Range(0), "p11: a line is no two domains'");
}

#[test]
fn bad_links_and_selectors_are_refused() {
    use PolicyError::{Device, Link};
    assert_eq!(refused(|table| table.links.push(link(1, 1))), Link(0));
    assert_eq!(refused(|table| table.links.push(link(1, 3))), Link(0));
    assert_eq!(refused(|table| table.links.push(link(u32::MAX, 1))), Link(0));
    assert_eq!(refused(|table| table.links.push(table::Link { kind: 5, ..link(0, 1) })), Link(0));
    assert_eq!(refused(|table| table.devices.push(selector(1))), Device(0), "no driver domain");
    let driver = |change: fn(&mut table::Device)| {
        refused(|table| {
            table.domains[1].flags = table::FLAG_DRIVER;
            let mut device = selector(1);
            change(&mut device);
            table.devices.push(device);
        })
    };
    assert_eq!(driver(|device| device.label = 9), Device(0));
    assert_eq!(driver(|device| device.reserved = 1), Device(0));
    assert_eq!(driver(|device| device.vendor = 0x1_0000), Device(0));
    assert_eq!(driver(|device| (device.vendor, device.device) = (table::ANY, table::ANY)), Device(0));
}

fn selector(label: u32) -> table::Device {
    table::Device { label, vendor: 0x1af4, device: 0x1042, bdf: table::ANY, ..table::Device::default() }
}

fn function(slot: u16, device: u16, class: u32) -> Member {
    let (node, access_control) = (Node::Endpoint, false);
    Member { bdf: Bdf(slot << 3), vendor: 0x1af4, device, class, node, access_control }
}

#[test]
fn a_selector_means_one_function_or_none() {
    let mut table = TableBuilder::new(3);
    table.domains[1].flags |= table::FLAG_DRIVER;
    table.domains[2].flags |= table::FLAG_DRIVER;
    let by_class = table::Device {
        vendor: table::ANY,
        device: table::ANY,
        class: 0x02_0000,
        class_mask: 0xff_ff00,
        name: table::Text { offset: 0, bytes: 3 },
        ..selector(2)
    };
    table.devices = [selector(1), by_class, table::Device { device: 0x1111, optional: 1, ..selector(1) }].to_vec();
    table.text = b"nic".to_vec();
    let policy = table.policy();
    let (disk, nic) = (function(3, 0x1042, 0x01_0000), function(4, 0x1041, 0x02_0000));
    let machine = [disk, nic, function(5, 0x9999, 0x03_0000)];
    let resolve = |index, functions: &[Member]| policy.resolve(index, functions.iter());
    assert_eq!(resolve(0, &machine), Ok(disk.bdf));
    assert_eq!(resolve(1, &machine), Ok(nic.bdf));
    assert_eq!(resolve(2, &machine), Err(Unresolved::Missing));
    assert_eq!(resolve(0, &machine[1..]), Err(Unresolved::Missing));
    let two_disks = [disk, nic, function(6, 0x1042, 0x01_0000)];
    assert_eq!(resolve(0, &two_disks), Err(Unresolved::Ambiguous(disk.bdf, Bdf(6 << 3))));
    let odd = [function(3, 0x1042, 0x02_0000)];
    assert_eq!(resolve(0, &odd), Err(Unresolved::Contested(Bdf(3 << 3), "nic")), "claimed by two selectors");
    let why = |functions: &[Member]| resolve(0, functions).unwrap_err().to_string();
    assert_eq!(why(&odd), "00:03.0 is claimed by nic too");
    assert_eq!(why(&two_disks), "both 00:03.0 and 00:06.0 match: name the slot in the policy");
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(PolicyError::Name(3).to_string(), "domain 3: bad or repeated name");
    assert_eq!(PolicyError::Version(7).to_string(), "version 7, wanted 1");
}

#[test]
fn m04_no_memory_at_any_allocation_is_an_error() {
    let mut table = TableBuilder::new(3);
    table.links.push(link(1, 2));
    table.text = b"text".to_vec();
    let bytes = table.bytes();
    for allocation in 0.. {
        crate::testing::injection::fail_after(allocation);
        let parsed = SealedPolicy::parse(&bytes);
        if crate::testing::injection::disarm() {
            assert!(allocation == 5 && parsed.is_ok(), "domains, links, text and two matrices");
            return;
        }
        assert_eq!(parsed.unwrap_err(), PolicyError::OutOfMemory);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), shape in 0u8..3) {
        // A good header and checksum let the noise through to the checks behind them.
        if shape > 0 && bytes.len() >= 48 {
            let small = |byte: u8| u32::from(byte % 4);
            let header = table::Header {
                magic: table::MAGIC,
                version: table::VERSION,
                table_bytes: bytes.len() as u32,
                domains: small(bytes[24]),
                devices: small(bytes[28]),
                links: small(bytes[32]),
                ranges: small(bytes[36]),
                ..table::Header::default()
            };
            let used = 48 + header.domains * 120 + header.devices * 40 + header.links * 24 + header.ranges * 8;
            let text_bytes = (bytes.len() as u32).saturating_sub(used);
            bytes[..48].copy_from_slice(table::Header { text_bytes, ..header }.as_bytes());
            seal(&mut bytes);
        }
        let _any_result = SealedPolicy::parse(&bytes);
    }

    #[test]
    fn one_changed_byte_never_panics(index in 48usize..500, value: u8) {
        let mut table = TableBuilder::new(3);
        table.domains[1].flags |= table::FLAG_DRIVER;
        table.devices.push(selector(1));
        table.links.push(link(1, 2));
        table.ranges.push(range(0x3f8, 0x3ff));
        table.domains[2].io_ports = run(0, 1);
        let mut bytes = table.bytes();
        let index = index.min(bytes.len() - 1);
        bytes[index] = value;
        seal(&mut bytes);
        if let Ok(policy) = SealedPolicy::parse(&bytes) {
            for label in 0..policy.labels() as u16 {
                prop_assert!(!policy.name(Label(label)).is_empty());
                prop_assert!(policy.io_ports(Label(label)).iter().all(|range| !(range.first..=range.last).contains(&0xcf8)));
            }
        }
    }
}
