//! Where the instructions go: QEMU logs every one that it executes while a metric is measured over and over, and the
//! program counters are turned into functions.

use super::linux;
use super::machine::{self, System};
use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use xtask::images;

/// Bytes of log to look at.
const LOG_BYTES: u64 = 1200 << 20;
/// The same, where it is for one count.
const COUNT_BYTES: u64 = 20 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// The function that cuts the trace into pieces.
const MARK: &str = "bench_mark";

/// Functions by address, each up to the next. An empty name is where a program ends.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    fn read(&mut self, file: &Path, program: &str) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let elf = ElfBytes::<LittleEndian>::minimal_parse(&bytes)?;
        let Some((symbols, names)) = elf.symbol_table()? else { bail!("{} has no symbols", file.display()) };
        // The hypervisor's start-up code lies where domains' images do.
        let lowest = if program == images::HYPERVISOR { 1 << 63 } else { 1 };
        let mut end = lowest;
        for symbol in symbols.iter().filter(|symbol| symbol.st_shndx != 0 && symbol.st_value >= lowest) {
            let name = names.get(symbol.st_name as usize).unwrap_or("");
            if !name.is_empty() {
                self.0.entry(symbol.st_value).or_insert(format!("{program}: {:#}", rustc_demangle::demangle(name)));
                end = end.max(symbol.st_value + symbol.st_size.max(1));
            }
        }
        self.0.entry(end).or_default();
        Ok(())
    }

    /// The kernel of a virtual machine.
    fn read_linux(&mut self, folder: &Path) -> Result<()> {
        for (address, name) in linux::symbols(folder)? {
            self.0.entry(address).or_insert(format!("linux: {name}"));
        }
        Ok(())
    }

    fn of(&self, address: u64) -> &str {
        self.0
            .range(..=address)
            .next_back()
            .map(|(_, name)| name.as_str())
            .filter(|name| !name.is_empty())
            .unwrap_or("?")
    }
}

/// Traces a metric and prints the functions that it spends its instructions in.
pub fn trace(metric: &str) -> Result<()> {
    Trace::take(&machine::build()?, metric, LOG_BYTES)?.report();
    Ok(())
}

/// How many instructions a metric executes in the hypervisor's function whose path ends so.
pub fn count_in(programs: &Path, metric: &str, function: &str) -> Result<f64> {
    let trace = Trace::take(programs, metric, COUNT_BYTES)?;
    let ours = |name: &&String| name.starts_with(images::HYPERVISOR) && name.ends_with(function);
    let name = trace.symbols.0.values().find(ours).with_context(|| format!("there is no {function} to count"))?;
    Ok(trace.per_item(trace.functions().get(name.as_str()).copied().unwrap_or(0)))
}

/// What was executed: whole pieces of the log, from one mark to the next.
struct Trace {
    symbols: Symbols,
    /// How often, by address.
    counts: BTreeMap<u64, u64>,
    items: u64,
}

/// Lets QEMU log for as long as it takes.
fn record(system: &System, log: &Path, bytes: u64) -> Result<()> {
    let stream = UnixStream::connect(system.folder.path.join("qmp"))?;
    let mut monitor = Monitor(BufReader::new(stream));
    monitor.command(r#"{"execute":"qmp_capabilities"}"#)?;
    for line in ["stop", "singlestep on", &format!("logfile {}", log.display()), "log exec,nochain", "cont"] {
        monitor.person(line)?;
    }
    let end = Instant::now() + PATIENCE;
    while fs::metadata(log).map_or(0, |meta| meta.len()) < bytes {
        if Instant::now() > end {
            bail!("QEMU logged too little in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    monitor.person("stop")?;
    monitor.person("log none")
}

/// QEMU's control socket.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn command(&mut self, text: &str) -> Result<()> {
        self.0.get_mut().write_all(text.as_bytes())?;
        let mut line = String::new();
        while self.0.read_line(&mut line)? > 0 && !line.contains("\"return\"") {
            if line.contains("\"error\"") {
                bail!("QEMU says {line}");
            }
            line.clear();
        }
        Ok(())
    }

    fn person(&mut self, command: &str) -> Result<()> {
        let command = serde_json::json!({
            "execute": "human-monitor-command", "arguments": { "command-line": command }
        });
        self.command(&command.to_string())
    }
}

impl Trace {
    fn take(programs: &Path, metric: &str, bytes: u64) -> Result<Self> {
        let mut system = machine::boot_for(programs, metric)?;
        let items = loop {
            let line = system.next_line()?.with_context(|| format!("nothing measures {metric}"))?;
            if let Some((_, rest)) = line.split_once("BENCH-FOREVER ") {
                break rest.split_whitespace().nth(1).and_then(|items| items.parse::<u64>().ok()).unwrap_or(1);
            }
        };
        let log = system.folder.path.join("trace.log");
        record(&system, &log, bytes)?;
        let mut symbols = Symbols(BTreeMap::new());
        let measuring = match metric {
            // It lies where native domains' images do; of those none has a name then.
            metric if metric.starts_with("pvh_") => &["guest"][..],
            metric if metric.contains("tcp_out") => &["bench", "net", "client"],
            metric if metric.contains("udp") || metric.contains("tcp") => &["bench", "net"],
            _ => &["bench", "block"],
        };
        for &image in [images::HYPERVISOR].iter().chain(measuring) {
            symbols.read(&programs.join(image), image)?;
        }
        if metric.starts_with("linux") {
            symbols.read(&programs.join(linux::PROGRAM), linux::PROGRAM)?;
            symbols.read_linux(&system.folder.path)?;
        }
        Self::read(&log, symbols, items)
    }

    fn read(log: &Path, symbols: Symbols, items: u64) -> Result<Self> {
        let mark = symbols.0.iter().find(|(_, name)| name.ends_with(MARK)).map(|(&address, _)| address);
        let mark = mark.context("the measuring domain has no mark")?;
        let (mut pieces, mut piece) = (0u64, BTreeMap::<u64, u64>::new());
        let mut counts = BTreeMap::<u64, u64>::new();
        for line in BufReader::new(fs::File::open(log)?).lines() {
            // Trace 0: 0x7f2a8c0 [0000000000000000/ffffffff80201234/0040c0b3/ff000001] name
            let line = line?;
            let Some(counter) = line.split('/').nth(1).and_then(|word| u64::from_str_radix(word, 16).ok()) else {
                continue;
            };
            if counter == mark {
                // What is before the first mark is no whole piece.
                if pieces > 0 {
                    for (address, count) in &piece {
                        *counts.entry(*address).or_default() += count;
                    }
                }
                pieces += 1;
                piece.clear();
            }
            *piece.entry(counter).or_default() += 1;
        }
        if pieces < 2 {
            bail!("the trace is too short");
        }
        Ok(Self { symbols, counts, items: (pieces - 1) * items })
    }

    fn per_item(&self, count: u64) -> f64 {
        count as f64 / self.items as f64
    }

    /// Instructions by function.
    fn functions(&self) -> BTreeMap<&str, u64> {
        let mut functions = BTreeMap::<&str, u64>::new();
        for (&address, &count) in &self.counts {
            *functions.entry(self.symbols.of(address)).or_default() += count;
        }
        functions
    }

    fn report(&self) {
        let mut rows: Vec<_> = self.functions().into_iter().collect();
        rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        println!("{:>9}  function (of {} items)", "each", self.items);
        let mut programs = BTreeMap::<&str, u64>::new();
        for (name, count) in &rows {
            *programs.entry(name.split(':').next().unwrap_or("?")).or_default() += count;
            if self.per_item(*count) >= 0.5 {
                println!("{:>9.1}  {name}", self.per_item(*count));
            }
        }
        println!();
        for (program, count) in programs {
            println!("{:>9.1}  in {program}", self.per_item(count));
        }
        println!("{:>9.1}  in all", self.per_item(rows.iter().map(|(_, count)| count).sum()));
        if std::env::var_os("BULKHEAD_TRACE_ADDRESSES").is_some() {
            println!();
            for (address, count) in &self.counts {
                println!("{address:x} {:.2} {}", self.per_item(*count), self.symbols.of(*address));
            }
        }
    }
}
