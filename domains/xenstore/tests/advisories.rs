//! The store against what went wrong in others: one test or more for each S row of the catalogue of advisories.

mod common;

use common::{Op, Server};
use xenstore::domid::DomId;
use xenstore::quota;

/// (list of the node, whose access it is, may read, may write): roles are owner 1, listed 2, unlisted 3, policy 0.
const MATRIX: [(&str, u16, bool, bool); 20] = [
    ("n1", 1, true, true),
    ("n1", 3, false, false),
    ("r1", 3, true, false),
    ("w1", 3, false, true),
    ("b1", 3, true, true),
    ("n1\0n2", 2, false, false),
    ("n1\0r2", 2, true, false),
    ("n1\0w2", 2, false, true),
    ("n1\0b2", 2, true, true),
    ("b1\0n2", 2, false, false),
    ("b1\0r2", 2, true, false),
    ("n1\0b2", 3, false, false),
    ("r1\0b2", 3, true, false),
    ("n1\0b2", 1, true, true),
    ("n1\0n2", 0, true, true),
    ("n1", 0, true, true),
    ("n1\0b2", 4, false, false),
    ("r1\0n2", 4, true, false),
    ("w1\0n2", 4, false, true),
    ("n1\0n1", 1, true, true),
];

fn outcome(allowed: bool) -> Option<String> {
    (!allowed).then(|| "EACCES".into())
}

#[test]
fn s1_permission_matrix() {
    for (list, client, reads, writes) in MATRIX {
        let mut server = Server::with_domains(4);
        server.ok(0, Op::Write, "/shared/node/child\0v");
        server.ok(0, Op::SetPerms, &format!("/shared/node\0{list}\0"));
        server.ok(0, Op::SetPerms, &format!("/shared/node/child\0{list}\0"));
        let mut check = |op: Op, payload: &str, allowed: bool| {
            let got = server.call(client, op, payload).err();
            assert_eq!(got, outcome(allowed), "{list:?} for domain {client}: {op:?}");
        };
        check(Op::Read, "/shared/node\0", reads);
        check(Op::Directory, "/shared/node\0", reads);
        check(Op::DirectoryPart, "/shared/node\x000\0", reads);
        check(Op::GetPerms, "/shared/node\0", reads);
        check(Op::Write, "/shared/node\0w", writes);
        check(Op::MakeDirectory, "/shared/node\0", writes);
        check(Op::MakeDirectory, "/shared/node/made\0", writes);
        check(Op::Write, "/shared/node/written\0v", writes);
        check(Op::SetPerms, "/shared/node\0n1\0", writes && client <= 1);
        server.ok(0, Op::SetPerms, &format!("/shared/node\0{list}\0"));
        let removed = server.call(client, Op::Remove, "/shared/node/child\0").err();
        assert_eq!(removed, outcome(writes), "{list:?} for domain {client}: remove");
        server.check_invariants();
    }
}

#[test]
fn s1_whether_a_hidden_node_exists_is_hidden_too() {
    let mut server = Server::with_domains(2);
    server.ok(1, Op::Write, "secret\0v");
    for path in ["/local/domain/1/secret", "/local/domain/1/absent", "/local/domain/9", "/nothing/at/all"] {
        server.fails(2, Op::Read, &format!("{path}\0"), "EACCES");
        server.fails(2, Op::Remove, &format!("{path}\0"), "EACCES");
    }
}

#[test]
fn s1_the_root_is_a_node_like_others() {
    let mut server = Server::with_domains(1);
    for op in [Op::Read, Op::Directory, Op::GetPerms] {
        server.fails(1, op, "/\0", "EACCES");
    }
    server.fails(1, Op::Write, "/\0v", "EACCES");
    server.fails(1, Op::MakeDirectory, "/mine\0", "EACCES");
    server.fails(1, Op::SetPerms, "/\0n1\0", "EACCES");
}

#[test]
fn s1_a_watch_tells_only_of_nodes_that_the_watcher_may_read() {
    let mut server = Server::with_domains(2);
    server.ok(2, Op::Watch, "/\0root\0");
    server.events(2);
    server.ok(1, Op::Write, "secret\0v");
    server.ok(1, Op::Remove, "secret\0");
    assert_eq!(server.events(2), []);
    server.ok(1, Op::Write, "open\0v");
    server.ok(1, Op::SetPerms, "open\0n1\0r2\0");
    assert_eq!(server.events(2), [("/local/domain/1/open".into(), "root".into())]);
    server.ok(1, Op::Write, "open\0w");
    assert_eq!(server.events(2).len(), 1);
    server.ok(1, Op::SetPerms, "open\0n1\0");
    assert_eq!(server.events(2).len(), 1, "the change that takes the right away is still told");
    server.ok(1, Op::Write, "open\0x");
    assert_eq!(server.events(2), []);
}

#[test]
fn s1_special_watches_are_for_the_policy_domain() {
    let mut server = Server::with_domains(1);
    for name in ["@introduceDomain", "@releaseDomain"] {
        server.fails(1, Op::Watch, &format!("{name}\0t\0"), "EACCES");
        server.ok(0, Op::Watch, &format!("{name}\0t\0"));
    }
    server.events(0);
    server.send(0, Op::Introduce, 0, b"8\x000\x001\0");
    server.send(0, Op::Release, 0, b"8\0");
    let events: Vec<_> = server.receive(0).into_iter().filter(|one| one.op == Op::WatchEvent as u32).collect();
    assert_eq!(events.len(), 2);
}

#[test]
fn s1_ownership_and_its_quota_cannot_be_given_away() {
    let mut server = Server::with_domains(2);
    server.ok(1, Op::Write, "a\0v");
    server.fails(1, Op::SetPerms, "a\0n2\0", "EPERM");
    server.ok(0, Op::SetPerms, "/local/domain/1/a\0n2\0");
    server.check_invariants();
}

#[test]
fn s2_nothing_of_a_dead_domain_is_inherited() {
    let mut server = Server::with_domains(3);
    server.ok(1, Op::Write, "mine/deep\0v");
    server.ok(2, Op::Write, "for1\0v");
    server.ok(2, Op::SetPerms, "for1\0n2\0b1\0r3\0");
    server.ok(1, Op::Watch, "/local/domain/2/for1\0old\0");
    server.events(1);
    let transaction = server.start(1);
    server.ok(0, Op::Write, "/back/1\0v");
    server.ok(0, Op::SetPerms, "/back/1\0n1\0");
    server.ok(0, Op::Release, "1\0");
    server.check_invariants();
    assert_eq!(server.engine.store().usage(DomId(1)).nodes, 0);
    assert_eq!(server.engine.memory_of(DomId(1)), 0);

    server.introduce(1);
    server.fails(1, Op::Read, "mine/deep\0", "ENOENT");
    server.fails(1, Op::Read, "/local/domain/2/for1\0", "EACCES");
    server.fails(0, Op::Read, "/back/1\0", "ENOENT");
    assert_eq!(server.ok(2, Op::GetPerms, "for1\0"), "n2\0r3\0");
    assert_eq!(server.end(1, transaction, "T"), Err("ENOENT".into()));
    server.ok(2, Op::Write, "for1\0w");
    assert_eq!(server.events(1), []);
}

#[test]
fn s2_the_policy_domains_nodes_below_a_dead_domains_go_too() {
    let mut server = Server::with_domains(2);
    server.ok(0, Op::Write, "/local/domain/1/device/vbd/0/backend\0x");
    server.ok(2, Op::Watch, "/local/domain/1/device\0t\0");
    server.ok(0, Op::SetPerms, "/local/domain/1/device\0n1\0r2\0");
    server.events(2);
    server.ok(0, Op::Release, "1\0");
    assert_eq!(server.events(2), [("/local/domain/1/device".into(), "t".into())]);
    server.fails(0, Op::Read, "/local/domain/1\0", "ENOENT");
}

#[test]
fn s2_a_dead_domains_home_goes_whoever_owns_it() {
    let mut server = Server::with_domains(2);
    for domain in [1, 2] {
        let back = format!("/local/domain/{domain}/backend/vbd/2/0");
        server.ok(0, Op::Write, &format!("{back}/state\x006"));
        server.ok(0, Op::SetPerms, &format!("{back}/state\0n0\0r2\0"));
    }
    server.ok(0, Op::SetPerms, "/local/domain/1\0n0\0");
    server.ok(0, Op::SetPerms, "/local/domain/1/backend\0n0\0");
    server.ok(2, Op::Watch, "/local/domain/1/backend/vbd/2/0/state\0t\0");
    server.events(2);
    server.ok(0, Op::Release, "1\0");
    assert_eq!(server.events(2).len(), 1, "its front end is told");
    server.fails(0, Op::Directory, "/local/domain/1\0", "ENOENT");
    server.ok(0, Op::Read, "/local/domain/2/backend/vbd/2/0/state\0");
    server.check_invariants();
}

#[test]
fn s3_nodes_are_limited_for_each_domain() {
    let mut server = Server::with_domains(2);
    let already = server.engine.store().usage(DomId(1)).nodes;
    for number in already..quota::NODES {
        // Spread, so that no parent outgrows its size.
        server.ok(1, Op::MakeDirectory, &format!("{}/{number}\0", number % 20));
        if server.engine.store().usage(DomId(1)).nodes >= quota::NODES {
            break;
        }
    }
    server.fails(1, Op::MakeDirectory, "0/more\0", "ENOSPC");
    server.fails(1, Op::Write, "0/more\0v", "ENOSPC");
    let transaction = server.start(1);
    assert_eq!(server.call_in(1, transaction, Op::MakeDirectory, b"0/more\0"), Err("ENOSPC".into()));
    server.ok(2, Op::MakeDirectory, "fine\0");
    server.ok(0, Op::Write, "/local/domain/1/by-policy\0v");
    server.check_invariants();
}

#[test]
fn s3_concurrent_transactions_cannot_exceed_the_node_quota() {
    let mut server = Server::with_domains(1);
    for branch in 0..4 {
        server.ok(1, Op::MakeDirectory, &format!("b{branch}\0"));
    }
    let transactions: Vec<u32> = (0..4).map(|_| server.start(1)).collect();
    for (branch, &id) in transactions.iter().enumerate() {
        for number in 0..300 {
            let path = format!("b{branch}/{}/{number}\0", number % 8);
            server.call_in(1, id, Op::MakeDirectory, path.as_bytes()).unwrap();
        }
    }
    let ends: Vec<_> = transactions.iter().map(|&id| server.end(1, id, "T")).collect();
    assert!(ends.iter().filter(|end| end.is_ok()).count() == 3, "{ends:?}");
    assert_eq!(ends[3], Err("ENOSPC".into()));
    assert!(server.engine.store().usage(DomId(1)).nodes <= quota::NODES);
    server.check_invariants();
}

#[test]
fn s3_watches_are_limited() {
    let mut server = Server::with_domains(1);
    for number in 0..quota::WATCHES {
        server.ok(1, Op::Watch, &format!("a\0{number}\0"));
    }
    server.fails(1, Op::Watch, "a\0more\0", "E2BIG");
    server.ok(1, Op::Unwatch, "a\x000\0");
    server.ok(1, Op::Watch, "a\0more\0");
}

#[test]
fn s3_transactions_are_limited_in_number_and_size() {
    let mut server = Server::with_domains(1);
    let first = server.start(1);
    for _ in 1..quota::TRANSACTIONS {
        server.start(1);
    }
    server.fails(1, Op::TransactionStart, "\0", "ENOSPC");
    let mut seen = 0;
    let refused = loop {
        match server.call_in(1, first, Op::Read, format!("n{seen}\0").as_bytes()) {
            Err(error) if error == "ENOENT" => seen += 1,
            other => break other,
        }
    };
    assert_eq!(refused, Err("ENOSPC".into()));
    assert!(seen < quota::NODES_PER_TRANSACTION);
}

#[test]
fn s3_node_size_and_permission_entries_are_limited() {
    let mut server = Server::with_domains(1);
    let big = "v".repeat(quota::NODE_BYTES);
    server.fails(1, Op::Write, &format!("a\0{big}"), "ENOSPC");
    server.ok(1, Op::Write, &format!("a\0{}", &big[..quota::NODE_BYTES - 16]));
    server.ok(1, Op::SetPerms, "a\0n1\0");
    server.ok(1, Op::Write, "b\0v");
    server.ok(1, Op::SetPerms, "b\0n1\0r2\0r3\0r4\0r5\0");
    server.fails(1, Op::SetPerms, "b\0n1\0r2\0r3\0r4\0r5\0r6\0", "ENOSPC");
    server.ok(0, Op::SetPerms, "/local/domain/1/b\0n1\0r2\0r3\0r4\0r5\0r6\0");
    let name = "x".repeat(100);
    let made = (0..40).take_while(|number| server.call(1, Op::MakeDirectory, &format!("c/{name}{number}\0")).is_ok());
    assert!(made.count() < 21, "names of children count for the parent");
    server.check_invariants();
}

#[test]
fn s3_memory_of_a_domain_is_bounded_whatever_it_does() {
    let mut server = Server::with_domains(1);
    let value = "v".repeat(1900);
    for _ in 0..quota::TRANSACTIONS {
        let id = server.start(1);
        for number in 0..400 {
            let payload = format!("{}/{number}\0{value}", number % 9);
            if server.call_in(1, id, Op::Write, payload.as_bytes()).is_err() {
                break;
            }
        }
    }
    let used = server.engine.memory_of(DomId(1));
    assert!((quota::MEMORY - 8 * 1024..=quota::MEMORY).contains(&used), "{used}");
    let token = "t".repeat(3900);
    while server.call(1, Op::Watch, &format!("a{}\0{token}\0", server.engine.memory_of(DomId(1)))).is_ok() {}
    server.fails(1, Op::Watch, &format!("b\0{token}\0"), "ENOMEM");
    assert!(server.engine.memory_of(DomId(1)) <= quota::MEMORY);
    server.ok(1, Op::ResetWatches, "\0");
    server.ok(1, Op::Watch, &format!("b\0{token}\0"));
}

#[test]
fn s3_what_a_transaction_reads_counts_for_memory() {
    for quota in [quota::MEMORY, 200_000] {
        let mut server = Server::with_quota(2, quota);
        let deep = "d/".repeat(1000);
        let transactions: Vec<u32> = (0..quota::TRANSACTIONS).map(|_| server.start(1)).collect();
        let mut refused = 0;
        for (&id, number) in transactions.iter().zip(0..) {
            for op in [Op::Read, Op::Directory, Op::DirectoryPart, Op::GetPerms] {
                let end = if op == Op::DirectoryPart { "\x000\0" } else { "\0" };
                let payload = format!("{number}/{deep}{op:?}{end}");
                let error = server.call_in(1, id, op, payload.as_bytes()).unwrap_err();
                refused += usize::from(error == "ENOMEM");
                assert!(["ENOENT", "ENOMEM", "ENOSPC"].contains(&error.as_str()), "{error}");
                assert!(server.engine.memory_of(DomId(1)) <= quota, "{op:?} in transaction {number}");
            }
        }
        assert!(refused > 0);
        server.ok(2, Op::Write, "a\0v");
        for (&id, word) in transactions.iter().zip(["T", "F"].iter().cycle()) {
            server.end(1, id, word).expect("nothing changed, nothing was written");
        }
        server.ok(1, Op::Write, "a\0v");
        let id = server.start(1);
        assert_eq!(server.call_in(1, id, Op::Read, b"a\0"), Ok(b"v".to_vec()));
        server.check_invariants();
    }
}

#[test]
fn s3_one_domain_cannot_fill_anothers_memory_quota() {
    let mut server = Server::with_quota(2, 100_000);
    let value = "v".repeat(1900);
    for number in 0..100 {
        server.ok(1, Op::MakeDirectory, &format!("{number}\0"));
        server.ok(1, Op::SetPerms, &format!("{number}\0w1\0"));
    }
    let id = server.start(2);
    for number in 0..100 {
        let payload = format!("/local/domain/1/{number}\0{value}");
        let alone = server.call(2, Op::Write, &payload);
        let inside = server.call_in(2, id, Op::Write, payload.as_bytes());
        assert!([Ok(b"OK\0".to_vec()), Err("ENOMEM".into())].contains(&alone), "{alone:?}");
        assert!([Ok(b"OK\0".to_vec()), Err("ENOMEM".into())].contains(&inside), "{inside:?}");
        assert!(server.engine.memory_of(DomId(1)) <= 100_000);
    }
    server.end(2, id, "F").unwrap();
    assert!(server.engine.memory_of(DomId(1)) > 95_000);
    server.check_invariants();
}

#[test]
fn s3_a_domain_at_its_memory_quota_can_make_room() {
    let mut server = Server::with_quota(1, 100_000);
    let value = "v".repeat(1900);
    let mut made = 0;
    while server.call(1, Op::Write, &format!("{made}\0{value}")).is_ok() {
        made += 1;
    }
    server.fails(1, Op::Write, &format!("x\0{value}"), "ENOMEM");
    server.ok(1, Op::Write, &format!("0\0{}", "w".repeat(1900)));
    server.ok(1, Op::Write, "0\0w");
    server.ok(1, Op::Remove, "1\0");
    server.ok(1, Op::Write, &format!("x\0{value}"));
    server.check_invariants();
}

#[test]
fn s3_what_many_domains_made_is_not_removed_at_once_by_one_of_them() {
    let mut server = Server::with_quota(3, 100_000);
    server.ok(0, Op::MakeDirectory, "/shared\0");
    server.ok(0, Op::SetPerms, "/shared\0b1\0");
    let value = "v".repeat(1900);
    for client in 1..=3 {
        for number in 0..20 {
            server.ok(client, Op::Write, &format!("/shared/{client}/{number}\0{value}"));
        }
        server.ok(client, Op::SetPerms, &format!("/shared/{client}\0b{client}\0"));
    }
    server.fails(1, Op::Remove, "/shared\0", "ENOSPC");
    server.ok(1, Op::Remove, "/shared/1\0");
    server.ok(1, Op::Remove, "/shared/2\0");
    server.ok(1, Op::Remove, "/shared\0");
    server.check_invariants();
}

#[test]
fn s3_when_memory_is_short_only_the_policy_domain_gets_more() {
    let mut server = Server::with_domains(2);
    server.ok(1, Op::Write, "a\0v");
    server.ok(1, Op::Watch, "a\0t\0");
    let id = server.start(1);
    server.short_of_memory = true;
    for (op, payload) in [
        (Op::Write, "a\0w"),
        (Op::MakeDirectory, "b\0"),
        (Op::SetPerms, "a\0n1\0"),
        (Op::Watch, "b\0t\0"),
        (Op::TransactionStart, "\0"),
    ] {
        server.fails(1, op, payload, "ENOMEM");
    }
    for op in [Op::Read, Op::Directory, Op::GetPerms, Op::Remove] {
        assert_eq!(server.call_in(1, id, op, b"a\0"), Err("ENOMEM".into()), "{op:?}");
    }
    server.ok(0, Op::Write, "/local/domain/2/by-policy\0v");
    server.ok(0, Op::TransactionStart, "\0");
    // What gives memory back, and what takes none.
    server.ok(1, Op::Read, "a\0");
    server.ok(1, Op::Unwatch, "a\0t\0");
    server.end(1, id, "F").unwrap();
    server.ok(1, Op::Remove, "a\0");
    server.ok(1, Op::ResetWatches, "\0");
    server.short_of_memory = false;
    server.ok(1, Op::Write, "a\0w");
}

#[test]
fn s3_large_replies_that_are_not_read_stop_a_client_early() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, &format!("a\0{}", "v".repeat(1900)));
    while server.engine.takes_requests(DomId(1)) {
        server.send(1, Op::Read, 0, b"a\0");
    }
    assert!(server.engine.output(DomId(1)).len() < quota::OUTSTANDING_BYTES + 4096);
}

#[test]
fn s3_a_client_that_never_reads_is_read_no_more() {
    let mut server = Server::with_domains(1);
    let mut sent = 0;
    while server.engine.takes_requests(DomId(1)) && sent < 1000 {
        server.send(1, Op::GetDomainPath, 0, b"1\0");
        sent += 1;
    }
    assert_eq!(sent, quota::OUTSTANDING);
    server.ok(0, Op::Directory, "/\0");
    let first = server.engine.output(DomId(1)).len() / quota::OUTSTANDING;
    server.engine.output_taken(DomId(1), first);
    assert!(server.engine.takes_requests(DomId(1)), "one reply read, one request more");
}

#[test]
fn s3_events_for_a_client_that_never_reads_are_folded() {
    let mut server = Server::with_domains(2);
    server.ok(1, Op::MakeDirectory, "noisy\0");
    server.ok(1, Op::SetPerms, "noisy\0r1\0");
    server.ok(2, Op::Watch, "/local/domain/1/noisy\0t\0");
    server.events(2);
    for round in 0..3000 {
        server.ok(1, Op::Write, &format!("noisy/{}\0{round}", round % 500));
        if round % 500 > 250 {
            server.ok(1, Op::Remove, &format!("noisy/{}\0", round % 500));
        }
    }
    let events = server.events(2);
    assert!(events.len() <= quota::EVENTS_WAITING + 1, "{}", events.len());
    assert!(events.contains(&("/local/domain/1/noisy".into(), "t".into())), "the fold names the watched node");
}

#[test]
fn s3_a_writer_cannot_starve_the_policy_domains_transactions() {
    let mut server = Server::with_domains(1);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let id = server.start(0);
        server.call_in(0, id, Op::Directory, b"/local/domain/1\0").unwrap();
        server.call_in(0, id, Op::Write, b"/tool/x\0v").unwrap();
        if server.engine.takes_requests(DomId(1)) {
            server.ok(1, Op::Write, &format!("noise{attempts}\0v"));
        }
        if server.end(0, id, "T").is_ok() {
            break;
        }
        assert!(attempts < 10);
    }
    assert_eq!(attempts, 4);
    assert!(server.engine.takes_requests(DomId(1)), "afterwards everybody goes on");
}

#[test]
fn s4_tokens_and_event_sizes() {
    let mut server = Server::with_domains(1);
    let token = "t".repeat(4000);
    server.ok(1, Op::Watch, &format!("a\0{token}\0"));
    server.events(1);
    server.ok(1, Op::Write, &format!("a/{}\0v", "b".repeat(200)));
    let events = server.events(1);
    assert_eq!(events, [("a".to_string(), token)], "told of the watched node when the changed one does not fit");
}

#[test]
fn s5_a_refused_request_in_a_transaction_leaves_nothing_in_it() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::Write, "kept\0v");
    let id = server.start(1);
    // More missing parents than a transaction may touch nodes.
    let deep = "d/".repeat(1000);
    assert!(server.call_in(1, id, Op::MakeDirectory, format!("{deep}e\0").as_bytes()).is_err());
    let seen = server.call_in(1, id, Op::Directory, b"d\0").unwrap_err();
    assert!(seen == "ENOENT" || seen == "ENOSPC", "{seen}");
    server.end(1, id, "T").unwrap();
    server.fails(1, Op::Read, "d\0", "ENOENT");
    server.check_invariants();
}

#[test]
fn s6_a_client_that_is_cut_off_stays_known_until_released() {
    let mut server = Server::with_domains(1);
    server.ok(0, Op::Watch, "@releaseDomain\0t\0");
    server.events(0);
    server.engine.cut_off(DomId(1));
    assert_eq!(server.ok(0, Op::IsDomainIntroduced, "1\0"), "T\0");
    assert_eq!(server.events(0), []);
    assert!(!server.engine.takes_requests(DomId(1)));
    server.send(1, Op::Write, 0, b"a\0v");
    assert_eq!(server.receive(1), []);
    server.send(0, Op::Release, 0, b"1\0");
    assert_eq!(server.events_and_replies(0), (1, 1));
}

impl Server {
    fn events_and_replies(&mut self, client: u16) -> (usize, usize) {
        let messages = self.receive(client);
        let events = messages.iter().filter(|message| message.op == Op::WatchEvent as u32).count();
        (events, messages.len() - events)
    }
}

#[test]
fn s7_release_twice_is_refused_and_harmless() {
    let mut server = Server::with_domains(2);
    server.ok(0, Op::Release, "1\0");
    server.fails(0, Op::Release, "1\0", "ENOENT");
    server.ok(0, Op::Release, "2\0");
    server.check_invariants();
}

#[test]
fn s8_an_end_cannot_remove_what_the_policy_domain_set() {
    let mut server = Server::with_domains(2);
    let device = "/local/domain/1/device/vbd/51712";
    server.ok(0, Op::MakeDirectory, &format!("{device}\0"));
    server.ok(0, Op::Write, &format!("{device}/backend-id\x002"));
    server.ok(0, Op::SetPerms, &format!("{device}/backend-id\0n0\0r1\0r2\0"));
    server.ok(1, Op::Write, "device/vbd/51712/state\x001");
    for path in ["device/vbd/51712/backend-id", "device/vbd/51712", "device/vbd", "device", "/local/domain/1"] {
        server.fails(1, Op::Remove, &format!("{path}\0"), "EACCES");
        let id = server.start(1);
        assert_eq!(server.call_in(1, id, Op::Remove, format!("{path}\0").as_bytes()), Err("EACCES".into()));
        server.end(1, id, "T").unwrap();
    }
    server.fails(1, Op::Write, &format!("{device}/backend-id\x009"), "EACCES");
    server.fails(1, Op::SetPerms, &format!("{device}/backend-id\0b1\0"), "EACCES");
    assert_eq!(server.ok(2, Op::Read, &format!("{device}/backend-id\0")), "2");
    server.ok(1, Op::Remove, "device/vbd/51712/state\0");
    server.ok(0, Op::Remove, "/local/domain/1/device\0");
    server.check_invariants();
}

#[test]
fn s8_a_removal_does_not_overtake_the_policy_domain() {
    let mut server = Server::with_domains(1);
    server.ok(1, Op::MakeDirectory, "device/vif\0");
    let id = server.start(1);
    server.call_in(1, id, Op::Remove, b"device\0").unwrap();
    server.ok(0, Op::Write, "/local/domain/1/device/vif/mac\0m");
    server.ok(0, Op::SetPerms, "/local/domain/1/device/vif/mac\0n0\0r1\0");
    assert_eq!(server.end(1, id, "T"), Err("EAGAIN".into()));
    server.ok(1, Op::Read, "device/vif/mac\0");
}

#[test]
fn s8_a_watched_path_that_is_rewritten_costs_one_event() {
    let mut server = Server::with_domains(2);
    server.ok(1, Op::Write, "state\0v");
    server.ok(1, Op::SetPerms, "state\0r1\0");
    server.ok(2, Op::Watch, "/local/domain/1/state\0t\0");
    server.events(2);
    for _ in 0..1000 {
        server.ok(1, Op::Write, "state\0v");
    }
    assert_eq!(server.events(2).len(), 1);
}
