//! What the policy domain writes to xenstore: the home of each domain, and both ends of each link.
//!
//! Paths and keys are those of Xen's toolstack (`docs/misc/xenstore-paths.pandoc` describes them), so that stock drivers
//! find what they look for. Who may write what differs in one point: the settings of a link, on both sides, stay the
//! policy domain's own, and neither end can change them. Each end owns its directory and its `state`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use policy::table::{Domain, Kind, Label, Link, LinkKind, Table, setting};
use runtime::DomId;
use xen_abi::native::{CONSOLE_RING, GRANT_REF_CONSOLE, PAGE_SIZE, STORE_RING};

/// A node with its permissions: the owner may do anything, readers may read, others nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Absolute path.
    pub path: String,
    /// Its value.
    pub value: String,
    /// Who owns it.
    pub owner: DomId,
    /// Who may read it, beside the owner.
    pub readers: Vec<DomId>,
}

/// `XenbusState` values, as text, as far as the policy domain writes them.
pub mod state {
    /// The driver may begin.
    pub const INITIALISING: &str = "1";
    /// The other end should stop.
    pub const CLOSING: &str = "5";
    /// The other end is gone.
    pub const CLOSED: &str = "6";
    /// The number of a working connection.
    pub const CONNECTED: u32 = 4;

    /// The name of a state.
    pub fn name(state: u32) -> &'static str {
        match state {
            1 => "initialising",
            2 => "waiting",
            3 => "initialised",
            4 => "connected",
            5 => "closing",
            6 => "closed",
            7 => "reconfiguring",
            8 => "reconfigured",
            _ => "absent",
        }
    }
}

/// The home of a domain.
pub fn home_path(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

/// The event channel ports of a new domain for its rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// To xenstore.
    pub store: Option<u32>,
    /// To the console.
    pub console: Option<u32>,
    /// Where the rings are.
    pub pages: RingPages,
}

/// Guest frame numbers of a domain's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPages {
    /// Of xenstore.
    pub store: u64,
    /// Of the console.
    pub console: u64,
}

impl Default for RingPages {
    /// Those of a native domain.
    fn default() -> Self {
        RingPages { store: STORE_RING / PAGE_SIZE, console: CONSOLE_RING / PAGE_SIZE }
    }
}

/// Writes nodes below a common directory.
struct Writer {
    nodes: Vec<Node>,
}

impl Writer {
    fn put(&mut self, path: String, value: impl ToString, owner: DomId, readers: &[DomId]) {
        let readers = readers.iter().copied().filter(|reader| *reader != owner).collect();
        self.nodes.push(Node { path, value: value.to_string(), owner, readers });
    }
}

/// What a domain is asked to do with, in KiB, in its home.
const MEMORY_TARGET: &str = "memory/target";

/// The path of the size that a domain is asked to have, in KiB.
pub fn memory_target(id: DomId) -> String {
    format!("{}/{MEMORY_TARGET}", home_path(id))
}

/// The nodes of a domain's home.
pub fn home(domain: &Domain, id: DomId, ports: Ports) -> Vec<Node> {
    let home = home_path(id);
    let mut writer = Writer { nodes: Vec::new() };
    let mut fact = |key: &str, value: String| writer.put(format!("{home}/{key}"), value, DomId::POLICY, &[id]);
    fact("name", domain.name.clone());
    fact("domid", id.to_string());
    fact(MEMORY_TARGET, (domain.memory_pages * PAGE_SIZE / 1024).to_string());
    fact("memory/static-max", (domain.memory_pages * PAGE_SIZE / 1024).to_string());
    if let Some(port) = ports.store {
        fact("store/port", port.to_string());
        fact("store/ring-ref", ports.pages.store.to_string());
    }
    if let Some(port) = ports.console {
        fact("console/port", port.to_string());
        fact("console/ring-ref", ports.pages.console.to_string());
    }
    for (key, value) in &domain.config {
        fact(&format!("config/{key}"), value.clone());
    }
    if domain.kind == Kind::Pvh {
        // Linux takes a vCPU of which nothing is said for an error.
        (0..domain.vcpus).for_each(|vcpu| fact(&format!("cpu/{vcpu}/availability"), "online".to_string()));
    }
    // A parent that does not exist is made with its child and takes the child's permissions from above: make the
    // directories that the domain owns first.
    let mut nodes = vec![Node { path: home.clone(), value: String::new(), owner: id, readers: Vec::new() }];
    for directory in ["device", "backend", "control", "data"] {
        nodes.push(Node { path: format!("{home}/{directory}"), value: String::new(), owner: id, readers: Vec::new() });
    }
    nodes.push(Node { path: format!("{home}/control/shutdown"), value: String::new(), owner: id, readers: Vec::new() });
    nodes.extend(writer.nodes);
    nodes
}

/// What a predecessor may have written that its successor must not find: what is in its `data`, and what stands in its home
/// beside what belongs there. Facts are not its to change, nor is what it has of links.
pub fn leavings(home: &str, nodes: &[Node], below: &[String], data: &[String]) -> Vec<String> {
    let belongs = |name: &String| {
        let path = format!("{home}/{name}");
        nodes.iter().any(|node| node.path == path || node.path.starts_with(&format!("{path}/")))
    };
    let strange = below.iter().filter(|name| !belongs(name)).map(|name| format!("{home}/{name}"));
    strange.chain(data.iter().map(|name| format!("{home}/data/{name}"))).collect()
}

/// Both ends of a link, with the domains in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The front end's directory.
    pub front_path: String,
    /// The back end's directory.
    pub back_path: String,
    /// The front end's domain.
    pub front: DomId,
    /// The back end's domain.
    pub back: DomId,
}

/// The word for the kind of a link in paths, and the number or name of the link in it. `None`: a link without xenbus
/// nodes of this form.
fn place(link: &Link) -> Option<(&'static str, &str)> {
    let key = |key| setting(&link.parameters, key);
    match link.kind {
        LinkKind::Block => Some(("vbd", key("device")?)),
        LinkKind::Net => Some(("vif", key("handle")?)),
        LinkKind::Channel => Some(("channel", key("handle")?)),
        LinkKind::Console => Some(("console", "0")),
        LinkKind::Store => None,
    }
}

/// Where the nodes of a link are.
pub fn ends(link: &Link, front: DomId, back: DomId) -> Option<Ends> {
    let (kind, place) = place(link)?;
    let front_path = match link.kind {
        LinkKind::Console => format!("{}/console", home_path(front)),
        _ => format!("{}/device/{kind}/{place}", home_path(front)),
    };
    Some(Ends { front_path, back_path: format!("{}/backend/{kind}/{front}/{place}", home_path(back)), front, back })
}

/// The nodes of a link; `port` is the front end's console port, for console links.
pub fn link(table: &Table, link: &Link, ends: &Ends, port: Option<u32>) -> Vec<Node> {
    match link.kind {
        LinkKind::Console => console_link(table, link, ends, port),
        _ => device_link(table, link, ends),
    }
}

fn device_link(table: &Table, link: &Link, ends: &Ends) -> Vec<Node> {
    let Ends { front_path, back_path, front, back } = ends;
    let (front, back) = (*front, *back);
    let mut writer = Writer { nodes: Vec::new() };
    let parameter = |key: &str| setting(&link.parameters, key).unwrap_or_default();

    // The back end's side. Its directory above must be its own, so that it can watch and list it.
    for directory in parents(back_path, &home_path(back)) {
        writer.put(directory, "", back, &[]);
    }
    writer.put(back_path.clone(), "", back, &[front]);
    let mut fact =
        |key: &str, value: &str| writer.put(format!("{back_path}/{key}"), value, DomId::POLICY, &[back, front]);
    fact("frontend", front_path);
    fact("frontend-id", &front.to_string());
    fact("frontend-name", table.domain(link.front).map_or("", |domain| &domain.name));
    fact("online", "1");
    match link.kind {
        LinkKind::Block => {
            fact("mode", if link.read_only { "r" } else { "w" });
            fact("device-type", "disk");
            fact("params", parameter("export"));
        }
        LinkKind::Net => fact("type", "vif"),
        _ => {}
    }
    for (key, value) in link.parameters.iter().filter(|(key, _)| key != "device") {
        fact(key, value);
    }
    writer.put(format!("{back_path}/state"), state::INITIALISING, back, &[front]);

    // The front end's side.
    for directory in parents(front_path, &home_path(front)) {
        writer.put(directory, "", front, &[]);
    }
    writer.put(front_path.clone(), "", front, &[back]);
    let mut fact =
        |key: &str, value: &str| writer.put(format!("{front_path}/{key}"), value, DomId::POLICY, &[front, back]);
    // For our own front ends: whether there is, or will be, somebody at the other end.
    fact("online", "1");
    fact("backend-id", &back.to_string());
    fact("backend", back_path);
    fact("backend-name", table.domain(link.back).map_or("", |domain| &domain.name));
    match link.kind {
        LinkKind::Block => {
            fact("virtual-device", parameter("device"));
            fact("device-type", "disk");
        }
        LinkKind::Net => {
            for key in ["handle", "mac", "ip"] {
                if let Some(value) = setting(&link.parameters, key) {
                    fact(key, value);
                }
            }
        }
        _ => fact("name", parameter("name")),
    }
    writer.put(format!("{front_path}/state"), state::INITIALISING, front, &[back]);
    writer.nodes
}

/// The console: its back end finds everything in its own directory; nothing of it is the front end's to change.
fn console_link(table: &Table, link: &Link, ends: &Ends, port: Option<u32>) -> Vec<Node> {
    let Ends { front_path, back_path, front, back } = ends;
    let mut writer = Writer { nodes: Vec::new() };
    for directory in parents(back_path, &home_path(*back)) {
        writer.put(directory, "", *back, &[]);
    }
    writer.put(back_path.clone(), "", *back, &[]);
    let mut fact = |key: &str, value: &str| writer.put(format!("{back_path}/{key}"), value, DomId::POLICY, &[*back]);
    fact("frontend", front_path);
    fact("frontend-id", &front.to_string());
    fact("online", "1");
    fact("name", table.domain(link.front).map_or("", |domain| &domain.name));
    fact("colour", &colour(link.front).to_string());
    fact("protocol", "vt100");
    // A virtual machine's kernel has a terminal driver of its own, which edits and echoes.
    let guest = table.domain(link.front).is_some_and(|domain| domain.kind == Kind::Pvh);
    fact("input", if guest { "raw" } else { "line" });
    fact("gref", &GRANT_REF_CONSOLE.to_string());
    fact("port", &port.unwrap_or(0).to_string());
    writer.put(format!("{back_path}/state"), state::INITIALISING, *back, &[]);
    writer.nodes
}

/// A colour for a domain's lines: one of the six that terminals have beside black and white, 1 to 6.
fn colour(label: Label) -> u32 {
    label.0 % 6 + 1
}

/// The directories between `home` and `path`, from the top, without both.
fn parents(path: &str, home: &str) -> Vec<String> {
    let inner = path.strip_prefix(home).unwrap_or("");
    let ends = inner.char_indices().skip(1).filter(|(_, c)| *c == '/');
    ends.map(|(at, _)| format!("{home}{}", inner.get(..at).unwrap_or(""))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../demo.toml");

    fn demo() -> Table {
        policy::load("demo.toml", DEMO).unwrap().table().clone()
    }

    fn find<'a>(nodes: &'a [Node], path: &str) -> &'a Node {
        nodes.iter().find(|node| node.path == path).unwrap_or_else(|| panic!("no {path} in {nodes:#?}"))
    }

    fn link_nodes(kind: LinkKind) -> Vec<Node> {
        let table = demo();
        let web = table.find("web").unwrap();
        let entry = table.links.iter().find(|link| link.kind == kind && link.front == web).unwrap();
        let ends = ends(entry, DomId(6), DomId(4)).unwrap();
        link(&table, entry, &ends, Some(9))
    }

    #[test]
    fn a_block_link_has_what_both_drivers_look_for() {
        let nodes = link_nodes(LinkKind::Block);
        let back = "/local/domain/4/backend/vbd/6/51712";
        let front = "/local/domain/6/device/vbd/51712";
        for (key, value) in
            [("frontend", front), ("frontend-id", "6"), ("mode", "r"), ("params", "site"), ("state", "1")]
        {
            assert_eq!(find(&nodes, &format!("{back}/{key}")).value, value);
        }
        for (key, value) in [("backend", back), ("backend-id", "4"), ("virtual-device", "51712"), ("state", "1")] {
            assert_eq!(find(&nodes, &format!("{front}/{key}")).value, value);
        }
    }

    #[test]
    fn neither_end_can_change_the_settings_of_a_link() {
        for kind in [LinkKind::Block, LinkKind::Net] {
            for node in link_nodes(kind) {
                let key = node.path.rsplit('/').next().unwrap();
                let setting =
                    ["mode", "frontend", "frontend-id", "mac", "ip", "export", "backend", "backend-id", "online"];
                if setting.contains(&key) && !node.value.is_empty() {
                    assert_eq!(node.owner, DomId::POLICY, "{node:?}");
                    assert!(node.readers.contains(&DomId(4)) && node.readers.contains(&DomId(6)), "{node:?}");
                }
            }
        }
    }

    #[test]
    fn each_end_owns_its_state_and_the_other_may_read_it() {
        let nodes = link_nodes(LinkKind::Net);
        let back = find(&nodes, "/local/domain/4/backend/vif/6/0/state");
        assert_eq!((back.owner, back.readers.as_slice()), (DomId(4), [DomId(6)].as_slice()));
        let front = find(&nodes, "/local/domain/6/device/vif/0/state");
        assert_eq!((front.owner, front.readers.as_slice()), (DomId(6), [DomId(4)].as_slice()));
    }

    #[test]
    fn parents_come_before_children() {
        for nodes in [link_nodes(LinkKind::Block), link_nodes(LinkKind::Console)] {
            for (at, node) in nodes.iter().enumerate() {
                let later = nodes.iter().skip(at + 1);
                assert!(!later.into_iter().any(|other| node.path.starts_with(&format!("{}/", other.path))), "{node:?}");
            }
        }
    }

    #[test]
    fn the_console_learns_port_and_name_and_nothing_of_it_is_the_front_ends() {
        let nodes = link_nodes(LinkKind::Console);
        let back = "/local/domain/4/backend/console/6/0";
        for (key, value) in [("name", "web"), ("port", "9"), ("gref", "0"), ("frontend-id", "6")] {
            assert_eq!(find(&nodes, &format!("{back}/{key}")).value, value);
        }
        assert!(nodes.iter().all(|node| node.owner != DomId(6) && !node.readers.contains(&DomId(6))));
    }

    #[test]
    fn a_virtual_machine_gets_every_key_and_its_own_ring_pages() {
        let table = policy::load("linux.toml", include_str!("../../linux.toml")).unwrap().table().clone();
        let linux = table.find("linux").unwrap();
        let console = table.links.iter().find(|link| link.kind == LinkKind::Console && link.front == linux).unwrap();
        let ends = ends(console, DomId(7), DomId(3)).unwrap();
        let nodes = link(&table, console, &ends, Some(9));
        assert_eq!(find(&nodes, "/local/domain/3/backend/console/7/0/input").value, "raw");
        let pages = RingPages { store: 0xfffd, console: 0xfffe };
        let nodes = home(table.domain(linux).unwrap(), DomId(7), Ports { store: Some(1), console: Some(2), pages });
        assert_eq!(find(&nodes, "/local/domain/7/store/ring-ref").value, 0xfffd.to_string());
        assert_eq!(find(&nodes, "/local/domain/7/console/ring-ref").value, 0xfffe.to_string());
        assert_eq!(find(&nodes, "/local/domain/7/cpu/0/availability").value, "online");
        assert!(!nodes.iter().any(|node| node.path.contains("/cpu/1/")));
    }

    #[test]
    fn a_home_belongs_to_its_domain_but_facts_do_not() {
        let table = demo();
        let web = table.domain(table.find("web").unwrap()).unwrap();
        let nodes = home(web, DomId(6), Ports { store: Some(3), console: Some(4), ..Ports::default() });
        assert_eq!(find(&nodes, "/local/domain/6").owner, DomId(6));
        for (key, value) in [("name", "web"), ("domid", "6"), ("store/port", "3"), ("config/ready", "announced")] {
            let node = find(&nodes, &format!("/local/domain/6/{key}"));
            assert_eq!((node.value.as_str(), node.owner), (value, DomId::POLICY));
            assert_eq!(node.readers, [DomId(6)]);
        }
    }

    #[test]
    fn a_successor_finds_its_home_without_what_its_predecessor_wrote() {
        let table = demo();
        let block = table.domain(table.find("block").unwrap()).unwrap();
        let nodes = home(block, DomId(4), Ports { store: Some(3), console: Some(7), ..Ports::default() });
        let below =
            ["name", "domid", "memory", "store", "console", "backend", "device", "data", "control", "junk", "nam"];
        let left = leavings("/local/domain/4", &nodes, &below.map(String::from), &["ready".to_string()]);
        assert_eq!(left, ["junk", "nam", "data/ready"].map(|name| format!("/local/domain/4/{name}")));
    }

    #[test]
    fn parents_are_all_between() {
        let home = "/local/domain/4";
        assert_eq!(
            parents("/local/domain/4/backend/vbd/6/1", home),
            ["/local/domain/4/backend", "/local/domain/4/backend/vbd", "/local/domain/4/backend/vbd/6"]
        );
        assert_eq!(parents("/local/domain/4/console", home), [""; 0]);
    }
}
