//! Content types by file name extension.

/// The type of a file with this name.
#[must_use]
pub fn of(name: &[u8]) -> &'static str {
    let extension = match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot > 0 && name[dot - 1] != b'/' => &name[dot + 1..],
        _ => b"",
    };
    TYPES
        .iter()
        .find(|(known, _)| extension.eq_ignore_ascii_case(known.as_bytes()))
        .map_or("application/octet-stream", |(_, content_type)| content_type)
}

const TYPES: [(&str, &str); 37] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("xml", "application/xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"),
    ("toml", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("svg", "image/svg+xml"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("pdf", "application/pdf"),
    ("wasm", "application/wasm"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("wav", "audio/wav"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tar", "application/x-tar"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn types_go_by_the_last_extension() {
        assert_eq!(of(b"/a/index.HTML"), "text/html; charset=utf-8");
        assert_eq!(of(b"/a.tar.gz"), "application/gzip");
        assert_eq!(of(b"/a.html/b"), "application/octet-stream");
        assert_eq!(of(b"/.html"), "application/octet-stream");
        assert_eq!(of(b"/a."), "application/octet-stream");
        assert_eq!(of(b""), "application/octet-stream");
    }
}
