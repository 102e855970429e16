//! Whole connections against a site in memory.

use proptest::prelude::*;
use std::collections::BTreeMap;
use web::http::connection::{CHUNK, Connection, Progress, Sink};
use web::site::{Found, Listed, Opened, Read, Site, SiteError};

/// 784111777 is Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: i64 = 784_111_777;

#[derive(Default)]
struct Memory {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    unavailable: Option<String>,
    /// Every other read says "later".
    slow: bool,
    reads: usize,
    fails_at: Option<u64>,
}

impl Site for Memory {
    type File = Vec<u8>;

    fn find(&mut self, path: &[u8]) -> Result<Found<Vec<u8>>, SiteError> {
        if let Some(why) = &self.unavailable {
            return Err(SiteError::Unavailable(why.clone()));
        }
        if path == b"/socket" {
            return Err(SiteError::Forbidden);
        }
        if let Some(bytes) = self.files.get(path) {
            return Ok(Found::File(Opened { file: bytes.clone(), size: bytes.len() as u64, modified: MODIFIED }));
        }
        let prefix = if path == b"/" { b"/".to_vec() } else { [path, b"/"].concat() };
        if path == b"/" || self.files.keys().any(|name| name.starts_with(&prefix)) {
            return Ok(Found::Directory);
        }
        Err(SiteError::NotFound)
    }

    fn list(&mut self, path: &[u8], limit: usize) -> Result<Vec<Listed>, SiteError> {
        let prefix = if path == b"/" { b"/".to_vec() } else { [path, b"/"].concat() };
        let mut listed: Vec<Listed> = self
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(prefix.as_slice()))
            .map(|rest| {
                let mut parts = rest.splitn(2, |&byte| byte == b'/');
                Listed { name: parts.next().unwrap().to_vec(), directory: parts.next().is_some() }
            })
            .collect();
        listed.dedup();
        listed.truncate(limit);
        Ok(listed)
    }

    fn read(&mut self, file: &mut Vec<u8>, offset: u64, buffer: &mut [u8]) -> Result<Read, SiteError> {
        self.reads += 1;
        if self.fails_at.is_some_and(|at| offset >= at) {
            return Err(SiteError::Failed("bad sector".into()));
        }
        if self.slow && self.reads % 2 == 1 {
            return Ok(Read::Later);
        }
        let rest = &file[offset as usize..];
        let count = rest.len().min(buffer.len()).min(10_000);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(Read::Bytes(count))
    }
}

struct Pipe {
    bytes: Vec<u8>,
    room: usize,
}

impl Sink for Pipe {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room);
        self.bytes.extend_from_slice(&bytes[..count]);
        self.room -= count;
        count
    }
}

/// Runs a connection on `input` to its end, giving the sink `room` bytes of room at a time.
fn run(site: &mut Memory, input: &[u8], room: usize) -> (Vec<u8>, Progress) {
    let mut connection = Connection::default();
    let mut pipe = Pipe { bytes: Vec::new(), room };
    let mut rest = input;
    loop {
        let taken = connection.input(rest);
        rest = &rest[taken..];
        match connection.advance(site, &mut pipe, 2) {
            Progress::WaitsForRequest if rest.is_empty() => return (pipe.bytes, Progress::WaitsForRequest),
            Progress::WaitsForRequest => assert!(connection.input_room() > 0),
            Progress::WaitsForRoom => pipe.room = room,
            Progress::WaitsForDisk | Progress::CouldGoOn => {}
            end @ (Progress::Finished | Progress::Broken) => return (pipe.bytes, end),
        }
    }
}

fn site() -> Memory {
    let mut memory = Memory::default();
    let big: Vec<u8> = (0..CHUNK * 3 + 1234).map(|i| (i * 7 % 251) as u8).collect();
    for (path, bytes) in [
        ("/hello.txt", &b"hello, world"[..]),
        ("/empty", b""),
        ("/dir/a b.html", b"<p>"),
        ("/dir/sub/x", b"x"),
        ("/with/index.html", b"<h1>index</h1>"),
        ("/big.bin", &big),
    ] {
        memory.files.insert(path.as_bytes().to_vec(), bytes.to_vec());
    }
    memory
}

struct Parsed {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn ask(request: &str) -> Parsed {
    ask_of(&mut site(), request)
}

fn ask_of(site: &mut Memory, request: &str) -> Parsed {
    let (bytes, _) = run(site, request.as_bytes(), 1000);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Parsed { status, head, body: bytes[end..].to_vec() }
}

fn get(target: &str, fields: &str) -> Parsed {
    ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
}

#[test]
fn a_file_with_its_fields() {
    let got = get("/hello.txt", "");
    assert_eq!(got.status, 200);
    assert_eq!(got.body, b"hello, world");
    for field in [
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Length: 12\r\n",
        "Accept-Ranges: bytes\r\n",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "Connection: keep-alive\r\n",
        "ETag: \"c-2ebc98a1\"\r\n",
    ] {
        assert!(got.head.contains(field), "{field} in {}", got.head);
    }
}

#[test]
fn head_is_get_without_the_body() {
    for target in ["/hello.txt", "/big.bin", "/", "/nothing", "/empty"] {
        let of = |method: &str| ask(&format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let (get, head) = (of("GET"), of("HEAD"));
        assert_eq!(get.head, head.head);
        assert!(head.body.is_empty());
        assert!(get.head.contains(&format!("Content-Length: {}\r\n", get.body.len())));
    }
}

#[test]
fn a_large_file_arrives_whole_whatever_the_room() {
    let expected = site().files[&b"/big.bin"[..]].clone();
    for room in [1, 7, 1460, 40_000, usize::MAX] {
        for slow in [false, true] {
            let mut site = Memory { slow, ..site() };
            let (bytes, _) = run(&mut site, b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n", room);
            assert!(bytes.ends_with(&expected), "room {room}, slow {slow}");
        }
    }
}

#[test]
fn ranges() {
    let got = get("/hello.txt", "Range: bytes=7-\r\n");
    assert_eq!((got.status, got.body.as_slice()), (206, &b"world"[..]));
    assert!(got.head.contains("Content-Range: bytes 7-11/12\r\n"));
    assert_eq!(get("/hello.txt", "Range: bytes=-5\r\n").body, b"world");
    assert_eq!(get("/hello.txt", "Range: bytes=0-0,2-3\r\n").status, 200);
    let got = get("/hello.txt", "Range: bytes=12-\r\n");
    assert_eq!(got.status, 416);
    assert!(got.head.contains("Content-Range: bytes */12\r\n"));
    let big = site().files[&b"/big.bin"[..]].clone();
    let got = get("/big.bin", "Range: bytes=30000-70000\r\n");
    assert_eq!(got.body, big[30_000..=70_000]);
    assert_eq!(get("/hello.txt", "Range: bytes=7-\r\nIf-Range: \"c-2ebc98a1\"\r\n").status, 206);
    assert_eq!(get("/hello.txt", "Range: bytes=7-\r\nIf-Range: \"old\"\r\n").status, 200);
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    for field in [
        "If-None-Match: \"c-2ebc98a1\"\r\n",
        "If-None-Match: \"x\", W/\"c-2ebc98a1\"\r\n",
        "If-None-Match: *\r\n",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    ] {
        let got = get("/hello.txt", field);
        assert_eq!((got.status, got.body.len()), (304, 0), "{field}");
    }
    assert_eq!(get("/hello.txt", "If-None-Match: \"x\"\r\n").status, 200);
}

#[test]
fn directories() {
    let got = get("/", "");
    let page = String::from_utf8(got.body).unwrap();
    assert!(page.contains("href=\"./dir/\"") && page.contains("href=\"./hello.txt\""), "{page}");
    let page = String::from_utf8(get("/dir/", "").body).unwrap();
    assert!(page.contains("href=\"./a%20b.html\"") && page.contains("href=\"../\""), "{page}");
    let got = get("/dir", "");
    assert_eq!(got.status, 301);
    assert!(got.head.contains("Location: /dir/\r\n"));
    assert_eq!(get("/with/", "").body, b"<h1>index</h1>");
    assert_eq!(get("/dir/a%20b.html", "").body, b"<p>");
}

#[test]
fn errors_have_their_status_and_a_page() {
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /hello.txt/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /socket HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("PUT /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        ("nonsense\r\n\r\n", 400),
    ] {
        let got = ask(request);
        assert_eq!(got.status, status, "{request}");
        assert!(String::from_utf8(got.body).unwrap().contains(&status.to_string()));
    }
    assert!(ask("PUT / HTTP/1.1\r\nHost: x\r\n\r\n").head.contains("Allow: GET, HEAD\r\n"));
}

#[test]
fn a_site_without_disk_answers_503_with_the_reason() {
    let mut site = Memory { unavailable: Some("no disk <yet>".into()), ..site() };
    let got = ask_of(&mut site, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(got.status, 503);
    assert!(String::from_utf8(got.body).unwrap().contains("no disk &lt;yet&gt;"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let input = b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\nHEAD /big.bin HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /dir/sub/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let (bytes, end) = run(&mut site(), input, 50);
    assert_eq!(end, Progress::Finished);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3, "what follows a close is not answered: {text}");
    assert!(text.find("hello, world").unwrap() < text.find("Content-Length: 99538").unwrap());
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let input =
        b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\nGET /dir/sub/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let (bytes, end) = run(&mut site(), input, 1000);
    assert_eq!(end, Progress::Finished);
    assert_eq!(String::from_utf8(bytes).unwrap().matches("HTTP/1.1 ").count(), 1);
}

#[test]
fn a_file_that_fails_midway_breaks_the_connection() {
    let mut site = Memory { fails_at: Some(40_000), ..site() };
    let (bytes, end) = run(&mut site, b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n", 1000);
    assert_eq!(end, Progress::Broken);
    assert!(bytes.len() < 60_000);
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let mut connection = Connection::default();
    let mut pipe = Pipe { bytes: Vec::new(), room: 0 };
    connection.input(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.advance(&mut site(), &mut pipe, 2), Progress::WaitsForRoom);
    assert_eq!(connection.input_room(), 0);
    assert_eq!(connection.input(b"GET / HTTP/1.1\r\n"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_answered_or_awaited(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                Just(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
                Just(b"GET /dir/../%68ello.txt HTTP/1.0\r\n".to_vec()),
                Just(b"\r\n".to_vec()),
                "[ -~]{0,30}: [ -~]{0,30}\r\n".prop_map(String::into_bytes),
            ],
            0..10,
        ),
        room in 1usize..5000,
    ) {
        let (bytes, _) = run(&mut site(), &pieces.concat(), room);
        prop_assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 "));
    }
}
