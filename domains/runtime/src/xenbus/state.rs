//! The states of a split device and who does what next: Xen public header `io/xenbus.h`, `enum xenbus_state`.
//!
//! Both ends publish their state and watch the other's. The step functions are pure: given both states they say what
//! to do; the bus modules do it. `docs/xenbus.md` has the diagram.

pub use xen_abi::io::xenbus::XenbusState as State;

/// What a back end does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackStep {
    /// Nothing.
    Wait,
    /// Publish features, go to `InitWait`.
    Announce,
    /// Read the front end's details, map, bind, go to `Connected`.
    Connect,
    /// Go to `Closing`, stop using everything of the front end's, go to [`state_when_released`].
    Close,
}

/// The state of a back end that has let go of everything. A front end that is `Closing` waits for us to be there too: if
/// it only ever saw `Closed`, Linux's would wait for seconds when it shuts down. It goes to `Closed` itself then.
pub fn state_when_released(front: State) -> State {
    if front == State::Closing { State::Closing } else { State::Closed }
}

/// The back end's next step. `front` is what a hostile domain wrote: every combination has an answer, and none connects
/// twice without a `Close` between.
pub fn back_step(own: State, front: State) -> BackStep {
    use State::*;
    match (own, front) {
        (Unknown | Initialising, _) => BackStep::Announce,
        (InitWait, Initialised | Connected) => BackStep::Connect,
        (Connected, Initialised | Connected) => BackStep::Wait,
        (Connected | InitWait, Closing | Closed) => BackStep::Close,
        // A front end that is gone or starts over without closing: what it granted is not ours any more.
        (Connected, Unknown | Initialising) => BackStep::Close,
        (Closing, _) => BackStep::Close,
        (Closed, Initialising) => BackStep::Announce,
        _ => BackStep::Wait,
    }
}

/// Where a back end goes on that finds `own` as the state of its directory, left there by a predecessor that died.
/// `None`: at the beginning. `Connected`: the front end has what it takes, and what is in its rings is to be adopted.
pub fn begun_by_predecessor(own: State, front: State) -> Option<State> {
    use State::*;
    match (own, front) {
        (Connected, Initialised | Connected) => Some(Connected),
        // The front end goes, or begins again, and waits for a back end that has let go.
        (Connected | Closing, _) => Some(Closing),
        (Closed, _) => Some(Closed),
        _ => None,
    }
}

/// What a front end does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontStep {
    /// Nothing.
    Wait,
    /// Grant rings, publish details.
    Publish,
    /// The back end is connected: read its features, start.
    Start,
    /// The back end goes away: revoke, go to `Closed`.
    Close,
}

/// The front end's next step.
pub fn front_step(own: State, back: State) -> FrontStep {
    use State::*;
    match (own, back) {
        (Initialising, InitWait) => FrontStep::Publish,
        // A front end of the netif kind publishes with state Connected; both kinds start on the back end's word.
        (Initialised | Connected, Connected) => FrontStep::Start,
        (Initialised | Connected | Initialising, Closing | Closed) => FrontStep::Close,
        (Initialised | Connected, Unknown) => FrontStep::Close,
        (Closing, _) => FrontStep::Close,
        _ => FrontStep::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    const ALL: [State; 9] =
        [Unknown, Initialising, InitWait, Initialised, Connected, Closing, Closed, Reconfiguring, Reconfigured];

    /// Both ends stepping in any order reach Connected, and after a close by the front end can do so again.
    #[test]
    fn two_honest_ends_connect_close_and_connect_again() {
        let (mut back, mut front) = (Initialising, Initialising);
        let mut run = |front: &mut State, goal: (State, State)| {
            for _ in 0..10 {
                back = match back_step(back, *front) {
                    BackStep::Wait => back,
                    BackStep::Announce => InitWait,
                    BackStep::Connect => Connected,
                    BackStep::Close => state_when_released(*front),
                };
                *front = match front_step(*front, back) {
                    FrontStep::Wait => *front,
                    FrontStep::Publish => Initialised,
                    FrontStep::Start => Connected,
                    FrontStep::Close => Closed,
                };
            }
            assert_eq!((back, *front), goal);
        };
        run(&mut front, (Connected, Connected));
        front = Closing;
        run(&mut front, (Closed, Closed));
        front = Initialising;
        run(&mut front, (Connected, Connected));
    }

    /// Linux's front end, when it shuts down, goes to `Closed` when it sees `Closing`, and does nothing else.
    #[test]
    fn a_front_end_that_waits_for_closing_sees_it_and_then_closed() {
        for connected in [Connected, InitWait] {
            assert_eq!(back_step(connected, Closing), BackStep::Close);
            let back = state_when_released(Closing);
            assert_eq!((back, back_step(back, Closed)), (Closing, BackStep::Close));
            assert_eq!(state_when_released(Closed), Closed);
        }
    }

    /// A back end may die at any moment: with the next one, two honest ends come to be connected all the same.
    #[test]
    fn a_successor_goes_on_from_any_states_that_the_dead_may_have_left() {
        for left in [Initialising, InitWait, Connected, Closing, Closed] {
            for begun in [Initialising, Initialised, Connected, Closing, Closed] {
                let (mut back, mut front) = (begun_by_predecessor(left, begun), begun);
                if back == Some(Connected) {
                    assert!(left == Connected && matches!(front, Initialised | Connected), "{front:?}");
                }
                for _ in 0..20 {
                    let state = back.unwrap_or(InitWait);
                    back = Some(match back_step(state, front) {
                        BackStep::Wait => state,
                        BackStep::Announce => InitWait,
                        BackStep::Connect => Connected,
                        BackStep::Close => state_when_released(front),
                    });
                    front = match front_step(front, back.unwrap_or(InitWait)) {
                        FrontStep::Wait if front == Closed => Initialising,
                        FrontStep::Wait => front,
                        FrontStep::Publish => Initialised,
                        FrontStep::Start => Connected,
                        FrontStep::Close => Closed,
                    };
                }
                assert_eq!((back, front), (Some(Connected), Connected), "from {left:?} and {begun:?}");
            }
        }
    }

    /// Whatever a hostile front end writes, the back end connects only from InitWait, so never twice in a row.
    #[test]
    fn a_back_end_never_connects_twice_without_closing() {
        for own in ALL {
            for front in ALL {
                if back_step(own, front) == BackStep::Connect {
                    assert_eq!(own, InitWait);
                }
            }
        }
        assert_eq!(back_step(Connected, Initialising), BackStep::Close);
    }

    #[test]
    fn a_front_end_does_not_start_before_it_published() {
        for own in ALL {
            for back in ALL {
                if front_step(own, back) == FrontStep::Start {
                    assert!(own == Initialised || own == Connected);
                }
            }
        }
    }
}
