//! QEMU's machine protocol: the few commands that tests need, and any other as JSON text.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to QEMU's control socket.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects, waiting for QEMU to have made the socket.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let end = Instant::now() + Duration::from_secs(20);
        let writer = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(why) if Instant::now() > end => return Err(why).context("QEMU's control socket did not appear"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        writer.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut qmp = Self { reader: BufReader::new(writer.try_clone()?), writer };
        let mut greeting = String::new();
        qmp.reader.read_line(&mut greeting)?;
        qmp.execute(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(qmp)
    }

    /// Sends one command and returns the line that answers it; events in between are skipped.
    pub fn execute(&mut self, command: &str) -> Result<String> {
        writeln!(self.writer, "{command}")?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("QEMU closed its control socket");
            }
            if line.contains("\"error\"") {
                bail!("QEMU refused {command}: {}", line.trim());
            }
            if line.contains("\"return\"") {
                return Ok(line);
            }
        }
    }

    /// A command of QEMU's human monitor; returns its text as JSON has it.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let quoted = command.replace('\\', "\\\\").replace('"', "\\\"");
        self.execute(&format!(r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"{quoted}"}}}}"#))
    }

    /// Pulls the plug.
    pub fn quit(&mut self) -> Result<()> {
        self.execute(r#"{"execute":"quit"}"#).map(drop)
    }
}
