//! The words of the shell.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use policy::size;

/// All domains, or the one of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All.
    All,
    /// This one.
    Domain(String),
}

/// A line, understood. Whether a domain of that name exists is not checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An empty line.
    Nothing,
    /// `help`.
    Help,
    /// `domains`.
    Domains,
    /// `devices`.
    Devices,
    /// `links`.
    Links,
    /// `grants [NAME]`.
    Grants(Subject),
    /// `events [NAME]`.
    Events(Subject),
    /// `log NAME`.
    Log(String),
    /// `destroy NAME`.
    Destroy(String),
    /// `restart NAME`.
    Restart(String),
    /// `replace NAME with IMAGE`.
    Replace(String, String),
    /// `memory NAME SIZE`, in bytes.
    Memory(String, u64),
    /// `version`.
    Version,
    /// `shutdown`.
    Shutdown,
    /// `reboot`.
    Reboot,
}

/// What a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    MaybeDomain,
    Domain,
    /// NAME with IMAGE.
    Exchange,
    /// NAME SIZE.
    Amount,
}

type Make = fn(Option<String>) -> Command;

/// A command: word, what it takes, what it does, how it is made.
struct Word {
    word: &'static str,
    takes: Takes,
    about: &'static str,
    make: Make,
}

fn subject(name: Option<String>) -> Subject {
    name.map_or(Subject::All, Subject::Domain)
}

const REPLACE: &str = "replace";
const MEMORY: &str = "memory";

const WORDS: [Word; 14] = [
    Word { word: "help", takes: Takes::Nothing, about: "this list", make: |_| Command::Help },
    Word {
        word: "domains",
        takes: Takes::Nothing,
        about: "state, memory and work of each domain",
        make: |_| Command::Domains,
    },
    Word {
        word: "devices",
        takes: Takes::Nothing,
        about: "PCI functions and who drives them",
        make: |_| Command::Devices,
    },
    Word {
        word: "links",
        takes: Takes::Nothing,
        about: "who may talk to whom, and whether they do",
        make: |_| Command::Links,
    },
    Word {
        word: "grants",
        takes: Takes::MaybeDomain,
        about: "pages that domains share",
        make: |name| Command::Grants(subject(name)),
    },
    Word {
        word: "events",
        takes: Takes::MaybeDomain,
        about: "event channels in use",
        make: |name| Command::Events(subject(name)),
    },
    Word {
        word: "log",
        takes: Takes::Domain,
        about: "what a domain has printed lately",
        make: |name| Command::Log(name.unwrap_or_default()),
    },
    Word {
        word: "destroy",
        takes: Takes::Domain,
        about: "end a domain at once; it stays down",
        make: |name| Command::Destroy(name.unwrap_or_default()),
    },
    Word {
        word: "restart",
        takes: Takes::Domain,
        about: "end a domain and start it again, or start one that is down",
        make: |name| Command::Restart(name.unwrap_or_default()),
    },
    Word {
        word: REPLACE,
        takes: Takes::Exchange,
        about: "run another image of the policy's choice; if that fails, the old one again",
        make: |name| Command::Replace(name.unwrap_or_default(), String::new()),
    },
    Word {
        word: MEMORY,
        takes: Takes::Amount,
        about: "ask a virtual machine to do with less, or to take back what it gave",
        make: |name| Command::Memory(name.unwrap_or_default(), 0),
    },
    Word { word: "version", takes: Takes::Nothing, about: "what runs here, on what", make: |_| Command::Version },
    Word { word: "shutdown", takes: Takes::Nothing, about: "power the machine off", make: |_| Command::Shutdown },
    Word { word: "reboot", takes: Takes::Nothing, about: "restart the machine", make: |_| Command::Reboot },
];

/// Usage and description of every command, for `help`.
pub const COMMANDS: fn() -> Vec<(String, &'static str)> = || {
    let usage = |word: &Word| match word.takes {
        Takes::Nothing => word.word.to_string(),
        Takes::MaybeDomain => format!("{} [NAME]", word.word),
        Takes::Domain => format!("{} NAME", word.word),
        Takes::Exchange => format!("{} NAME with IMAGE", word.word),
        Takes::Amount => format!("{} NAME SIZE", word.word),
    };
    WORDS.iter().map(|word| (usage(word), word.about)).collect()
};

/// Understands a line, or says in one line what is wrong with it.
pub fn parse(line: &str) -> Result<Command, String> {
    let mut parts = line.split_ascii_whitespace();
    let Some(first) = parts.next() else {
        return Ok(Command::Nothing);
    };
    let Some(word) = WORDS.iter().find(|word| word.word == first) else {
        return Err(unknown(first));
    };
    let name = parts.next().map(ToString::to_string);
    if word.takes == Takes::Exchange {
        let rest: Vec<&str> = parts.collect();
        return match (name, rest.as_slice()) {
            (Some(name), ["with", image]) => Ok(Command::Replace(name, image.to_string())),
            _ => Err(format!("it is `{REPLACE} NAME with IMAGE`, as in `{REPLACE} block with block`")),
        };
    }
    if word.takes == Takes::Amount {
        let (Some(name), Some(amount), None) = (name, parts.next(), parts.next()) else {
            return Err(format!("it is `{MEMORY} NAME SIZE`, as in `{MEMORY} linux 128M`"));
        };
        let bytes = size::parse(amount).map_err(|why| format!("{why}; {}", size::HELP))?;
        return Ok(Command::Memory(name, bytes));
    }
    match (word.takes, &name) {
        (Takes::Nothing, Some(extra)) => return Err(format!("`{first}` takes nothing; what is `{extra}`?")),
        (Takes::Domain, None) => {
            return Err(format!("`{first}` needs the name of a domain, as in `{first} web`; `domains` lists them"));
        }
        _ => {}
    }
    match parts.next() {
        Some(extra) => Err(format!("too many words: what is `{extra}`?")),
        None => Ok((word.make)(name)),
    }
}

/// Longer words are not repeated.
const WORD_MAX: usize = 24;

fn unknown(word: &str) -> String {
    let starts: Vec<&str> = WORDS.iter().map(|known| known.word).filter(|known| known.starts_with(word)).collect();
    let near = match starts.as_slice() {
        [one] => Some(*one),
        _ => WORDS.iter().map(|known| known.word).find(|known| similar(word, known)),
    };
    let shown: String = word.chars().take(WORD_MAX).collect();
    match near {
        Some(near) => format!("unknown command `{shown}`; did you mean `{near}`?"),
        None => format!("unknown command `{shown}`; `help` lists all"),
    }
}

/// One letter wrong, missing, too many, or two swapped.
fn similar(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rest = |text: &[u8]| text.get(front..).unwrap_or_default().to_vec();
    let (a, b) = (rest(a), rest(b));
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let middle = |text: &[u8]| text.get(..text.len().saturating_sub(back)).unwrap_or_default().to_vec();
    match (middle(&a).as_slice(), middle(&b).as_slice()) {
        (one, other) if one.len() <= 1 && other.len() <= 1 => true,
        ([x, y], [z, w]) => x == w && y == z,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        assert_eq!(parse(""), Ok(Command::Nothing));
        assert_eq!(parse("  domains  "), Ok(Command::Domains));
        assert_eq!(parse("replace block with next"), Ok(Command::Replace("block".into(), "next".into())));
        assert_eq!(parse("memory linux 96M"), Ok(Command::Memory("linux".into(), 96 << 20)));
        assert_eq!(parse("log web"), Ok(Command::Log("web".into())));
        assert_eq!(parse("grants"), Ok(Command::Grants(Subject::All)));
        assert_eq!(parse("events block"), Ok(Command::Events(Subject::Domain("block".into()))));
    }

    #[test]
    fn every_listed_command_is_understood() {
        for word in WORDS {
            let line = match word.takes {
                Takes::Domain => format!("{} web", word.word),
                Takes::Exchange => format!("{} web with web", word.word),
                Takes::Amount => format!("{} web 16M", word.word),
                Takes::Nothing | Takes::MaybeDomain => word.word.to_string(),
            };
            assert!(parse(&line).is_ok(), "{line}");
        }
        assert_eq!(COMMANDS().len(), WORDS.len());
    }

    #[test]
    fn mistakes_get_a_hint() {
        let error = |line: &str| parse(line).unwrap_err();
        assert!(error("shutdwon").contains("`shutdown`"));
        assert!(error("hepl").contains("`help`"));
        assert!(error("dom").contains("`domains`"));
        assert!(error("xyzzy").contains("`help` lists all"));
        assert!(error("log").contains("needs the name"));
        assert!(error("domains web").contains("takes nothing"));
        for line in ["replace", "replace web", "replace web with", "replace web by web", "replace web with web web"] {
            assert!(error(line).contains("NAME with IMAGE"), "{line}");
        }
        for line in ["memory", "memory linux", "memory linux 1M 2M"] {
            assert!(error(line).contains("NAME SIZE"), "{line}");
        }
        assert!(error("memory linux 96").contains("no unit"));
        assert!(error("log web now").contains("`now`"));
        assert!(error(&"x".repeat(1000)).len() < 80);
    }
}
