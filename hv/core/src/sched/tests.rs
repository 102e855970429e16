//! Fairness, boost, caps, timers: on simulated time.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::heap::IndexedHeap;
use super::*;
use crate::error::Errno;

/// Here a tick is a nanosecond.
const SLICE_NS: u64 = SLICE_US * 1000;

fn new_queue() -> RunQueue {
    let mut queue = RunQueue::new();
    queue.set_clock(1000);
    queue
}

fn key(slot: u8) -> VcpuKey {
    VcpuKey::new(Slot(slot), VcpuId(0))
}

/// Lets the runnable vCPUs run for `total` nanoseconds; returns how long each ran.
fn run(queue: &mut RunQueue, from: u64, total: u64, count: u8) -> Vec<u64> {
    let before: Vec<u64> = (0..count).map(|slot| queue.ran(key(slot))).collect();
    let mut now = from;
    while now < from + total {
        let _picked = queue.pick(now);
        now = queue.until().min(now + SLICE_NS).min(from + total);
    }
    queue.charge(now);
    (0..count).map(|slot| queue.ran(key(slot)) - before[usize::from(slot)]).collect()
}

#[test]
fn spinning_domains_share_by_weight() {
    let mut queue = new_queue();
    for (slot, weight) in [(0, 256), (1, 512), (2, 1024)] {
        queue.add(key(slot), weight, 0);
        let _preempt = queue.wake(key(slot), 0);
    }
    let ran = run(&mut queue, 0, 7_000_000_000, 3);
    for (ran, share) in ran.iter().zip([1u64, 2, 4]) {
        let expected = share * 1_000_000_000;
        assert!(ran.abs_diff(expected) < 2 * SLICE_NS, "{ran} instead of {expected}");
    }
}

#[test]
fn a_sleeper_preempts_a_spinner_at_once() {
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 256, 0);
    }
    let _preempt = queue.wake(key(0), 0);
    assert_eq!(queue.pick(0), Some(key(0)));
    assert!(queue.wake(key(1), 100_000_000));
    assert_eq!(queue.pick(100_000_000), Some(key(1)));
}

#[test]
fn napping_gains_nothing_over_spinning() {
    // One vCPU spins; the other wakes every 2 ms, runs for 1.9 ms, and wants the boost each time.
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 256, 0);
        let _preempt = queue.wake(key(slot), 0);
    }
    let mut now = 0;
    let mut napper_ran_until = u64::MAX;
    let mut napper_wakes = u64::MAX;
    while now < 4_000_000_000 {
        let decision = queue.pick(now);
        if decision == Some(key(1)) && napper_ran_until == u64::MAX {
            napper_ran_until = 1_900_000;
        }
        let step = 100_000;
        now += step;
        if decision == Some(key(1)) {
            napper_ran_until -= step;
            if napper_ran_until == 0 {
                queue.sleep(key(1));
                (napper_ran_until, napper_wakes) = (u64::MAX, now + step);
            }
        } else if now >= napper_wakes {
            napper_wakes = u64::MAX;
            let _preempt = queue.wake(key(1), now);
        }
    }
    let (spinner, napper) = (queue.ran(key(0)), queue.ran(key(1)));
    assert!(napper <= spinner + 2 * SLICE_NS, "napper {napper}, spinner {spinner}");
}

#[test]
fn e07_a_spinner_flooded_with_wakes_of_others_still_progresses() {
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 256, 0);
    }
    let _preempt = queue.wake(key(0), 0);
    let mut now = 0;
    // The other is woken a million times and runs each time for as long as it is let.
    for _ in 0..100_000 {
        let _preempt = queue.wake(key(1), now);
        let picked = queue.pick(now);
        now += 10_000;
        if picked == Some(key(1)) {
            queue.sleep(key(1));
        }
    }
    queue.charge(now);
    assert!(queue.ran(key(0)) * 10 > now * 4, "{} of {now}", queue.ran(key(0)));
}

#[test]
fn a_cap_holds_on_an_idle_machine() {
    let mut queue = new_queue();
    queue.add(key(0), 256, 25);
    let _preempt = queue.wake(key(0), 0);
    let ran = run(&mut queue, 0, 4_000_000_000, 1);
    assert!(ran[0].abs_diff(1_000_000_000) < 50_000_000, "{}", ran[0]);
}

#[test]
fn alone_there_is_no_end_of_slice() {
    let mut queue = new_queue();
    queue.add(key(3), 256, 0);
    let _preempt = queue.wake(key(3), 5);
    assert_eq!((queue.pick(5), queue.until()), (Some(key(3)), u64::MAX));
    queue.sleep(key(3));
    assert_eq!((queue.pick(6), queue.until()), (None, u64::MAX));
}

#[test]
fn a_wake_ends_the_endless_slice() {
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 256, 0);
    }
    let _preempt = queue.wake(key(0), 0);
    assert_eq!(queue.pick(0), Some(key(0)));
    assert_eq!(queue.until(), u64::MAX);
    let _preempt = queue.wake(key(1), 1_000);
    assert_eq!(queue.until(), SLICE_NS);
}

#[test]
fn yielding_lets_the_other_run_and_comes_back() {
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 256, 0);
        let _preempt = queue.wake(key(slot), 0);
    }
    let first = queue.pick(0);
    queue.yield_now();
    let second = queue.pick(1);
    assert_ne!(first, second);
    queue.yield_now();
    assert_eq!(queue.pick(2), first);
}

#[test]
fn a_removed_vcpu_never_runs() {
    let mut queue = new_queue();
    queue.add(key(0), 256, 0);
    let _preempt = queue.wake(key(0), 0);
    assert_eq!(queue.pick(0), Some(key(0)));
    assert_eq!(queue.remove(key(0), 1), 1);
    assert!(!queue.wake(key(0), 2));
    assert_eq!(queue.pick(3), None);
}

#[test]
fn virtual_time_survives_centuries() {
    let mut queue = new_queue();
    for slot in 0..2 {
        queue.add(key(slot), 1, 0);
        let _preempt = queue.wake(key(slot), 0);
    }
    let mut now = 0u64;
    for _ in 0..2_000 {
        now += 1 << 52;
        queue.pick(now);
    }
    let (one, other) = (queue.ran(key(0)), queue.ran(key(1)));
    assert!(one > 0 && other > 0 && one.abs_diff(other) <= 2 << 52, "{one} {other}");
}

#[test]
fn e09_any_deadline_is_acceptable() {
    let now = 1_000;
    for past in [0, 1, now] {
        assert_eq!(singleshot(now, past, 0), Ok(past));
        assert_eq!(singleshot(now, past, 1), Err(Errno::ETIME));
    }
    let mut timers = Timers::new();
    for far in [now + 1, 1 << 63, u64::MAX] {
        assert_eq!(singleshot(now, far, 1), Ok(far));
        timers.set(key(1), TimerKind::Singleshot, far);
        assert_eq!(timers.next(), Some(far));
        assert_eq!(timers.expire(now), None);
    }
    assert_eq!(timers.expire(u64::MAX), Some((key(1), TimerKind::Singleshot)));
    assert_eq!(timers.next(), None);
}

#[test]
fn timers_of_both_kinds_are_apart() {
    let mut timers = Timers::new();
    timers.set(key(1), TimerKind::Singleshot, 10);
    timers.set(key(1), TimerKind::Poll, 5);
    timers.cancel(key(1), TimerKind::Singleshot);
    assert_eq!(timers.expire(10), Some((key(1), TimerKind::Poll)));
    assert_eq!(timers.expire(10), None);
}

#[test]
fn a_pair_that_hands_over_gives_way_to_a_third_by_the_timer() {
    let mut queue = new_queue();
    for slot in 0..3 {
        queue.add(key(slot), 256, 0);
    }
    let _preempt = (queue.wake(key(0), 0), queue.wake(key(2), 0));
    let (mut now, mut alarm, mut current) = (0, u64::MAX, queue.pick(0).unwrap());
    let (mut third_since, mut longest) = (0, 0);
    while now < 1_000_000_000 {
        alarm = alarm.min(queue.until());
        let before = current;
        if current == key(2) {
            // It spins: only the timer ends its turn.
            now = alarm;
        } else {
            now += 20_000;
        }
        if now >= alarm {
            alarm = u64::MAX;
            current = queue.pick(now).unwrap();
        } else {
            let peer = if current == key(0) { key(1) } else { key(0) };
            current = queue.hand_over(peer, now).unwrap_or_else(|| {
                let _preempt = queue.wake(peer, now);
                queue.current_sleeps();
                queue.pick(now).unwrap()
            });
        }
        if before == key(2) {
            third_since = now;
        }
        longest = longest.max(now - third_since);
    }
    queue.charge(now);
    assert!(longest <= 2 * SLICE_NS, "it waited {longest} ns");
    assert!(queue.ran(key(2)) >= now / 3, "{} of {now}", queue.ran(key(2)));
}

#[test]
fn a_pair_alone_hands_over_without_more_ado_and_pays_for_it() {
    let mut queue = new_queue();
    for slot in 0..3 {
        queue.add(key(slot), 256, 0);
    }
    let _preempt = queue.wake(key(0), 0);
    let mut current = queue.pick(0).unwrap();
    let mut in_full = 0;
    for round in 1..=10_000 {
        let (peer, now) = (if current == key(0) { key(1) } else { key(0) }, round * 5_000);
        current = queue.hand_over(peer, now).unwrap_or_else(|| {
            in_full += 1;
            let _preempt = queue.wake(peer, now);
            queue.current_sleeps();
            queue.pick(now).unwrap()
        });
        assert_eq!(current, peer);
    }
    // What is little is booked once in a while.
    assert!((100..=150).contains(&in_full), "{in_full}");
    assert_eq!((queue.ran(key(0)), queue.ran(key(1))), (25_000_000, 25_000_000));
    // Whoever slept meanwhile is ahead by its credit, no more, and what it runs is little again.
    let now = 50_000_001;
    assert!(queue.wake(key(2), now));
    assert_eq!(queue.pick(now), Some(key(2)));
    assert_eq!(queue.pick(now + SLICE_NS + 400_000), Some(current));
}

proptest! {
    #[test]
    fn two_are_decided_about_like_many(
        steps in prop::collection::vec((0u8..5, 0u8..4, 1u64..2_000_000), 1..400),
        weights in prop::collection::vec(1u32..2000, 4),
    ) {
        // One queue takes the short way where there is one, the other never.
        let (mut short, mut long) = (new_queue(), new_queue());
        for (slot, weight) in weights.iter().enumerate() {
            short.add(key(slot as u8), *weight, 0);
            long.add(key(slot as u8), *weight, 0);
        }
        let (mut now, mut alarm, mut taken) = (0, u64::MAX, 0);
        for (action, slot, pause) in steps {
            now += pause;
            if now >= alarm {
                alarm = u64::MAX;
                prop_assert_eq!(short.pick(now), long.pick(now));
            }
            match (action, short.is_running()) {
                (0, true) => {
                    short.current_sleeps();
                    long.current_sleeps();
                    let picked = short.pick_of_two(now, alarm);
                    taken += u32::from(picked.is_some());
                    prop_assert_eq!(picked.or_else(|| short.pick(now)), long.pick(now));
                }
                (1, true) => {
                    short.yield_now();
                    long.yield_now();
                    let picked = short.pick_of_two(now, alarm);
                    taken += u32::from(picked.is_some());
                    prop_assert_eq!(picked.or_else(|| short.pick(now)), long.pick(now));
                }
                _ => {
                    let woken = short.wake_and_pick(key(slot), now, alarm);
                    taken += u32::from(woken.is_some());
                    if woken.is_none() && short.wake(key(slot), now) {
                        short.pick(now);
                    }
                    if long.wake(key(slot), now) {
                        long.pick(now);
                    }
                }
            }
            prop_assert_eq!(short.current(), long.current());
            prop_assert!(short.until() >= alarm || taken == 0 || short.until() == long.until());
            alarm = alarm.min(short.until());
        }
        short.charge(now);
        long.charge(now);
        for slot in 0..4 {
            prop_assert_eq!(short.ran(key(slot)), long.ran(key(slot)));
        }
    }

    #[test]
    fn handing_over_takes_nothing_from_others(rounds in prop::collection::vec(1u64..400_000, 2000), weight in 1u32..2000) {
        // Two hand over to each other all the time, a third never rests.
        let mut queue = new_queue();
        for (slot, weight) in [(0, 256), (1, 256), (2, weight)] {
            queue.add(key(slot), weight, 0);
        }
        let _preempt = (queue.wake(key(0), 0), queue.wake(key(2), 0));
        let (mut now, mut current) = (0, queue.pick(0));
        for round in rounds {
            now += round;
            match current.filter(|current| *current != key(2)) {
                Some(current_key) => {
                    let peer = if current_key == key(0) { key(1) } else { key(0) };
                    if queue.hand_over(peer, now).is_some() {
                        current = Some(peer);
                    } else {
                        let _preempt = queue.wake(peer, now);
                        queue.sleep(current_key);
                        current = queue.pick(now);
                    }
                }
                None => current = queue.pick(now),
            }
            prop_assert!(queue.is_running());
        }
        queue.charge(now);
        let ran: Vec<u64> = (0..3).map(|slot| queue.ran(key(slot))).collect();
        prop_assert_eq!(ran.iter().sum::<u64>(), now, "no time is lost");
        let entitled = now / (256 + u64::from(weight)) * u64::from(weight);
        prop_assert!(ran[2] + 20 * SLICE_NS >= entitled, "{:?} of {}", ran, now);
    }

    #[test]
    fn the_heap_is_a_sorted_map(steps in prop::collection::vec((0usize..24, 0u64..50, 0u8..4), 0..200)) {
        let mut heap = IndexedHeap::<24>::new();
        let mut model = vec![None; 24];
        for (item, value, action) in steps {
            match action {
                0 => {
                    heap.remove(item);
                    model[item] = None;
                }
                1 => {
                    let least = model.iter().flatten().min().copied();
                    let popped = heap.pop();
                    prop_assert_eq!(popped.map(|(_, value)| value), least);
                    if let Some((item, value)) = popped {
                        prop_assert_eq!(model[item].take(), Some(value));
                    }
                }
                _ => {
                    heap.set(item, value);
                    model[item] = Some(value);
                }
            }
            for (item, value) in model.iter().enumerate() {
                prop_assert_eq!(heap.contains(item), value.is_some());
            }
        }
    }

    #[test]
    fn nobody_starves(naps in prop::collection::vec(1u64..20_000_000, 3), weights in prop::collection::vec(1u32..2000, 4)) {
        let mut queue = new_queue();
        for (slot, weight) in weights.iter().enumerate() {
            queue.add(key(slot as u8), *weight, 0);
            let _preempt = queue.wake(key(slot as u8), 0);
        }
        let mut now = 0;
        let mut asleep: Vec<Option<u64>> = vec![None; 4];
        for _ in 0..2000 {
            let decision = queue.pick(now);
            now += 700_000;
            if let Some(run) = decision && run.slot().0 > 0 {
                let slot = usize::from(run.slot().0);
                queue.sleep(run);
                asleep[slot] = Some(now + naps[slot - 1]);
            }
            for (slot, asleep) in asleep.iter_mut().enumerate() {
                if asleep.is_some_and(|until| until <= now) {
                    *asleep = None;
                    let _preempt = queue.wake(key(slot as u8), now);
                }
            }
        }
        queue.charge(now);
        let total: u32 = weights.iter().sum();
        let entitled = now / u64::from(total) * u64::from(weights[0]);
        prop_assert!(queue.ran(key(0)) + 20 * SLICE_NS >= entitled);
    }
}
