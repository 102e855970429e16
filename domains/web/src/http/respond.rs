//! From a request to a response.

use super::range::{self, Wanted};
use super::request::{Method, Persistence, Refused, Request};
use super::status::Status;
use super::target::SitePath;
use super::{content_type, date, page, target};
use crate::site::{Found, Opened, Site, SiteError};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Names that a listing shows at most.
pub const LISTING_MAX: usize = 2000;

/// What follows the head.
#[derive(Debug)]
pub enum Body<F> {
    /// These bytes, perhaps none.
    Bytes(Vec<u8>),
    /// Part of a file.
    File {
        /// The file.
        file: F,
        /// Where the part begins.
        offset: u64,
        /// How long it is, at least one byte.
        length: u64,
    },
}

/// A response ready to be sent.
#[derive(Debug)]
pub struct Response<F> {
    /// Status line and fields, to the empty line.
    pub head: Vec<u8>,
    /// What follows.
    pub body: Body<F>,
    /// What becomes of the connection.
    pub persistence: Persistence,
}

/// Answers a request that was refused for its form.
#[must_use]
pub fn refuse<F>(refused: Refused) -> Response<F> {
    Answer::error(refused.status, "").finish(Method::Get, refused.persistence)
}

/// Answers a well-formed request.
pub fn respond<S: Site>(request: &Request, site: &mut S) -> Response<S::File> {
    answer(request, site).unwrap_or_else(Answer::from_error).finish(request.method, request.persistence)
}

/// A response in the making.
struct Answer<F> {
    status: Status,
    fields: String,
    body: Body<F>,
    /// Bytes of the body, also of one that is not sent.
    length: u64,
}

impl<F> Answer<F> {
    fn html(status: Status, page: Vec<u8>) -> Self {
        let fields = "Content-Type: text/html; charset=utf-8\r\n".into();
        Answer { status, fields, length: page.len() as u64, body: Body::Bytes(page) }
    }

    fn error(status: Status, why: &str) -> Self {
        let mut answer = Self::html(status, page::error(status, why));
        if status == Status::MethodNotAllowed {
            answer.fields.push_str("Allow: GET, HEAD\r\n");
        }
        if status == Status::ServiceUnavailable {
            answer.fields.push_str("Retry-After: 5\r\n");
        }
        answer
    }

    fn from_error(error: SiteError) -> Self {
        match error {
            SiteError::NotFound => Self::error(Status::NotFound, "There is nothing here."),
            SiteError::Forbidden => Self::error(Status::Forbidden, "This is neither a file nor a directory."),
            SiteError::Unavailable(why) => Self::error(Status::ServiceUnavailable, &why),
            SiteError::Failed(why) => Self::error(Status::InternalServerError, &why),
        }
    }

    fn finish(self, method: Method, persistence: Persistence) -> Response<F> {
        let Answer { status, fields, body, length } = self;
        let connection = match persistence {
            Persistence::KeepAlive => "keep-alive",
            Persistence::Close => "close",
        };
        let length = match status {
            Status::NotModified => String::new(),
            _ => format!("Content-Length: {length}\r\n"),
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nServer: bulkhead\r\nConnection: {connection}\r\nX-Content-Type-Options: nosniff\r\n{fields}{length}\r\n",
            status.code(),
            status.reason(),
        );
        let body = if method == Method::Head { Body::Bytes(Vec::new()) } else { body };
        Response { head: head.into_bytes(), body, persistence }
    }
}

fn answer<S: Site>(request: &Request, site: &mut S) -> Result<Answer<S::File>, SiteError> {
    let SitePath { path, slash } = &request.path;
    match site.find(path)? {
        Found::File(_) if *slash => Err(SiteError::NotFound),
        Found::File(opened) => Ok(file(request, path, opened)),
        Found::Directory if !slash => Ok(moved_to_slash(path)),
        Found::Directory => directory(request, path, site),
    }
}

/// Relative links in a directory's page need its address to end in a slash.
fn moved_to_slash<F>(path: &[u8]) -> Answer<F> {
    let mut location = Vec::new();
    target::encode(path, &mut location);
    location.push(b'/');
    let location = String::from_utf8(location).unwrap_or_else(|_| "/".into());
    let mut answer = Answer::error(Status::MovedPermanently, &location);
    answer.fields.push_str(&format!("Location: {location}\r\n"));
    answer
}

fn directory<S: Site>(request: &Request, path: &[u8], site: &mut S) -> Result<Answer<S::File>, SiteError> {
    let base: &[u8] = if path == b"/" { b"" } else { path };
    let index = [base, b"/index.html"].concat();
    match site.find(&index) {
        Ok(Found::File(opened)) => return Ok(file(request, &index, opened)),
        Ok(Found::Directory) | Err(SiteError::NotFound | SiteError::Forbidden) => {}
        Err(error) => return Err(error),
    }
    let entries = site.list(path, LISTING_MAX + 1)?;
    Ok(Answer::html(Status::Ok, page::listing(path, entries, LISTING_MAX)))
}

fn file<F>(request: &Request, path: &[u8], opened: Opened<F>) -> Answer<F> {
    let Opened { file, size, modified } = opened;
    let tag = format!("\"{size:x}-{modified:x}\"");
    let date = date::http_date(modified);
    let mut fields = format!("Content-Type: {}\r\nAccept-Ranges: bytes\r\nETag: {tag}\r\n", content_type::of(path));
    if let Some(date) = &date {
        fields.push_str(&format!("Last-Modified: {date}\r\n"));
    }
    let validators = Validators { tag: tag.as_bytes(), date: date.as_deref().map(str::as_bytes) };
    if validators.client_has_it(request) {
        return Answer { status: Status::NotModified, fields, body: Body::Bytes(Vec::new()), length: 0 };
    }
    let wanted = match &request.range {
        Some(field) if request.method == Method::Get && validators.range_holds(request) => range::wanted(field, size),
        _ => Wanted::Whole,
    };
    let (status, offset, length) = match wanted {
        Wanted::Whole => (Status::Ok, 0, size),
        Wanted::Part { first, length } => {
            fields.push_str(&format!("Content-Range: bytes {first}-{}/{size}\r\n", first + (length - 1)));
            (Status::PartialContent, first, length)
        }
        Wanted::Unsatisfiable => {
            let mut answer = Answer::error(Status::RangeNotSatisfiable, "");
            answer.fields.push_str(&format!("Content-Range: bytes */{size}\r\n"));
            return answer;
        }
    };
    let body = if length == 0 { Body::Bytes(Vec::new()) } else { Body::File { file, offset, length } };
    Answer { status, fields, body, length }
}

/// What tells one version of a file from another.
struct Validators<'a> {
    tag: &'a [u8],
    date: Option<&'a [u8]>,
}

impl Validators<'_> {
    /// Whether the client says that it has this version.
    fn client_has_it(&self, request: &Request) -> bool {
        match &request.if_none_match {
            Some(tags) => tags.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
                let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
                tag == b"*" || tag == self.tag
            }),
            None => request.if_modified_since.is_some() && request.if_modified_since.as_deref() == self.date,
        }
    }

    /// Whether a range is still one of the version that the client has the rest of.
    fn range_holds(&self, request: &Request) -> bool {
        match request.if_range.as_deref() {
            None => true,
            Some(validator) => validator == self.tag || Some(validator) == self.date,
        }
    }
}
