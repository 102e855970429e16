//! Life and death of domains, and the table that finds them.

use proptest::prelude::*;

use super::*;
use crate::error::Errno;
use crate::ids::{Gfn, Mfn, SLOTS};
use crate::sched::VcpuKey;
use crate::space::{Page, PageKind, Progress, Rights};
use crate::testing::{FRAMES, OWN, TableBuilder, World, no_devices};

#[test]
fn a_domain_is_built_runs_pauses_and_ends() {
    let world = World::linked(3);
    let id = world.create(1).unwrap();
    assert_eq!(world.life(id), Some(Life::Building));
    assert_eq!(world.create(1), Err(Errno::EEXIST));
    assert_eq!(world.create(9), Err(Errno::EINVAL));
    let act = |action: fn(&mut Domain) -> Result<(), Errno>| world.domains.with(id, action).unwrap();
    assert_eq!(act(Domain::pause), Err(Errno::EINVAL));
    assert_eq!(act(Domain::unpause), Ok(()));
    assert_eq!(act(Domain::unpause), Err(Errno::EINVAL));
    assert_eq!(act(Domain::pause), Ok(()));
    assert_eq!(act(Domain::unpause), Ok(()));
    assert_eq!(destroy_slice(&world.env(), id, no_devices), Err(Errno::EINVAL), "not dying");
    begin_destroy(&world.env(), id, Death::new(3, format_args!("page fault: read of {:#x}", 0x1234))).unwrap();
    assert_eq!(begin_destroy(&world.env(), id, Death::default()), Err(Errno::EBUSY));
    assert_eq!(act(Domain::unpause), Err(Errno::EINVAL));
    let why = world.domains.with(id, |domain| domain.death().why.clone()).unwrap();
    assert_eq!(why.as_str(), "page fault: read of 0x1234");
    assert_eq!(world.create(1), Err(Errno::EEXIST), "its label is free when it is gone");
    world.finish_destroy(id);
    assert_eq!(world.life(id), None);
    assert_eq!(begin_destroy(&world.env(), id, Death::default()), Err(Errno::ESRCH));
    assert!(world.create(1).is_ok());
    world.end();
}

#[test]
fn a_long_reason_is_cut_to_fit() {
    let death = Death::new(3, format_args!("{:300}", "é"));
    assert!(death.why.len() <= WHY_BYTES && death.why.starts_with('é'));
}

#[test]
fn memory_is_bounded_by_the_label() {
    let world = World::linked(2);
    let id = world.create(1).unwrap();
    let env = world.env();
    let populate = |gfn| world.domains.with(id, |domain| populate(&env, domain, Gfn(gfn), Rights::ReadWrite)).unwrap();
    for gfn in 0..16 {
        assert_eq!(populate(gfn), Ok(()));
    }
    assert_eq!(populate(16), Err(Errno::ENOMEM), "16 pages by the policy");
    assert_eq!(world.domains.with(id, |domain| domain.account.pages), Ok(16));
    world.domains.with(id, |domain| remove_page(&env, domain, Gfn(3))).unwrap().unwrap();
    assert_eq!(populate(4), Err(Errno::EEXIST));
    assert_eq!(populate(3), Ok(()));
    world.end();
}

#[test]
fn m02_a_machine_without_frames_says_so_and_loses_none() {
    let mut builder = TableBuilder::new(2);
    builder.domains[1].memory_pages = 1 << 20;
    let world = World::new(builder.policy());
    let id = world.create(1).unwrap();
    let env = world.env();
    let filled = world.domains.with(id, |domain| {
        (0..FRAMES).take_while(|&gfn| populate(&env, domain, Gfn(gfn), Rights::Read).is_ok()).count()
    });
    assert!(filled.unwrap() > 400);
    assert_eq!(world.frames.free(), 0);
    assert_eq!(world.create(0), Err(Errno::ENOMEM));
    world.end();
}

#[test]
fn what_is_lent_is_nobodys_and_never_written() {
    let world = World::linked(2);
    let id = world.create(1).unwrap();
    let (env, free) = (world.env(), world.frames.free());
    let lend =
        |gfn, mfn, rights| world.domains.with(id, |domain| lend(&env, domain, Gfn(gfn), Mfn(mfn), rights)).unwrap();
    for rights in [Rights::ReadWrite, Rights::All] {
        assert_eq!(lend(0x200, 7, rights), Err(Errno::EINVAL));
    }
    assert_eq!(lend(0x200, 7, Rights::ReadExecute), Ok(()));
    assert_eq!(lend(0x200, 8, Rights::Read), Err(Errno::EEXIST));
    assert_eq!(lend(u64::MAX, 7, Rights::Read), Err(Errno::EINVAL));
    world
        .domains
        .with(id, |domain| {
            let page = domain.space.translate(Gfn(0x200), env.machine);
            assert_eq!(page, Some(Page { mfn: Mfn(7), rights: Rights::ReadExecute, kind: PageKind::Lent }));
            assert_eq!(domain.account.pages, 0);
            for access in [Access::Read, Access::Write] {
                assert_eq!(
                    domain.space.private(Gfn(0x200), access, env.machine),
                    None,
                    "neither granted nor copied into"
                );
            }
            assert!(domain.space.fill(Gfn(0x200).base(), &[1], env.machine).is_err());
            assert_eq!(remove_page(&env, domain, Gfn(0x200)), Err(Errno::EPERM));
            assert!(populate(&env, domain, Gfn(0x200), Rights::ReadWrite).is_err(), "nothing in its place");
        })
        .unwrap();
    begin_destroy(&env, id, Death::default()).unwrap();
    world.finish_destroy(id);
    assert!(world.frames.free() > free, "its tables came back, and no frame that was lent");
    world.end();
}

#[test]
fn shared_pages_are_shown_and_taken_away_but_never_freed_by_the_domain() {
    let world = World::linked(2);
    let id = world.start(1);
    let env = world.env();
    let with = |action: &dyn Fn(&mut Domain) -> Result<(), Errno>| world.domains.with(id, action).unwrap();
    let free = world.frames.free();
    assert_eq!(with(&|domain| add_shared_info(&env, domain, Gfn(0x210))), Ok(()));
    assert_eq!(with(&|domain| add_shared_info(&env, domain, Gfn(0x210))), Err(Errno::EEXIST));
    assert_eq!(with(&|domain| add_shared_info(&env, domain, OWN)), Err(Errno::EEXIST));
    assert_eq!(with(&|domain| add_shared_info(&env, domain, Gfn(u64::MAX))), Err(Errno::EINVAL));
    assert_eq!(add_grant_frame(&env, id, 1, Gfn(0x211)), Ok(()), "grows the table");
    assert_eq!(add_grant_frame(&env, id, 2, Gfn(0x212)), Err(Errno::EINVAL));
    assert_eq!(add_grant_frame(&env, id, u32::MAX, Gfn(0x212)), Err(Errno::EINVAL));
    assert_eq!(with(&|domain| remove_page(&env, domain, Gfn(0x210))), Ok(()));
    assert_eq!(with(&|domain| remove_page(&env, domain, Gfn(0x210))), Err(Errno::ENOENT));
    assert_eq!(world.frames.free(), free - 1, "one more grant table frame");
    world.end();
}

#[test]
fn a_guest_names_pages_of_its_memory_for_shared_ones_and_gives_them_back() {
    let mut builder = TableBuilder::new(2);
    builder.domains[1].kind = crate::authority::table::KIND_PVH;
    let world = World::new(builder.policy());
    let id = world.start(1);
    let env = world.env();
    let (pages, free) = (world.domains.with(id, |domain| domain.account.pages).unwrap(), world.frames.free());
    let shared = world.domains.with(id, |domain| add_shared_info(&env, domain, OWN)).unwrap();
    assert_eq!(shared, Ok(()));
    assert_eq!(world.domains.with(id, |domain| domain.account.pages).unwrap(), pages - 1);
    assert_eq!(world.frames.free(), free + 1);
    let found = world.domains.with(id, |domain| domain.space.translate(OWN, env.machine)).unwrap();
    assert_eq!(found.map(|page| page.kind), Some(PageKind::Shared));
    world.end();
}

#[test]
fn a_stopped_vcpu_is_started_once_and_no_event_wakes_it() {
    let mut builder = TableBuilder::new(2);
    (builder.domains[1].kind, builder.domains[1].vcpus) = (crate::authority::table::KIND_PVH, 2);
    let world = World::new(builder.policy());
    let id = world.start(1);
    let second = VcpuId(1);
    world
        .domains
        .with(id, |domain| {
            let key = VcpuKey::new(domain.slot(), second);
            domain.stop_vcpu(second);
            assert!(domain.is_stopped(second) && !domain.is_stopped(VcpuId(0)) && !domain.all_stopped());
            assert_eq!(domain.kick(second), None);
            assert_eq!(domain.end_poll(second), None);
            assert_eq!(domain.wake_for(second, Signal::Unmasked, Port(1)), None);
            assert_eq!(domain.start_vcpu(second), Some(Wake(key)));
            assert_eq!(domain.start_vcpu(second), None);
            assert!(domain.block(second, &world.machine));
            assert_eq!(domain.kick(second), Some(Wake(key)));
            assert!(domain.is_stopped(VcpuId(2)), "there is none");
        })
        .unwrap();
    world.end();
}

#[test]
fn lent_pages_and_registers_are_not_the_domains_to_remove() {
    let world = World::linked(2);
    let id = world.start(1);
    let env = world.env();
    for (gfn, kind) in [(0x300, PageKind::Lent), (0x301, PageKind::Device)] {
        let page = Page { mfn: Mfn(3), rights: Rights::Read, kind };
        let mapped = world.domains.with(id, |domain| domain.space.map(&env, Gfn(gfn), page));
        assert_eq!(mapped.unwrap(), Ok(()));
        assert_eq!(world.domains.with(id, |domain| remove_page(&env, domain, Gfn(gfn))).unwrap(), Err(Errno::EPERM));
    }
    world.end();
}

#[test]
fn ids_go_round_slowly_and_stale_ones_name_nothing() {
    let world = World::linked(2);
    let mut last = world.create(1).unwrap();
    assert_eq!(last, DomId(1));
    for round in 0..300 {
        world.destroy(last);
        let next = world.create(1).unwrap();
        assert_ne!(next.slot(), last.slot(), "round {round}");
        assert_eq!(world.domains.with(last, |_| ()), Err(Errno::ESRCH));
        assert_eq!(world.domains.with_pair(next, last, |_| ()), Err(Errno::ESRCH));
        assert_eq!(world.domains.label(last), None);
        let slots_last_owner = DomId(next.0.wrapping_sub(SLOTS as u16));
        assert_eq!(world.domains.with(slots_last_owner, |_| ()), Err(Errno::ESRCH), "an id of the same slot");
        last = next;
    }
    assert_eq!(last.0, 2 * SLOTS as u16 + 47, "301 domains in 127 slots: the third generation");
    world.end();
}

#[test]
fn a_successor_has_its_predecessors_id_and_another_serial_number() {
    let world = World::linked(3);
    let id = world.start(1);
    let serial = world.domains.with(id, |domain| domain.serial).unwrap();
    assert_eq!(world.create_as(1, Some(id)), Err(Errno::EEXIST), "it lives");
    begin_destroy(&world.env(), id, Death::default()).unwrap();
    assert_eq!(world.create_as(1, Some(id)), Err(Errno::EEXIST), "it is being taken apart");
    world.finish_destroy(id);
    let other = world.start(2);
    for _ in 0..3 {
        assert_eq!(world.create_as(1, Some(id)), Ok(id));
        let now = world.domains.with(id, |domain| (domain.serial, domain.life(), domain.events.in_use())).unwrap();
        assert!(now.0 != serial && now.1 == Life::Building && now.2 == 0);
        world.destroy(id);
    }
    let fresh = world.create(1).unwrap();
    assert!(fresh != id && fresh != other, "who asks for no id gets one that nobody had");
    world.end();
}

#[test]
fn an_id_is_for_the_last_domain_of_its_slot_and_its_label_only() {
    let world = World::linked(3);
    let id = world.create(1).unwrap();
    for never in [DomId(id.0 + 1), DomId(id.0 + SLOTS as u16), DomId(DomId::FIRST_RESERVED), DomId(0)] {
        assert_eq!(world.create_as(2, Some(never)), Err(Errno::EINVAL), "{never} never was");
    }
    assert_eq!(world.create_as(2, Some(id)), Err(Errno::EINVAL), "another lives there");
    world.destroy(id);
    assert_eq!(world.create_as(2, Some(id)), Err(Errno::EINVAL), "it was of another label");
    assert_eq!(world.create_as(9, Some(id)), Err(Errno::EINVAL), "there is no such label");
    // The slot comes to another label when all others were used once.
    for _ in 1..SLOTS - 1 {
        let passing = world.create(2).unwrap();
        assert_ne!(passing.slot(), id.slot());
        world.destroy(passing);
    }
    let heir = world.create(2).unwrap();
    assert_eq!((heir.slot(), heir), (id.slot(), DomId(id.0 + SLOTS as u16)));
    assert_eq!(world.create_as(1, Some(id)), Err(Errno::EINVAL), "another lives there now");
    world.destroy(heir);
    assert_eq!(world.create_as(1, Some(id)), Err(Errno::EINVAL), "another was there since");
    assert_eq!(world.create_as(2, Some(heir)), Ok(heir));
    world.end();
}

#[test]
fn a_successor_that_could_not_be_made_leaves_the_id_to_the_next() {
    let world = World::linked(2);
    let id = world.start(1);
    world.destroy(id);
    let mut failures = 0;
    for allocations in 0.. {
        crate::testing::injection::fail_after(allocations);
        let made = world.create_as(1, Some(id));
        if crate::testing::injection::disarm() {
            assert_eq!(made, Ok(id));
            break;
        }
        assert_eq!(made, Err(Errno::ENOMEM));
        failures += 1;
    }
    assert!(failures > 0);
    world.end();
}

#[test]
fn two_ids_of_one_slot_are_never_both_valid() {
    let world = World::linked(2);
    let id = world.create(1).unwrap();
    let stale = DomId(id.0 + SLOTS as u16);
    assert_eq!(world.domains.with_pair(id, stale, |_| ()), Err(Errno::ESRCH));
    assert_eq!(world.domains.with_pair(stale, id, |_| ()), Err(Errno::ESRCH));
    assert_eq!(world.domains.with_pair(id, DomId::SELF, |_| ()), Err(Errno::ESRCH));
    assert!(world.domains.with_pair(id, id, |pair| pair.remote().id() == pair.local().id()).unwrap());
}

#[test]
fn g19_pairs_are_locked_in_one_order_whoever_calls() {
    let world = World::linked(3);
    let (one, other) = (world.create(1).unwrap(), world.create(2).unwrap());
    for (local, remote) in [(one, other), (other, one)] {
        let ids = world.domains.with_pair(local, remote, |pair| (pair.local().id(), pair.remote().id()));
        assert_eq!(ids, Ok((local, remote)));
    }
    std::thread::scope(|scope| {
        for (local, remote) in [(one, other), (other, one)] {
            let domains = &world.domains;
            scope.spawn(move || {
                for _ in 0..20_000 {
                    domains.with_pair(local, remote, |pair| pair.local().account.events_sent += 1).unwrap();
                }
            });
        }
    });
    let counted = world.domains.with(one, |domain| domain.account.events_sent);
    assert_eq!(counted, Ok(20_000));
}

#[test]
fn all_slots_can_be_used_and_no_more() {
    let mut builder = TableBuilder::new(128);
    for domain in &mut builder.domains {
        (domain.ports_max, domain.memory_pages) = (1, 1);
    }
    let world = World::new(builder.policy());
    let made = (0..128).filter(|&label| world.create(label).is_ok()).count();
    assert!(made >= 60, "each takes two frames of {FRAMES}: {made}");
    assert_eq!(world.domains.next(DomId(5)), Some(DomId(5)));
    world.end();
}

#[test]
fn devices_go_first_and_alone() {
    let world = World::linked(2);
    let id = world.start(1);
    begin_destroy(&world.env(), id, Death::default()).unwrap();
    let pages = || world.domains.with(id, |domain| domain.account.pages);
    let before = pages();
    let mut released = 0;
    let mut release_devices = |_| {
        assert_eq!(pages(), before, "memory stays while DMA may run, and the domain is not locked");
        released += 1;
    };
    assert_eq!(destroy_slice(&world.env(), id, &mut release_devices), Ok(Progress::More));
    assert_eq!(pages(), before, "nothing else happens in this slice");
    while destroy_slice(&world.env(), id, &mut release_devices) == Ok(Progress::More) {}
    assert_eq!(released, 1);
    world.end();
}

proptest! {
    #[test]
    fn any_order_of_making_and_ending_returns_every_frame(steps in prop::collection::vec((0u16..4, 0u8..3), 0..60)) {
        let world = World::linked(4);
        for (label, action) in steps {
            let id = world.domains.of_label(Label(label));
            match (action, id) {
                (0, None) => { world.start(label); }
                (1, Some(id)) if world.life(id) != Some(Life::Dying) => {
                    begin_destroy(&world.env(), id, Death::default()).unwrap();
                }
                (_, Some(id)) if world.life(id) == Some(Life::Dying) => {
                    let _progress = destroy_slice(&world.env(), id, no_devices).unwrap();
                }
                _ => {}
            }
            world.check_frames();
        }
        world.end();
    }
}
