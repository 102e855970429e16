//! The request target: percent-decoded and normalised, never leading out of the site.

use alloc::vec::Vec;

/// A target that names nothing a site could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTarget;

/// An absolute path without `.`, `..` and empty components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SitePath {
    /// The path: `/` or `/a/b`, any bytes.
    pub path: Vec<u8>,
    /// Whether the target ended in a slash, as that of a directory does.
    pub slash: bool,
}

impl SitePath {
    /// Reads a target in origin form (`/a%20b?query`) or absolute form (`http://host/a`).
    pub fn parse(target: &[u8]) -> Result<Self, BadTarget> {
        let target = origin_form(target)?;
        let end = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
        let mut components: Vec<Vec<u8>> = Vec::new();
        let mut slash = false;
        for raw in target[..end].split(|&byte| byte == b'/').skip(1) {
            let component = decode(raw)?;
            slash = matches!(component.as_slice(), b"" | b"." | b"..");
            match component.as_slice() {
                b"" | b"." => {}
                b".." => components.pop().map(|_| ()).ok_or(BadTarget)?,
                _ => components.push(component),
            }
        }
        let mut path = Vec::with_capacity(end);
        for component in &components {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(SitePath { path, slash })
    }
}

/// The part of the target that starts with the path.
fn origin_form(target: &[u8]) -> Result<&[u8], BadTarget> {
    if target.first() == Some(&b'/') {
        return Ok(target);
    }
    const SCHEME: &[u8] = b"http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len()).ok_or(BadTarget)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(BadTarget);
    }
    match rest.iter().position(|&byte| byte == b'/') {
        Some(slash) => Ok(&rest[slash..]),
        None => Ok(b"/"),
    }
}

/// Decodes `%41` to `A`. A slash or NUL so written is no part of any file's name.
fn decode(raw: &[u8]) -> Result<Vec<u8>, BadTarget> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(BadTarget);
                let byte = (digit()? << 4 | digit()?) as u8;
                if matches!(byte, 0 | b'/') {
                    return Err(BadTarget);
                }
                decoded.push(byte);
            }
            b'#' | 0..=b' ' | 0x7f => return Err(BadTarget),
            _ => decoded.push(byte),
        }
    }
    Ok(decoded)
}

/// Appends `name` as it may stand in a link.
pub fn encode(name: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in name {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> Result<(&str, bool), BadTarget> {
        let parsed = SitePath::parse(target.as_bytes())?;
        Ok((alloc::string::String::from_utf8(parsed.path).unwrap().leak(), parsed.slash))
    }

    #[test]
    fn targets_are_normalised() {
        assert_eq!(path("/"), Ok(("/", true)));
        assert_eq!(path("/a/b"), Ok(("/a/b", false)));
        assert_eq!(path("/a/b/"), Ok(("/a/b", true)));
        assert_eq!(path("//a/./b/../c?x=/../.."), Ok(("/a/c", false)));
        assert_eq!(path("/a/b/.."), Ok(("/a", true)));
        assert_eq!(path("/a%20b%41"), Ok(("/a bA", false)));
        assert_eq!(path("http://host:80/a"), Ok(("/a", false)));
        assert_eq!(path("HTTP://host"), Ok(("/", true)));
    }

    #[test]
    fn nothing_leads_out_of_the_site() {
        for bad in ["/..", "/../etc", "/a/../../b", "/%2e%2e/x", "/a/..%2f..", "/.%2E/", "/a%00b", "/%2fetc"] {
            assert_eq!(path(bad), Err(BadTarget), "{bad}");
        }
    }

    #[test]
    fn malformed_targets_are_refused() {
        for bad in ["", "a", "*", "ftp://x/", "/%", "/%4", "/%zz", "/a#b", "/a b", "/a\tb", "http:/x"] {
            assert_eq!(path(bad), Err(BadTarget), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_decodes_to_itself(names in proptest::collection::vec("[^/\0]{1,8}", 1..4)) {
            let names: Vec<_> = names.into_iter().filter(|name| name != "." && name != "..").collect();
            let path = names.iter().fold(Vec::new(), |mut path, name| {
                path.push(b'/');
                path.extend_from_slice(name.as_bytes());
                path
            });
            let mut target = Vec::new();
            encode(&path, &mut target);
            if !path.is_empty() {
                prop_assert_eq!(SitePath::parse(&target).unwrap(), SitePath { path, slash: false });
            }
        }

        #[test]
        fn no_path_has_a_component_that_climbs(target in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(parsed) = SitePath::parse(&target) {
                prop_assert_eq!(parsed.path[0], b'/');
                prop_assert!(!parsed.path.contains(&0));
                prop_assert!(parsed.path.split(|&b| b == b'/').all(|part| part != b".." && part != b"."));
            }
        }
    }
}
