//! The policy compiler and the hypervisor agree: what one makes, the other seals, and it means the same to both.

use hv_core::authority::{SealedPolicy, table};
use hv_core::ids::Label;

const DEMO: &str = include_str!("../../../policy/demo.toml");

#[test]
fn the_demos_table_is_sealed() {
    let policy = policy::load("demo.toml", DEMO).expect("the demo policy has no errors");
    let sealed = SealedPolicy::parse(&policy.compile()).expect("the hypervisor takes the compiler's table");
    let (store, console) = (sealed.find_flag(table::FLAG_STORE), sealed.find_flag(table::FLAG_CONSOLE));
    let (store, console) = (store.expect("a store domain"), console.expect("a console domain"));
    for label in (0..sealed.labels() as u16).map(Label) {
        assert!(sealed.may_event(label, store), "{} reaches xenstore", sealed.name(label));
        assert!(sealed.may_share(console, label), "the console maps {}'s ring", sealed.name(label));
        let serves_store = label == store || label == console;
        assert!(serves_store || !sealed.may_share(label, store), "{} cannot map xenstore's pages", sealed.name(label));
    }
    let find = |name| (0..sealed.labels() as u16).map(Label).find(|&label| sealed.name(label) == name);
    let web = find("web").expect("a web domain");
    let block = find("block").expect("a block domain");
    let net = find("net").expect("a net domain");
    assert!(sealed.may_share(block, web) && sealed.may_share(net, web));
    assert!(!sealed.may_event(block, net), "the two drivers have nothing to do with each other");
    let read_only_disk =
        |link: &table::Link| link.front == u32::from(web.0) && link.kind == table::LINK_BLOCK && link.read_only != 0;
    assert!(sealed.links().iter().any(read_only_disk));
}
