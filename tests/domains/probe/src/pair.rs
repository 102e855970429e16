//! Two probes that take turns: by `send_and_block`, and with I/O ports of their own. And a third that sees what is left.

use crate::channel::{Offer, Peer, accept, offer};
use crate::raw;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::time::Duration;
use runtime::event;
use runtime::grant::Mapping;
use runtime::hypercall::{event_channel, sched, vcpu};
use runtime::shared::Shared;
use runtime::time::{Instant, now, sleep};
use runtime::verdict::{equal, fail, pass, report};
use runtime::{Access, DomId, Errno, Port, verdict};
use xen_abi::event_channel::{EVTCHNSTAT_UNBOUND, EVTCHNSTAT_VIRQ};

/// Requests and answers of a run.
const ROUNDS: u32 = 20_000;
/// Words in the shared page: a number that the back end counts up, and what it is asked for.
const TURN: usize = 64;
const ORDER: usize = 68;
/// Orders: answer each event and wait for the next at once; send one event; do nothing; die.
const ANSWER: u32 = 1;
const SEND: u32 = 2;
const NOTHING: u32 = 3;
const DIE: u32 = 4;

/// `do=pair-front`: asks.
pub fn front() {
    with_back(|page, port| {
        takes_turns(page, port);
        a_wrong_port_is_an_error_and_no_wait(port);
        an_event_that_came_before_is_not_slept_through(page, port);
        the_timer_ends_the_wait_for_a_dead_peer(page, port);
    });
}

/// `do=pair-for-ever`: asks, again and again.
pub fn for_ever() {
    with_back(|page, port| {
        loop {
            takes_turns(page, port);
        }
    });
}

fn with_back(act: impl FnOnce(Shared<'_>, Port)) {
    let Offer { writable, channel, .. } = match offer() {
        Ok(offer) => offer,
        Err(error) => return fail("pair-front-connects", error),
    };
    let port = channel.port();
    verdict!("pair-back-is-there", event::poll(&[port], Some(Instant(now().0 + 60_000_000_000))));
    event::mask_all_but(&[port]);
    act(writable.memory(), port);
}

/// `do=pair-back`: does what it is asked for.
pub fn back() {
    let Peer { domain, writable, channel, _bus, .. } = match accept() {
        Ok(peer) => peer,
        Err(error) => return fail("pair-back-connects", error),
    };
    let page = match Mapping::page_of(domain, writable, Access::ReadWrite) {
        Ok(page) => page,
        Err(error) => return fail("pair-back-maps", error),
    };
    let (page, port) = (page.memory(), channel.port());
    event::mask_all_but(&[port]);
    report("pair-back-notifies", channel.send());
    loop {
        while !event::take(port) {
            sched::block();
        }
        let turn = page.u32_at(TURN).load(Acquire);
        match page.u32_at(ORDER).load(Acquire) {
            ANSWER => {
                page.u32_at(TURN).store(turn + 1, Release);
                let _ = sched::send_and_block(port);
            }
            SEND => {
                let _ = event_channel::send(port);
                page.u32_at(TURN).store(turn + 1, Release);
            }
            DIE => runtime::crash(),
            _ => {}
        }
    }
}

/// Each request is answered before it returns.
fn takes_turns(page: Shared<'_>, port: Port) {
    page.u32_at(ORDER).store(ANSWER, Release);
    let mut answered = 0;
    for round in 1..=ROUNDS {
        page.u32_at(TURN).store(2 * round, Release);
        if sched::send_and_block(port).is_err() {
            break;
        }
        // A spurious return is legal, a lost one would be waited for until the test gives up.
        while !event::take(port) {
            sched::block();
        }
        answered += u32::from(page.u32_at(TURN).load(Acquire) == 2 * round + 1);
    }
    equal("send-and-block-takes-turns", answered, ROUNDS);
}

fn a_wrong_port_is_an_error_and_no_wait(port: Port) {
    event::take(port);
    for wrong in [0, port.0 + 1, 4095, 4096, u32::MAX] {
        equal("send-and-block-by-a-wrong-port", sched::send_and_block(Port(wrong)), Err(Errno::EINVAL));
    }
}

/// The back end's event comes between the look for it and the wait, and nothing else would end that wait.
fn an_event_that_came_before_is_not_slept_through(page: Shared<'_>, port: Port) {
    let mut returned = 0;
    for _ in 0..100 {
        event::take(port);
        let turn = page.u32_at(TURN).load(Acquire);
        page.u32_at(ORDER).store(SEND, Release);
        let _ = event_channel::send(port);
        while page.u32_at(TURN).load(Acquire) == turn {
            sched::give_way();
        }
        page.u32_at(ORDER).store(NOTHING, Release);
        returned += u32::from(sched::send_and_block(port).is_ok());
    }
    equal("send-and-block-after-an-event-returns", returned, 100);
    verdict!("the-event-is-still-there", event::take(port));
}

/// The first event ends the peer; its port is unbound then.
fn the_timer_ends_the_wait_for_a_dead_peer(page: Shared<'_>, port: Port) {
    let status = |port| event_channel::status(DomId::SELF, port).map_or(0, |status| status.status);
    let Some(timer) = (1..64).map(Port).find(|&port| status(port) == EVTCHNSTAT_VIRQ) else {
        return fail("there-is-a-timer", "no port of a virtual interrupt");
    };
    event::mask_all_but(&[timer, port]);
    page.u32_at(ORDER).store(DIE, Release);
    for name in ["the-timer-ends-the-wait-for-a-dying-peer", "the-timer-ends-the-wait-for-a-dead-peer"] {
        event::take(port);
        event::take(timer);
        let deadline = now().0 + 500_000_000;
        report("the-timer-is-set", vcpu::set_singleshot_timer(deadline));
        let sent = sched::send_and_block(port);
        verdict!(name, sent.is_ok() && now().0 >= deadline);
    }
    equal("a-dead-peers-port-is-unbound", status(port), EVTCHNSTAT_UNBOUND);
}

/// `do=third`: never rests while a pair takes turns, and looks at what it gets of the CPU.
pub fn third() {
    sleep(Duration::from_millis(300));
    let (start, mut last) = (now().0, now().0);
    let (mut own, mut longest) = (0, 0);
    while last - start < 100_000_000 {
        let here = now().0;
        // More than this between two looks at the clock, and somebody else ran.
        if here - last < 100_000 {
            own += here - last;
        } else {
            longest = longest.max(here - last);
        }
        last = here;
    }
    verdict!("third-has-its-share", own >= 25_000_000, "{own} ns of 100 ms, and nothing for {longest} ns");
    verdict!("third-waits-for-a-slice-or-two", longest <= 20_000_000, "{longest} ns");
    verdict!("third-shares-with-the-pair", own <= 80_000_000, "{own} ns of 100 ms: did anybody else run?");
}

/// `do=ports-…`: reads a port of its own while another domain does so too, then one of the other's, which ends it.
pub fn ports(own: u16, others: u16, rounds: u32, name: &str) {
    for _ in 0..rounds {
        raw::port_in(own);
        sched::give_way();
    }
    pass(name);
    sleep(Duration::from_millis(300));
    raw::port_in(own);
    sched::give_way();
    raw::port_in(others);
    fail(name, "reached a port that is not its own");
}
