//! Requests: collected byte by byte, taken apart strictly (RFC 9112).
//!
//! Lines end in CR LF and nothing else does; a head is at most [`HEAD_MAX`] bytes. A request with a body is answered, but
//! the connection ends with the answer, so that a body is never taken for the next request.

use super::status::Status;
use super::target::SitePath;
use alloc::vec::Vec;

/// Bytes of a request head at most.
pub const HEAD_MAX: usize = 8192;
/// Bytes of a request line at most.
pub const LINE_MAX: usize = 4096;
/// Header fields at most.
pub const FIELDS_MAX: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// Its head only.
    Head,
}

/// What becomes of the connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open for the next request.
    KeepAlive,
    /// It ends.
    Close,
}

/// A well-formed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Of what.
    pub path: SitePath,
    /// What becomes of the connection.
    pub persistence: Persistence,
    /// The `Range` field.
    pub range: Option<Vec<u8>>,
    /// The `If-Range` field.
    pub if_range: Option<Vec<u8>>,
    /// The `If-None-Match` field.
    pub if_none_match: Option<Vec<u8>>,
    /// The `If-Modified-Since` field.
    pub if_modified_since: Option<Vec<u8>>,
}

/// Why a request is answered with an error, whatever the site holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The answer.
    pub status: Status,
    /// What becomes of the connection: it ends unless the request's end is certain.
    pub persistence: Persistence,
}

/// Collects bytes until they are a request.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Where the line starts that is not complete yet.
    line: usize,
    /// Up to where that line was searched for its end.
    searched: usize,
}

impl Reader {
    /// Bytes that it will take in now.
    #[must_use]
    pub fn room(&self) -> usize {
        (HEAD_MAX + 1).saturating_sub(self.bytes.len())
    }

    /// Whether nothing of a request has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes in bytes; gives how many, at most [`Reader::room`].
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }

    /// The next request, once its head is complete or known to be bad. After a refusal that closes, nothing more comes
    /// of the connection.
    pub fn next_request(&mut self) -> Option<Result<Request, Refused>> {
        loop {
            let rest = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.bytes.len();
                return self.too_long().map(Err);
            };
            let end = self.searched + end;
            if end > HEAD_MAX || self.line == 0 && end > LINE_MAX {
                return self.too_long().or(Some(close(Status::HeaderFieldsTooLarge))).map(Err);
            }
            let Some(line) = self.bytes[self.line..end].strip_suffix(b"\r") else {
                return Some(Err(close(Status::BadRequest)));
            };
            if !line.is_empty() {
                self.line = end + 1;
                self.searched = self.line;
                continue;
            }
            // An empty line: the end of the head, or one too many after the request before.
            let head_end = self.line;
            let head: Vec<u8> = self.bytes.drain(..=end).take(head_end).collect();
            (self.line, self.searched) = (0, 0);
            if !head.is_empty() {
                return Some(parse(&head));
            }
        }
    }

    fn too_long(&self) -> Option<Refused> {
        if self.line == 0 && self.bytes.len() > LINE_MAX {
            return Some(close(Status::UriTooLong));
        }
        (self.bytes.len() > HEAD_MAX).then(|| close(Status::HeaderFieldsTooLarge))
    }
}

fn close(status: Status) -> Refused {
    Refused { status, persistence: Persistence::Close }
}

/// Takes a head apart: lines that end in CR LF, at least one.
fn parse(head: &[u8]) -> Result<Request, Refused> {
    let bad = close(Status::BadRequest);
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next().ok_or(bad)?.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad);
    };
    if !is_token(method) || target.is_empty() {
        return Err(bad);
    }
    let version = parse_version(version)?;
    let fields = Fields::parse(lines.filter(|line| !line.is_empty()))?;
    if fields.hosts != 1 && version == Version::Http11 || fields.hosts > 1 {
        return Err(bad);
    }
    let persistence = fields.persistence(version);
    let method = match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        _ => {
            return Err(Refused { status: Status::MethodNotAllowed, persistence });
        }
    };
    let path = SitePath::parse(target).map_err(|_| Refused { status: Status::BadRequest, persistence })?;
    let Fields { range, if_range, if_none_match, if_modified_since, .. } = fields;
    Ok(Request { method, path, persistence, range, if_range, if_none_match, if_modified_since })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn parse_version(text: &[u8]) -> Result<Version, Refused> {
    match text {
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(close(Status::VersionNotSupported))
        }
        _ => Err(close(Status::BadRequest)),
    }
}

/// The fields that matter here.
#[derive(Default)]
struct Fields {
    hosts: usize,
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
    range: Option<Vec<u8>>,
    if_range: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<Vec<u8>>,
}

impl Fields {
    fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, Refused> {
        let mut fields = Fields::default();
        for (number, line) in lines.enumerate() {
            if number >= FIELDS_MAX {
                return Err(close(Status::HeaderFieldsTooLarge));
            }
            fields.add(line).map_err(close)?;
        }
        Ok(fields)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), Status> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Status::BadRequest)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
            return Err(Status::BadRequest);
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            self.hosts += 1;
        } else if is("connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("content-length") {
            let text = core::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = text.and_then(|text| text.parse().ok()).ok_or(Status::BadRequest)?;
            if self.content_length.is_some_and(|other| other != length) {
                return Err(Status::BadRequest);
            }
            self.content_length = Some(length);
        } else if is("transfer-encoding") {
            self.transfer_encoding = true;
        } else if is("range") {
            self.range = Some(value.to_vec());
        } else if is("if-range") {
            self.if_range = Some(value.to_vec());
        } else if is("if-none-match") {
            self.if_none_match = Some(value.to_vec());
        } else if is("if-modified-since") {
            self.if_modified_since = Some(value.to_vec());
        }
        Ok(())
    }

    fn persistence(&self, version: Version) -> Persistence {
        let has_body = self.transfer_encoding || self.content_length.is_some_and(|bytes| bytes > 0);
        let wanted = match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        };
        if wanted && !has_body { Persistence::KeepAlive } else { Persistence::Close }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    type Outcome = Result<Request, Refused>;

    /// All requests in `bytes`, given in pieces that end where `cuts` say; stops after a refusal that closes.
    fn read_all(bytes: &[u8], cuts: &[usize]) -> Vec<Outcome> {
        let mut reader = Reader::default();
        let mut outcomes = Vec::new();
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let mut start = 0;
        for end in ends {
            let mut piece = &bytes[start..end];
            start = end;
            loop {
                while let Some(outcome) = reader.next_request() {
                    let over = matches!(outcome, Err(Refused { persistence: Persistence::Close, .. }));
                    outcomes.push(outcome);
                    if over {
                        return outcomes;
                    }
                }
                if piece.is_empty() {
                    break;
                }
                let taken = reader.push(piece);
                assert!(taken > 0, "a reader without room must have come to a decision");
                piece = &piece[taken..];
            }
        }
        outcomes
    }

    fn one(text: &str) -> Outcome {
        let mut outcomes = read_all(text.as_bytes(), &[]);
        assert_eq!(outcomes.len(), 1, "{text:?}");
        outcomes.remove(0)
    }

    fn status(text: &str) -> Status {
        one(text).unwrap_err().status
    }

    #[test]
    fn a_plain_request() {
        let request = one("GET /a%20b?q HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n").unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path.path, b"/a b");
        assert_eq!(request.persistence, Persistence::KeepAlive);
        assert_eq!(request.range.as_deref(), Some(&b"bytes=0-1"[..]));
    }

    #[test]
    fn persistence_by_version_and_field() {
        for (version, field, expected) in [
            ("1.1", "", Persistence::KeepAlive),
            ("1.1", "Connection: close\r\n", Persistence::Close),
            ("1.1", "connection: foo, Close\r\n", Persistence::Close),
            ("1.0", "", Persistence::Close),
            ("1.0", "Connection: Keep-Alive\r\n", Persistence::KeepAlive),
            ("1.1", "Content-Length: 0\r\n", Persistence::KeepAlive),
            ("1.1", "Content-Length: 5\r\n", Persistence::Close),
            ("1.1", "Transfer-Encoding: chunked\r\n", Persistence::Close),
        ] {
            let request = one(&format!("HEAD / HTTP/{version}\r\nHost: x\r\n{field}\r\n")).unwrap();
            assert_eq!(request.persistence, expected, "{version} {field}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_right_status() {
        use Status::*;
        let long = "a".repeat(LINE_MAX);
        let field = format!("X: {}\r\n", "b".repeat(1000));
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\nHost: a\n\n", BadRequest),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET /\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", BadRequest),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BadRequest),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", VersionNotSupported),
            ("GET / HTTP/0.9\r\n\r\n", VersionNotSupported),
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", MethodNotAllowed),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", MethodNotAllowed),
            (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), UriTooLong),
            (&format!("GET /{long}"), UriTooLong),
            (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", field.repeat(9)), HeaderFieldsTooLarge),
            (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX)), HeaderFieldsTooLarge),
        ] {
            assert_eq!(status(text), expected, "{:?}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn pipelined_requests_come_out_one_by_one() {
        let text = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
        let outcomes = read_all(text.as_bytes(), &[]);
        assert_eq!(outcomes.len(), 3);
        assert_eq!(outcomes[0].as_ref().unwrap().path.path, b"/1");
        assert_eq!(outcomes[1].as_ref().unwrap_err().persistence, Persistence::KeepAlive);
        assert_eq!(outcomes[2].as_ref().unwrap().path.path, b"/3");
    }

    const SAMPLES: [&str; 5] = [
        "GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\nHEAD /b/ HTTP/1.0\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nbad\r\n\r\nGET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "DELETE / HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n",
    ];

    #[test]
    fn a_cut_at_any_byte_changes_nothing() {
        for sample in SAMPLES {
            let whole = read_all(sample.as_bytes(), &[]);
            assert!(!whole.is_empty());
            for cut in 0..=sample.len() {
                assert_eq!(read_all(sample.as_bytes(), &[cut]), whole, "{sample:?} cut at {cut}");
            }
            let every: Vec<usize> = (0..sample.len()).collect();
            assert_eq!(read_all(sample.as_bytes(), &every), whole, "{sample:?} byte by byte");
        }
    }

    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            Just(b"\r\n".to_vec()),
            Just(b"GET / HTTP/1.1\r\n".to_vec()),
            Just(b"Host: a\r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            (0usize..5000).prop_map(|length| vec![b'a'; length]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_is_survived_and_cuts_do_not_matter(
            bytes in noise(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(read_all(&bytes, &cuts), read_all(&bytes, &[]));
        }
    }
}
