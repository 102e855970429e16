//! Whose turn is it? A back end that leaves a front end waiting in the middle of the xenbus dance is as good as dead.

use alloc::vec::Vec;
use core::time::Duration;

use policy::table::{LinkKind, Table};
use runtime::time::Instant;

use crate::nodes::state::CONNECTED;
use crate::program::TRIAL;
use crate::ready::End;
use crate::supervision::Record;

/// A step of the dance may take so many times the bound of silence: the first includes the start of the driver.
const STEP_BOUNDS: u32 = 5;

/// The links of the back ends that are watched over: those that have a bound of silence, or may be started again at all.
#[derive(Debug, Default)]
pub struct Turns(Vec<Turn>);

#[derive(Debug)]
struct Turn {
    link: usize,
    bound: Duration,
    front: u32,
    back: u32,
    /// When one of them last changed.
    since: Instant,
}

/// Whether the back end has to do something, by the states of both ends. A back end that has closed owes nothing: it may
/// have refused. States that a front end can bring about by itself, the back end answers at once.
fn is_back_ends(front: u32, back: u32) -> bool {
    const INITIALISING: u32 = 1;
    const INIT_WAIT: u32 = 2;
    const INITIALISED: u32 = 3;
    const CLOSING: u32 = 5;
    const CLOSED: u32 = 6;
    match front {
        INITIALISING => matches!(back, INITIALISING | CONNECTED | CLOSING),
        INITIALISED | CONNECTED => back == INIT_WAIT,
        CLOSING | CLOSED => matches!(back, INIT_WAIT | CONNECTED | CLOSING),
        _ => false,
    }
}

impl Turn {
    fn due(&self) -> Option<Instant> {
        is_back_ends(self.front, self.back).then_some(self.since + self.bound)
    }
}

impl Turns {
    /// The block and network links of back ends that have a bound of silence, or could be started again if they were ended.
    pub fn new(table: &Table) -> Self {
        let links = table.links.iter().enumerate();
        let links = links.filter(|(_, link)| matches!(link.kind, LinkKind::Block | LinkKind::Net));
        let turns = links.filter_map(|(number, link)| {
            let record = Record::new(table.domain(link.back)?);
            let bound = record.watchdog.map(|bound| bound.saturating_mul(STEP_BOUNDS));
            let bound = bound.or(record.may_come_again().then_some(TRIAL))?;
            Some(Turn { link: number, bound, front: 0, back: 0, since: Instant::default() })
        });
        Turns(turns.collect())
    }

    /// Whether the states of link number `link` are wanted.
    pub fn follows(&self, link: usize) -> bool {
        self.0.iter().any(|turn| turn.link == link)
    }

    /// Notes the state of one end of link number `link`.
    pub fn note(&mut self, link: usize, end: End, state: u32, now: Instant) {
        if let Some(turn) = self.0.iter_mut().find(|turn| turn.link == link) {
            let place = match end {
                End::Front => &mut turn.front,
                End::Back => &mut turn.back,
            };
            if *place != state {
                (*place, turn.since) = (state, now);
            }
        }
    }

    /// The back end of link number `link` is another domain now, whose time begins.
    pub fn begin_again(&mut self, link: usize, now: Instant) {
        self.0.iter_mut().filter(|turn| turn.link == link).for_each(|turn| turn.since = now);
    }

    /// Nobody could go on for a while, through no fault of theirs.
    pub fn begin_all_again(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|turn| turn.since = now);
    }

    /// When to look for [`Turns::overdue`] next.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(Turn::due).min()
    }

    /// The links whose back end has left its front end waiting for too long. Each is told once.
    pub fn overdue(&mut self, now: Instant) -> Vec<usize> {
        let overdue = self.0.iter_mut().filter(|turn| turn.due().is_some_and(|due| due <= now));
        overdue
            .map(|turn| {
                turn.since = now;
                turn.link
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use policy::restart::{RESTART_SETTING, WATCHDOG_SETTING};
    use runtime::xenbus::state::{BackStep, FrontStep, State, back_step, front_step};

    const SECOND: u64 = 1_000_000_000;

    fn demo() -> (Table, usize) {
        let table = policy::load("demo.toml", include_str!("../../demo.toml")).unwrap().table().clone();
        let link = table.links.iter().position(|link| link.kind == LinkKind::Block).unwrap();
        (table, link)
    }

    /// As long as both ends follow the rules of the dance, there is somebody who goes on.
    #[test]
    fn a_back_end_is_blamed_only_when_it_has_something_to_do() {
        let states =
            [State::Initialising, State::InitWait, State::Initialised, State::Connected, State::Closing, State::Closed];
        for back in [State::InitWait, State::Connected, State::Closed] {
            for front in states {
                let blamed = is_back_ends(front as u32, back as u32);
                if blamed {
                    assert_ne!(back_step(back, front), BackStep::Wait, "{front:?} {back:?}");
                }
                if back_step(back, front) == BackStep::Wait && front_step(front, back) == FrontStep::Wait {
                    assert!(!blamed);
                }
            }
        }
    }

    #[test]
    fn a_step_that_takes_too_long_is_told_once() {
        let (table, link) = demo();
        let mut turns = Turns::new(&table);
        assert!(turns.follows(link) && turns.next().is_none());
        turns.note(link, End::Back, 1, Instant(SECOND));
        turns.note(link, End::Front, 1, Instant(SECOND));
        assert_eq!(turns.next(), Some(Instant(11 * SECOND)));
        assert!(turns.overdue(Instant(10 * SECOND)).is_empty());
        turns.note(link, End::Back, 2, Instant(10 * SECOND));
        assert_eq!(turns.next(), None, "it is the front end's turn");
        turns.note(link, End::Front, 3, Instant(50 * SECOND));
        assert_eq!(turns.overdue(Instant(60 * SECOND)), [link]);
        assert!(turns.overdue(Instant(61 * SECOND)).is_empty());
        turns.note(link, End::Back, 4, Instant(62 * SECOND));
        turns.note(link, End::Front, 4, Instant(62 * SECOND));
        assert_eq!(turns.next(), None);
    }

    #[test]
    fn who_may_be_started_again_is_watched_over_without_a_bound_of_silence_too() {
        let (mut table, link) = demo();
        let back = table.links[link].back.0 as usize;
        let config = &mut table.domains[back].config;
        let restarts = (RESTART_SETTING.to_string(), "always".to_string());
        config.retain(|(key, _)| key != RESTART_SETTING && key != WATCHDOG_SETTING);
        assert!(!Turns::new(&table).follows(link), "ended, it would stay down");
        table.domains[back].config.push(restarts);
        let mut turns = Turns::new(&table);
        turns.note(link, End::Back, 1, Instant(0));
        turns.note(link, End::Front, 1, Instant(0));
        assert_eq!(turns.next(), Some(Instant(0) + TRIAL));
    }

    #[test]
    fn the_same_state_again_gives_no_new_time() {
        let (table, link) = demo();
        let mut turns = Turns::new(&table);
        turns.note(link, End::Back, 1, Instant(0));
        turns.note(link, End::Front, 1, Instant(0));
        turns.note(link, End::Front, 1, Instant(9 * SECOND));
        assert_eq!(turns.overdue(Instant(10 * SECOND)), [link]);
    }

    #[test]
    fn a_successor_is_not_blamed_for_the_time_of_the_dead() {
        let (table, link) = demo();
        let mut turns = Turns::new(&table);
        turns.note(link, End::Back, 1, Instant(0));
        turns.note(link, End::Front, 1, Instant(0));
        turns.begin_again(link, Instant(9 * SECOND));
        assert!(turns.overdue(Instant(18 * SECOND)).is_empty());
        assert_eq!(turns.overdue(Instant(19 * SECOND)), [link]);
    }
}
