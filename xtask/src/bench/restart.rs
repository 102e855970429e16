//! `cargo xtask bench restart`: how long a client waits when its driver domain dies, and for what.
//!
//! The disk's domain is restarted by the shell again and again while a client reads a page at a time. The hypervisor's log
//! tells when it died, the policy domain what it did when, the new driver how long its device's reset took and when it had
//! adopted the client's ring, the client when it had its next page.
//! All of it is system time, which on a machine that goes by the instruction clock is executed instructions.

use super::machine::{System, restart_system};
use anyhow::{Context, Result, bail};
use std::path::Path;
use xtask::machine::Clock;
use xtask::say;

/// Restarts that are measured, after a first one that is not.
const ROUNDS: usize = 41;

/// The parts of an outage, in microseconds.
const PARTS: [&str; 7] = ["detect", "tear down", "reset", "rebuild", "handshake", "first request", "in all"];

/// Measures with both clocks and prints the medians.
pub fn restart(programs: &Path) -> Result<()> {
    let instructions = rounds(programs, Clock::InstructionsAndSleep)?;
    let wall = rounds(programs, Clock::Host)?;
    println!("{:<16} {:>16} {:>16} {:>14} {:>14}", "part of outage", "instructions", "at most", "wall, us", "at most");
    for (part, name) in PARTS.iter().enumerate() {
        let (median, most) = summary(&instructions, part);
        let (wall_median, wall_most) = summary(&wall, part);
        // A nanosecond an instruction.
        println!("{name:<16} {:>16} {:>16} {wall_median:>14} {wall_most:>14}", median * 1000, most * 1000);
    }
    println!("{} restarts each; medians.", wall.len());
    Ok(())
}

/// Median and maximum of a part.
fn summary(rounds: &[[u64; PARTS.len()]], part: usize) -> (u64, u64) {
    let mut values: Vec<u64> = rounds.iter().map(|round| round[part]).collect();
    values.sort_unstable();
    (values.get(values.len() / 2).copied().unwrap_or(0), values.last().copied().unwrap_or(0))
}

fn rounds(programs: &Path, clock: Clock) -> Result<Vec<[u64; PARTS.len()]>> {
    let mut system = restart_system(programs, clock)?;
    wait_for(&mut system, "BENCH-READY")?;
    let mut rounds = vec![];
    for round in 0..ROUNDS + 1 {
        system.type_line("restart block")?;
        let parts = one(&mut system).with_context(|| format!("restart {round}"))?;
        if round > 0 {
            rounds.push(parts);
        }
    }
    say("Measured", &format!("{} restarts, clock: {clock:?}", rounds.len()));
    Ok(rounds)
}

/// Reads what all have to say of one restart, in whatever order it comes.
fn one(system: &mut System) -> Result<[u64; PARTS.len()]> {
    let (mut death, mut policy, mut reset, mut adopted, mut pauses) = (None, None, None, None, vec![]);
    loop {
        let Some(line) = system.next_line()? else { bail!("the client has ended") };
        let last = |text: &str| text.split_once(" us").and_then(|(start, _)| numbers(start).pop());
        if line.contains("(block) ended") {
            // `[   11.303869] hv: ...`, behind what colours it.
            death = line.split_once("] hv:").and_then(|(start, _)| seconds(start.rsplit_once('[')?.1));
        } else if line.contains("`block` runs again") {
            policy = Some(numbers(&line));
        } else if let Some((_, text)) = line.split_once("; reset in ") {
            reset = last(text);
        } else if line.contains(": goes on") {
            adopted = last(&line);
        } else if let Some((_, text)) = line.split_once("OUTAGE ") {
            let &[last, next] = &numbers(text)[..] else { bail!("a line of another form: {line}") };
            pauses.push((last, next));
        }
        let (Some(death), Some(policy), Some(reset), Some(adopted)) = (death, &policy, reset, adopted) else {
            continue;
        };
        // "runs again, as domain N, ALL us after its end at NOTICED us: taken apart in APART, built in BUILT, its devices ready
        // in DEVICES, announced in ANNOUNCED"
        let &[.., noticed, apart, built, devices, _announced] = &policy[..] else { bail!("another form: {policy:?}") };
        // The host makes others by what else it does.
        let Some(&(_, next)) = pauses.iter().find(|(last, next)| *last <= noticed && noticed < *next) else { continue };
        let runs = noticed + apart + built + devices;
        return Ok([
            noticed.saturating_sub(death),
            apart,
            devices + reset,
            built,
            adopted.saturating_sub(runs + reset),
            next.saturating_sub(adopted),
            next.saturating_sub(death),
        ]);
    }
}

fn wait_for(system: &mut System, text: &str) -> Result<()> {
    while let Some(line) = system.next_line()? {
        if line.contains(text) {
            return Ok(());
        }
    }
    bail!("the client has ended")
}

/// `   11.303869` as microseconds.
fn seconds(text: &str) -> Option<u64> {
    let (seconds, micros) = text.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_read() {
        assert_eq!(seconds("   11.303869"), Some(11_303_869));
        assert_eq!(numbers("`a` runs, 12 us, at 3: 4"), [12, 3, 4]);
    }
}
