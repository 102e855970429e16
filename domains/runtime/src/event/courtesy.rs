//! Giving way to others on purpose.

use core::time::Duration;

use crate::hypercall::sched;
use crate::time::{Instant, now};

use super::timer;

/// Somebody who keeps the CPU for so long does not make work for us, but does his own.
const TOO_LONG: Duration = Duration::from_millis(1);
/// Then no way is given for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets others run first, for work that is the better for waiting until there is more of it: who makes more is not interrupted,
/// and who has come to its end does not wait. The scheduler takes whoever gives way for level with those who run meanwhile, so this
/// is for those only who soon wait; where somebody keeps the CPU, it is not done again for a while.
#[derive(Debug, Default)]
pub struct Courtesy {
    not_before: Instant,
}

impl Courtesy {
    /// Lets others run for `limit` at most, if they let go of the CPU, and tells how long they did. Nothing is taken or cleared.
    pub fn give_way(&mut self, limit: Duration) -> Duration {
        let begin = now();
        if begin < self.not_before {
            return Duration::ZERO;
        }
        timer::arm(begin + limit);
        sched::give_way();
        self.returned(begin, now())
    }

    fn returned(&mut self, begin: Instant, end: Instant) -> Duration {
        let ran = end.since(begin);
        if ran > TOO_LONG {
            self.not_before = end + PAUSE;
        }
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_the_cpu_is_not_given_way_to_for_a_while() {
        let mut courtesy = Courtesy::default();
        let at = |micros: u64| Instant(micros * 1000);
        assert_eq!(courtesy.returned(at(10), at(60)), Duration::from_micros(50));
        assert_eq!(courtesy.returned(at(60), at(800)), Duration::from_micros(740));
        assert_eq!(courtesy.not_before, Instant(0), "some more than was asked for is the scheduler's");
        courtesy.returned(at(1000), at(6000));
        assert_eq!(courtesy.not_before, at(106_000));
    }
}
