//! A booted system.

use crate::console::{self, Console};
use crate::{Deaf, Http, Injector, Line, Qmp, Verdict, seconds};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The prompt of the policy domain's shell.
const PROMPT: &str = "bulkhead> ";

/// How QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Powered off, reset, or told to quit.
    PoweredOff,
    /// A domain (or the hypervisor) ended it with this code.
    Code(i32),
}

/// A running system. QEMU ends and its files go when this is dropped.
pub struct System {
    qemu: Child,
    input: ChildStdin,
    console: Console,
    folder: PathBuf,
    port: Option<u16>,
    /// Commands typed at the shell so far.
    commands: usize,
}

impl System {
    pub(crate) fn start(mut qemu: Command, folder: PathBuf, port: Option<u16>) -> Result<Self> {
        let errors = fs::File::create(folder.join("qemu.err"))?;
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = qemu.spawn().context("cannot start QEMU")?;
        let (Some(input), Some(output)) = (qemu.stdin.take(), qemu.stdout.take()) else { bail!("QEMU has no pipes") };
        Ok(Self { qemu, input, console: Console::read(output), folder, port, commands: 0 })
    }

    /// Waits for `ready in N s` and the shell's prompt.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_for("ready in ", seconds(90))?;
        self.wait_for(PROMPT, seconds(20)).map(drop)
    }

    /// Waits until the console has shown `text`, from the beginning on, and returns the line it stands in.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.wait_from(0, text, limit)
    }

    /// The same, for text that is shown after `position` (see [`System::position`]).
    pub fn wait_from(&mut self, position: usize, text: &str, limit: Duration) -> Result<String> {
        let found = self.console.wait(position, limit, |all| {
            let at = all.find(text)?;
            let start = all[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let end = all[at..].find('\n').map_or(all.len(), |newline| at + newline);
            Some(all[start..end].to_owned())
        });
        found.ok_or_else(|| self.missed(&format!("{text:?} did not appear on the console within {limit:?}")))
    }

    /// Waits until `found` makes something of what is shown after `position`.
    pub(crate) fn wait_answer<T>(
        &self,
        position: usize,
        limit: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let answer = self.console.wait(position, limit, found);
        answer.ok_or_else(|| self.missed(&format!("no answer within {limit:?}")))
    }

    /// Where the console is now.
    pub fn position(&self) -> usize {
        self.console.position()
    }

    /// Types a command at the admin shell, once that is there, and returns what it printed up to the next prompt.
    pub fn shell(&mut self, command: &str, limit: Duration) -> Result<String> {
        // What is typed before the console domain drives the serial line is lost.
        self.wait_for(PROMPT, seconds(60))?;
        let start = self.position();
        // Notices may come at any moment, each with the prompt shown again behind it; what ends the answer for certain
        // is what the shell says to a second command, one that it does not know.
        self.commands += 1;
        let marker = format!("end-of-{}", self.commands);
        self.type_text(&format!("{command}\r{marker}\r"))?;
        let echo = format!("{command}\n");
        let end = format!("unknown command `{marker}`");
        let found = self.console.wait(start, limit, |all| {
            let echoed = all.find(&echo)? + echo.len();
            let end = all[echoed..].find(&end)? + echoed;
            Some(all[echoed..end].to_owned())
        });
        found.ok_or_else(|| self.missed(&format!("the shell did not answer {command:?} within {limit:?}")))
    }

    /// Sends bytes to the serial line.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.type_bytes(text.as_bytes())
    }

    /// The same for bytes that need not be text.
    pub fn type_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.write_all(bytes).and_then(|()| self.input.flush()).context("QEMU reads no input any more")
    }

    /// Nobody reads the serial line any more, and it stands still when what the host keeps for a reader is full, until the
    /// answer is dropped.
    pub fn stop_reading(&self) -> Deaf {
        self.console.stop_reading()
    }

    /// Everything on the console so far.
    pub fn text(&self) -> String {
        self.console.text()
    }

    /// The lines of one domain so far (`hv`: the hypervisor's, once the console domain prints them).
    pub fn log(&self, domain: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.domain == domain).map(|line| line.text).collect()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        console::lines(&self.console.text())
    }

    /// All verdicts so far.
    pub fn verdicts(&self) -> Vec<Verdict> {
        console::verdicts(&self.console.text())
    }

    /// Waits for the verdict of that name; an error if it is `fail`.
    pub fn expect_verdict(&mut self, name: &str, limit: Duration) -> Result<Verdict> {
        let found = self.console.wait(0, limit, |all| {
            // The last line may not be complete yet.
            let complete = all.rfind('\n').map_or("", |end| &all[..end]);
            console::verdicts(complete).into_iter().find(|verdict| verdict.name == name)
        });
        match found {
            Some(verdict) if verdict.passed => Ok(verdict),
            Some(verdict) => Err(self.missed(&format!("verdict {name}: failed: {}", verdict.detail))),
            None => Err(self.missed(&format!("no verdict {name} within {limit:?}"))),
        }
    }

    /// The way to the web domain.
    ///
    /// # Panics
    /// When the system was started without [`crate::Boot::network`].
    pub fn http(&self) -> Http {
        Http { port: self.port.unwrap_or_else(|| panic!("this system has no network")) }
    }

    /// QEMU's control socket. One at a time.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.folder.join("qmp"))
    }

    /// The way to put faults into its domains, for a system that is [`crate::Boot::injectable`]. One at a time.
    pub fn injector(&self, seed: u64) -> Result<Injector> {
        Injector::connect(&self.folder.join("gdb"), seed)
    }

    /// Types `shutdown` and waits for the machine to be off.
    pub fn shutdown(mut self) -> Result<()> {
        self.type_text("shutdown\r")?;
        match self.wait_end(seconds(30))? {
            Ending::PoweredOff => Ok(()),
            Ending::Code(code) => {
                Err(self.missed(&format!("power off expected, but the machine left with code {code}")))
            }
        }
    }

    /// Waits for QEMU to end.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Ending> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.qemu.try_wait()? {
                return match status.code() {
                    Some(0) => Ok(Ending::PoweredOff),
                    Some(code) => Ok(Ending::Code(code)),
                    None => bail!("QEMU was killed ({status})"),
                };
            }
            if Instant::now() > end {
                return Err(self.missed(&format!("the machine did not end within {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn missed(&self, what: &str) -> anyhow::Error {
        let text = self.console.text();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or(&[]).join("\n    ");
        let errors = fs::read_to_string(self.folder.join("qemu.err")).unwrap_or_default();
        anyhow!("{what}\n  end of the console:\n    {tail}\n  QEMU said: {}", errors.trim())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Both fail only when QEMU is gone already.
        self.qemu.kill().ok();
        self.qemu.wait().ok();
        if let Err(why) = fs::remove_dir_all(&self.folder) {
            eprintln!("note: {} is left behind ({why})", self.folder.display());
        }
    }
}
