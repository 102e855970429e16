//! From text to [`Spec`]: TOML syntax, known keys, types, and the syntax of single values.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use toml::de::{DeTable, DeValue};
use xen_abi::native::{ARGUMENTS_MAX, GRANT_TABLE_FRAMES_MAX};

use super::diagnostics::{At, Sink};
use super::reader::{self, Section};
use super::spec::{Channel, Device, Disk, Domain, Export, Nic, Role, Spec, System};
use super::suggest::nearest;
use super::units;
use crate::restart::{self, Budget, REPLACEMENTS_SETTING, RESTART_SETTING, Restart, TIME_HELP, WATCHDOG_SETTING};
use crate::size;
use crate::table::{Kind, READY_SETTING, is_name};

/// Reads as much as can be read; what cannot goes to `sink`.
pub fn parse(text: &str, sink: &Sink) -> Spec {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        sink.error(span, format!("TOML syntax: {}", error.message()));
    }
    if !errors.is_empty() {
        // What the parser made up to go on would only cause errors that nobody understands.
        return Spec::default();
    }
    let root = Section::new("the policy".to_string(), 0..0, table.get_ref(), sink);
    let spec = Spec {
        system: system(&root),
        devices: root.named("device", "device").into_iter().map(|(name, section)| device(name, section)).collect(),
        domains: root.named("domain", "domain").into_iter().map(|(name, section)| domain(name, section)).collect(),
    };
    root.finish();
    spec
}

fn system(root: &Section<'_>) -> System {
    let mut system = System::default();
    let Some(value) = root.any("system") else { return system };
    let DeValue::Table(table) = value.get_ref() else {
        root.sink().error(value.span(), "`system` is not a table").help("write a heading [system]");
        return system;
    };
    let section = Section::new("[system]".to_string(), root.key_span("system"), table, root.sink());
    let words = [("refuse", false), ("accept", true)];
    let dma = section.parsed("unprotected-dma", "it can be \"refuse\" or \"accept\"", |text| word(text, &words));
    system.accept_unprotected_dma = dma.is_some_and(|accept| accept.value);
    for name in section.texts("without") {
        let services = [("xenstore", Role::Xenstore), ("console", Role::Console)];
        let help = "only \"xenstore\" and \"console\" can be left out";
        system.without.extend(reader::parsed(name, help, section.sink(), |text| word(text, &services)));
    }
    section.finish();
    system
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("unknown word `{text}`"))
}

/// Complains about a name that is none.
fn check_name(name: &At<String>, sink: &Sink) {
    if !is_name(&name.value) {
        sink.error(name.span.clone(), format!("`{}` is no name", name.value))
            .help("a name is 1 to 31 of a-z, 0-9 and -, and begins with a letter");
    }
}

fn device(name: At<String>, section: Section<'_>) -> Device {
    check_name(&name, section.sink());
    let id = |key| section.number(key, 0, 0xffff).map(|id| id.value as u16);
    let slot_help = "write it as lspci does: \"00:03.0\" (bus:device.function, hexadecimal)";
    let device = Device {
        vendor: id("vendor"),
        device: id("device"),
        class: section
            .parsed("class", "write 2, 4 or 6 hexadecimal digits: \"01\" any storage, \"0108\" NVMe", units::class)
            .map(|class| class.value),
        slot: section.parsed("slot", slot_help, |text| text.parse().map_err(|_| format!("`{text}` is no PCI slot"))),
        optional: section.boolean("optional").is_some_and(|yes| yes.value),
        name,
    };
    let selects = ["vendor", "device", "class", "slot"].iter().any(|key| section.has(key));
    if !selects {
        section
            .sink()
            .error(section.span.clone(), format!("{} does not say which device it is", section.title))
            .help("add `vendor` and `device`, `class`, or `slot`");
    }
    section.finish();
    device
}

/// Keys that only virtual machines have, each with what a native domain has in its place.
const PVH_KEYS: [(&str, &str); 3] = [
    ("kernel", "native domains have an `image`"),
    ("initrd", "remove it"),
    ("cmdline", "native domains have `arguments`"),
];

/// Keys that only native domains have, each with what a virtual machine has in its place.
const NATIVE_KEYS: [(&str, &str); 7] = [
    ("image", "a virtual machine has a `kernel`"),
    ("replacements", "a virtual machine keeps its `kernel`"),
    ("arguments", "the kernel's command line is `cmdline`"),
    ("role", "services of the system are native domains"),
    ("devices", "a virtual machine has no device of the machine: give the device to a driver domain, and link to that"),
    ("io-ports", "a virtual machine has no I/O ports of the machine"),
    ("irqs", "a virtual machine has no interrupt lines of the machine"),
];

/// vCPUs of a virtual machine at most.
const VCPUS_MAX: u32 = 4;

fn domain(name: At<String>, section: Section<'_>) -> Domain {
    let sink = section.sink();
    check_name(&name, sink);
    let kind = kind(&section);
    let foreign = foreign_keys(&section, kind);
    let role_help = "it can be \"policy\", \"xenstore\" or \"console\"; other domains have no role";
    let role = match kind {
        Kind::Native => section.parsed("role", role_help, |text| word(text, &Role::WORDS)),
        Kind::Pvh => None,
    };
    let image = match (section.text("image"), &role) {
        _ if kind == Kind::Pvh => bundle_name(&section, section.required_text("kernel", "\"vmlinuz\"")),
        (Some(image), _) => Some(image),
        (None, Some(role)) => Some(At::new(role.value.image().to_string(), role.span.clone())),
        (None, None) if section.has("role") => None,
        (None, None) => section.required_text("image", "\"...\""),
    };
    if section.any("memory").is_none() {
        sink.error(section.span.clone(), format!("{} has no `memory`", section.title)).help("add `memory = \"16M\"`");
    }
    let memory = section.parsed("memory", size::HELP, memory);
    let value = |number: Option<At<u32>>| number.map(|number| number.value);
    let vcpus = value(section.number("vcpus", 1, if kind == Kind::Pvh { VCPUS_MAX } else { 1 })).unwrap_or(1);
    // What is missing has had its error; the rest of the domain is read all the same.
    let nowhere = name.span.clone();
    let domain = Domain {
        weight: value(section.number("weight", 1, 65535)).unwrap_or(256),
        cap: value(section.number("cap", 1, 100)).unwrap_or(0),
        autostart: section.boolean("autostart").is_none_or(|yes| yes.value),
        observe: section.boolean("observe").is_some_and(|yes| yes.value),
        announces_ready: announces_ready(&section),
        restart: restart(&section),
        watchdog: section.parsed("watchdog", TIME_HELP, restart::time),
        event_channels: value(section.number("event-channels", 8, 4096)),
        grant_frames: value(section.number("grant-frames", 1, GRANT_TABLE_FRAMES_MAX as u32)),
        grant_maps: value(section.number("grant-maps", 0, 65535)),
        devices: section.texts("devices"),
        replacements: section.texts("replacements"),
        io_ports: io_ports(&section),
        irqs: section
            .list("irqs")
            .filter_map(|item| reader::number(item, "an entry of `irqs`", 0, 255, sink))
            .collect(),
        arguments: arguments(&section, kind),
        initrd: if kind == Kind::Pvh { bundle_name(&section, section.text("initrd")) } else { None },
        kind,
        vcpus,
        config: settings(&section),
        exports: section
            .named("export", &format!("domain.{}.export", name.value))
            .into_iter()
            .filter_map(export)
            .collect(),
        disks: section.sections("disks").filter_map(disk).collect(),
        nics: section
            .sections("nics")
            .enumerate()
            .filter_map(|(index, entry)| nic(entry, &name.value, index))
            .collect(),
        channels: section.list("channels").filter_map(|item| channel(item, &name.value, sink)).collect(),
        role,
        image: image.unwrap_or(At::new(String::new(), nowhere.clone())),
        memory: memory.unwrap_or(At::new(0, nowhere)),
        name,
    };
    section.finish_but(&foreign);
    domain
}

fn kind(section: &Section<'_>) -> Kind {
    let words = [("native", Kind::Native), ("pvh", Kind::Pvh)];
    let help = "it can be \"native\", a program of this system (the default), or \"pvh\", a virtual machine that starts a \
                kernel at its PVH entry point";
    section.parsed("kind", help, |text| word(text, &words)).map_or(Kind::Native, |kind| kind.value)
}

/// Complains about keys of the other kind, and returns them.
fn foreign_keys(section: &Section<'_>, kind: Kind) -> Vec<&'static str> {
    let (keys, message) = match kind {
        Kind::Native => (PVH_KEYS.as_slice(), "belongs to virtual machines, which have `kind = \"pvh\"`"),
        Kind::Pvh => (NATIVE_KEYS.as_slice(), "is not for virtual machines"),
    };
    for (key, help) in keys.iter().filter(|(key, _)| section.has(key)) {
        section.sink().error(section.key_span(key), format!("`{key}` {message}")).help(*help);
    }
    keys.iter().map(|(key, _)| *key).collect()
}

/// Bytes of `kernel` or `initrd` at most: both together name a file of the bundle.
const BUNDLE_NAME_MAX: usize = 95;

/// Checks what names a file on the host and, in the same words, in the bundle.
fn bundle_name(section: &Section<'_>, name: Option<At<String>>) -> Option<At<String>> {
    let name = name?;
    if name.value.is_empty() || name.value.len() > BUNDLE_NAME_MAX || name.value.contains(|c: char| c.is_control()) {
        section
            .sink()
            .error(name.span.clone(), format!("`{}` cannot be the name of a file in the bundle", name.value))
            .help(format!(
                "write a path of at most {BUNDLE_NAME_MAX} bytes, relative to the policy file, or \"debian:PACKAGE\""
            ));
    }
    Some(name)
}

/// The smallest domain that can work: stack, fixed pages, a small image and a little heap.
const MEMORY_MIN: u64 = 1 << 20;

fn memory(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        bytes if bytes < MEMORY_MIN => Err(format!("`{text}` is too little for any domain, which needs 1M at least")),
        bytes if bytes % 4096 != 0 => Err(format!("`{text}` is no whole number of 4K pages")),
        bytes if bytes > 1 << 40 => Err(format!("`{text}` is more than any machine has")),
        bytes => Ok(bytes),
    }
}

fn io_ports(section: &Section<'_>) -> Vec<At<crate::table::Span>> {
    let help = "write \"0x3f8-0x3ff\" for a range, \"0x80\" for one port";
    let ranges = section.texts("io-ports").into_iter();
    ranges.filter_map(|text| reader::parsed(text, help, section.sink(), units::ports)).collect()
}

/// Bytes of a kernel's command line at most: x86 Linux cuts it at 2048, with its NUL.
const CMDLINE_MAX: usize = 2048;

fn arguments(section: &Section<'_>, kind: Kind) -> String {
    let (key, max, more) = match kind {
        Kind::Native => ("arguments", ARGUMENTS_MAX, "; use `config` for more"),
        Kind::Pvh => ("cmdline", CMDLINE_MAX, ""),
    };
    let Some(text) = section.text(key) else {
        return String::new();
    };
    if text.value.len() >= max || text.value.contains(['\0', '\n']) {
        section
            .sink()
            .error(text.span, format!("`{key}` is too long or has line breaks"))
            .help(format!("it is one line of fewer than {max} bytes{more}"));
    }
    text.value
}

fn announces_ready(section: &Section<'_>) -> bool {
    let words = [("connected", false), ("announced", true)];
    let help = "it can be \"connected\" (its links are) or \"announced\" (it says so itself, in data/ready)";
    section.parsed("ready", help, |text| word(text, &words)).is_some_and(|announced| announced.value)
}

/// `"always"`, `"never"`, or a budget.
fn restart(section: &Section<'_>) -> Option<At<Restart>> {
    const HELP: &str = "it can be \"always\", \"never\" or, for example, { max = 5, within = \"60s\" }";
    let value = section.any("restart")?;
    let DeValue::Table(table) = value.get_ref() else {
        let words = [("always", Restart::Always), ("never", Restart::Never)];
        return section.parsed("restart", HELP, |text| word(text, &words));
    };
    let title = format!("`restart` of {}", section.title);
    let budget = Section::new(title, value.span(), table, section.sink());
    for key in ["max", "within"].iter().filter(|key| !budget.has(key)) {
        budget.sink().error(value.span(), format!("{} has no `{key}`", budget.title)).help(HELP);
    }
    let max = budget.number("max", 1, 1000);
    let within = budget.parsed("within", TIME_HELP, restart::time);
    let backoff = budget.parsed("backoff", TIME_HELP, restart::time);
    budget.finish();
    let backoff = backoff.map_or(restart::BACKOFF_DEFAULT, |backoff| backoff.value);
    Some(At::new(Restart::Budget(Budget { max: max?.value, within: within?.value, backoff }), value.span()))
}

/// Bytes of a xenstore value.
const VALUE_MAX: usize = 1024;

fn settings(section: &Section<'_>) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for (key, value) in section.settings("config") {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let made = [
            (READY_SETTING, "ready"),
            (RESTART_SETTING, "restart"),
            (WATCHDOG_SETTING, "watchdog"),
            (REPLACEMENTS_SETTING, "replacements"),
        ];
        if let Some((name, by)) = made.iter().find(|(name, _)| key.value == *name) {
            section
                .sink()
                .error(key.span, format!("the setting `{name}` is made by the key `{by}` of the domain"))
                .help("take another name");
        } else if key.value.is_empty() || key.value.len() > 64 || !key.value.chars().all(plain) {
            section
                .sink()
                .error(key.span, format!("`{}` is no key for `config`", key.value))
                .help("it becomes the name of a xenstore node: letters, digits, -, _ and . (at most 64)");
        } else if value.value.len() > VALUE_MAX || value.value.contains(|c: char| c.is_control()) {
            section
                .sink()
                .error(value.span, "this value does not fit into a xenstore node")
                .help(format!("it is one line of at most {VALUE_MAX} bytes"));
        } else {
            settings.push((key.value, value.value));
        }
    }
    settings
}

fn export((name, section): (At<String>, Section<'_>)) -> Option<Export> {
    check_name(&name, section.sink());
    let disk = section.required_text("disk", "\"...\"");
    let partition = match section.any("partition") {
        None => {
            let which = "`partition = 1` for one partition, or `partition = \"whole\"` for the whole disk";
            section
                .sink()
                .error(name.span.clone(), format!("{} has no `partition`", section.title))
                .help(format!("add {which}"));
            None
        }
        Some(value) => match value.get_ref() {
            DeValue::String(text) if text == "whole" => Some(None),
            DeValue::String(text) => {
                let message = format!("`{text}` is no partition");
                section.sink().error(value.span(), message).help("it is a number from 1 up, or \"whole\"");
                None
            }
            _ => reader::number(value, "`partition`", 1, 128, section.sink()).map(|number| Some(number.value)),
        },
    };
    let read_only = section.boolean("read-only").is_some_and(|yes| yes.value);
    section.finish();
    Some(Export { name, disk: disk?, partition: partition?, read_only })
}

fn disk(section: Section<'_>) -> Option<Disk> {
    let from = section.required_text("from", "\"block\"");
    let export = section.required_text("export", "\"...\"");
    if section.any("device").is_none() {
        section
            .sink()
            .error(section.span.clone(), format!("{} has no `device`", section.title))
            .help("add `device = \"xvda\"`: the name under which the domain sees it");
    }
    let help = "write xvda, xvdb, ...; xvda1 for what shall look like a partition";
    let device = section.parsed("device", help, |text| Ok((text.to_string(), units::disk_number(text)?)));
    let read_only = section.boolean("read-only");
    let span = section.span.clone();
    section.finish();
    Some(Disk { span, from: from?, export: export?, device: device?, read_only })
}

fn nic(section: Section<'_>, domain: &str, index: usize) -> Option<Nic> {
    let from = section.required_text("from", "\"net\"");
    let help = "write six bytes: \"52:54:00:12:34:56\"";
    let mac = match section.any("mac") {
        Some(_) => section.parsed("mac", help, units::mac),
        None => Some(At::new(made_up_mac(domain, index), section.span.clone())),
    };
    let ip = section.parsed("ip", "write an IPv4 address: \"10.0.2.15\"", |text| {
        let usable = |ip: &core::net::Ipv4Addr| !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast());
        text.parse().ok().filter(usable).ok_or_else(|| format!("`{text}` is no IPv4 address of one host"))
    });
    let isolated = section.boolean("isolated").is_some_and(|yes| yes.value);
    section.finish();
    Some(Nic { from: from?, mac: mac?, ip, isolated })
}

/// A locally administered address that stays the same from build to build: made of the domain's name and the number
/// of the interface.
fn made_up_mac(domain: &str, index: usize) -> [u8; 6] {
    let [a, b, c, d] = crate::table::crc32(format!("{domain} {index}").as_bytes()).to_be_bytes();
    [0x52, 0x54, a, b, c, d]
}

fn channel(item: &toml::Spanned<DeValue<'_>>, domain: &str, sink: &Sink) -> Option<Channel> {
    let channel = match item.get_ref() {
        DeValue::String(to) => {
            let to = At::new(to.to_string(), item.span());
            Channel { name: to.clone(), to }
        }
        DeValue::Table(table) => {
            let title = format!("an entry of `channels` of [domain.{domain}]");
            let section = Section::new(title, item.span(), table, sink);
            let to = section.required_text("to", "\"...\"");
            let name = section.text("name");
            section.finish();
            let to = to?;
            Channel { name: name.unwrap_or_else(|| to.clone()), to }
        }
        _ => {
            sink.error(item.span(), "an entry of `channels` is neither a name nor a table")
                .help("write the other domain's name, or { to = \"...\", name = \"...\" }");
            return None;
        }
    };
    check_name(&channel.name, sink);
    Some(channel)
}

/// For other steps: `nearest` as a sentence.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone, none: &str) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match known.collect::<Vec<_>>() {
            names if names.is_empty() => none.to_string(),
            names => format!("there are: {}", names.join(", ")),
        },
    }
}
