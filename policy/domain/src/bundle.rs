//! The boot bundle: a cpio archive of the "newc" kind. `docs/bundle.md` has the rules.
//!
//! The hypervisor has checked the archive before this domain ran; it is read here without relying on that.

/// The files of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    archive: &'a [u8],
}

const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

impl<'a> Bundle<'a> {
    /// Looks into an archive.
    pub fn new(archive: &'a [u8]) -> Self {
        Bundle { archive }
    }

    /// All of it.
    pub fn archive(&self) -> &'a [u8] {
        self.archive
    }

    /// Names and contents. Ends at the trailer, or where the archive makes no sense any more.
    pub fn files(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut rest = self.archive;
        core::iter::from_fn(move || {
            let (name, content, next) = entry(rest)?;
            rest = next;
            Some((name, content))
        })
    }

    /// The content of the file of this name.
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.files().find(|(other, _)| *other == name).map(|(_, content)| content)
    }
}

/// The first entry of `archive`, and what follows it.
fn entry(archive: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let header = archive.get(..HEADER_BYTES).filter(|header| header.starts_with(b"070701"))?;
    let (content_bytes, name_bytes) = (field(header, 6)?, field(header, 11)?);
    let name_end = HEADER_BYTES.checked_add(name_bytes)?;
    let name = archive.get(HEADER_BYTES..name_end)?.strip_suffix(b"\0")?;
    if name == TRAILER {
        return None;
    }
    let start = name_end.checked_next_multiple_of(4)?;
    let end = start.checked_add(content_bytes)?;
    let content = archive.get(start..end)?;
    let next = archive.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((core::str::from_utf8(name).ok()?, content, next))
}

/// Header field number `index`, 8 hexadecimal digits.
fn field(header: &[u8], index: usize) -> Option<usize> {
    let digits = core::str::from_utf8(header.get(6 + index * 8..14 + index * 8)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, content) in files.iter().chain([&("TRAILER!!!", b"".as_slice())]) {
            let fields = [0, 0, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
            archive.extend(b"070701");
            fields.iter().for_each(|field| archive.extend(format!("{field:08x}").bytes()));
            archive.extend(name.bytes().chain([0]));
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend(*content);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    #[test]
    fn files_are_found_by_name() {
        let archive = archive(&[("policy.table", b"abc"), ("web", b"12345678"), ("empty", b"")]);
        let bundle = Bundle::new(&archive);
        assert_eq!(bundle.find("web"), Some(b"12345678".as_slice()));
        assert_eq!(bundle.find("policy.table"), Some(b"abc".as_slice()));
        assert_eq!(bundle.find("empty"), Some(b"".as_slice()));
        assert_eq!(bundle.find("nothing"), None);
        assert_eq!(bundle.files().count(), 3);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = archive(&[("a", b"123"), ("bb", b"4567")]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = Bundle::new(&bytes).files().count();
            let _ = Bundle::new(&bytes[..cut.index(bytes.len())]).find("bb");
        }
    }
}
