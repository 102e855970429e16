//! `cargo xtask bench`: what the primitives and the whole paths cost, in executed instructions.
//!
//! QEMU runs with its instruction clock, so that the time stamp counter counts instructions; the domain `bench` measures.
//! `docs/performance.md` explains the figures and what they do not say.

mod figures;
mod linux;
mod machine;
mod restart;
mod trace;

use anyhow::{Context, Result};
use clap::Args;
use figures::{FIGURES, Figure, Limit};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::say;

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Write one JSON line a metric to this file: name, min, median, p99, mean, n.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show what moved against an earlier `--json` file.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Instead of measuring, trace one metric, and show how many instructions each function executes for it.
    #[arg(long, value_name = "METRIC")]
    trace: Option<String>,
    /// Put this many idle domains into each system.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=100))]
    idle: u16,
    /// Instead, show how the primitives' figures grow with the number of domains.
    #[arg(long)]
    growth: bool,
    /// Only systems whose name contains this: primitives, lifecycle, interrupts, guests, disk, nic, linux. Or `restart`: how long
    /// a client waits when its driver domain dies, and for what.
    filter: Option<String>,
}

/// What was measured of one metric.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Measured {
    min: f64,
    median: f64,
    p99: f64,
    mean: f64,
    n: u64,
}

impl Measured {
    /// What was counted once.
    fn of(count: f64) -> Self {
        Self { min: count, median: count, p99: count, mean: count, n: 1 }
    }
}

/// A JSON line.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    name: String,
    #[serde(flatten)]
    measured: Measured,
}

type Results = BTreeMap<String, Measured>;

/// Measures it all and prints the table.
pub fn bench(options: &Options) -> Result<()> {
    if let Some(metric) = &options.trace {
        return trace::trace(metric);
    }
    if options.filter.as_deref() == Some("restart") {
        return restart::restart(&machine::build()?);
    }
    if options.growth {
        return growth();
    }
    let old = options.compare.as_deref().map(read).transpose()?;
    let results = machine::measure(options.filter.as_deref().unwrap_or(""), options.idle)?;
    print(&results);
    if let Some(old) = &old {
        compare(old, &results);
    }
    if let Some(file) = &options.json {
        write(file, &results)?;
        say("Wrote", &file.display().to_string());
    }
    Ok(())
}

/// Domains of the smallest system that measures primitives: three services and the two that are measured.
const DOMAINS_LEAST: u16 = 5;

/// Measures the primitives among ever more domains, the others idle, and prints the medians side by side.
fn growth() -> Result<()> {
    const DOMAINS: [u16; 4] = [DOMAINS_LEAST, 8, 32, 64];
    let columns = DOMAINS.map(|domains| machine::measure("primitives", domains - DOMAINS_LEAST));
    let mut table = Vec::new();
    for column in columns {
        table.push(column?);
    }
    print!("{:<34}", "median, with so many domains");
    DOMAINS.iter().for_each(|domains| print!(" {domains:>11}"));
    println!();
    for name in table.first().into_iter().flat_map(BTreeMap::keys) {
        print!("{name:<34}");
        table.iter().for_each(|column| print!(" {:>11}", number(column.get(name).map(|measured| measured.median))));
        println!();
    }
    Ok(())
}

fn read(file: &Path) -> Result<Results> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let records = text.lines().map(serde_json::from_str::<Record>).collect::<Result<Vec<_>, _>>();
    let records = records.with_context(|| format!("{} was not written by `bench --json`", file.display()))?;
    Ok(records.into_iter().map(|record| (record.name, record.measured)).collect())
}

fn write(file: &Path, results: &Results) -> Result<()> {
    let mut text = String::new();
    for (name, measured) in results {
        text += &serde_json::to_string(&Record { name: name.clone(), measured: *measured })?;
        text.push('\n');
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 1000.0 => grouped(value.round() as u64),
        Some(value) if value.fract() == 0.0 => format!("{value}"),
        Some(value) => format!("{value:.1}"),
    }
}

/// With a comma before each three digits.
fn grouped(value: u64) -> String {
    if value < 1000 { value.to_string() } else { format!("{},{:03}", grouped(value / 1000), value % 1000) }
}

fn print(results: &Results) {
    println!(
        "{:<34} {:>11} {:>11} {:>11} {:>9} | {:>11} {:>7} {:>7}",
        "metric (executed instructions)", "min", "median", "p99", "limit", "Xen PV", "seL4", "NOVA"
    );
    let known = |name: &str| FIGURES.iter().find(|figure| figure.name == name);
    let mut names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    names.extend(results.keys().map(String::as_str).filter(|name| known(name).is_none()));
    for name in names {
        let Some(measured) = results.get(name) else { continue };
        let figure = known(name).copied().unwrap_or(Figure::unknown());
        let over = figure.limit.is_some_and(|limit| limit.is_missed_by(measured.median));
        println!(
            "{:<34} {:>11} {:>11} {:>11} {:>9} | {:>11} {:>7} {:>7}{}",
            name,
            number(Some(measured.min)),
            number(Some(measured.median)),
            number(Some(measured.p99)),
            number(figure.limit.map(Limit::number)),
            number(figure.xen),
            number(figure.sel4),
            number(figure.nova),
            if over { "  OVER" } else { "" }
        );
    }
}

fn compare(old: &Results, new: &Results) {
    println!("\nmoved (median):");
    let mut moved = 0;
    for (name, now) in new {
        match old.get(name) {
            Some(before) if before.median == now.median => {}
            Some(before) => {
                let percent = (now.median / before.median - 1.0) * 100.0;
                println!(
                    "{name:<34} {:>11} -> {:>11} {percent:>+8.2} %",
                    number(Some(before.median)),
                    number(Some(now.median))
                );
                moved += 1;
            }
            None => println!("{name:<34} {:>11} -> {:>11}", "new", number(Some(now.median))),
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        println!("{name:<34} is not measured any more");
    }
    if moved == 0 {
        println!("nothing");
    }
}
