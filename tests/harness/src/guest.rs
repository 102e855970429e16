//! A virtual machine's shell, driven over the console as a person would.

use crate::{System, seconds};
use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The console's escape key.
const ESCAPE: &str = "\x1d";
/// What the loop below prints behind each command's output, before its number and exit status.
const END: &str = "[status ";
/// Typed once: from then on nothing is echoed, the kernel keeps its messages out of the answers, and each line, a number and
/// a command, is run and followed by its number and status, so that no answer is taken for another's. Its own text does not have [`END`] in one piece, as the shell still
/// echoes it.
const LOOP: &str = "stty -echo; dmesg -n 1; echo \"[st\"\"atus 0 0]\"; while read -r n c; do eval \"$c\"; echo \"[st\"\"atus $n $?]\"; done\r";

/// The shell of a virtual machine, as the demo's initramfs starts it.
pub struct Guest<'a> {
    system: &'a mut System,
    number: usize,
    domain: String,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it printed.
    pub text: String,
}

impl System {
    /// Waits for the shell of virtual machine `domain` and gives it the keyboard, until the [`Guest`] is dropped or
    /// [`System::leave_guest`] gives it back to the admin shell. To be called once for each life of the domain.
    pub fn guest(&mut self, domain: &str, limit: Duration) -> Result<Guest<'_>> {
        self.guest_from(0, domain, limit)
    }

    /// The same of a life that has begun after `position` (see [`System::position`]).
    pub fn guest_from(&mut self, position: usize, domain: &str, limit: Duration) -> Result<Guest<'_>> {
        self.wait_from(position, &format!("{domain}| init: ready"), limit)?;
        let number = self.console_number(domain)?;
        let mut guest = Guest { system: self, number, domain: domain.to_owned() };
        guest.focus()?;
        guest.answer(0, LOOP, seconds(60)).context("its shell does not answer")?;
        Ok(guest)
    }

    /// Goes on with a shell that [`System::guest`] has found before.
    pub fn guest_again(&mut self, domain: &str) -> Result<Guest<'_>> {
        let number = self.console_number(domain)?;
        let mut guest = Guest { system: self, number, domain: domain.to_owned() };
        guest.focus()?;
        Ok(guest)
    }

    /// Gives the keyboard back to the admin shell.
    pub fn leave_guest(&mut self) -> Result<()> {
        let position = self.position();
        self.type_text(&format!("{ESCAPE}s"))?;
        self.wait_from(position, "input goes to policy", seconds(20)).map(drop)
    }

    /// The number of a domain in the console's list.
    fn console_number(&mut self, domain: &str) -> Result<usize> {
        let position = self.position();
        self.type_text(&format!("{ESCAPE}?"))?;
        self.wait_from(position, "console| Ctrl-] then:", seconds(20))?;
        let line = self.wait_from(position, &format!(" {domain}"), seconds(20))?;
        let number = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        number.filter(|number| *number < 10).with_context(|| format!("no number for {domain} in {line:?}"))
    }
}

impl Guest<'_> {
    /// Runs a command; an error if it fails.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        let output = self.attempt(command, limit)?;
        if output.status != 0 {
            bail!("`{command}` in {} ended with {}:\n{}", self.domain, output.status, output.text);
        }
        Ok(output.text)
    }

    /// Runs a command, which may fail.
    pub fn attempt(&mut self, command: &str, limit: Duration) -> Result<Output> {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed) + 1;
        self.answer(number, &format!("{number} {command}\r"), limit)
            .with_context(|| format!("`{command}` in {}", self.domain))
    }

    /// Types a command that does not come back, such as `poweroff -f`.
    pub fn type_line(&mut self, command: &str) -> Result<()> {
        self.system.type_text(&format!("x {command}\r"))
    }

    /// The system that it runs in.
    pub fn system(&mut self) -> &mut System {
        self.system
    }

    fn focus(&mut self) -> Result<()> {
        let position = self.system.position();
        self.system.type_text(&format!("{ESCAPE}{}", self.number))?;
        let said = format!("input goes to {}", self.domain);
        self.system.wait_from(position, &said, seconds(20)).map(drop)
    }

    fn answer(&mut self, number: u32, typed: &str, limit: Duration) -> Result<Output> {
        let position = self.system.position();
        self.system.type_text(typed)?;
        self.system.wait_answer(position, limit, |text| answer(text, number))
    }
}

/// The answer in what the console showed since a command was typed, once it is complete. Other domains' lines, which
/// have their names before them, are none of it.
fn answer(text: &str, number: u32) -> Option<Output> {
    let end = format!("{END}{number} ");
    let at = text.find(&end)?;
    let (status, _) = text[at + end.len()..].split_once(']')?;
    let status = status.parse().ok()?;
    let lines = crate::console::lines(&text[..at]).into_iter();
    let lines = lines.filter(|line| line.domain.is_empty() && !line.text.starts_with(END));
    let lines: Vec<String> = lines.map(|line| line.text).collect();
    Some(Output { status, text: lines.join("\n").trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_stands_before_its_status_without_others_lines() {
        assert_eq!(answer("one\nnet| vif 7/0: connected\ntwo\n[stat", 5), None);
        assert_eq!(answer("[status 4 0]\none\n", 5), None);
        let output = answer("[status 4 0]\none\nnet| vif 7/0: connected\ntwo\n[status 5 3]\n", 5).unwrap();
        assert_eq!((output.status, output.text.as_str()), (3, "one\ntwo"));
    }

    #[test]
    fn the_typed_loop_is_not_its_own_answer() {
        assert_eq!(answer(LOOP, 0), None);
    }
}
