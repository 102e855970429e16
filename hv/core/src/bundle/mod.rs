//! The boot bundle: a cpio archive in the "newc" format, read in place.
//!
//! Format: per file a 110-byte header of ASCII ("070701", then 13 fields of 8 hexadecimal digits), the name with its
//! NUL, padding to 4 bytes, the data, padding to 4 bytes; at the end a file named `TRAILER!!!`.

/// Files at most: a policy and an image for each label are far fewer.
pub const FILES_MAX: usize = 512;

const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
const NAME_BYTES_MAX: usize = 256;

/// What is wrong with an archive, and at which byte the bad entry begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BundleError {
    /// Start of the entry at fault.
    pub offset: usize,
    /// What is wrong there.
    pub fault: BundleFault,
}

/// What is wrong with an entry, in words.
pub type BundleFault = &'static str;

const TRUNCATED: BundleFault = "truncated (no TRAILER!!! before the end)";
const MAGIC: BundleFault = "not a cpio archive in newc format";
const FIELD: BundleFault = "bad number in a file header";
/// Empty or overlong, without its NUL or with one inside, or not UTF-8.
const NAME: BundleFault = "bad file name";
const DUPLICATE: BundleFault = "a file of this name was there before";
const TOO_MANY: BundleFault = "too many files";

impl core::fmt::Display for BundleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "bundle, byte {}: {}", self.offset, self.fault)
    }
}

/// A file in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File<'a> {
    /// Its name, without leading `./`.
    pub name: &'a str,
    /// Where its data begin in the archive.
    pub offset: usize,
    /// Its data.
    pub bytes: &'a [u8],
}

/// An archive that was checked from first header to trailer.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    archive: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Checks an archive. Bytes behind the trailer are ignored.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn new(archive: &'a [u8]) -> Result<Self, BundleError> {
        let bundle = Self { archive };
        let (mut offset, mut files) = (0, 0);
        loop {
            let fail = |fault| BundleError { offset, fault };
            let Some((file, next)) = bundle.file_at(offset).map_err(fail)? else { return Ok(bundle) };
            if files == FILES_MAX {
                return Err(fail(TOO_MANY));
            }
            if bundle.files().take(files).any(|earlier| earlier.name == file.name) {
                return Err(fail(DUPLICATE));
            }
            (offset, files) = (next, files.saturating_add(1));
        }
    }

    /// The files in order.
    pub fn files(&self) -> impl Iterator<Item = File<'a>> + use<'a> {
        let (bundle, mut at) = (*self, 0);
        core::iter::from_fn(move || {
            let (file, next) = bundle.file_at(at).ok().flatten()?;
            at = next;
            Some(file)
        })
    }

    /// The file of this name.
    pub fn find(&self, name: &str) -> Option<File<'a>> {
        self.files().find(|file| file.name == name)
    }

    /// The whole archive.
    pub fn archive(&self) -> &'a [u8] {
        self.archive
    }

    /// The file whose entry begins at `at`, and where the next one does; `None` at the trailer.
    fn file_at(&self, at: usize) -> Result<Option<(File<'a>, usize)>, BundleFault> {
        let header = self.slice(at, HEADER_BYTES)?;
        if !header.starts_with(b"070701") {
            return Err(MAGIC);
        }
        let file_bytes = field(header, 6)?;
        let name_bytes = field(header, 11)?;
        if !(2..=NAME_BYTES_MAX).contains(&name_bytes) {
            return Err(NAME);
        }
        let name_at = at.saturating_add(HEADER_BYTES);
        let name = self.slice(name_at, name_bytes)?;
        let name = name.strip_suffix(&[0]).filter(|name| !name.contains(&0)).ok_or(NAME)?;
        if name == TRAILER {
            return Ok(None);
        }
        let name = core::str::from_utf8(name).map_err(|_| NAME)?;
        let offset = align(name_at.saturating_add(name_bytes));
        let bytes = self.slice(offset, file_bytes)?;
        let name = name.strip_prefix("./").unwrap_or(name);
        Ok(Some((File { name, offset, bytes }, align(offset.saturating_add(file_bytes)))))
    }

    fn slice(&self, at: usize, bytes: usize) -> Result<&'a [u8], BundleFault> {
        let end = at.checked_add(bytes).ok_or(TRUNCATED)?;
        self.archive.get(at..end).ok_or(TRUNCATED)
    }
}

fn align(at: usize) -> usize {
    at.saturating_add(3) & !3
}

/// Header field number `index`: 8 hexadecimal digits.
fn field(header: &[u8], index: usize) -> Result<usize, BundleFault> {
    let start = index.saturating_mul(8).saturating_add(6);
    let digits = header.get(start..start.saturating_add(8)).ok_or(TRUNCATED)?;
    digits.iter().try_fold(0usize, |value, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(FIELD)?;
        Ok(value << 4 | digit as usize)
    })
}

#[cfg(test)]
mod tests;
