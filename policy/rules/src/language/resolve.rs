//! From [`Spec`] to [`Table`]: names become labels, links are made, and the rules that involve several domains are
//! checked.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::policy_table as raw;

use super::diagnostics::{At, Sink, Span};
use super::parse::did_you_mean;
use super::spec::{self, Role, Spec};
use super::units::mac_text;
use crate::restart::{REPLACEMENTS_SETTING, RESTART_SETTING, WATCHDOG_SETTING};
use crate::table::{self, Flags, Label, Link, LinkKind, Table};

/// Makes the table, as far as that is possible; what is wrong goes to `sink`.
pub fn resolve(spec: &Spec, sink: &Sink) -> Table {
    let resolver = Resolver { spec, order: order(spec), sink };
    resolver.limits();
    resolver.roles();
    resolver.supervision();
    resolver.hardware();
    resolver.exports();
    let links = resolver.links();
    Table {
        accept_unprotected_dma: spec.system.accept_unprotected_dma,
        domains: resolver.order.iter().map(|domain| resolver.domain(domain)).collect(),
        devices: resolver.devices(),
        links,
    }
}

/// Domains as the table has them: the policy domain first, as label 0 must be it; then the services that all others
/// need; then the rest as the file has it.
fn order(spec: &Spec) -> Vec<&spec::Domain> {
    let rank = |domain: &spec::Domain| match domain.role.as_ref().map(|role| role.value) {
        Some(Role::Policy) => 0,
        Some(Role::Xenstore) => 1,
        Some(Role::Console) => 2,
        None => 3,
    };
    let mut order: Vec<&spec::Domain> = spec.domains.iter().collect();
    order.sort_by_key(|domain| rank(domain));
    order
}

struct Resolver<'a> {
    spec: &'a Spec,
    order: Vec<&'a spec::Domain>,
    sink: &'a Sink,
}

impl<'a> Resolver<'a> {
    fn limits(&self) {
        if let Some(domain) = self.spec.domains.get(raw::DOMAINS_MAX as usize) {
            self.sink.error(domain.name.span.clone(), format!("more than {} domains", raw::DOMAINS_MAX));
        }
        if let Some(device) = self.spec.devices.get(raw::DEVICES_MAX as usize) {
            self.sink.error(device.name.span.clone(), format!("more than {} devices", raw::DEVICES_MAX));
        }
        let mut ranges = self.spec.domains.iter().flat_map(|domain| {
            let ports = domain.io_ports.iter().map(|range| range.span.clone());
            ports.chain(domain.irqs.iter().map(|irq| irq.span.clone()))
        });
        if let Some(span) = ranges.nth(raw::RANGES_MAX as usize) {
            self.sink.error(span, format!("more than {} port ranges and interrupts", raw::RANGES_MAX));
        }
    }

    fn roles(&self) {
        for (word, role) in Role::WORDS {
            let holders: Vec<&At<Role>> = self
                .spec
                .domains
                .iter()
                .filter_map(|domain| domain.role.as_ref().filter(|holder| holder.value == role))
                .collect();
            for second in holders.iter().skip(1) {
                self.sink
                    .error(second.span.clone(), format!("a second domain has the role \"{word}\""))
                    .related(&holders[0].span, "the first one is")
                    .help("exactly one domain can have it");
            }
            let without = self.spec.system.without.iter().find(|without| without.value == role);
            match (holders.first(), without) {
                (None, None) if !self.sink.is_empty() && self.spec.domains.is_empty() => {}
                (None, None) => self.missing_role(word, role),
                (Some(holder), Some(without)) => {
                    self.sink
                        .error(without.span.clone(), format!("the system is to be without \"{word}\", but has it"))
                        .related(&holder.span, "it is");
                }
                _ => {}
            }
        }
        for domain in self.spec.domains.iter().filter(|domain| domain.role.is_some()) {
            if !domain.autostart {
                self.sink
                    .error(
                        domain.name.span.clone(),
                        format!("`{}` has a role and yet does not start", domain.name.value),
                    )
                    .help("remove `autostart = false`: the others need it");
            }
        }
    }

    /// What nobody watches over cannot be started again.
    fn supervision(&self) {
        let policy = |domain: &&spec::Domain| domain.role.as_ref().is_some_and(|role| role.value == Role::Policy);
        for domain in self.spec.domains.iter().filter(policy) {
            let restart = domain.restart.as_ref().map(|restart| (&restart.span, "restart"));
            let watchdog = domain.watchdog.as_ref().map(|bound| (&bound.span, "watchdog"));
            let replacements = domain.replacements.first().map(|image| (&image.span, "replacements"));
            for (span, key) in restart.into_iter().chain(watchdog).chain(replacements) {
                self.sink.error(span.clone(), format!("`{key}` of the policy domain, over which nobody watches")).help(
                    "remove it: what the others do goes on without the policy domain, and nothing starts it again",
                );
            }
        }
        let xenstore = |domain: &&spec::Domain| domain.role.as_ref().is_some_and(|role| role.value == Role::Xenstore);
        for image in self.spec.domains.iter().filter(xenstore).filter_map(|domain| domain.replacements.first()) {
            self.sink
                .error(image.span.clone(), "xenstore keeps its image")
                .help("remove `replacements`: what one xenstore hands over to the next is for its like only");
        }
    }

    fn missing_role(&self, word: &str, role: Role) {
        let heading = format!("[domain.{word}] with role = \"{word}\" and memory = \"16M\"");
        let help = match role {
            Role::Policy => format!("add {heading}: it builds all the others"),
            _ => format!("add {heading}, or say `without = [\"{word}\"]` under [system]"),
        };
        let span = self.spec.domains.first().map_or(0..0, |domain| domain.name.span.clone());
        self.sink.error(span, format!("no domain has the role \"{word}\"")).help(help);
    }

    /// Devices, ports and interrupts belong to one domain each.
    fn hardware(&self) {
        let mut devices: Vec<(&str, &Span, &str)> = Vec::new();
        let mut ports: Vec<(&At<table::Span>, &str)> = Vec::new();
        let mut irqs: Vec<(&At<u32>, &str)> = Vec::new();
        for domain in &self.spec.domains {
            let name = domain.name.value.as_str();
            self.no_hardware_for_policy(domain);
            for device in &domain.devices {
                if !self.spec.devices.iter().any(|known| known.name.value == device.value) {
                    let known = self.spec.devices.iter().map(|device| device.name.value.as_str());
                    let none = format!("describe it under a heading [device.{}]", device.value);
                    self.sink.error(device.span.clone(), format!("no device `{}`", device.value)).help(did_you_mean(
                        &device.value,
                        known,
                        &none,
                    ));
                }
                match devices.iter().find(|(other, ..)| *other == device.value) {
                    Some((_, first, owner)) => {
                        self.sink
                            .error(device.span.clone(), format!("device `{}` is claimed twice", device.value))
                            .related(first, format!("`{owner}` claims it"))
                            .help("a device belongs to one domain; others use it through a link to that domain");
                    }
                    None => devices.push((&device.value, &device.span, name)),
                }
            }
            for range in &domain.io_ports {
                if let Some((other, owner)) = ports.iter().find(|(other, _)| other.value.overlaps(range.value)) {
                    self.sink
                        .error(range.span.clone(), "these I/O ports are given away twice")
                        .related(&other.span, format!("`{owner}` has some of them"))
                        .help("two domains that drive one device break it; give the ports to one of them");
                }
                ports.push((range, name));
            }
            for irq in &domain.irqs {
                if let Some((other, owner)) = irqs.iter().find(|(other, _)| other.value == irq.value) {
                    self.sink
                        .error(irq.span.clone(), format!("interrupt line {} is given away twice", irq.value))
                        .related(&other.span, format!("`{owner}` has it"))
                        .help("line interrupts are not shared between domains");
                }
                irqs.push((irq, name));
            }
        }
        for device in
            self.spec.devices.iter().filter(|device| !devices.iter().any(|(name, ..)| *name == device.name.value))
        {
            self.sink
                .error(device.name.span.clone(), format!("no domain has the device `{}`", device.name.value))
                .help(format!("add `devices = [\"{}\"]` to a domain, or remove the device", device.name.value));
        }
    }

    fn no_hardware_for_policy(&self, domain: &spec::Domain) {
        let is_policy = domain.role.as_ref().is_some_and(|role| role.value == Role::Policy);
        let first = domain.devices.first().map(|device| &device.span);
        let first = first.or(domain.io_ports.first().map(|range| &range.span));
        if let Some(span) = first.or(domain.irqs.first().map(|irq| &irq.span)).filter(|_| is_policy) {
            self.sink.error(span.clone(), "the policy domain has hardware of its own").help(
                "give it to a driver domain: what a device does must not endanger the domain that builds the others",
            );
        }
    }

    /// What is exported must be a device of the exporter.
    fn exports(&self) {
        for domain in &self.spec.domains {
            for export in &domain.exports {
                if !domain.devices.iter().any(|device| device.value == export.disk.value) {
                    let known = domain.devices.iter().map(|device| device.value.as_str());
                    let none = format!("add `devices = [\"{}\"]` to [domain.{}]", export.disk.value, domain.name.value);
                    self.sink
                        .error(
                            export.disk.span.clone(),
                            format!("`{}` is no device of `{}`", export.disk.value, domain.name.value),
                        )
                        .help(did_you_mean(&export.disk.value, known, &none));
                }
            }
        }
    }

    fn label(&self, name: &str) -> Option<Label> {
        (0..).map(Label).zip(&self.order).find(|(_, domain)| domain.name.value == name).map(|(label, _)| label)
    }

    /// The domain that a link of `from` names.
    fn peer(&self, from: &spec::Domain, to: &At<String>) -> Option<(Label, &'a spec::Domain)> {
        let found = (0..).map(Label).zip(self.order.iter().copied()).find(|(_, domain)| domain.name.value == to.value);
        match found {
            Some(_) if to.value == from.name.value => {
                self.sink.error(to.span.clone(), format!("`{}` is linked to itself", to.value));
                None
            }
            Some(found) => Some(found),
            None => {
                let known = self.order.iter().map(|domain| domain.name.value.as_str());
                self.sink
                    .error(to.span.clone(), format!("a link to nowhere: no domain `{}`", to.value))
                    .help(did_you_mean(&to.value, known, "add it"));
                None
            }
        }
    }

    fn links(&self) -> Vec<Link> {
        let mut links = self.service_links();
        let mut writers = Vec::new();
        let mut addresses = Addresses::default();
        let mut channels = Vec::new();
        for domain in &self.order {
            let Some(front) = self.label(&domain.name.value) else {
                continue;
            };
            let before = links.len();
            self.block_links(domain, front, &mut writers, &mut links);
            self.net_links(domain, front, &mut addresses, &mut links);
            self.channel_links(domain, front, &mut channels, &mut links);
            if before <= raw::LINKS_MAX as usize && links.len() > raw::LINKS_MAX as usize {
                let message = format!("with this domain there are more than {} links", raw::LINKS_MAX);
                self.sink
                    .error(domain.name.span.clone(), message)
                    .help("links to xenstore and the console count too: two for nearly every domain");
            }
        }
        links
    }

    /// Every domain talks to xenstore and to the console.
    fn service_links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for (kind, role) in [(LinkKind::Store, Role::Xenstore), (LinkKind::Console, Role::Console)] {
            let holds = |domain: &&spec::Domain| domain.role.as_ref().is_some_and(|holder| holder.value == role);
            let Some(back) = self.order.iter().position(holds) else {
                continue;
            };
            let fronts = (0..self.order.len()).filter(|&front| front != back);
            links.extend(fronts.map(|front| Link {
                front: Label(front as u32),
                back: Label(back as u32),
                kind,
                read_only: false,
                parameters: Vec::new(),
            }));
        }
        links
    }

    fn block_links(&self, domain: &spec::Domain, front: Label, writers: &mut Vec<Writer<'a>>, links: &mut Vec<Link>) {
        let mut numbers: Vec<&At<(String, u32)>> = Vec::new();
        for disk in &domain.disks {
            if let Some(first) = numbers.iter().find(|other| other.value.1 == disk.device.value.1) {
                self.sink
                    .error(
                        disk.device.span.clone(),
                        format!("`{}` has two disks `{}`", domain.name.value, disk.device.value.0),
                    )
                    .related(&first.span, "the first one is")
                    .help("give each disk a device name of its own");
            }
            numbers.push(&disk.device);
            let Some((back, server)) = self.peer(domain, &disk.from) else {
                continue;
            };
            let Some(export) = server.exports.iter().find(|export| export.name.value == disk.export.value) else {
                let known = server.exports.iter().map(|export| export.name.value.as_str());
                let none = format!("add a heading [domain.{}.export.{}]", server.name.value, disk.export.value);
                self.sink
                    .error(
                        disk.export.span.clone(),
                        format!("`{}` has no export `{}`", server.name.value, disk.export.value),
                    )
                    .help(did_you_mean(&disk.export.value, known, &none));
                continue;
            };
            let read_only = disk.read_only.as_ref().map_or(export.read_only, |yes| yes.value);
            if export.read_only && !read_only {
                let span = disk.read_only.as_ref().map_or(disk.span.clone(), |yes| yes.span.clone());
                self.sink
                    .error(span, format!("export `{}` is read-only", export.name.value))
                    .related(&export.name.span, "it is defined")
                    .help("remove `read-only = true` from the export, or `read-only = false` here");
            }
            self.one_writer(
                Writer { disk: &export.disk.value, partition: export.partition, read_only, span: disk.span.clone() },
                writers,
            );
            let selector = self.spec.devices.iter().position(|device| device.name.value == export.disk.value);
            let parameters = [
                ("device", disk.device.value.1.to_string()),
                ("dev", disk.device.value.0.clone()),
                ("export", export.name.value.clone()),
                ("disk", export.disk.value.clone()),
                ("selector", selector.unwrap_or_default().to_string()),
                ("partition", export.partition.unwrap_or(0).to_string()),
            ];
            links.push(Link { front, back, kind: LinkKind::Block, read_only, parameters: settings(parameters) });
        }
    }

    /// Who writes to a part of a disk is alone on it, except for readers of a read-only link.
    fn one_writer(&self, new: Writer<'a>, writers: &mut Vec<Writer<'a>>) {
        let clash = |old: &&Writer<'_>| {
            let apart = matches!((old.partition, new.partition), (Some(a), Some(b)) if a != b);
            old.disk == new.disk && !apart && !(old.read_only && new.read_only)
        };
        if let Some(old) = writers.iter().find(clash) {
            let message = match (old.read_only, new.read_only) {
                (false, false) => "a second disk link may write to the same part of a disk",
                _ => "one disk link may write what another one reads",
            };
            self.sink
                .error(new.span.clone(), message)
                .related(&old.span, "the other link is")
                .help("no file system survives that: say `read-only = true` in both, or export different partitions");
        }
        writers.push(new);
    }

    fn net_links(&self, domain: &'a spec::Domain, front: Label, seen: &mut Addresses<'a>, links: &mut Vec<Link>) {
        for (handle, nic) in domain.nics.iter().enumerate() {
            if let Some(first) = seen.macs.iter().find(|other| other.value == nic.mac.value) {
                self.sink
                    .error(nic.mac.span.clone(), format!("MAC address {} is used twice", mac_text(nic.mac.value)))
                    .related(&first.span, "it is used already")
                    .help("give each interface its own, or leave `mac` out to have one made up");
            }
            seen.macs.push(&nic.mac);
            if let Some(ip) = &nic.ip {
                let same = seen.ips.iter().find(|(net, other)| *net == nic.from.value && other.value == ip.value);
                if let Some((_, first)) = same {
                    self.sink
                        .error(
                            ip.span.clone(),
                            format!("IP address {} is used twice behind `{}`", ip.value, nic.from.value),
                        )
                        .related(&first.span, "it is used already");
                }
                seen.ips.push((&nic.from.value, ip));
            }
            let Some((back, _)) = self.peer(domain, &nic.from) else {
                continue;
            };
            let mut parameters = settings([("handle", handle.to_string()), ("mac", mac_text(nic.mac.value))]);
            if nic.isolated {
                parameters.push(("isolated".to_string(), "1".to_string()));
            }
            parameters.extend(nic.ip.as_ref().map(|ip| ("ip".to_string(), ip.value.to_string())));
            links.push(Link { front, back, kind: LinkKind::Net, read_only: false, parameters });
        }
    }

    fn channel_links(
        &self,
        domain: &'a spec::Domain,
        front: Label,
        seen: &mut Vec<(Label, Label, &'a At<String>)>,
        links: &mut Vec<Link>,
    ) {
        for (handle, channel) in domain.channels.iter().enumerate() {
            let Some((back, _)) = self.peer(domain, &channel.to) else {
                continue;
            };
            let pair = (front.min(back), front.max(back));
            let same = seen.iter().find(|(a, b, name)| (*a, *b) == pair && name.value == channel.name.value);
            if let Some((.., first)) = same {
                self.sink
                    .error(channel.name.span.clone(), "a second channel of the same name between the same domains")
                    .related(&first.span, "the first one is")
                    .help("give them different names: { to = \"...\", name = \"...\" }");
            }
            seen.push((pair.0, pair.1, &channel.name));
            let parameters = settings([("handle", handle.to_string()), ("name", channel.name.value.clone())]);
            links.push(Link { front, back, kind: LinkKind::Channel, read_only: false, parameters });
        }
    }

    fn domain(&self, domain: &spec::Domain) -> table::Domain {
        let name = domain.name.value.as_str();
        let serves = self.spec.domains.iter().any(|other| {
            other.disks.iter().any(|disk| disk.from.value == name)
                || other.nics.iter().any(|nic| nic.from.value == name)
        });
        let role = domain.role.as_ref().map(|role| role.value);
        let mut config = domain.config.clone();
        if domain.announces_ready {
            config.push((table::READY_SETTING.to_string(), table::READY_ANNOUNCED.to_string()));
        }
        if let Some(restart) = &domain.restart {
            config.push((RESTART_SETTING.to_string(), restart.value.to_string()));
        }
        if let Some(bound) = &domain.watchdog {
            config.push((WATCHDOG_SETTING.to_string(), bound.value.as_millis().to_string()));
        }
        if !domain.replacements.is_empty() {
            let names: Vec<&str> = domain.replacements.iter().map(|image| image.value.as_str()).collect();
            config.push((REPLACEMENTS_SETTING.to_string(), names.join(" ")));
        }
        let devices = domain.disks.len() + domain.nics.len();
        table::Domain {
            name: name.to_string(),
            kind: domain.kind,
            flags: flags(domain),
            memory_pages: domain.memory.value / 4096,
            vcpus: domain.vcpus,
            weight: domain.weight,
            cap: domain.cap,
            ports_max: domain.event_channels.unwrap_or(if role.is_some() { 1024 } else { 256 }),
            grant_frames_max: domain.grant_frames.unwrap_or(match role {
                // What xenstore hands over to its successor is in its memory, and granted page by page.
                Some(Role::Policy) => 64,
                _ => (4 + 8 * devices as u32).min(64),
            }),
            grant_maps_max: domain.grant_maps.unwrap_or(match role {
                Some(Role::Xenstore) => 32768,
                _ if serves => 4096,
                _ => 512,
            }),
            io_ports: domain.io_ports.iter().map(|range| range.value).collect(),
            irq_lines: domain.irqs.iter().map(|irq| table::Span { first: irq.value, last: irq.value }).collect(),
            image: domain.image.value.clone(),
            arguments: domain.arguments.clone(),
            config,
            initrd: domain.initrd_file().unwrap_or_default(),
        }
    }

    fn devices(&self) -> Vec<table::Device> {
        let owner = |device: &spec::Device| {
            let owns = |domain: &&spec::Domain| domain.devices.iter().any(|claim| claim.value == device.name.value);
            self.order.iter().position(owns).map(|label| Label(label as u32))
        };
        let device = |device: &spec::Device| table::Device {
            name: device.name.value.clone(),
            label: owner(device).unwrap_or(Label::POLICY),
            vendor: device.vendor,
            device: device.device,
            class: device.class,
            bdf: device.slot.as_ref().map(|slot| slot.value),
            optional: device.optional,
        };
        self.spec.devices.iter().map(device).collect()
    }
}

/// A disk link, as far as it matters who else uses the same part of the disk.
struct Writer<'a> {
    disk: &'a str,
    partition: Option<u32>,
    read_only: bool,
    span: Span,
}

#[derive(Default)]
struct Addresses<'a> {
    macs: Vec<&'a At<[u8; 6]>>,
    ips: Vec<(&'a str, &'a At<core::net::Ipv4Addr>)>,
}

fn settings<const N: usize>(pairs: [(&str, String); N]) -> table::Settings {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn flags(domain: &spec::Domain) -> Flags {
    let role = match domain.role.as_ref().map(|role| role.value) {
        Some(Role::Policy) => raw::FLAG_CONTROL,
        Some(Role::Xenstore) => raw::FLAG_STORE,
        Some(Role::Console) => raw::FLAG_CONSOLE | raw::FLAG_LOG,
        None => 0,
    };
    let driver = if domain.devices.is_empty() { 0 } else { raw::FLAG_DRIVER };
    let start = if domain.autostart { raw::FLAG_AUTOSTART } else { 0 };
    let observe = if domain.observe { raw::FLAG_OBSERVE } else { 0 };
    Flags(role | driver | start | observe)
}
