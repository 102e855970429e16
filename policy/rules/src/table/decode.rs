//! From bytes to [`Table`]. Whatever the bytes are, the result is a table that obeys the format, or an error.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::policy_table as raw;
use zerocopy::FromBytes;

use super::encode::CRC_END;
use super::{
    Bdf, Class, Device, Domain, Flags, Kind, Label, Link, LinkKind, Settings, Span, Table, TableError, crc32, is_name,
};

impl Table {
    /// Reads a table. Bytes behind its end are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Table, TableError> {
        let (header, rest) = raw::Header::read_from_prefix(bytes).map_err(|_| TableError::Truncated)?;
        if header.magic != raw::MAGIC {
            return Err(TableError::Magic);
        }
        if header.version != raw::VERSION {
            return Err(TableError::Version(header.version));
        }
        if u64::from(header.table_bytes) > raw::TABLE_BYTES_MAX {
            return Err(TableError::TooLarge);
        }
        let table = bytes.get(..header.table_bytes as usize).ok_or(TableError::Truncated)?;
        if crc32(table.get(CRC_END..).ok_or(TableError::Layout)?) != header.crc {
            return Err(TableError::Checksum);
        }
        let body_bytes = table.len().checked_sub(size_of::<raw::Header>()).ok_or(TableError::Layout)?;
        let mut body = rest.get(..body_bytes).ok_or(TableError::Layout)?;
        let domains = entries(&mut body, header.domains, raw::DOMAINS_MAX, "domains")?;
        let devices = entries(&mut body, header.devices, raw::DEVICES_MAX, "devices")?;
        let links = entries(&mut body, header.links, raw::LINKS_MAX, "links")?;
        let ranges = entries(&mut body, header.ranges, raw::RANGES_MAX, "port and interrupt ranges")?;
        if body.len() != header.text_bytes as usize {
            return Err(TableError::Layout);
        }
        let text = core::str::from_utf8(body).map_err(|_| TableError::Bad("text"))?;
        Reader { domains: header.domains, ranges, text }.table(header.flags, domains, devices, links)
    }
}

/// Takes `count` entries off the front of `body`.
fn entries<T: FromBytes>(body: &mut &[u8], count: u32, max: u32, what: &'static str) -> Result<Vec<T>, TableError> {
    if count > max {
        return Err(TableError::TooMany(what));
    }
    (0..count)
        .map(|_| {
            let (entry, rest) = T::read_from_prefix(body).map_err(|_| TableError::Layout)?;
            *body = rest;
            Ok(entry)
        })
        .collect()
}

/// What entries refer to.
struct Reader<'a> {
    domains: u32,
    ranges: Vec<raw::Range>,
    text: &'a str,
}

impl Reader<'_> {
    fn table(
        &self,
        flags: u32,
        domains: Vec<raw::Domain>,
        devices: Vec<raw::Device>,
        links: Vec<raw::Link>,
    ) -> Result<Table, TableError> {
        if flags & !raw::ACCEPT_UNPROTECTED_DMA != 0 {
            return Err(TableError::Bad("flags"));
        }
        let table = Table {
            accept_unprotected_dma: flags & raw::ACCEPT_UNPROTECTED_DMA != 0,
            domains: domains.iter().map(|domain| self.domain(domain)).collect::<Result<_, _>>()?,
            devices: devices.iter().map(|device| self.device(device)).collect::<Result<_, _>>()?,
            links: links.iter().map(|link| self.link(link)).collect::<Result<_, _>>()?,
        };
        let control =
            |(label, domain): (Label, &Domain)| domain.flags.has(raw::FLAG_CONTROL) == (label == Label::POLICY);
        if table.domains.is_empty() || !table.labels().all(control) {
            return Err(TableError::Bad("policy domain"));
        }
        let mut names: Vec<&str> = table.domains.iter().map(|domain| domain.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(TableError::Bad("domain name"));
        }
        Ok(table)
    }

    fn domain(&self, entry: &raw::Domain) -> Result<Domain, TableError> {
        if entry.flags & !raw::FLAGS != 0 {
            return Err(TableError::Bad("domain flags"));
        }
        Ok(Domain {
            name: name(&entry.name)?,
            kind: match entry.kind {
                raw::KIND_NATIVE => Kind::Native,
                raw::KIND_PVH => Kind::Pvh,
                _ => return Err(TableError::Bad("domain kind")),
            },
            flags: Flags(entry.flags),
            memory_pages: entry.memory_pages,
            vcpus: entry.vcpus,
            weight: entry.weight,
            cap: entry.cap,
            ports_max: entry.ports_max,
            grant_frames_max: entry.grant_frames_max,
            grant_maps_max: entry.grant_maps_max,
            io_ports: self.spans(entry.io_ports)?,
            irq_lines: self.spans(entry.irq_lines)?,
            image: self.text(entry.image)?.to_string(),
            arguments: self.text(entry.arguments)?.to_string(),
            config: self.settings(entry.config)?,
            initrd: self.text(entry.initrd)?.to_string(),
        })
    }

    fn device(&self, entry: &raw::Device) -> Result<Device, TableError> {
        let id = |value: u32, what| match value {
            raw::ANY => Ok(None),
            value => u16::try_from(value).map(Some).map_err(|_| TableError::Bad(what)),
        };
        Ok(Device {
            name: self.text(entry.name)?.to_string(),
            label: self.label(entry.label)?,
            vendor: id(entry.vendor, "vendor")?,
            device: id(entry.device, "device")?,
            class: (entry.class_mask != 0).then_some(Class { value: entry.class, mask: entry.class_mask }),
            bdf: id(entry.bdf, "slot")?.map(Bdf),
            optional: entry.optional != 0,
        })
    }

    fn link(&self, entry: &raw::Link) -> Result<Link, TableError> {
        Ok(Link {
            front: self.label(entry.front)?,
            back: self.label(entry.back)?,
            kind: match entry.kind {
                raw::LINK_STORE => LinkKind::Store,
                raw::LINK_CONSOLE => LinkKind::Console,
                raw::LINK_BLOCK => LinkKind::Block,
                raw::LINK_NET => LinkKind::Net,
                raw::LINK_CHANNEL => LinkKind::Channel,
                _ => return Err(TableError::Bad("link kind")),
            },
            read_only: entry.read_only != 0,
            parameters: self.settings(entry.parameters)?,
        })
    }

    fn label(&self, label: u32) -> Result<Label, TableError> {
        if label < self.domains { Ok(Label(label)) } else { Err(TableError::Bad("label")) }
    }

    fn spans(&self, run: raw::Run) -> Result<Vec<Span>, TableError> {
        let end = run.first.checked_add(run.count).ok_or(TableError::Bad("run"))?;
        let ranges = self.ranges.get(run.first as usize..end as usize).ok_or(TableError::Bad("run"))?;
        let span = |range: &raw::Range| match range.first <= range.last {
            true => Ok(Span { first: range.first, last: range.last }),
            false => Err(TableError::Bad("range")),
        };
        ranges.iter().map(span).collect()
    }

    fn text(&self, text: raw::Text) -> Result<&str, TableError> {
        let end = text.offset.checked_add(text.bytes).ok_or(TableError::Bad("text"))?;
        self.text.get(text.offset as usize..end as usize).ok_or(TableError::Bad("text"))
    }

    fn settings(&self, text: raw::Text) -> Result<Settings, TableError> {
        let setting = |line: &str| {
            let (key, value) = line.split_once('=').ok_or(TableError::Bad("setting"))?;
            Ok((key.to_string(), value.to_string()))
        };
        self.text(text)?.split('\n').filter(|line| !line.is_empty()).map(setting).collect()
    }
}

fn name(bytes: &[u8; 32]) -> Result<String, TableError> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(TableError::Bad("domain name"))?;
    let (head, tail) = bytes.split_at(end);
    let text = core::str::from_utf8(head).map_err(|_| TableError::Bad("domain name"))?;
    match is_name(text) && tail.iter().all(|&b| b == 0) {
        true => Ok(text.to_string()),
        false => Err(TableError::Bad("domain name")),
    }
}
