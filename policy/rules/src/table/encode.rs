//! From [`Table`] to bytes.

use alloc::string::String;
use alloc::vec::Vec;

use xen_abi::policy_table as raw;
use zerocopy::IntoBytes;

use super::{Device, Domain, Kind, Link, LinkKind, Settings, Span, Table, TableError, crc32};

impl Table {
    /// The table in the layout of `xen_abi::policy_table`. The same table gives the same bytes.
    pub fn encode(&self) -> Result<Vec<u8>, TableError> {
        let mut areas = Areas::default();
        let domains = self.domains.iter().map(|domain| areas.domain(domain)).collect::<Result<Vec<_>, _>>()?;
        let devices = self.devices.iter().map(|device| areas.device(device)).collect::<Result<Vec<_>, _>>()?;
        let links = self.links.iter().map(|link| areas.link(link)).collect::<Result<Vec<_>, _>>()?;

        let mut header = raw::Header {
            magic: raw::MAGIC,
            version: raw::VERSION,
            flags: if self.accept_unprotected_dma { raw::ACCEPT_UNPROTECTED_DMA } else { 0 },
            domains: count(domains.len(), raw::DOMAINS_MAX, "domains")?,
            devices: count(devices.len(), raw::DEVICES_MAX, "devices")?,
            links: count(links.len(), raw::LINKS_MAX, "links")?,
            ranges: count(areas.ranges.len(), raw::RANGES_MAX, "port and interrupt ranges")?,
            text_bytes: u32::try_from(areas.text.len()).map_err(|_| TableError::TooLarge)?,
            ..raw::Header::default()
        };
        let body = [
            domains.as_slice().as_bytes(),
            devices.as_slice().as_bytes(),
            links.as_slice().as_bytes(),
            areas.ranges.as_slice().as_bytes(),
            areas.text.as_bytes(),
        ]
        .concat();
        let bytes = size_of::<raw::Header>() + body.len();
        if bytes as u64 > raw::TABLE_BYTES_MAX {
            return Err(TableError::TooLarge);
        }
        header.table_bytes = bytes as u32;
        let mut table = [header.as_bytes(), &body].concat();
        header.crc = crc32(table.get(CRC_END..).unwrap_or_default());
        if let Some(head) = table.get_mut(..size_of::<raw::Header>()) {
            head.copy_from_slice(header.as_bytes());
        }
        Ok(table)
    }
}

/// The checksum covers everything from here.
pub(super) const CRC_END: usize = core::mem::offset_of!(raw::Header, crc) + 4;

fn count(len: usize, max: u32, what: &'static str) -> Result<u32, TableError> {
    u32::try_from(len).ok().filter(|&n| n <= max).ok_or(TableError::TooMany(what))
}

/// The areas that entries point into.
#[derive(Default)]
struct Areas {
    ranges: Vec<raw::Range>,
    text: String,
}

impl Areas {
    fn domain(&mut self, domain: &Domain) -> Result<raw::Domain, TableError> {
        let mut name = [0; 32];
        let room = name.get_mut(..domain.name.len()).ok_or(TableError::Bad("domain name"))?;
        room.copy_from_slice(domain.name.as_bytes());
        Ok(raw::Domain {
            name,
            kind: match domain.kind {
                Kind::Native => raw::KIND_NATIVE,
                Kind::Pvh => raw::KIND_PVH,
            },
            flags: domain.flags.0,
            memory_pages: domain.memory_pages,
            vcpus: domain.vcpus,
            weight: domain.weight,
            cap: domain.cap,
            ports_max: domain.ports_max,
            grant_frames_max: domain.grant_frames_max,
            grant_maps_max: domain.grant_maps_max,
            io_ports: self.run(&domain.io_ports)?,
            irq_lines: self.run(&domain.irq_lines)?,
            image: self.text(&domain.image)?,
            arguments: self.text(&domain.arguments)?,
            config: self.settings(&domain.config)?,
            initrd: self.text(&domain.initrd)?,
        })
    }

    fn device(&mut self, device: &Device) -> Result<raw::Device, TableError> {
        Ok(raw::Device {
            label: device.label.0,
            vendor: device.vendor.map_or(raw::ANY, u32::from),
            device: device.device.map_or(raw::ANY, u32::from),
            class: device.class.map_or(0, |class| class.value),
            class_mask: device.class.map_or(0, |class| class.mask),
            bdf: device.bdf.map_or(raw::ANY, |bdf| u32::from(bdf.0)),
            optional: u32::from(device.optional),
            reserved: 0,
            name: self.text(&device.name)?,
        })
    }

    fn link(&mut self, link: &Link) -> Result<raw::Link, TableError> {
        Ok(raw::Link {
            front: link.front.0,
            back: link.back.0,
            kind: match link.kind {
                LinkKind::Store => raw::LINK_STORE,
                LinkKind::Console => raw::LINK_CONSOLE,
                LinkKind::Block => raw::LINK_BLOCK,
                LinkKind::Net => raw::LINK_NET,
                LinkKind::Channel => raw::LINK_CHANNEL,
            },
            read_only: u32::from(link.read_only),
            parameters: self.settings(&link.parameters)?,
        })
    }

    fn run(&mut self, spans: &[Span]) -> Result<raw::Run, TableError> {
        if spans.is_empty() {
            return Ok(raw::Run::default());
        }
        let first = count(self.ranges.len(), raw::RANGES_MAX, "port and interrupt ranges")?;
        self.ranges.extend(spans.iter().map(|span| raw::Range { first: span.first, last: span.last }));
        Ok(raw::Run { first, count: count(spans.len(), raw::RANGES_MAX, "port and interrupt ranges")? })
    }

    fn text(&mut self, text: &str) -> Result<raw::Text, TableError> {
        if text.is_empty() {
            return Ok(raw::Text::default());
        }
        let offset = self.text.len() as u64;
        if offset + text.len() as u64 > raw::TABLE_BYTES_MAX {
            return Err(TableError::TooLarge);
        }
        self.text.push_str(text);
        Ok(raw::Text { offset: offset as u32, bytes: text.len() as u32 })
    }

    fn settings(&mut self, settings: &Settings) -> Result<raw::Text, TableError> {
        let lines: Vec<String> = settings.iter().map(|(key, value)| alloc::format!("{key}={value}")).collect();
        self.text(&lines.join("\n"))
    }
}
