//! Event channels: every error, the bits, the waits.

use proptest::prelude::*;
use xen_abi::xen::{NR_VIRQS, VIRQ_CON_RING, VIRQ_CONSOLE, VIRQ_DEBUG, VIRQ_DOM_EXC, VIRQ_TIMER};

use super::*;
use crate::authority::table;
use crate::domain::{Life, Wait, Wake};
use crate::ids::{Gfn, Hpa, Label, Pirq};
use crate::sched::VcpuKey;
use crate::space::Progress;
use crate::testing::{OWN, TableBuilder, World, link};

const PORTS: u32 = 64;

struct Two {
    world: World,
    a: DomId,
    b: DomId,
}

fn two() -> Two {
    let world = World::linked(3);
    let (a, b) = (world.start(1), world.start(2));
    Two { world, a, b }
}

impl Two {
    fn connect(&self) -> (Port, Port) {
        let env = self.world.env();
        let far = alloc_unbound(&env, self.b, DomId::SELF, self.a).unwrap();
        let (near, _wake) = bind_interdomain(&env, self.a, self.b, far).unwrap();
        self.clear(self.a, near);
        (near, far)
    }

    fn pending(&self, dom: DomId, port: Port) -> bool {
        let pending = |domain: &mut crate::domain::Domain| domain.events.shared.is_pending(port, &self.world.machine);
        self.world.domains.with(dom, pending).unwrap()
    }

    fn clear(&self, dom: DomId, port: Port) {
        let clear = |domain: &mut crate::domain::Domain| domain.events.shared.clear_pending(port, &self.world.machine);
        self.world.domains.with(dom, clear).unwrap();
    }

    fn binding(&self, dom: DomId, port: Port) -> Binding {
        status(&self.world.env(), dom, DomId::SELF, port).unwrap().binding
    }

    fn in_use(&self, dom: DomId) -> u32 {
        self.world.domains.with(dom, |domain| domain.events.in_use()).unwrap()
    }

    fn wait(&self, dom: DomId) -> Wait {
        self.world.domains.with(dom, |domain| domain.vcpu(VcpuId(0)).unwrap().wait).unwrap()
    }

    fn block(&self, dom: DomId) -> bool {
        self.world.domains.with(dom, |domain| domain.block(VcpuId(0), &self.world.machine)).unwrap()
    }

    /// The domain has seen that it was told of events.
    fn acknowledge(&self, dom: DomId) {
        let frame = self.world.domains.with(dom, |domain| domain.events.shared.frame()).unwrap();
        self.world.machine.store_u64(frame.at(0), 0);
    }

    fn set_mask(&self, dom: DomId, port: Port) {
        let frame = self.world.domains.with(dom, |domain| domain.events.shared.frame()).unwrap();
        self.world.machine.fetch_or_u64(frame.at(2560 + u64::from(port.0 / 64) * 8), 1 << (port.0 % 64));
    }
}

#[test]
fn a_send_makes_the_other_end_pending_and_wakes_it() {
    let it = two();
    let (near, far) = it.connect();
    assert!(it.block(it.b));
    let wake = send(&it.world.env(), it.a, near).unwrap().expect("b was blocked");
    assert_eq!(wake, Wake(VcpuKey::new(it.b.slot(), VcpuId(0))));
    assert!(it.pending(it.b, far) && !it.pending(it.a, near));
    assert_eq!(it.wait(it.b), Wait::No);
    assert_eq!(send(&it.world.env(), it.a, near), Ok(None), "pending already");
    assert!(!it.block(it.b), "an unmasked port is pending");
    it.world.end();
}

#[test]
fn a_send_to_one_that_waits_hands_over() {
    let it = two();
    let (near, far) = it.connect();
    let env = it.world.env();
    it.acknowledge(it.a);
    assert!(it.block(it.b));
    assert_eq!(hand_over(&env, it.a, near), Some(Wake(VcpuKey::new(it.b.slot(), VcpuId(0)))));
    assert!(it.pending(it.b, far));
    assert_eq!((it.wait(it.a), it.wait(it.b)), (Wait::Blocked, Wait::No));
    // The answer: whoever was told of an event, and has not looked, does not wait.
    assert_eq!(hand_over(&env, it.b, far), None);
    it.acknowledge(it.b);
    assert_eq!(hand_over(&env, it.b, far), Some(Wake(VcpuKey::new(it.a.slot(), VcpuId(0)))));
    assert_eq!((it.wait(it.a), it.wait(it.b)), (Wait::No, Wait::Blocked));
    it.world.end();
}

/// All that an event can change.
fn state(it: &Two, ports: (Port, Port)) -> impl PartialEq + core::fmt::Debug {
    let words = [it.a, it.b].map(|dom| {
        it.world.domains.with(dom, |domain| {
            let page = domain.events.shared.frame();
            let word = |offset| it.world.machine.load_u64(page.at(offset));
            (word(0), word(8), word(2048), domain.account.events_sent, domain.vcpu(VcpuId(0)).unwrap().wait)
        })
    });
    (words, it.pending(it.a, ports.0), it.pending(it.b, ports.1))
}

#[test]
fn handing_over_is_to_send_and_to_block_or_nothing() {
    let polling = |it: &Two, port| {
        it.world.domains.with(it.b, |domain| domain.poll(VcpuId(0), &[port], &it.world.machine)).unwrap().unwrap()
    };
    let pend = |it: &Two, dom: DomId, port: Port| {
        let _signal = it.world.domains.with(dom, |domain| {
            let machine = &it.world.machine;
            domain.events.shared.set_pending(port, VcpuId(0), machine)
        });
    };
    // What the peer and the caller are up to, and whether that is for the short way.
    type Case<'a> = (&'a str, bool, &'a dyn Fn(&Two, (Port, Port)));
    let cases: [Case<'_>; 8] = [
        ("the peer waits", true, &|it, _| assert!(it.block(it.b))),
        ("the peer runs", false, &|_, _| ()),
        ("the peer polls the port", false, &|it, (_, far)| assert!(polling(it, far))),
        ("the port is masked", false, &|it, (_, far)| {
            it.set_mask(it.b, far);
            assert!(it.block(it.b));
        }),
        ("the port is pending", false, &|it, (_, far)| {
            it.set_mask(it.b, far);
            pend(it, it.b, far);
            assert!(it.block(it.b));
        }),
        ("the caller was told of an event", false, &|it, (near, _)| {
            assert!(it.block(it.b));
            pend(it, it.a, near);
        }),
        ("the peer has closed", false, &|it, (_, far)| {
            assert!(it.block(it.b));
            let _closed = close(&it.world.env(), it.b, far).unwrap();
        }),
        ("the peer is gone", false, &|it, _| {
            let env = it.world.env();
            crate::domain::begin_destroy(&env, it.b, crate::domain::Death::default()).unwrap();
            while crate::domain::destroy_slice(&env, it.b, |_| ()) == Ok(Progress::More) {}
        }),
    ];
    for (name, short, prepare) in cases {
        let [one, other] = [two(), two()].map(|it| {
            let ports = it.connect();
            it.acknowledge(it.a);
            it.acknowledge(it.b);
            prepare(&it, ports);
            (it, ports)
        });
        let near = one.1.0;
        let before = (!name.contains("gone")).then(|| state(&one.0, one.1));
        let handed = hand_over(&one.0.world.env(), one.0.a, near);
        assert_eq!(handed.is_some(), short, "{name}");
        if short {
            let sent = send(&other.0.world.env(), other.0.a, near).unwrap();
            assert_eq!((sent, other.0.block(other.0.a)), (handed, true), "{name}");
            assert!(state(&one.0, one.1) == state(&other.0, other.1), "{name}");
        } else if let Some(before) = before {
            assert!(state(&one.0, one.1) == before, "{name}: something was done");
        }
    }
}

#[test]
fn a_port_that_cannot_send_hands_over_to_nobody() {
    let it = two();
    let (near, _) = it.connect();
    let env = it.world.env();
    it.acknowledge(it.a);
    assert!(it.block(it.b));
    let (virq, ipi) = (bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap(), bind_ipi(&env, it.a, 0).unwrap());
    let to_itself = alloc_unbound(&env, it.a, DomId::SELF, it.a).unwrap();
    let (itself, _) = bind_interdomain(&env, it.a, it.a, to_itself).unwrap();
    it.acknowledge(it.a);
    for port in [Port(0), Port(PORTS), Port(u32::MAX), Port(near.0 + 9), virq, ipi, itself, to_itself] {
        assert_eq!(hand_over(&env, it.a, port), None, "{port:?}");
        assert_eq!(it.wait(it.a), Wait::No);
    }
    assert_eq!(it.wait(it.b), Wait::Blocked);
    it.world.end();
}

#[test]
fn pending_bits_and_selector_are_where_the_abi_has_them() {
    let it = two();
    let (near, far) = it.connect();
    let page = it.world.domains.with(it.b, |domain| domain.events.shared.frame()).unwrap();
    let word = |offset: u64| it.world.machine.load_u64(page.at(offset));
    assert_eq!((word(0), word(8), word(2048)), (0, 0, 0));
    let _wake = send(&it.world.env(), it.a, near).unwrap();
    assert_eq!(word(2048), 1 << far.0);
    assert_eq!(word(8), 1, "evtchn_pending_sel");
    assert_eq!(word(0) & 0xff, 1, "evtchn_upcall_pending");
}

#[test]
fn masked_ports_wake_only_their_poller() {
    let it = two();
    let (near, far) = it.connect();
    it.set_mask(it.b, far);
    assert!(it.block(it.b));
    assert_eq!(send(&it.world.env(), it.a, near), Ok(None));
    assert!(it.pending(it.b, far));
    assert_eq!(it.wait(it.b), Wait::Blocked);
    let wake = unmask(&it.world.env(), it.b, far).unwrap().expect("unmasking a pending port");
    assert_eq!(wake.0.slot(), it.b.slot());
    it.clear(it.b, far);
    it.set_mask(it.b, far);
    let poll = |ports: &[Port]| {
        it.world.domains.with(it.b, |domain| domain.poll(VcpuId(0), ports, &it.world.machine)).unwrap()
    };
    assert_eq!(poll(&[far]), Ok(true));
    assert_eq!(it.wait(it.b), Wait::Polling(far));
    assert!(send(&it.world.env(), it.a, near).unwrap().is_some());
    assert_eq!(poll(&[Port(1), far]), Ok(false), "pending already");
    assert_eq!(poll(&[Port(PORTS)]), Err(Errno::EINVAL));
}

#[test]
fn polling_waits_for_its_ports_only() {
    let it = two();
    let (near, _) = it.connect();
    let other = bind_ipi(&it.world.env(), it.b, 0).unwrap();
    it.world.domains.with(it.b, |domain| domain.poll(VcpuId(0), &[other], &it.world.machine)).unwrap().unwrap();
    assert_eq!(send(&it.world.env(), it.a, near), Ok(None));
    assert_eq!(it.wait(it.b), Wait::Polling(other));
    let ended = it.world.domains.with(it.b, |domain| domain.end_poll(VcpuId(0))).unwrap();
    assert_eq!(ended.map(|wake: Wake| wake.0.slot()), Some(it.b.slot()));
    let again = it.world.domains.with(it.b, |domain| domain.end_poll(VcpuId(0))).unwrap();
    assert_eq!(again, None);
}

#[test]
fn connecting_checks_everything() {
    let it = two();
    let env = it.world.env();
    assert_eq!(alloc_unbound(&env, it.a, DomId::SELF, DomId(99)), Err(Errno::ESRCH));
    assert_eq!(alloc_unbound(&env, it.a, it.b, it.a), Err(Errno::EPERM), "another domain's ports");
    assert_eq!(alloc_unbound(&env, it.a, DomId(0x7ff4), it.a), Err(Errno::ESRCH));
    let far = alloc_unbound(&env, it.b, DomId::SELF, it.a).unwrap();
    let bind = |caller, remote, port| bind_interdomain(&env, caller, remote, port);
    assert_eq!(bind(it.a, DomId(99), far), Err(Errno::ESRCH));
    assert_eq!(bind(it.a, it.b, Port(0)), Err(Errno::EINVAL));
    assert_eq!(bind(it.a, it.b, Port(far.0 + 1)), Err(Errno::EINVAL));
    assert_eq!(bind(it.a, it.b, Port(PORTS)), Err(Errno::EINVAL));
    assert_eq!(bind(it.a, it.b, Port(u32::MAX)), Err(Errno::EINVAL));
    assert_eq!(bind(it.b, it.b, far), Err(Errno::EINVAL), "it waits for another");
    let (near, _) = bind(it.a, it.b, far).unwrap();
    assert!(it.pending(it.a, near), "the other end may have sent before");
    assert_eq!(bind(it.a, it.b, far), Err(Errno::EINVAL), "connected already");
    assert_eq!(it.binding(it.a, near), Binding::Interdomain { remote: it.b, port: far.0 as u16 });
    assert_eq!(it.binding(it.b, far), Binding::Interdomain { remote: it.a, port: near.0 as u16 });
}

#[test]
fn e05_the_policy_refuses_before_anything_is_allocated() {
    let mut builder = TableBuilder::new(3);
    builder.links.push(link(0, 1));
    let world = World::new(builder.policy());
    let (a, b) = (world.start(1), world.start(2));
    let it = Two { world, a, b };
    let env = it.world.env();
    assert_eq!(alloc_unbound(&env, a, DomId::SELF, b), Err(Errno::EPERM));
    assert_eq!(bind_virq(&env, a, VIRQ_DOM_EXC, 0), Err(Errno::EPERM));
    assert_eq!(bind_virq(&env, a, VIRQ_CON_RING, 0), Err(Errno::EPERM));
    assert_eq!(bind_virq(&env, a, VIRQ_CONSOLE, 0), Err(Errno::EPERM));
    assert_eq!((it.in_use(a), it.in_use(b)), (0, 0));
}

#[test]
fn the_builder_makes_ports_only_while_it_builds() {
    let world = World::linked(3);
    let policy = world.start(0);
    assert_eq!(policy, DomId::POLICY);
    let server = world.start(1);
    let new = world.create(2).unwrap();
    let port = alloc_unbound(&world.env(), policy, new, server).unwrap();
    assert_eq!(alloc_unbound(&world.env(), server, new, server), Err(Errno::EPERM), "not the policy domain");
    assert!(bind_interdomain(&world.env(), server, new, port).is_ok());
    world.domains.with(new, |domain| domain.unpause()).unwrap().unwrap();
    assert_eq!(world.life(new), Some(Life::Running));
    assert_eq!(alloc_unbound(&world.env(), policy, new, server), Err(Errno::EPERM), "sealed");
    assert!(status(&world.env(), policy, new, port).is_ok());
    assert_eq!(status(&world.env(), server, new, port), Err(Errno::EPERM));
    world.end();
}

#[test]
fn virqs_check_number_vcpu_and_state() {
    let it = two();
    let env = it.world.env();
    assert_eq!(bind_virq(&env, it.a, NR_VIRQS, 0), Err(Errno::EINVAL));
    assert_eq!(bind_virq(&env, it.a, u32::MAX, 0), Err(Errno::EINVAL));
    assert_eq!(bind_virq(&env, it.a, VIRQ_CON_RING, 1), Err(Errno::EINVAL), "global ones go to vCPU 0");
    assert_eq!(bind_virq(&env, it.a, VIRQ_TIMER, 1), Err(Errno::ENOENT));
    let port = bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap();
    assert_eq!(bind_virq(&env, it.a, VIRQ_TIMER, 0), Err(Errno::EEXIST));
    assert!(it.block(it.a));
    assert!(raise_virq(&env, it.a, VIRQ_TIMER, VcpuId(0)).is_some());
    assert!(it.pending(it.a, port));
    assert_eq!(raise_virq(&env, it.a, VIRQ_DEBUG, VcpuId(0)), None, "not bound");
    assert_eq!(close(&env, it.a, port), Ok(Binding::Virq(VIRQ_TIMER as u8)));
    assert!(!it.pending(it.a, port), "a closed port forgets");
    assert_eq!(raise_virq(&env, it.a, VIRQ_TIMER, VcpuId(0)), None);
    assert!(bind_virq(&env, it.a, VIRQ_TIMER, 0).is_ok());
}

#[test]
fn pirqs_are_bound_once() {
    let it = two();
    let env = it.world.env();
    assert_eq!(bind_pirq(&env, it.a, Pirq(PIRQS_MAX as u32)), Err(Errno::EINVAL));
    let port = bind_pirq(&env, it.a, Pirq(3)).unwrap();
    assert_eq!(bind_pirq(&env, it.a, Pirq(3)), Err(Errno::EEXIST));
    let _wake = raise_pirq(&env, it.a, Pirq(3));
    assert!(it.pending(it.a, port));
    assert_eq!(raise_pirq(&env, it.a, Pirq(4)), None);
    assert_eq!(raise_pirq(&env, it.a, Pirq(u32::MAX)), None);
    assert_eq!(close(&env, it.a, port), Ok(Binding::Pirq(3)));
    assert!(bind_pirq(&env, it.a, Pirq(3)).is_ok());
}

#[test]
fn sending_checks_the_kind_of_port() {
    let it = two();
    let env = it.world.env();
    let unbound = alloc_unbound(&env, it.a, DomId::SELF, it.b).unwrap();
    assert_eq!(send(&env, it.a, unbound), Ok(None), "goes nowhere");
    let virq = bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap();
    assert_eq!(send(&env, it.a, virq), Err(Errno::EINVAL));
    let pirq = bind_pirq(&env, it.a, Pirq(0)).unwrap();
    assert_eq!(send(&env, it.a, pirq), Err(Errno::EINVAL));
    let ipi = bind_ipi(&env, it.a, 0).unwrap();
    assert!(send(&env, it.a, ipi).is_ok() && it.pending(it.a, ipi));
    assert_eq!(bind_ipi(&env, it.a, 1), Err(Errno::ENOENT));
    for port in [0, ipi.0 + 1, PORTS, u32::MAX] {
        assert_eq!(send(&env, it.a, Port(port)), Err(Errno::EINVAL), "{port}");
        assert_eq!(close(&env, it.a, Port(port)), Err(Errno::EINVAL), "{port}");
    }
    assert_eq!(unmask(&env, it.a, Port(PORTS)), Err(Errno::EINVAL));
    assert_eq!(status(&env, it.a, DomId::SELF, Port(PORTS)), Err(Errno::EINVAL));
    assert_eq!(status(&env, it.a, DomId(99), Port(1)), Err(Errno::ESRCH));
    let sent = it.world.domains.with(it.a, |domain| domain.account.events_sent).unwrap();
    assert_eq!(sent, 2, "only what was sent is charged, to the sender");
}

#[test]
fn ports_may_connect_a_domain_to_itself() {
    let it = two();
    let env = it.world.env();
    let one = alloc_unbound(&env, it.a, DomId::SELF, DomId::SELF).unwrap();
    let (other, _wake) = bind_interdomain(&env, it.a, DomId::SELF, one).unwrap();
    let _wake = send(&env, it.a, other).unwrap();
    assert!(it.pending(it.a, one));
    close(&env, it.a, other).unwrap();
    assert_eq!(it.binding(it.a, one), Binding::Unbound { remote: it.a });
    close(&env, it.a, one).unwrap();
    assert_eq!(it.in_use(it.a), 0);
}

#[test]
fn closing_leaves_the_other_end_unbound() {
    let it = two();
    let (near, far) = it.connect();
    let env = it.world.env();
    close(&env, it.a, near).unwrap();
    assert_eq!(it.binding(it.b, far), Binding::Unbound { remote: it.a });
    assert_eq!(it.binding(it.a, near), Binding::Free);
    assert_eq!(send(&env, it.b, far), Ok(None));
    let (again, _wake) = bind_interdomain(&env, it.a, it.b, far).unwrap();
    assert_eq!(again, near, "the lowest free port");
}

#[test]
fn the_death_of_a_peer_leaves_ports_unbound_for_ever() {
    let it = two();
    let (near, far) = it.connect();
    it.world.destroy(it.a);
    let env = it.world.env();
    assert_eq!(it.binding(it.b, far), Binding::Unbound { remote: it.a });
    assert_eq!(send(&env, it.b, far), Ok(None));
    let reborn = it.world.start(1);
    assert_ne!(reborn, it.a, "ids are not reused soon");
    assert_eq!(bind_interdomain(&env, reborn, it.b, far), Err(Errno::EINVAL), "it waits for the dead one");
    let _ = near;
    it.world.end();
}

#[test]
fn a_successor_binds_the_ports_that_its_predecessor_had() {
    let it = two();
    let (near, far) = it.connect();
    it.world.destroy(it.a);
    assert_eq!(it.world.start_as(1, Some(it.a)), it.a);
    let env = it.world.env();
    assert_eq!(it.binding(it.b, far), Binding::Unbound { remote: it.a });
    assert_eq!((send(&env, it.b, far), it.in_use(it.a)), (Ok(None), 0), "it has nothing before it binds");
    let (again, _wake) = bind_interdomain(&env, it.a, it.b, far).unwrap();
    assert_eq!(again, near);
    it.clear(it.a, near);
    send(&env, it.b, far).unwrap();
    assert!(it.pending(it.a, near));
    assert_eq!(bind_interdomain(&env, it.a, it.b, far), Err(Errno::EINVAL), "once");
    it.world.end();
}

#[test]
fn e02_a_reset_closes_all_and_everything_can_be_bound_again() {
    let it = two();
    let (near, far) = it.connect();
    let env = it.world.env();
    let reset = |dom| {
        let mut next = 0;
        while close_slice(&env, dom, &mut next, 16, |_| ()).unwrap() == Progress::More {}
    };
    bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap();
    reset(it.a);
    assert_eq!(it.in_use(it.a), 0);
    assert_eq!(it.binding(it.b, far), Binding::Unbound { remote: it.a });
    assert_eq!(send(&env, it.a, near), Err(Errno::EINVAL));
    bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap();
    bind_interdomain(&env, it.a, it.b, far).unwrap();
}

#[test]
fn e03_a_full_table_is_reset_in_bounded_slices() {
    let it = two();
    let env = it.world.env();
    while bind_ipi(&env, it.a, 0).is_ok() {}
    assert_eq!(it.in_use(it.a), PORTS - 1);
    let (mut next, mut slices, mut most) = (0, 0, 0);
    loop {
        let mut closed = 0;
        let progress = close_slice(&env, it.a, &mut next, 10, |_| closed += 1).unwrap();
        (slices, most) = (slices + 1, most.max(closed));
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!((slices, most), (7, 10));
}

#[test]
fn e04_any_port_number_is_answered_and_the_limit_is_kept() {
    let it = two();
    let env = it.world.env();
    for port in 0..1 << 17 {
        assert_eq!(send(&env, it.a, Port(port)), Err(Errno::EINVAL));
        assert!(matches!(unmask(&env, it.a, Port(port)), Ok(None) | Err(Errno::EINVAL)));
    }
    for expected in 1..PORTS {
        assert_eq!(bind_ipi(&env, it.a, 0), Ok(Port(expected)));
    }
    assert_eq!(bind_ipi(&env, it.a, 0), Err(Errno::ENOSPC));
    assert_eq!(alloc_unbound(&env, it.a, DomId::SELF, it.b), Err(Errno::ENOSPC));
    let far = alloc_unbound(&env, it.b, DomId::SELF, it.a).unwrap();
    assert_eq!(bind_interdomain(&env, it.a, it.b, far), Err(Errno::ENOSPC));
    assert_eq!(it.binding(it.b, far), Binding::Unbound { remote: it.a }, "and nothing changed there");
}

#[test]
fn all_4096_ports_can_be_had() {
    let mut builder = TableBuilder::new(2);
    builder.domains[1].ports_max = 4096;
    let world = World::new(builder.policy());
    let a = world.start(1);
    for expected in 1..4096 {
        assert_eq!(bind_ipi(&world.env(), a, 0), Ok(Port(expected)));
    }
    assert_eq!(bind_ipi(&world.env(), a, 0), Err(Errno::ENOSPC));
    assert!(send(&world.env(), a, Port(4095)).is_ok());
    world.end();
}

#[test]
fn e06_virqs_without_a_free_port_change_nothing() {
    let it = two();
    let env = it.world.env();
    let (near, far) = it.connect();
    while bind_ipi(&env, it.a, 0).is_ok() {}
    for virq in 0..NR_VIRQS {
        let refused = bind_virq(&env, it.a, virq, 0).unwrap_err();
        assert!(matches!(refused, Errno::ENOSPC | Errno::EPERM), "{virq}: {refused}");
        assert_eq!(raise_virq(&env, it.a, virq, VcpuId(0)), None);
    }
    let _wake = send(&env, it.a, near).unwrap();
    assert!(it.pending(it.b, far), "the other domain is unaffected");
}

#[test]
fn bind_vcpu_checks_the_kind_of_port() {
    let it = two();
    let env = it.world.env();
    let (near, _) = it.connect();
    let timer = bind_virq(&env, it.a, VIRQ_TIMER, 0).unwrap();
    let ipi = bind_ipi(&env, it.a, 0).unwrap();
    assert_eq!(bind_vcpu(&env, it.a, near, 0), Ok(()));
    assert_eq!(bind_vcpu(&env, it.a, near, 1), Err(Errno::ENOENT));
    assert_eq!(bind_vcpu(&env, it.a, timer, 0), Err(Errno::EINVAL));
    assert_eq!(bind_vcpu(&env, it.a, ipi, 0), Err(Errno::EINVAL));
    assert_eq!(bind_vcpu(&env, it.a, Port(0), 0), Err(Errno::EINVAL));
    assert_eq!(bind_vcpu(&env, it.a, Port(PORTS), 0), Err(Errno::EINVAL));
}

#[test]
fn e08_a_flood_of_sends_wakes_once_until_the_receiver_looks() {
    let it = two();
    let (near, _) = it.connect();
    assert!(it.block(it.b));
    let wakes = (0..10_000).filter(|_| send(&it.world.env(), it.a, near).unwrap().is_some()).count();
    assert_eq!(wakes, 1);
    let sent = it.world.domains.with(it.a, |domain| domain.account.events_sent).unwrap();
    assert_eq!(sent, 10_000);
}

#[test]
fn e10_vcpu_info_moves_only_to_a_good_place() {
    use crate::domain::register_vcpu_info;
    let it = two();
    let env = it.world.env();
    let register = |vcpu, gfn, offset| register_vcpu_info(&env, it.a, vcpu, Gfn(gfn), offset);
    let mfn = it.world.mfn(it.a, OWN).unwrap();
    for offset in [1, 2, 4, 7, 4033, 4040, 4095, 4096, 0x8000_0000, u32::MAX] {
        assert_eq!(register(0, OWN.0, offset), Err(Errno::EINVAL), "{offset}");
    }
    assert_eq!(register(0, OWN.0 + 2, 0), Err(Errno::EINVAL), "read-only");
    assert_eq!(register(0, 0x9999, 0), Err(Errno::EINVAL), "not mapped");
    assert_eq!(register(1, OWN.0, 0), Err(Errno::ENOENT));
    assert_eq!(it.world.frames.pins(mfn), 0);
    assert_eq!(register(0, OWN.0, 4032), Ok(()));
    assert_eq!(register(0, OWN.0, 0), Err(Errno::EINVAL), "once");
    assert_eq!(it.world.frames.pins(mfn), 1);
    assert_eq!(it.world.machine.load_u64(mfn.at(4032 + 8)), u64::MAX, "look at every word");
    let ipi = bind_ipi(&env, it.a, 0).unwrap();
    it.world.machine.store_u64(Hpa(mfn.at(4032).0 + 8), 0);
    let _wake = send(&env, it.a, ipi).unwrap();
    assert_eq!(it.world.machine.load_u64(mfn.at(4032 + 8)), 1);
    it.world.end();
}

#[test]
fn log_and_death_interrupts_are_for_those_whom_the_policy_names() {
    let mut builder = TableBuilder::new(2);
    builder.domains[1].flags |= table::FLAG_LOG;
    let world = World::new(builder.policy());
    let (policy, log) = (world.start(0), world.start(1));
    assert!(bind_virq(&world.env(), policy, VIRQ_DOM_EXC, 0).is_ok());
    assert_eq!(bind_virq(&world.env(), policy, VIRQ_CON_RING, 0), Err(Errno::EPERM));
    assert!(bind_virq(&world.env(), log, VIRQ_CON_RING, 0).is_ok());
    assert_eq!(world.domains.label(log), Some(Label(1)));
}

proptest! {
    /// Both ends of a connection always agree, whatever several domains do.
    #[test]
    fn connections_are_symmetric(steps in prop::collection::vec((0u8..7, 0usize..3, 0usize..3, 0u32..12), 0..120)) {
        let world = World::linked(4);
        let ids = [world.start(1), world.start(2), world.start(3)];
        let env = world.env();
        for (action, one, other, port) in steps {
            let (caller, peer) = (ids[one], ids[other]);
            match action {
                0 => { let _ = alloc_unbound(&env, caller, DomId::SELF, peer); }
                1 | 2 => { let _ = bind_interdomain(&env, caller, peer, Port(port)); }
                3 => { let _ = close(&env, caller, Port(port)); }
                4 => { let _ = bind_ipi(&env, caller, 0); }
                5 => { let _ = bind_virq(&env, caller, port, 0); }
                _ => { let _ = send(&env, caller, Port(port)); }
            }
            for id in ids {
                let limit = 64;
                let mut used = 0;
                for port in 0..limit {
                    let binding = status(&env, id, DomId::SELF, Port(port)).unwrap().binding;
                    used += u32::from(!matches!(binding, Binding::Free | Binding::Reserved));
                    if let Binding::Interdomain { remote, port: far } = binding {
                        let back = status(&env, remote, DomId::SELF, Port(u32::from(far))).unwrap().binding;
                        prop_assert_eq!(back, Binding::Interdomain { remote: id, port: port as u16 });
                    }
                }
                prop_assert_eq!(world.domains.with(id, |domain| domain.events.in_use()).unwrap(), used);
            }
        }
        world.end();
    }
}
