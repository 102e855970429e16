//! Each request, as a client sees it.

mod common;

use common::{Op, Server};

#[test]
fn write_read_and_directory() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, "a/b/c\0value");
    assert_eq!(server.ok(1, Op::Read, "a/b/c\0"), "value");
    assert_eq!(server.ok(1, Op::Read, "/local/domain/1/a/b/c\0"), "value");
    server.ok(1, Op::MakeDirectory, "a/x\0");
    server.ok(1, Op::MakeDirectory, "a/x\0");
    assert_eq!(server.ok(1, Op::Directory, "a\0"), "b\0x\0");
    assert_eq!(server.ok(1, Op::Read, "a\0"), "");
    server.check_invariants();
}

#[test]
fn values_are_any_bytes() {
    let mut server = Server::with_domains(1);
    server.call_in(1, 0, Op::Write, b"a\0\0\xff\0").unwrap();
    assert_eq!(server.call(1, Op::Read, "a\0"), Ok(b"\0\xff\0".to_vec()));
}

#[test]
fn remove_takes_the_subtree() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, "a/b/c\0v");
    server.ok(1, Op::Remove, "a\0");
    server.fails(1, Op::Read, "a/b/c\0", "ENOENT");
    server.ok(1, Op::Remove, "a\0");
    server.fails(1, Op::Remove, "no/such\0", "ENOENT");
    server.fails(0, Op::Remove, "/\0", "EINVAL");
    server.check_invariants();
}

#[test]
fn s5_deep_trees_are_walked_without_recursion() {
    let mut server = Server::with_domains(0);
    let deep = "/d".repeat(1500);
    server.ok(0, Op::Write, &format!("{deep}\0v"));
    assert_eq!(server.ok(0, Op::Read, &format!("{deep}\0")), "v");
    server.ok(0, Op::Remove, "/d\0");
    server.check_invariants();
    assert_eq!(server.engine.store().len(), 1, "the root is left");
}

#[test]
fn malformed_payloads_are_refused() {
    let mut server = Server::with_domains(1);
    for op in [Op::Read, Op::Directory, Op::GetPerms, Op::MakeDirectory, Op::Remove, Op::Write, Op::SetPerms] {
        for payload in ["", "\0", "a", "//\0", "@releaseDomain\0"] {
            server.fails(1, op, payload, "EINVAL");
        }
    }
    server.fails(1, Op::TransactionEnd, "X\0", "EINVAL");
    server.fails(1, Op::Watch, "a\0", "EINVAL");
    server.fails(1, Op::GetDomainPath, "70000\0", "EINVAL");
}

#[test]
fn unknown_requests_answer_enosys() {
    let mut server = Server::with_domains(1);
    for op in [Op::Resume, Op::SetTarget, Op::Error, Op::WatchEvent] {
        server.fails(1, op, "1\x001\0", "ENOSYS");
    }
}

#[test]
fn directory_part_gives_everything_in_pieces() {
    let mut server = Server::with_domains(0);
    let mut expected = String::new();
    for number in 0..400 {
        let name = format!("a-rather-long-name-{number:03}");
        server.ok(0, Op::MakeDirectory, &format!("/big/{name}\0"));
        expected += &format!("{name}\0");
    }
    server.fails(0, Op::Directory, "/big\0", "E2BIG");
    let mut got = String::new();
    loop {
        let part = server.ok(0, Op::DirectoryPart, &format!("/big\0{}\0", got.len()));
        let (_generation, names) = part.split_once('\0').unwrap();
        if let Some(last) = names.strip_suffix("\0\0") {
            got += &format!("{last}\0");
            break;
        }
        got += names;
        if names == "\0" {
            got.pop();
            break;
        }
    }
    assert_eq!(got, expected);
    server.fails(0, Op::DirectoryPart, "/big\x0099999\0", "EINVAL");
}

/// A successor has its predecessor's id, and the nodes; watches and transactions were the dead one's.
#[test]
fn a_domain_that_is_introduced_again_begins_anew_with_the_nodes_that_are_there() {
    let mut server = Server::with_domains(2);
    server.ok(0, Op::Write, "/local/domain/1/data\0kept");
    server.ok(0, Op::SetPerms, "/local/domain/1/data\0n1\0");
    server.ok(1, Op::Watch, "data\0token\0");
    let transaction = server.ok(1, Op::TransactionStart, "\0");
    assert!(!transaction.is_empty());
    server.ok(0, Op::Introduce, "1\x000\x003\0");
    assert_eq!(server.ok(1, Op::Read, "data\0"), "kept");
    server.fails(1, Op::Unwatch, "data\0token\0", "ENOENT");
    assert_eq!(server.ok(0, Op::IsDomainIntroduced, "1\0"), "T\0");
    assert_eq!(server.ok(0, Op::Read, "/local/domain/1/data\0"), "kept");
}

#[test]
fn domains_are_introduced_and_released_by_the_policy_domain_only() {
    let mut server = Server::with_domains(1);
    server.fails(1, Op::Introduce, "5\x000\x003\0", "EACCES");
    server.fails(1, Op::Release, "1\0", "EACCES");
    server.fails(1, Op::Control, "help\0", "EACCES");
    server.fails(0, Op::Introduce, "0\x000\x003\0", "EINVAL");
    server.fails(0, Op::Release, "5\0", "ENOENT");
    server.fails(0, Op::Release, "0\0", "EINVAL");
    assert_eq!(server.ok(1, Op::IsDomainIntroduced, "1\0"), "T\0");
    server.ok(0, Op::Release, "1\0");
    assert_eq!(server.ok(0, Op::IsDomainIntroduced, "1\0"), "F\0");
    assert_eq!(server.ok(0, Op::GetDomainPath, "12\0"), "/local/domain/12\0");
    assert!(server.ok(0, Op::Control, "memory\0").starts_with("nodes "));
}

#[test]
fn transactions_are_isolated_and_atomic() {
    let mut server = Server::with_domains(1);
    let id = server.start(1);
    server.call_in(1, id, Op::Write, b"a\0new").unwrap();
    server.fails(1, Op::Read, "a\0", "ENOENT");
    assert_eq!(server.call_in(1, id, Op::Read, b"a\0"), Ok(b"new".to_vec()));
    server.end(1, id, "T").unwrap();
    assert_eq!(server.ok(1, Op::Read, "a\0"), "new");
    let id = server.start(1);
    server.call_in(1, id, Op::Remove, b"a\0").unwrap();
    server.end(1, id, "F").unwrap();
    assert_eq!(server.ok(1, Op::Read, "a\0"), "new");
    assert_eq!(server.end(1, id, "T"), Err("ENOENT".into()));
    assert_eq!(server.call_in(1, 77, Op::Read, b"a\0"), Err("ENOENT".into()));
    let id = server.start(1);
    assert_eq!(server.call_in(1, id, Op::TransactionStart, b"\0"), Err("EBUSY".into()));
}

#[test]
fn a_transaction_that_saw_something_old_has_to_be_done_again() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, "a\x001");
    let id = server.start(1);
    server.call_in(1, id, Op::Read, b"a\0").unwrap();
    server.call_in(1, id, Op::Write, b"b\0from a").unwrap();
    server.ok(1, Op::Write, "a\x002");
    assert_eq!(server.end(1, id, "T"), Err("EAGAIN".into()));
    server.fails(1, Op::Read, "b\0", "ENOENT");

    let id = server.start(1);
    assert_eq!(server.call_in(1, id, Op::Read, b"c\0"), Err("ENOENT".into()));
    server.ok(1, Op::Write, "c\0now");
    assert_eq!(server.end(1, id, "T"), Err("EAGAIN".into()), "absence counts as seen");
}

#[test]
fn watches_fire_once_at_first_then_for_changes_at_and_below() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Watch, "a\0tok\0");
    assert_eq!(server.events(1), [("a".into(), "tok".into())]);
    server.ok(1, Op::Write, "a/b\0v");
    assert_eq!(server.events(1), [("a/b".into(), "tok".into())]);
    server.ok(1, Op::Write, "ab\0v");
    server.ok(1, Op::Read, "a/b\0");
    assert_eq!(server.events(1), []);
    server.ok(1, Op::Watch, "/local/domain/1/a\0abs\0");
    server.events(1);
    server.ok(1, Op::Remove, "a\0");
    assert_eq!(server.events(1), [("a".into(), "tok".into()), ("/local/domain/1/a".into(), "abs".into())]);
    server.fails(1, Op::Watch, "a\0tok\0", "EEXIST");
    server.ok(1, Op::Unwatch, "a\0tok\0");
    server.fails(1, Op::Unwatch, "a\0tok\0", "ENOENT");
}

#[test]
fn a_watch_below_a_removed_node_fires() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, "a/b/c\0v");
    server.ok(1, Op::Write, "a/x\0v");
    server.ok(1, Op::Watch, "a/b/c\0tok\0");
    server.events(1);
    server.ok(1, Op::Remove, "a\0");
    assert_eq!(server.events(1), [("a/b/c".into(), "tok".into())]);
}

#[test]
fn a_transaction_fires_at_its_end() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Watch, "a\0tok\0");
    server.events(1);
    let id = server.start(1);
    server.send(1, Op::Write, id, b"a\x001");
    server.send(1, Op::Write, id, b"a\x002");
    assert_eq!(server.receive(1).len(), 2);
    server.send(1, Op::TransactionEnd, id, b"T\0");
    let messages = server.receive(1);
    assert_eq!(
        messages.iter().map(|message| message.op).collect::<Vec<_>>(),
        [Op::TransactionEnd as u32, Op::WatchEvent as u32]
    );
}

#[test]
fn no_event_comes_after_unwatch() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Watch, "a\0tok\0");
    server.events(1);
    server.send(1, Op::Write, 0, b"a\x001");
    server.send(1, Op::Unwatch, 0, b"a\0tok\0");
    let messages = server.receive(1);
    assert!(messages.iter().all(|message| message.op != Op::WatchEvent as u32), "{messages:?}");
}

#[test]
fn reset_watches_forgets_watches_and_transactions() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Watch, "a\0tok\0");
    server.events(1);
    let id = server.start(1);
    server.ok(1, Op::ResetWatches, "\0");
    server.ok(1, Op::Write, "a\x001");
    assert_eq!(server.events(1), []);
    assert_eq!(server.end(1, id, "T"), Err("ENOENT".into()));
}
