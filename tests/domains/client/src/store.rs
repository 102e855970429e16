//! A client of xenstore that goes on while xenstore is killed, and finds out whether a request was lost, done twice or
//! answered by somebody who did not know what was done before.

use crate::domain::Outcome;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;
use runtime::errno::Errno;
use runtime::info::argument;
use runtime::println;
use runtime::store::{Batch, Store, next_event, wait_event};
use runtime::time::now;

/// An event takes no longer than this, whatever happens to xenstore.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nodes of each of two directories.
const NODES: usize = 40;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Makes so many requests as `rounds=` says, and a last look at everything.
pub fn survive() -> Outcome {
    let number = |key| argument(key).and_then(|text| text.parse::<usize>().ok());
    let mut random = Random(number("seed").unwrap_or(1) as u64 * 0x9e37_79b9 + 1);
    let rounds = number("rounds").unwrap_or(2000);
    let store = Store::new();
    let mut model = BTreeMap::<String, String>::new();
    for directory in ["data/a", "data/b"] {
        store.mkdir(directory).map_err(|error| format!("making {directory}: {error}"))?;
    }
    store.watch("data/w", "w").map_err(|error| format!("the watch: {error}"))?;
    for round in 0..rounds {
        let (directory, node) = (["a", "b"][random.below(2)], random.below(NODES));
        let path = format!("data/{directory}/{node}");
        let failed = |what: &str, error: Errno| format!("round {round}: {what} {path}: {error}");
        match random.below(12) {
            0..=3 => {
                // Sometimes longer than the ring.
                let length = if random.below(8) == 0 { 1900 } else { random.below(30) };
                let value = format!("{round}-{}", "v".repeat(length));
                store.write(&path, &value).map_err(|error| failed("writing", error))?;
                model.insert(path, value);
            }
            4..=6 => expect(&store, &path, model.get(&path)).map_err(|why| format!("round {round}: {why}"))?,
            7 => {
                store.remove(&path).map_err(|error| failed("removing", error))?;
                model.remove(&path);
            }
            8 => names(&store, directory, &model).map_err(|why| format!("round {round}: {why}"))?,
            9 => {
                let mut batch = Batch::new();
                for step in 0..random.below(30) {
                    let path = format!("data/{directory}/{}", random.below(NODES));
                    batch.write(&path, format!("{round}.{step}"));
                    model.insert(path, format!("{round}.{step}"));
                }
                store.run(&batch).map_err(|error| failed("a batch at", error))?;
            }
            10 => {
                // One that others' changes cannot disturb: it takes effect the first time.
                let other = format!("data/{directory}/{}", (node + 1) % NODES);
                let swap = |store: &Store| {
                    let known = |path: &str| match store.read_text(path) {
                        Err(Errno::ENOENT) => Ok(String::new()),
                        other => other,
                    };
                    let (one, two) = (known(&path)?, known(&other)?);
                    store.write(&path, two)?;
                    store.write(&other, one)
                };
                store.transaction(swap).map_err(|error| failed("a transaction at", error))?;
                let (one, two) = (model.remove(&path).unwrap_or_default(), model.remove(&other).unwrap_or_default());
                model.insert(path, two);
                model.insert(other, one);
            }
            _ => event(&store, round)?,
        }
        if round % 200 == 0 {
            println!("round {round}");
        }
    }
    model.iter().try_for_each(|(path, value)| expect(&store, path, Some(value)))?;
    ["a", "b"].iter().try_for_each(|directory| names(&store, directory, &model))
}

/// A node holds what it should, or is not there.
fn expect(store: &Store, path: &str, wanted: Option<&String>) -> Outcome {
    match (store.read_text(path), wanted) {
        (Ok(value), Some(wanted)) if value == *wanted => Ok(()),
        (Err(Errno::ENOENT), None) => Ok(()),
        (got, wanted) => Err(format!("{path} holds {got:?}, not {wanted:?}")),
    }
}

/// A directory lists what it should.
fn names(store: &Store, directory: &str, model: &BTreeMap<String, String>) -> Outcome {
    let path = format!("data/{directory}");
    let mut listed = store.list(&path).map_err(|error| format!("listing {path}: {error}"))?;
    listed.sort();
    let prefix = format!("{path}/");
    let mut wanted: alloc::vec::Vec<String> =
        model.keys().filter_map(|path| path.strip_prefix(&prefix)).map(ToString::to_string).collect();
    wanted.sort();
    if listed == wanted { Ok(()) } else { Err(format!("{path} lists {listed:?}, not {wanted:?}")) }
}

/// A change of a watched node is told.
fn event(store: &Store, round: usize) -> Outcome {
    while next_event().is_some() {}
    let path = format!("data/w/{}", round % 7);
    store.write(&path, "x").map_err(|error| format!("round {round}: writing {path}: {error}"))?;
    let deadline = now() + PATIENCE;
    while let Some(event) = wait_event(Some(deadline)) {
        if event.token == "w" && event.path == path {
            return Ok(());
        }
    }
    Err(format!("round {round}: nobody tells of {path}"))
}
