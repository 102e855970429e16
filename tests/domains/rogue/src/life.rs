//! Starting, stopping and ending domains: never oneself, never what does not exist, and each only in its time.

use crate::child::{CODE, FRIEND, LARGE, SLEEPS, SPINS, STRANGER, VICTIM, gfn};
use crate::child::{complete, empty, finish, frames_free, running, wait_gone};
use core::time::Duration;
use runtime::hypercall::{event_channel, platform};
use runtime::time::{now, sleep};
use runtime::verdict::{equal, pass};
use runtime::{Access, DomId, Errno, GrantRef, Port, verdict};
use xen_abi::event_channel::{EVTCHNSTAT_CLOSED, EVTCHNSTAT_UNBOUND};
use xen_abi::native::STACK_TOP;
use xen_abi::platform as abi;

type Command = fn(DomId) -> Result<(), Errno>;

const COMMANDS: [(&str, Command); 4] = [
    ("unpause", platform::unpause),
    ("pause", platform::pause),
    ("destroy", platform::destroy),
    ("reaped", platform::reaped),
];

/// All of it.
pub fn all() {
    oneself_and_nobody();
    order();
    while_it_dies();
    stale_ids();
}

fn oneself_and_nobody() {
    for (name, command) in COMMANDS {
        for id in [DomId::POLICY, DomId::SELF] {
            let answer = command(id);
            verdict!("c2-oneself", answer == Err(Errno::EPERM), "{name} of {id} answered {answer:?}");
        }
        // Ids that were never given out: free slots, later generations of used ones, reserved numbers.
        for id in [0x6fff, 0x7f, 0x3f80, 0x7fef, 0x7ff1, 0x7fff, 0xffff] {
            let answer = command(DomId(id));
            verdict!("c2-nobody", answer == Err(Errno::ESRCH), "{name} of {id:#x} answered {answer:?}");
        }
    }
}

fn order() {
    let id = complete(VICTIM, SPINS);
    equal("pause-while-building", platform::pause(id), Err(Errno::EINVAL));
    equal("reaped-while-building", platform::reaped(id), Err(Errno::EBUSY));
    equal("unpause", platform::unpause(id), Ok(()));
    equal("unpause-twice", platform::unpause(id), Err(Errno::EINVAL));
    equal("reaped-while-running", platform::reaped(id), Err(Errno::EBUSY));
    sleep(Duration::from_millis(20));
    equal("pause", platform::pause(id), Ok(()));
    equal("pause-twice", platform::pause(id), Err(Errno::EINVAL));
    let ran = || platform::domain_info(id.0.into()).map_or(0, |info| info.cpu_ns);
    let before = ran();
    verdict!("it-ran", before > 0);
    sleep(Duration::from_millis(20));
    equal("paused-does-not-run", ran(), before);
    equal("resume", platform::unpause(id), Ok(()));
    sleep(Duration::from_millis(20));
    verdict!("resumed-runs", ran() > before);
    finish(id);
}

/// A domain whose end takes many slices, asked about all the time. It has a grant and a port.
fn while_it_dies() {
    let friend = empty(FRIEND);
    let id = complete(VICTIM, SLEEPS);
    let seeded = platform::seed_grant(id, GrantRef(0), gfn(STACK_TOP) - 1, friend, Access::ReadWrite);
    equal("c4-seed", seeded, Ok(()));
    let port = event_channel::alloc_unbound(id, friend).unwrap_or(Port(1));
    equal("c4-populate", platform::populate(id, 0x2_0000, 1000, abi::RIGHTS_WRITE), Ok(()));
    let large = complete(LARGE, SLEEPS);
    equal("c4-populate", platform::populate(large, 0x2_0000, 12_000, abi::RIGHTS_WRITE), Ok(()));
    equal("c4-start", platform::unpause(id).and_then(|()| platform::unpause(large)), Ok(()));
    sleep(Duration::from_millis(5));
    for (victim, port) in [(id, Some(port)), (large, None)] {
        equal("c4-destroy", platform::destroy(victim), Ok(()));
        let seen = ask_until_gone(victim, port);
        verdict!("c4-seen-dying", seen > 0, "{victim} was gone at once");
    }
    finish(friend);
}

/// Answers how often the dying domain was found. It goes although we never wait.
fn ask_until_gone(id: DomId, port: Option<Port>) -> u32 {
    let mut seen = 0;
    let limit = now() + Duration::from_secs(30);
    while now() < limit {
        if !ask(id, port, &mut seen) {
            pass("c4-gone");
            return seen;
        }
    }
    verdict::fail("c4-gone", "it does not go");
    seen
}

/// One round of questions and of commands that come too late. `false`: it is gone.
fn ask(id: DomId, port: Option<Port>, seen: &mut u32) -> bool {
    if platform::reaped(id) == Ok(()) {
        return false;
    }
    if let Some(info) = platform::domain_info(id.0.into()).ok().filter(|info| info.domid == u32::from(id.0)) {
        *seen += 1;
        let text = info.why.starts_with(b"destroyed by the policy domain\0");
        if info.state != abi::STATE_DYING || !text {
            verdict::fail("c4-info", format_args!("state {}, why {:x?}", info.state, info.why));
        }
    }
    let late = |name: &str, answer: Result<(), Errno>, expected: Errno| {
        if answer != Err(expected) && answer != Err(Errno::ESRCH) {
            verdict::fail("c4-too-late", format_args!("{name} answered {answer:?}"));
        }
    };
    late("destroy", platform::destroy(id), Errno::EBUSY);
    late("unpause", platform::unpause(id), Errno::EINVAL);
    late("pause", platform::pause(id), Errno::EINVAL);
    late("populate", platform::populate(id, 0x8_0000, 1, abi::RIGHTS_WRITE), Errno::EPERM);
    late("copy in", platform::copy_in(id, CODE, SLEEPS), Errno::EPERM);
    late("entry", platform::set_entry(id, CODE, STACK_TOP, 0), Errno::EPERM);
    late("seed", platform::seed_grant(id, GrantRef(1), gfn(CODE), id, Access::ReadOnly), Errno::EPERM);
    late("port", event_channel::alloc_unbound(id, id).map(drop), Errno::EPERM);
    late("bind", event_channel::bind_interdomain(id, Port(1)).map(drop), Errno::ESRCH);
    late("grants", platform::grant_info(id, GrantRef(1)).map(drop), Errno::ENOENT);
    match platform::grant_info(id, GrantRef(0)) {
        Ok(grant) if grant.gfn == gfn(STACK_TOP) - 1 && grant.mappings == 0 => {}
        Err(Errno::ENOENT | Errno::ESRCH) => {}
        other => verdict::fail("c4-grant-info", format_args!("{other:?}")),
    }
    match port.map(|port| event_channel::status(id, port)) {
        None | Some(Err(Errno::ESRCH)) => {}
        Some(Ok(status)) if [EVTCHNSTAT_UNBOUND, EVTCHNSTAT_CLOSED].contains(&status.status) => {}
        other => verdict::fail("c4-status", format_args!("{other:?}")),
    }
    true
}

/// An id names nothing for ever after, also when its slot and its label have a new domain.
fn stale_ids() {
    let old = running(STRANGER, SLEEPS);
    finish(old);
    let before = frames_free();
    // Slots go round: after all others were used once, the old one is used again.
    let mut new = empty(STRANGER);
    while new.0 % 128 != old.0 % 128 {
        finish(new);
        new = empty(STRANGER);
    }
    verdict!("stale-slot-has-another-id", new != old, "{old} again");
    stale(old);
    equal("new-domain-is-not-gone", platform::reaped(new), Err(Errno::EBUSY));
    finish(new);
    wait_gone(old);
    equal("128-empty-domains-return-all", frames_free(), before);
}

fn stale(old: DomId) {
    let answers = [
        platform::unpause(old),
        platform::pause(old),
        platform::destroy(old),
        platform::populate(old, 0x1000, 1, abi::RIGHTS_WRITE),
        platform::copy_in(old, CODE, SLEEPS),
        platform::set_entry(old, CODE, STACK_TOP, 0),
        platform::seed_grant(old, GrantRef(0), 0x1000, old, Access::ReadOnly),
        platform::assign_device(old, 0),
        platform::grant_info(old, GrantRef(0)).map(drop),
        event_channel::status(old, Port(1)).map(drop),
        event_channel::alloc_unbound(old, DomId::SELF).map(drop),
        event_channel::bind_interdomain(old, Port(1)).map(drop),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        verdict!("stale-id-names-nothing", answer == Err(Errno::ESRCH), "question {number} answered {answer:?}");
    }
    equal("stale-id-is-known-as-gone", platform::reaped(old), Ok(()));
    let found = platform::domain_info(old.0.into()).map(|info| info.domid);
    verdict!("stale-id-is-not-listed", found != Ok(old.0.into()), "{found:?}");
}
