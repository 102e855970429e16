//! What the HTTP side wants to know of the files that it serves.

use alloc::string::String;
use alloc::vec::Vec;

/// Why something cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteError {
    /// There is no such file.
    NotFound,
    /// It is neither a file nor a directory.
    Forbidden,
    /// There is no site at the moment, and why: no disk, no file system.
    Unavailable(String),
    /// This file cannot be read, and why.
    Failed(String),
}

/// A regular file.
#[derive(Debug)]
pub struct Opened<F> {
    /// What [`Site::read`] reads from.
    pub file: F,
    /// Bytes.
    pub size: u64,
    /// When it changed last: seconds since 1970.
    pub modified: i64,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found<F> {
    /// A file.
    File(Opened<F>),
    /// A directory.
    Directory,
}

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// What [`Site::read`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes are in the buffer; at least one.
    Bytes(usize),
    /// They are on their way from the disk. Ask again after its next event.
    Later,
}

/// The files to serve. Paths are absolute, normalised and any bytes.
pub trait Site {
    /// An open file.
    type File;

    /// What `path` leads to.
    fn find(&mut self, path: &[u8]) -> Result<Found<Self::File>, SiteError>;

    /// What the directory at `path` holds, without `.` and `..`, at most `limit` names, in any order.
    fn list(&mut self, path: &[u8], limit: usize) -> Result<Vec<Listed>, SiteError>;

    /// Reads from `file` at `offset`, which is below its size. `buffer` is not empty.
    fn read(&mut self, file: &mut Self::File, offset: u64, buffer: &mut [u8]) -> Result<Read, SiteError>;
}
