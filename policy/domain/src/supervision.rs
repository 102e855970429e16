//! When a domain that has died is started again, and when no more.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use policy::restart::{Budget, RESTART_SETTING, Restart, WATCHDOG_SETTING};
use policy::table::{Domain, Kind, setting};
use runtime::time::Instant;
use xen_abi::sched::SHUTDOWN_POWEROFF;

use crate::program::TRIAL;

/// What keeps `restart = "always"` from taking the whole machine for a domain that cannot live.
const ALWAYS: Budget = Budget { max: u32::MAX, within: Duration::from_secs(10), backoff: Duration::from_millis(10) };
/// The longest that is waited under `restart = "always"`.
const ALWAYS_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What is to be done about a death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start the domain again, not before this moment.
    Again(Instant),
    /// It stays down; why, where that is worth a word.
    Down(Option<String>),
}

/// What the policy says of a domain, and how often it has died lately.
#[derive(Clone, Debug, Default)]
pub struct Record {
    restart: Restart,
    /// The bound of silence.
    pub watchdog: Option<Duration>,
    /// Deaths after which it was started again, as far as they still count.
    recent: VecDeque<Instant>,
    /// Times that it was started again in all.
    pub restarts: u32,
}

impl Record {
    /// Of a domain that has not died yet.
    pub fn new(domain: &Domain) -> Self {
        let restart = setting(&domain.config, RESTART_SETTING).and_then(|text| text.parse().ok());
        let watchdog = setting(&domain.config, WATCHDOG_SETTING).and_then(|text| text.parse().ok());
        Record {
            restart: restart.unwrap_or_default(),
            watchdog: watchdog.map(Duration::from_millis),
            ..Record::default()
        }
    }

    /// Whether the policy lets it be started again at all.
    pub fn may_come_again(&self) -> bool {
        self.restart != Restart::Never
    }

    /// It has died, or could not be started.
    pub fn died(&mut self, now: Instant) -> Verdict {
        let (budget, longest) = match self.restart {
            Restart::Never => return Verdict::Down(None),
            Restart::Always => (ALWAYS, ALWAYS_BACKOFF_MAX),
            Restart::Budget(budget) => (budget, budget.within),
        };
        while self.recent.front().is_some_and(|&death| now.since(death) > budget.within) {
            self.recent.pop_front();
        }
        let deaths = self.recent.len() as u32;
        if deaths >= budget.max {
            let within = budget.within.as_millis();
            let why =
                format!("it was started again {deaths} times within {within} ms, which is all that the policy allows");
            return Verdict::Down(Some(why));
        }
        self.recent.push_back(now);
        let factor = deaths.checked_sub(1).map_or(0, |doublings| 1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        Verdict::Again(now + budget.backoff.saturating_mul(factor).min(longest))
    }

    /// An administrator wants it to run: what happened before does not count any more.
    pub fn forgive(&mut self) {
        self.recent.clear();
    }
}

/// Whether a domain that ended so has done what its user wanted, and is no dead one: a virtual machine that was shut down
/// from within stays down, as under Xen. Restarting is no such end, and a program that ends, whatever it says, is dead.
pub fn is_switched_off(kind: Kind, reason: u32) -> bool {
    kind == Kind::Pvh && reason == SHUTDOWN_POWEROFF
}

/// What a domain has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Hypercalls.
    pub hypercalls: u64,
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
}

/// Looks now and then whether a domain still says anything.
///
/// A domain that waits uses no CPU, and one that works makes hypercalls. One that uses the CPU for as long as its bound
/// without a single hypercall is in a loop that it does not get out of. CPU time counts, not time: who gets no CPU,
/// because others are busy, is not silent.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    bound: Duration,
    /// When it last said something, as far as was seen.
    heard: Usage,
    /// When to look next.
    pub due: Instant,
}

impl Watchdog {
    /// Of a domain that starts now.
    pub fn new(bound: Duration, now: Instant) -> Self {
        Watchdog { bound, heard: Usage::default(), due: now + bound / 2 }
    }

    /// Looks: `true`, it has been silent for too long.
    pub fn look(&mut self, usage: Usage, now: Instant) -> bool {
        self.due = now + self.bound / 2;
        if usage.hypercalls != self.heard.hypercalls {
            self.heard = usage;
        }
        Duration::from_nanos(usage.cpu_ns.saturating_sub(self.heard.cpu_ns)) >= self.bound
    }
}

/// Whether a successor serves anybody whom its predecessor served, looked at once, some time after its start.
///
/// A front end can look unserved if it wants to, so what follows is not all that could: a domain is ended for it twice in a
/// row at most, whatever budget there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proof {
    due: Option<Instant>,
    failed: u32,
}

/// What is to be done about a domain that serves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uselessness {
    /// It does serve.
    None,
    /// End it: another may do better.
    End,
    /// The ones before did no better. It may be its front ends' doing.
    Leave,
}

/// So many in a row are ended because they serve nobody.
const USELESS_MAX: u32 = 2;

impl Proof {
    /// A successor has been started, or could not show anything so far through no fault of its own.
    pub fn expect(&mut self, now: Instant) {
        self.due = Some(now + TRIAL);
    }

    /// When to look.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time to look. That is told once.
    pub fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// What follows from what was seen.
    pub fn judge(&mut self, serves: bool) -> Uselessness {
        self.failed = if serves { 0 } else { self.failed.saturating_add(1) };
        match self.failed {
            0 => Uselessness::None,
            1..=USELESS_MAX => Uselessness::End,
            _ => Uselessness::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use xen_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_REBOOT, SHUTDOWN_WATCHDOG};

    const MS: u64 = 1_000_000;

    fn record(restart: &str) -> Record {
        Record::new(&Domain {
            config: [(RESTART_SETTING.to_string(), restart.to_string())].into(),
            ..Domain::default()
        })
    }

    /// The delays, in ms, until it stays down.
    fn delays(record: &mut Record, deaths: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
        let died = |ms: u64| match record.died(Instant(ms * MS)) {
            Verdict::Again(at) => Some(at.0 / MS - ms),
            Verdict::Down(_) => None,
        };
        deaths.into_iter().map(died).collect()
    }

    #[test]
    fn a_policy_that_says_nothing_restarts_nothing() {
        assert_eq!(delays(&mut Record::new(&Domain::default()), [0]), [None]);
        assert_eq!(delays(&mut record("never"), [0]), [None]);
        assert_eq!(delays(&mut record("nonsense"), [0]), [None]);
    }

    #[test]
    fn a_budget_is_spent_and_comes_back_with_time() {
        let mut record = record("3 1000 50");
        let deaths = [0, 10, 20, 30, 900, 1005, 1100];
        assert_eq!(delays(&mut record, deaths), [Some(0), Some(50), Some(100), None, None, Some(100), Some(50)]);
    }

    #[test]
    fn an_administrator_gives_a_new_budget() {
        let mut record = record("1 1000 50");
        assert_eq!(delays(&mut record, [0, 1]), [Some(0), None]);
        record.forgive();
        assert_eq!(delays(&mut record, [2, 3]), [Some(0), None]);
    }

    #[test]
    fn a_successor_is_looked_at_once_and_only_two_in_a_row_are_ended() {
        let mut proof = Proof::default();
        assert!(!proof.is_due(Instant(u64::MAX)), "the first of all owes nothing");
        proof.expect(Instant(5));
        let due = Instant(5) + TRIAL;
        assert_eq!(proof.due(), Some(due));
        assert!(!proof.is_due(Instant(due.0 - 1)) && proof.is_due(due) && !proof.is_due(due));
        use Uselessness::{End, Leave, None};
        let judged: Vec<_> =
            [false, false, false, false, true, false].into_iter().map(|serves| proof.judge(serves)).collect();
        assert_eq!(judged, [End, End, Leave, Leave, None, End]);
    }

    #[test]
    fn a_virtual_machine_that_is_shut_down_from_within_has_not_died() {
        assert!(is_switched_off(Kind::Pvh, SHUTDOWN_POWEROFF));
        for reason in [SHUTDOWN_REBOOT, SHUTDOWN_CRASH, SHUTDOWN_WATCHDOG] {
            assert!(!is_switched_off(Kind::Pvh, reason));
        }
        assert!(!is_switched_off(Kind::Native, SHUTDOWN_POWEROFF));
    }

    #[test]
    fn silence_is_cpu_time_without_a_hypercall() {
        let mut watchdog = Watchdog::new(Duration::from_millis(10), Instant(0));
        assert_eq!(watchdog.due, Instant(5 * MS));
        let mut look = |hypercalls, cpu_ms| watchdog.look(Usage { hypercalls, cpu_ns: cpu_ms * MS }, Instant(0));
        // It starts, works, waits for long, and works again.
        assert!(!look(1, 2) && !look(50, 30) && !look(50, 30) && !look(50, 39) && !look(51, 60));
        // It says nothing any more.
        assert!(!look(51, 69) && look(51, 70) && look(51, 80));
    }

    #[test]
    fn a_domain_that_never_says_anything_is_silent_from_its_start() {
        let mut watchdog = Watchdog::new(Duration::from_millis(10), Instant(0));
        assert!(watchdog.look(Usage { hypercalls: 0, cpu_ns: 10 * MS }, Instant(20 * MS)));
        assert_eq!(watchdog.due, Instant(25 * MS));
    }

    #[test]
    fn always_is_for_ever_and_waits_a_second_at_most() {
        let mut record = record("always");
        let delays = delays(&mut record, 0..100);
        assert_eq!(delays[..4], [Some(0), Some(10), Some(20), Some(40)]);
        assert_eq!(delays[99], Some(1000));
    }
}
