//! The pages that the server makes itself: errors and directory listings.

use super::status::Status;
use super::target;
use crate::site::Listed;
use alloc::format;
use alloc::vec::Vec;

const STYLE: &str = "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em}\
    footer{color:#666;font-size:.85em}</style>";

/// Appends `text` with what HTML would take for markup replaced. Any bytes; browsers show what is no UTF-8 as such.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            _ => out.push(byte),
        }
    }
}

fn begin(title: &[u8]) -> Vec<u8> {
    let mut page = b"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>".to_vec();
    escape(title, &mut page);
    page.extend_from_slice(b"</title>");
    page.extend_from_slice(STYLE.as_bytes());
    page.extend_from_slice(b"</head>\n<body><h1>");
    escape(title, &mut page);
    page.extend_from_slice(b"</h1>\n");
    page
}

fn end(mut page: Vec<u8>) -> Vec<u8> {
    page.extend_from_slice(b"<hr><footer>Bulkhead web domain</footer></body></html>\n");
    page
}

/// The page of an error, with a sentence on the reason.
#[must_use]
pub fn error(status: Status, why: &str) -> Vec<u8> {
    let mut page = begin(format!("{} {}", status.code(), status.reason()).as_bytes());
    if !why.is_empty() {
        page.extend_from_slice(b"<p>");
        escape(why.as_bytes(), &mut page);
        page.extend_from_slice(b"</p>\n");
    }
    end(page)
}

/// The listing of the directory at `path`. `cut_off`: there are more names than these.
#[must_use]
pub fn listing(path: &[u8], mut entries: Vec<Listed>, limit: usize) -> Vec<u8> {
    let more = entries.len() > limit;
    entries.truncate(limit);
    entries.sort_by(|a, b| b.directory.cmp(&a.directory).then_with(|| a.name.cmp(&b.name)));
    let mut page = begin(&[b"Index of ", path].concat());
    page.extend_from_slice(b"<ul>\n");
    if path != b"/" {
        page.extend_from_slice(b"<li><a href=\"../\">../</a></li>\n");
    }
    for entry in &entries {
        let slash: &[u8] = if entry.directory { b"/" } else { b"" };
        // The leading "./" keeps a name with a colon from being read as a scheme.
        page.extend_from_slice(b"<li><a href=\"./");
        target::encode(&entry.name, &mut page);
        page.extend_from_slice(slash);
        page.extend_from_slice(b"\">");
        escape(&entry.name, &mut page);
        page.extend_from_slice(slash);
        page.extend_from_slice(b"</a></li>\n");
    }
    page.extend_from_slice(b"</ul>\n");
    if more {
        page.extend_from_slice(format!("<p>Only the first {limit} names are shown.</p>\n").as_bytes());
    }
    end(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let evil = Listed { name: b"<script>'\"&.html".to_vec(), directory: false };
        let page = String::from_utf8(listing(b"/<b>", vec![evil], 10)).unwrap();
        assert!(!page.contains("<script>") && !page.contains("<b>"));
        assert!(page.contains("./%3Cscript%3E%27%22%26.html\">&lt;script&gt;&#39;&quot;&amp;.html</a>"));
    }

    #[test]
    fn directories_come_first_and_the_rest_is_cut() {
        let listed = |name: &str, directory| Listed { name: name.as_bytes().to_vec(), directory };
        let page = listing(b"/", vec![listed("b", false), listed("z", true), listed("a", false)], 2);
        let page = String::from_utf8(page).unwrap();
        assert!(page.find("z/").unwrap() < page.find(">b<").unwrap());
        assert!(!page.contains(">a<") && page.contains("first 2 names"));
        assert!(!page.contains("../"));
    }

    #[test]
    fn errors_say_why() {
        let page = String::from_utf8(error(Status::ServiceUnavailable, "no <disk>")).unwrap();
        assert!(page.contains("503 Service Unavailable") && page.contains("no &lt;disk&gt;"));
    }
}
