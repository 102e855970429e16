//! Encoding and decoding agree, and decoding survives anything.

use alloc::vec::Vec;

use proptest::prelude::*;
use xen_abi::policy_table as raw;

use super::*;

fn settings() -> impl Strategy<Value = Settings> {
    prop::collection::vec(("[a-z][a-z0-9/-]{0,8}", "[ -~äß]{0,12}"), 0..4)
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let span =
        (any::<u16>(), 0..16_u32).prop_map(|(first, more)| Span { first: first.into(), last: u32::from(first) + more });
    prop::collection::vec(span, 0..3)
}

fn domain(index: usize) -> impl Strategy<Value = Domain> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
    let limits = (any::<u32>(), any::<u32>(), any::<u32>());
    let texts = ("[a-z-]{0,12}", "[ -~]{0,30}", settings(), "[a-z]{0,5}");
    ("[a-z][a-z0-9-]{0,20}", any::<bool>(), 0..32_u32, numbers, limits, spans(), spans(), texts).prop_map(
        move |(name, pvh, flags, numbers, limits, io_ports, irq_lines, texts)| Domain {
            name: format!("{name}-{index}"),
            kind: if pvh { Kind::Pvh } else { Kind::Native },
            flags: Flags((flags << 1) | if index == 0 { raw::FLAG_CONTROL } else { 0 }),
            memory_pages: numbers.0,
            vcpus: numbers.1,
            weight: numbers.2,
            cap: numbers.3,
            ports_max: limits.0,
            grant_frames_max: limits.1,
            grant_maps_max: limits.2,
            io_ports,
            irq_lines,
            image: texts.0,
            arguments: texts.1,
            config: texts.2,
            initrd: texts.3,
        },
    )
}

fn device(domains: u32) -> impl Strategy<Value = Device> {
    let class = prop::option::of((any::<u32>(), 1..=u32::MAX).prop_map(|(value, mask)| Class { value, mask }));
    let ids = (any::<Option<u16>>(), any::<Option<u16>>(), any::<Option<u16>>());
    ("[a-z]{0,9}", 0..domains, ids, class, any::<bool>()).prop_map(|(name, label, ids, class, optional)| Device {
        name,
        label: Label(label),
        vendor: ids.0,
        device: ids.1,
        class,
        bdf: ids.2.map(Bdf),
        optional,
    })
}

fn link(domains: u32) -> impl Strategy<Value = Link> {
    let kind = prop::sample::select(
        [LinkKind::Store, LinkKind::Console, LinkKind::Block, LinkKind::Net, LinkKind::Channel].as_slice(),
    );
    (0..domains, 0..domains, kind, any::<bool>(), settings()).prop_map(|(front, back, kind, read_only, parameters)| {
        Link { front: Label(front), back: Label(back), kind, read_only, parameters }
    })
}

fn table() -> impl Strategy<Value = Table> {
    (1..6_usize, any::<bool>()).prop_flat_map(|(count, accept_unprotected_dma)| {
        let domains: Vec<_> = (0..count).map(domain).collect();
        let devices = prop::collection::vec(device(count as u32), 0..4);
        let links = prop::collection::vec(link(count as u32), 0..6);
        (domains, devices, links).prop_map(move |(domains, devices, links)| Table {
            accept_unprotected_dma,
            domains,
            devices,
            links,
        })
    })
}

/// One small table with something of everything.
fn sample() -> Table {
    let domain = |name: &str, flags| Domain {
        name: name.into(),
        flags: Flags(flags),
        memory_pages: 4096,
        image: "image".into(),
        config: [("greeting".into(), "a = b".into())].into(),
        io_ports: [Span { first: 0x3f8, last: 0x3ff }].into(),
        ..Domain::default()
    };
    Table {
        accept_unprotected_dma: false,
        domains: [domain("policy", raw::FLAG_CONTROL), domain("web", raw::FLAG_AUTOSTART)].into(),
        devices: [Device {
            name: "disk".into(),
            label: Label(1),
            vendor: Some(0x1af4),
            device: None,
            class: Some(Class { value: 0x1_0000, mask: 0xff_0000 }),
            bdf: Some(Bdf(0x18)),
            optional: true,
        }]
        .into(),
        links: [Link {
            front: Label(1),
            back: Label(0),
            kind: LinkKind::Channel,
            read_only: false,
            parameters: [("name".into(), "x".into())].into(),
        }]
        .into(),
    }
}

/// The sample, encoded, with one change made to it and the checksum put right again.
fn changed(change: impl FnOnce(&mut [u8])) -> Result<Table, TableError> {
    let mut bytes = sample().encode().unwrap();
    change(&mut bytes);
    let crc = crc32(&bytes[encode::CRC_END..]);
    bytes[encode::CRC_END - 4..encode::CRC_END].copy_from_slice(&crc.to_le_bytes());
    Table::decode(&bytes)
}

const HEADER: usize = size_of::<raw::Header>();

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(table in table()) {
        let bytes = table.encode().unwrap();
        prop_assert_eq!(Table::decode(&bytes).unwrap(), table);
    }

    #[test]
    fn any_damage_is_noticed(table in table(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = table.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Table::decode(&bytes).is_err());
    }

    #[test]
    fn any_truncation_is_noticed(table in table(), at in any::<prop::sample::Index>()) {
        let bytes = table.encode().unwrap();
        prop_assert!(Table::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// With the checksum repaired, so that the checks behind it are reached.
    #[test]
    fn hostile_tables_never_panic(at in any::<prop::sample::Index>(), value in any::<u32>()) {
        let _ = changed(|bytes| {
            let at = at.index(bytes.len() / 4 - 1) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Table::decode(&bytes);
    }
}

#[test]
fn each_bad_field_has_its_own_error() {
    let put = |at: usize, value: u32| move |bytes: &mut [u8]| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let domain = |offset: usize| HEADER + offset;
    assert_eq!(changed(|_| ()).unwrap(), sample());
    assert_eq!(changed(put(0, 0)), Err(TableError::Magic));
    assert_eq!(changed(put(8, 2)), Err(TableError::Version(2)));
    assert_eq!(changed(put(core::mem::offset_of!(raw::Header, domains), 129)), Err(TableError::TooMany("domains")));
    assert_eq!(changed(put(core::mem::offset_of!(raw::Header, text_bytes), 1)), Err(TableError::Layout));
    assert_eq!(changed(put(core::mem::offset_of!(raw::Header, flags), 2)), Err(TableError::Bad("flags")));
    let kind = core::mem::offset_of!(raw::Domain, kind);
    assert_eq!(changed(put(domain(kind), 7)), Err(TableError::Bad("domain kind")));
    let flags = core::mem::offset_of!(raw::Domain, flags);
    assert_eq!(changed(put(domain(flags), 0)), Err(TableError::Bad("policy domain")));
    let second = domain(size_of::<raw::Domain>());
    assert_eq!(changed(put(second + flags, 1)), Err(TableError::Bad("policy domain")));
    assert_eq!(changed(put(second, u32::from_le_bytes(*b"WEB\0"))), Err(TableError::Bad("domain name")));
    let run = core::mem::offset_of!(raw::Domain, io_ports);
    assert_eq!(changed(put(domain(run), u32::MAX)), Err(TableError::Bad("run")));
    let image = core::mem::offset_of!(raw::Domain, image);
    assert_eq!(changed(put(domain(image), 0xffff)), Err(TableError::Bad("text")));
    let device = domain(2 * size_of::<raw::Domain>());
    assert_eq!(changed(put(device, 2)), Err(TableError::Bad("label")));
}

#[test]
fn too_much_of_anything_is_refused() {
    let mut table = sample();
    table.links = core::iter::repeat_n(table.links[0].clone(), raw::LINKS_MAX as usize + 1).collect();
    assert_eq!(table.encode(), Err(TableError::TooMany("links")));
    let mut table = sample();
    table.domains[0].arguments = "x".repeat(raw::TABLE_BYTES_MAX as usize);
    assert_eq!(table.encode(), Err(TableError::TooLarge));
}

#[test]
fn slots_are_written_as_lspci_writes_them() {
    assert_eq!("00:03.0".parse(), Ok(Bdf(0x18)));
    assert_eq!("0000:ff:1f.7".parse(), Ok(Bdf(0xffff)));
    assert_eq!(alloc::format!("{}", Bdf(0x18)), "00:03.0");
    for bad in ["", "3", "00:20.0", "00:03.8", "1:2:3.4", "00:+3.0", "000:03.0"] {
        assert_eq!(bad.parse::<Bdf>(), Err(NotASlot), "{bad}");
    }
}
