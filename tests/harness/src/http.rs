//! A small HTTP client for the forwarded port.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The way to the web domain.
#[derive(Clone, Copy, Debug)]
pub struct Http {
    pub(crate) port: u16,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

const LIMIT: Duration = Duration::from_secs(120);

impl Http {
    /// GET, on a connection of its own.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: bulkhead\r\nConnection: close\r\n\r\n"))
    }

    /// Sends these bytes on a connection of its own and reads one answer.
    pub fn send(&self, request: &str) -> Result<Response> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        read_response(&mut BufReader::new(stream), request.starts_with("HEAD "))
    }

    /// A raw connection, which QEMU has taken.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = self.connect_in_turn()?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// QEMU's user network listens with a backlog of 1 (`listen(s, 1)` in libslirp). When it is late to accept, the host
    /// drops the end of the handshake of all connections but two. Their clients believe that they are connected, and
    /// get through by sending again, at intervals that double up to minutes. So connections wait in line here.
    fn connect_in_turn(&self) -> Result<TcpStream> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = TcpStream::connect(("127.0.0.1", self.port)).context("cannot connect to the web domain")?;
        let (client, start) = (stream.local_addr()?.port(), Instant::now());
        while awaits_accept(&fs::read_to_string("/proc/net/tcp")?, self.port, client) {
            if start.elapsed() > LIMIT {
                bail!("QEMU does not accept a connection");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(stream)
    }
}

/// Whether, by the table in `/proc/net/tcp`, the connection from port `client` is one that nobody has accepted yet: the
/// listening end is there and belongs to no file.
fn awaits_accept(table: &str, listener: u16, client: u16) -> bool {
    const ESTABLISHED: &str = "01";
    const SYN_RECEIVED: &str = "03";
    const CLOSE_WAIT: &str = "08";
    let port = |address: &str| address.split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        // Between them: queues, timer, retransmissions, user, time-outs.
        let inode = fields.nth(5);
        port(local) == Some(listener)
            && port(remote) == Some(client)
            && [ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT].contains(&state)
            && inode == Some("0")
    })
}

/// Reads one answer; several can follow each other on one connection.
pub fn read_response(from: &mut impl BufRead, head_only: bool) -> Result<Response> {
    let mut line = String::new();
    from.read_line(&mut line).context("no answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let Some(status) = status else { bail!("not an HTTP answer: {line:?}") };
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let mut body = Vec::new();
    if !head_only {
        match headers.get("content-length").map(|length| length.parse::<usize>()) {
            Some(length) => {
                body.resize(length.context("bad Content-Length")?, 0);
                from.read_exact(&mut body).context("the body ended early")?;
            }
            None => drop(from.read_to_end(&mut body)?),
        }
    }
    Ok(Response { status, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connections_that_wait_are_told_from_accepted_ones() {
        let line = |state, inode| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 1: 0100007F:1F90 0100007F:8235 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0\n"
            )
        };
        for (state, inode, waits) in
            [("03", 0, true), ("01", 0, true), ("08", 0, true), ("01", 7001, false), ("05", 0, false), ("06", 0, false)]
        {
            assert_eq!(awaits_accept(&line(state, inode), 0x1f90, 0x8235), waits, "{state} {inode}");
        }
        assert!(!awaits_accept(&line("01", 0), 0x1f90, 0x8236));
        assert!(!awaits_accept(&line("01", 0), 0x8235, 0x1f90));
        assert!(!awaits_accept("nonsense\n\n", 0x1f90, 0x8235));
    }

    #[test]
    fn no_connection_is_begun_before_the_last_one_is_accepted() -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let http = Http { port: listener.local_addr()?.port() };
        let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || http.connect())).collect();
        for _ in &clients {
            thread::sleep(Duration::from_millis(20));
            drop(listener.accept()?);
            // The next one may wait by now, but not two of them.
            thread::sleep(Duration::from_millis(20));
            let waiting = fs::read_to_string("/proc/net/tcp")?;
            let waiting = waiting.lines().filter(|line| {
                let client = line.split_whitespace().nth(2).and_then(|address| address.split(':').nth(1));
                let client = client.and_then(|port| u16::from_str_radix(port, 16).ok());
                client.is_some_and(|client| awaits_accept(line, http.port, client))
            });
            assert!(waiting.count() <= 1);
        }
        for client in clients {
            client.join().map_err(|_| crate::error("a client panicked"))??;
        }
        Ok(())
    }
}
