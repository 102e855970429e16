//! A small HTTP client for the forwarded port.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

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

    /// A raw connection.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).context("cannot connect to the web domain")?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }
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
