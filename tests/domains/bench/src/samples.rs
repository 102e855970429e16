//! Timing by the time stamp counter, and the line that tells `cargo xtask bench` of it.
//!
//! Under QEMU's instruction clock the counter counts executed instructions. Figures are kept in tenths, so that what a
//! batch costs can be told for each of its items.

use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use runtime::time::ticks;
use runtime::{info, println};

/// What was measured, in tenths of a tick.
#[derive(Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// No samples yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// No samples yet, room for `count`: the heap must not be in the way later.
    pub fn with_room(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds what `items` things took together.
    pub fn add(&mut self, ticks: u64, items: u64) {
        self.0.push(ticks * 10 / items.max(1));
    }

    /// What they come to.
    pub fn report(mut self, name: &'static str) -> Report {
        self.0.sort_unstable();
        let count = self.0.len();
        let at =
            |percent: usize| self.0.get((count * percent / 100).min(count.saturating_sub(1))).copied().unwrap_or(0);
        let mean = self.0.iter().sum::<u64>() / (count as u64).max(1);
        Report { name, min: at(0), median: at(50), p99: at(99), mean, count }
    }
}

/// A figure: tenths of ticks, from so many samples.
pub struct Report {
    name: &'static str,
    min: u64,
    median: u64,
    p99: u64,
    mean: u64,
    count: usize,
}

impl Report {
    /// A figure that was not sampled but counted.
    pub fn of(name: &'static str, number: u64) -> Self {
        let tenths = number * 10;
        Self { name, min: tenths, median: tenths, p99: tenths, mean: tenths, count: 1 }
    }

    /// Prints the line. After all is measured: the console's work would be in the way.
    pub fn print(&self) {
        let text = |tenths: u64| (tenths / 10, tenths % 10);
        let ((min, a), (median, b)) = (text(self.min), text(self.median));
        let ((p99, c), (mean, d)) = (text(self.p99), text(self.mean));
        println!("BENCH {} {min}.{a} {median}.{b} {p99}.{c} {mean}.{d} {}", self.name, self.count);
    }
}

/// What a trace is cut into pieces by.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bench_mark() {
    core::hint::black_box(());
}

/// Whether a metric is to be done over and over, for a trace; marks where its next `items` begin.
pub fn forever(name: &str, items: u64) -> bool {
    static ANNOUNCED: AtomicBool = AtomicBool::new(false);
    if info::argument("forever") != Some(name) {
        return false;
    }
    if !ANNOUNCED.swap(true, Relaxed) {
        println!("BENCH-FOREVER {name} {items}");
    }
    bench_mark();
    true
}

/// Runs `work`, which does `items` things, `count` times after a few times to warm up: the cost of one thing.
pub fn measure(name: &'static str, count: usize, items: u64, mut work: impl FnMut()) -> Report {
    let mut samples = Samples::with_room(count);
    (0..4).for_each(|_| work());
    while forever(name, items) {
        work();
    }
    for _ in 0..count {
        let start = ticks();
        work();
        samples.add(ticks().wrapping_sub(start), items);
    }
    samples.report(name)
}
