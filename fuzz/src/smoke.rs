//! Runs every fuzz target on mutated seeds for a moment, without libFuzzer: no coverage guidance, but any toolchain.
//!
//! `smoke [SECONDS] [TARGET] [SEED]`: seconds a target (2), one target or all, start of the random numbers. An input
//! that panics is written to `artifacts/TARGET/` and named.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_fuzz::{TARGETS, Target};

/// xorshift64*: plenty for mutations, and repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}

const INTERESTING: [u32; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x7fff_ffff, u32::MAX];

/// A few changes to one of `pool`.
fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut input = pool[random.below(pool.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => input.truncate(at),
            1 => input.insert(at, random.next() as u8),
            2 if at < input.len() => drop(input.remove(at)),
            3 => {
                let other = &pool[random.below(pool.len())];
                let from = random.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().take(256).copied());
            }
            4 | 5 => {
                let value = INTERESTING[random.below(INTERESTING.len())].to_le_bytes();
                let width = [1, 2, 4][random.below(3)];
                input
                    .iter_mut()
                    .skip(at)
                    .zip(&value[..width])
                    .for_each(|(to, from)| *to = *from);
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    input.truncate(1 << 16);
    input
}

/// Runs a target for a while. `Err`: the input that it panicked on.
fn run(target: &Target, time: Duration, random: &mut Random) -> Result<u64, Vec<u8>> {
    let mut pool = (target.seeds)();
    pool.push(Vec::new());
    for seed in &pool {
        try_input(target, seed)?;
    }
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed() < time {
        let input = mutate(random, &pool);
        try_input(target, &input)?;
        runs += 1;
        // Keep some mutants, so that changes add up.
        if random.below(200) == 0 {
            if pool.len() < 64 {
                pool.push(input);
            } else {
                let place = 32 + random.below(32);
                pool[place] = input;
            }
        }
    }
    Ok(runs)
}

fn try_input(target: &Target, input: &[u8]) -> Result<(), Vec<u8>> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| input.to_vec())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Some(2), |text| text.parse().ok());
    let only = arguments.next();
    let seed = arguments.next().map_or(Some(1), |text| text.parse().ok());
    let (Some(seconds), Some(seed)) = (seconds, seed) else {
        eprintln!("usage: smoke [SECONDS] [TARGET] [SEED]");
        return ExitCode::from(2);
    };
    let chosen = || {
        TARGETS
            .iter()
            .filter(|target| only.as_deref().is_none_or(|name| name == target.name))
    };
    if chosen().next().is_none() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("no such target; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for target in chosen() {
        match run(target, Duration::from_secs(seconds), &mut Random(u64::max(seed, 1))) {
            Ok(runs) => println!("{:16} {runs} inputs, ok", target.name),
            Err(input) => {
                let directory = format!("{}/artifacts/{}", env!("CARGO_MANIFEST_DIR"), target.name);
                let file = format!("{directory}/smoke-{seed}");
                let saved = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&file, &input));
                println!(
                    "{:16} PANIC; input: {}",
                    target.name,
                    saved.map_or_else(|error| error.to_string(), |()| file)
                );
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
