//! What the language accepts, what it makes of it, and how each mistake is answered.
//!
//! The full layout of messages is kept in `errors/*.txt` beside this file, one file a group of mistakes; run with
//! `BULKHEAD_BLESS=1` to write them anew after a deliberate change.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use xen_abi::policy_table as raw;

use super::*;
use crate::restart::{REPLACEMENTS_SETTING, RESTART_SETTING, WATCHDOG_SETTING};
use crate::table::{LinkKind, setting};

const DEMO: &str = include_str!("../../../demo.toml");

/// The start of a policy without mistakes; tests append to it.
const BASE: &str = r#"
[domain.policy]
role = "policy"
memory = "16M"
[domain.xenstore]
role = "xenstore"
memory = "16M"
[domain.console]
role = "console"
memory = "16M"
"#;

/// [`BASE`] and a block domain with two exports of a disk.
fn with_block(more: &str) -> String {
    let block = r#"
[device.disk]
device = 0x1042
[domain.block]
image = "block"
memory = "16M"
devices = ["disk"]
[domain.block.export.one]
disk = "disk"
partition = 1
[domain.block.export.all]
disk = "disk"
partition = "whole"
"#;
    [BASE, block, more].concat()
}

fn machine() -> Machine {
    let function = |slot: u16, vendor, device, class| PciFunction { bdf: slot << 3, vendor, device, class };
    Machine {
        memory: 512 << 20,
        devices: [function(3, 0x1af4, 0x1042, 0x01_0000), function(8, 0x1af4, 0x1041, 0x02_0000)].into(),
    }
}

fn images() -> Vec<ImageInfo> {
    ["policy-domain", "xenstore", "console", "block", "net", "web"]
        .map(|name| ImageInfo { name: name.into(), bytes: 600 << 10 })
        .into()
}

/// The messages and positions of all errors, one a line.
fn complaints(errors: &Errors) -> String {
    let line = |diagnostic: &Diagnostic| {
        let (line, column) = errors.position(diagnostic);
        alloc::format!("{line}:{column}: {}", diagnostic.message)
    };
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Loads and checks, and gives all errors as a person sees them.
fn shown(text: &str) -> String {
    match load("demo.toml", text).and_then(|policy| policy.check(&machine(), &images())) {
        Ok(()) => "no error".to_string(),
        Err(errors) => errors.to_string(),
    }
}

#[track_caller]
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/language/errors").join(name).with_extension("txt");
    let got = alloc::format!("{}\n", shown(text));
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        fs::write(&path, &got).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(got, wanted, "\n--- now:\n{got}\n--- {} has:\n{wanted}", path.display());
}

#[test]
fn the_demo_is_accepted_and_says_what_it_seems_to_say() {
    let policy = load("demo.toml", DEMO).unwrap_or_else(|errors| panic!("{errors}"));
    policy.check(&machine(), &images()).unwrap_or_else(|errors| panic!("{errors}"));
    let table = Table::decode(&policy.compile()).unwrap();
    assert_eq!(&table, policy.table());
    let names: Vec<&str> = table.domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["policy", "xenstore", "console", "block", "net", "web"]);
    assert_eq!(policy.images().collect::<Vec<_>>(), ["policy-domain", "xenstore", "console", "block", "net", "web"]);
    assert!(!table.accept_unprotected_dma);

    let flags: Vec<u32> = table.domains.iter().map(|domain| domain.flags.0 & !raw::FLAG_AUTOSTART).collect();
    let console = raw::FLAG_CONSOLE | raw::FLAG_LOG;
    assert_eq!(flags, [raw::FLAG_CONTROL, raw::FLAG_STORE, console, raw::FLAG_DRIVER, raw::FLAG_DRIVER, 0]);
    let block = table.find("block").unwrap();
    assert_eq!(table.devices[0].label, block);

    let kinds = |kind| table.links.iter().filter(move |link| link.kind == kind);
    assert_eq!(kinds(LinkKind::Store).count(), 5);
    assert_eq!(kinds(LinkKind::Console).count(), 5);
    let disk = kinds(LinkKind::Block).next().unwrap();
    assert_eq!((disk.front, disk.back, disk.read_only), (table.find("web").unwrap(), block, true));
    let expected = [("device", "51712"), ("export", "site"), ("selector", "0"), ("partition", "0")];
    for (key, value) in expected {
        assert_eq!(setting(&disk.parameters, key), Some(value));
    }
    let nic = kinds(LinkKind::Net).next().unwrap();
    assert_eq!(setting(&nic.parameters, "mac"), Some("52:54:00:b1:6b:01"));
    assert_eq!(setting(&nic.parameters, "ip"), Some("10.0.2.15"));
    assert_eq!(setting(&table.domains[5].config, "ready"), Some("announced"));
}

#[test]
fn a_file_without_mistakes_has_none() {
    assert_eq!(shown(&with_block("")), "no error");
}

#[test]
fn roles_come_first_wherever_they_stand() {
    let text = "[domain.a]\nimage = \"web\"\nmemory = \"4M\"\n".to_string() + BASE;
    let policy = load("x", &text).unwrap();
    assert_eq!(policy.table().domains[0].name, "policy");
    assert_eq!(policy.table().domains[3].name, "a");
}

#[test]
fn services_can_be_left_out_on_purpose_only() {
    let bare = "[system]\nwithout = [\"xenstore\", \"console\"]\n[domain.policy]\nrole = \"policy\"\nmemory = \"4M\"\n";
    let policy = load("x", bare).unwrap();
    assert_eq!(policy.table().links, []);
    let errors = load("x", "[domain.policy]\nrole = \"policy\"\nmemory = \"4M\"\n").unwrap_err();
    assert_eq!(
        complaints(&errors),
        "1:9: no domain has the role \"xenstore\"\n1:9: no domain has the role \"console\""
    );
}

#[test]
fn cycles_of_links_are_fine() {
    let text = with_block(
        "[domain.a]\nimage = \"web\"\nmemory = \"4M\"\nchannels = [\"b\"]\n\
         [domain.b]\nimage = \"web\"\nmemory = \"4M\"\nchannels = [{ to = \"a\", name = \"back\" }, \"block\"]\n",
    );
    assert_eq!(shown(&text), "no error");
}

#[test]
fn a_made_up_mac_address_stays_the_same() {
    let nic = "[domain.a]\nimage = \"web\"\nmemory = \"4M\"\nnics = [{ from = \"console\" }, { from = \"console\" }]\n";
    let mac = |text: &str| {
        let policy = load("x", text).unwrap();
        let net: Vec<_> = policy.table().links.iter().filter(|link| link.kind == LinkKind::Net).collect();
        let macs: Vec<String> = net.iter().map(|link| setting(&link.parameters, "mac").unwrap().to_string()).collect();
        macs
    };
    let first = mac(&[BASE, nic].concat());
    assert_eq!(first, mac(&[BASE, "# moved\n", nic].concat()));
    assert_ne!(first[0], first[1]);
}

#[test]
fn explain_names_the_link_or_the_way_round() {
    let policy = load("demo.toml", DEMO).unwrap();
    let direct = policy.explain("web", "block").unwrap();
    assert!(
        direct.contains("directly") && direct.contains("export `site`") && direct.contains("read-only"),
        "{direct}"
    );
    let indirect = policy.explain("block", "net").unwrap();
    assert!(indirect.contains("no link") && indirect.contains("block - web - net"), "{indirect}");
    let unknown = policy.explain("wep", "net").unwrap_err().to_string();
    assert!(unknown.contains("no domain `wep`"), "{unknown}");
}

#[test]
fn graph_has_every_domain_device_and_link() {
    let policy = load("demo.toml", DEMO).unwrap();
    let graph = policy.graph();
    for part in ["\"web\" -> \"block\"", "\"web\" -> \"net\"", "device disk", "site (ro)", "digraph"] {
        assert!(graph.contains(part), "{part} in\n{graph}");
    }
}

#[test]
fn errors_of_syntax() {
    golden("syntax", "[domain.web\nimage = \"web\"\nmemory = = 3\n");
}

#[test]
fn errors_of_keys_and_types() {
    let text = [
        BASE,
        r#"
[sistem]
[domain.web]
imgae = "web"
image = 7
memroy = "64M"
memory = "64MB"
weight = 0
devices = "disk"
autostart = "yes"
config = { "a b" = 1, c = [1], ready = "yes" }
ready = "soon"
[domain.Web]
image = "web"
memory = "0M"
[domain.none]
"#,
    ]
    .concat();
    golden("keys_and_types", &text);
}

#[test]
fn errors_of_virtual_machines() {
    let text = [
        BASE,
        r#"
[domain.linux]
kind = "pvh"
image = "web"
memory = "32M"
kernel = "vmlinuz"
devices = []
vcpus = 5
[domain.no-kernel]
kind = "pvh"
memory = "64M"
role = "console"
kernle = "vmlinuz"
initrd = ""
[domain.other]
kind = "hvm"
image = "web"
memory = "4M"
[domain.web]
image = "web"
memory = "64M"
kernel = "vmlinuz"
cmdline = "quiet"
vcpus = 2
"#,
    ]
    .concat();
    golden("virtual_machines", &text);
}

/// A virtual machine beside [`with_block`]'s domains.
const GUEST: &str = r#"
[domain.guest]
kind = "pvh"
kernel = "debian:some-kernel"
initrd = "rescue.img"
cmdline = "console=hvc0 quiet"
vcpus = 2
memory = "256M"
disks = [{ from = "block", export = "one", device = "xvda" }]
"#;

#[test]
fn a_virtual_machine_names_its_kernel_and_initrd_and_is_linked_as_any_other_domain() {
    let policy = load("x", &with_block(GUEST)).unwrap_or_else(|errors| panic!("{errors}"));
    policy.check(&machine(), &images()).unwrap_or_else(|errors| panic!("{errors}"));
    let table = Table::decode(&policy.compile()).unwrap();
    let label = table.find("guest").unwrap();
    let guest = table.domain(label).unwrap();
    assert_eq!((guest.kind, guest.vcpus, guest.memory_pages), (Kind::Pvh, 2, 65536));
    assert_eq!((guest.image.as_str(), guest.initrd.as_str()), ("debian:some-kernel", "debian:some-kernel+rescue.img"));
    assert_eq!(guest.arguments, "console=hvc0 quiet");
    let mut kinds: Vec<LinkKind> =
        table.links.iter().filter(|link| link.front == label).map(|link| link.kind).collect();
    kinds.sort();
    assert_eq!(kinds, [LinkKind::Store, LinkKind::Console, LinkKind::Block]);
    assert!(!policy.images().any(|image| image.contains("kernel")), "a kernel is no program of this system");
    let guests: Vec<Guest<'_>> = policy.guests().collect();
    assert_eq!((guests.len(), guests[0].kernel, guests[0].initrd), (1, "debian:some-kernel", Some("rescue.img")));
    assert_eq!(guests[0].initrd_file.as_deref(), Some(guest.initrd.as_str()));
    assert!(policy.graph().contains("256 MiB, 2 vCPU\\ndebian:some-kernel"), "{}", policy.graph());
}

#[test]
fn a_virtual_machine_must_hold_its_kernel_and_initrd() {
    let policy = load("x", &with_block(GUEST)).unwrap();
    let with = |initrd| {
        let files = [("debian:some-kernel", 40 << 20), ("debian:some-kernel+rescue.img", initrd)];
        let files = files.map(|(name, bytes)| ImageInfo { name: name.into(), bytes });
        policy.check(&machine(), &[images(), files.into()].concat())
    };
    assert!(with(1 << 20).is_ok());
    let errors = with(110 << 20).unwrap_err().to_string();
    assert!(errors.contains("`guest` has too little memory") && errors.contains("\"276M\""), "{errors}");
}

#[test]
fn the_memory_that_is_needed_is_enough() {
    for guests in ["256M", "900M", "3G"] {
        let text = with_block(&GUEST.replace("256M", guests));
        let policy = load("x", &text).unwrap();
        let memory = policy.memory_needed(&images());
        let fits = |memory| policy.check(&Machine { memory, ..machine() }, &images()).is_ok();
        assert!(fits(memory) && !fits(memory - (4 << 20)), "{guests}: {memory}");
    }
}

#[test]
fn the_linux_demo_is_accepted() {
    let policy = load("linux.toml", include_str!("../../../linux.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let disk = PciFunction { bdf: 4 << 3, vendor: 0x1af4, device: 0x1042, class: 0x01_0000 };
    let machine = Machine { memory: 1 << 30, devices: [machine().devices, [disk].into()].concat() };
    policy.check(&machine, &images()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(policy.guests().count(), 1);
}

#[test]
fn errors_of_links() {
    let text = with_block(
        r#"
[domain.a]
image = "web"
memory = "4M"
disks = [
    { from = "blok", export = "one", device = "xvda" },
    { from = "block", export = "ome", device = "xvdb" },
    { from = "block", export = "one", device = "xvdb" },
    { from = "a", export = "one", device = "sda" },
    { from = "block" },
]
nics = [{ from = "nowhere", mac = "52:54:00:00:00:01" }, { from = "console", mac = "52:54:00:00:00:01" }]
channels = ["b", { to = "b", nmae = "x" }, 3]
[domain.b]
image = "web"
memory = "4M"
channels = ["a"]
disks = [{ from = "block", export = "all", device = "xvda" }]
"#,
    );
    golden("links", &text);
}

#[test]
fn errors_of_hardware() {
    let text = with_block(
        r#"
[device.unused]
class = "02"
[device.vague]
[device.odd]
slot = "3"
class = "storage"
vendor = 0x12345
[domain.second]
image = "block"
memory = "16M"
devices = ["disk", "disc", "vague", "odd"]
io-ports = ["0x3f8-0x3ff", "0x3ff", "0x10000", "9-8"]
irqs = [4, 4, 256]
"#,
    );
    golden("hardware", &text);
}

#[test]
fn what_becomes_of_the_dead_is_a_setting_of_the_domain() {
    let more = "[domain.web]\nimage = \"web\"\nmemory = \"16M\"\n";
    let found = |key: &str| {
        let policy = load("x", &[BASE, more, key].concat()).unwrap();
        let table = policy.table().clone();
        table.domain(table.find("web").unwrap()).unwrap().config.clone()
    };
    assert_eq!(setting(&found("restart = \"always\""), RESTART_SETTING), Some("always"));
    let budget = found("restart = { max = 3, within = \"1m\" }\nwatchdog = \"2s\"");
    assert_eq!(setting(&budget, RESTART_SETTING), Some("3 60000 100"));
    assert_eq!(setting(&budget, WATCHDOG_SETTING), Some("2000"));
    assert_eq!(setting(&found(""), RESTART_SETTING), None);
}

#[test]
fn images_that_may_replace_the_own_one_are_in_the_bundle_and_checked() {
    let web = "[domain.web]\nimage = \"web\"\nmemory = \"16M\"\nreplacements = [\"block\", \"net\"]\n";
    let policy = load("x", &[BASE, web].concat()).unwrap();
    policy.check(&machine(), &images()).unwrap_or_else(|errors| panic!("{errors}"));
    let (table, images) = (policy.table(), policy.images().collect::<Vec<_>>());
    let config = &table.domain(table.find("web").unwrap()).unwrap().config;
    assert_eq!(setting(config, REPLACEMENTS_SETTING), Some("block net"));
    assert!(["web", "block", "net"].iter().all(|name| images.contains(name)), "{images:?}");
    let unknown = web.replace("\"net\"", "\"nett\"").replace("16M", "1M");
    let text = [BASE, &unknown].concat().replace("role = \"policy\"", "role = \"policy\"\nreplacements = [\"net\"]");
    let text = text.replace("role = \"xenstore\"", "role = \"xenstore\"\nreplacements = [\"net\"]");
    golden("replacements_of_services", &text);
    golden("replacements", &[BASE, &unknown].concat());
}

#[test]
fn errors_of_supervision() {
    let domain =
        |name: &str, keys: &str| alloc::format!("[domain.{name}]\nimage = \"web\"\nmemory = \"16M\"\n{keys}\n");
    let domains = [
        domain("a", "restart = \"sometimes\"\nwatchdog = \"0s\""),
        domain("b", "restart = 5\nwatchdog = 5"),
        domain("c", "restart = { max = 0, within = \"60s\" }"),
        domain("d", "restart = { max = 5 }"),
        domain("e", "restart = { max = 5, within = \"60\", often = true }"),
        domain("f", "config = { restart = \"always\", watchdog-ms = 5 }"),
    ];
    golden("supervision", &[BASE, &domains.concat()].concat());
    let policy = "role = \"policy\"\nrestart = \"always\"\nwatchdog = \"1s\"";
    golden("supervision_of_the_supervisor", &BASE.replace("role = \"policy\"", policy));
}

#[test]
fn xenstore_is_watched_over_like_any_other() {
    let xenstore = "role = \"xenstore\"\nrestart = { max = 1, within = \"1s\" }\nwatchdog = \"1s\"";
    let policy = load("x", &BASE.replace("role = \"xenstore\"", xenstore)).unwrap();
    let domain = policy.table().domain(policy.table().find("xenstore").unwrap()).unwrap();
    assert_eq!(setting(&domain.config, RESTART_SETTING), Some("1 1000 100"));
    assert_eq!(setting(&domain.config, WATCHDOG_SETTING), Some("1000"));
}

#[test]
fn errors_of_roles() {
    let text = [
        BASE,
        "[domain.second]\nrole = \"console\"\nmemory = \"16M\"\n[domain.third]\nrole = \"boss\"\nmemory = \"4M\"\n",
    ]
    .concat()
    .replace("role = \"policy\"", "image = \"web\"");
    golden("roles", &text);
}

#[test]
fn errors_of_the_machine() {
    let text = with_block(
        r#"
[device.virtio]
vendor = 0x1af4
device = 0x1042
[device.gpu]
class = "03"
[device.maybe]
class = "03"
optional = true
[domain.a]
image = "wep"
memory = "1M"
devices = ["virtio", "gpu", "maybe"]
io-ports = ["0xcf8"]
[domain.huge]
image = "web"
memory = "2G"
[domain.tiny]
image = "web"
memory = "1M"
"#,
    );
    golden("machine", &text.replace("device = 0x1042\n[domain.block]", "vendor = 0x1af4\n[domain.block]"));
}

#[test]
fn ports_that_the_hypervisor_refuses_are_refused_with_a_reason() {
    for (first, last, what) in raw::HYPERVISOR_PORTS {
        for ports in [format!("{first:#x}-{last:#x}"), format!("{last:#x}")] {
            let domain = format!("[domain.a]\nimage = \"web\"\nmemory = \"4M\"\nio-ports = [\"{ports}\"]\n");
            let errors = load("x", &with_block(&domain)).unwrap().check(&machine(), &images()).unwrap_err();
            assert!(errors.to_string().contains(what), "{ports}: {errors}");
        }
    }
}

#[test]
fn one_device_named_twice_is_found_on_the_machine() {
    let text = with_block(
        "[domain.a]\nimage = \"web\"\nmemory = \"4M\"\ndevices = [\"again\"]\n[device.again]\nclass = \"01\"\n",
    );
    let policy = load("x", &text).unwrap();
    let errors = policy.check(&machine(), &images()).unwrap_err();
    assert_eq!(complaints(&errors), "28:9: `again` and `disk` are the same device");
}

#[test]
fn a_flood_of_errors_is_cut() {
    let text: String = (0..50).map(|i| alloc::format!("key{i} = 1\n")).collect();
    let shown = shown(&text);
    assert!(shown.ends_with("50 errors, the first 20 shown"), "{shown}");
}

#[test]
fn limits_of_the_table_are_errors_with_a_place() {
    let many: String = (0..130).map(|i| alloc::format!("[domain.d{i}]\nimage = \"web\"\nmemory = \"1M\"\n")).collect();
    let errors = load("x", &[BASE, &many].concat()).unwrap_err();
    assert!(complaints(&errors).contains("more than 128 domains"), "{}", complaints(&errors));
    let channels: Vec<String> = (0..510).map(|i| alloc::format!("{{ to = \"console\", name = \"c{i}\" }}")).collect();
    let text =
        alloc::format!("{BASE}[domain.a]\nimage = \"web\"\nmemory = \"1M\"\nchannels = [{}]\n", channels.join(","));
    let errors = load("x", &text).unwrap_err();
    assert!(complaints(&errors).contains("more than 512 links"), "{}", complaints(&errors));
}

#[test]
fn columns_count_characters_and_tabs_are_kept() {
    let errors = load("x", "\t\"größe\" = 1\n").unwrap_err();
    assert!(complaints(&errors).contains("1:2: unknown key `größe`"), "{}", complaints(&errors));
    assert!(errors.to_string().contains("  | \t^^^^^^^\n"), "{errors}");
}

/// Lines that policies are made of, in no good order.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(
        [
            "[domain.a]",
            "[domain.b]",
            "[domain.a.export.x]",
            "[device.d]",
            "[system]",
            "role = \"policy\"",
            "role = \"xenstore\"",
            "role = \"console\"",
            "image = \"web\"",
            "memory = \"16M\"",
            "memory = \"18446744073709551615K\"",
            "devices = [\"d\", \"d\"]",
            "disks = [{ from = \"b\", export = \"x\", device = \"xvda\" }]",
            "nics = [{ from = \"a\" }]",
            "channels = [\"a\", \"b\", {}]",
            "vendor = 0xffff",
            "class = \"01\"",
            "slot = \"00:1f.7\"",
            "disk = \"d\"",
            "partition = 1",
            "partition = \"whole\"",
            "irqs = [1, 2]",
            "io-ports = [\"0-65535\"]",
            "without = [\"console\"]",
            "unprotected-dma = \"accept\"",
            "config = { a = 1 }",
            "ready = \"announced\"",
            "restart = \"always\"",
            "restart = { max = 5, within = \"60s\", backoff = \"10ms\" }",
            "watchdog = \"500ms\"",
            "[[domain]]",
            "domain = 3",
            "\u{feff}",
            "x.y.z = {}",
        ]
        .as_slice(),
    );
    prop::collection::vec(scrap, 0..25).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        let _ = shown(&text);
    }

    #[test]
    fn random_pieces_of_policies_never_panic(text in scraps()) {
        let _ = shown(&text);
    }

    #[test]
    fn a_damaged_demo_never_panics(at in any::<prop::sample::Index>(), with in "\\PC{0,3}") {
        let at = at.index(DEMO.len());
        let at = (0..=at).rev().find(|&at| DEMO.is_char_boundary(at)).unwrap();
        let rest = DEMO[at..].chars().skip(1).collect::<String>();
        let _ = shown(&[&DEMO[..at], &with, &rest].concat());
    }

    #[test]
    fn what_is_accepted_survives_compilation(text in scraps()) {
        if let Ok(policy) = load("x", &text) {
            prop_assert_eq!(&Table::decode(&policy.compile()).unwrap(), policy.table());
        }
    }
}
