//! The site on the disk: an ext4 file system, or the reason why there is none.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::error::Error;
use core::fmt;

use ext4_view::{Ext4, Ext4Error, Ext4Read, File, Path};
use frontends::block::{Disk, Opening, Waiting};
use runtime::store::WatchEvent;
use web::site::{Found, Listed, Opened, Read, Site, SiteError};

use crate::volume::Volume;

type SharedVolume = Rc<RefCell<Volume>>;

/// Why the file system could not be read, as its library wants errors.
#[derive(Debug)]
struct ReadFailed(String);

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ReadFailed {}

/// The disk as the file system library reads it.
struct Reader(SharedVolume);

impl Ext4Read for Reader {
    fn read(&mut self, start: u64, destination: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.borrow_mut().read(start, destination).map_err(|why| Box::new(ReadFailed(why)).into())
    }
}

/// What there is to serve.
enum State {
    /// No disk yet, and why.
    Opening(Box<Opening>, String),
    /// A file system.
    Mounted { files: Ext4, volume: SharedVolume },
    /// A disk without a file system that can be read, and why.
    Unreadable(SharedVolume, String),
}

/// The site.
pub struct DiskSite {
    state: State,
}

/// An open file.
pub struct OpenFile {
    file: File,
    volume: SharedVolume,
    /// Where on the disk its next bytes probably are.
    expected: Option<u64>,
    /// After an error the library's file must not be used again.
    broken: bool,
}

impl DiskSite {
    /// Without a disk so far.
    pub fn new() -> Self {
        DiskSite { state: State::Opening(Box::new(Opening::new(None)), "the disk is not connected yet".into()) }
    }

    fn volume(&self) -> Option<&SharedVolume> {
        match &self.state {
            State::Opening(..) => None,
            State::Mounted { volume, .. } | State::Unreadable(volume, _) => Some(volume),
        }
    }

    /// Whether it is still looking for its disk, and so wants [`DiskSite::step`] to be called now and then.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Opening(..))
    }

    /// Goes on with opening the disk.
    pub fn step(&mut self) {
        let State::Opening(opening, why) = &mut self.state else {
            return;
        };
        match opening.step() {
            Ok(Ok(disk)) => self.state = mount(disk),
            Ok(Err(waiting)) => say(
                why,
                match waiting {
                    Waiting::NoDevice => "this domain has no disk (xenstore has no device/vbd)".into(),
                    Waiting::Backend => "the disk's domain is not ready".into(),
                    Waiting::GivenUp => "the disk's domain is gone and is not started again".into(),
                },
            ),
            Err(error) => say(why, format!("the disk cannot be used: {error}")),
        }
    }

    /// Hears of a watch event.
    pub fn hear(&mut self, event: &WatchEvent) {
        let lost = self.volume().and_then(|volume| volume.borrow_mut().hear(event).err());
        if let Some(error) = lost {
            self.lose(&format!("the disk is lost: {error}"));
        }
    }

    /// Takes in what the disk has delivered.
    pub fn collect(&mut self) {
        let failed = self.volume().and_then(|volume| volume.borrow_mut().collect().err());
        if let Some(error) = failed {
            self.lose(&format!("the disk's domain misbehaves: {error}"));
        }
    }

    /// Shows the disk what was asked for.
    pub fn kick(&mut self) {
        if let Some(volume) = self.volume() {
            volume.borrow_mut().kick();
        }
    }

    fn lose(&mut self, why: &str) {
        log::warn!("{why}; waiting for it to come back");
        if let Some(volume) = self.volume() {
            volume.borrow_mut().close();
        }
        self.state = State::Opening(Box::new(Opening::new(None)), why.into());
    }
}

/// Remembers a reason, and tells of it when it is new.
fn say(why: &mut String, new: String) {
    if *why != new {
        log::info!("waiting: {new}");
        *why = new;
    }
}

fn mount(disk: Disk) -> State {
    let volume = match Volume::new(disk) {
        Ok(volume) => Rc::new(RefCell::new(volume)),
        Err(error) => {
            let why = format!("the disk cannot be used: {error}");
            log::error!("{why}");
            return State::Opening(Box::new(Opening::new(None)), why);
        }
    };
    let mebibytes = volume.borrow().bytes() >> 20;
    match Ext4::load(Box::new(Reader(volume.clone()))) {
        Ok(files) => {
            log::info!("disk of {mebibytes} MiB, ext4 file system {:?}", files.label().to_str().unwrap_or(""));
            State::Mounted { files, volume }
        }
        Err(error) => {
            let why = format!("the disk of {mebibytes} MiB has no ext4 file system that can be read: {error}");
            log::error!("{why}");
            State::Unreadable(volume, why)
        }
    }
}

impl Site for DiskSite {
    type File = OpenFile;

    fn find(&mut self, path: &[u8]) -> Result<Found<OpenFile>, SiteError> {
        let (files, volume) = self.mounted()?;
        let path = Path::try_from(path).map_err(|_| SiteError::NotFound)?;
        match files.open(path) {
            Ok(file) => {
                let (size, modified) = (file.metadata().len(), file.metadata().modified().seconds());
                let file = OpenFile { file, volume: volume.clone(), expected: None, broken: false };
                Ok(Found::File(Opened { file, size, modified }))
            }
            Err(Ext4Error::IsADirectory) => Ok(Found::Directory),
            Err(error) => Err(site_error(&error)),
        }
    }

    fn list(&mut self, path: &[u8], limit: usize) -> Result<Vec<Listed>, SiteError> {
        let (files, _) = self.mounted()?;
        let path = Path::try_from(path).map_err(|_| SiteError::NotFound)?;
        let entries = files.read_dir(path).map_err(|error| site_error(&error))?;
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| site_error(&error))?;
            let name = entry.file_name();
            let name: &[u8] = name.as_ref();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if listed.len() >= limit {
                break;
            }
            let directory = match entry.file_type() {
                // What a link leads to decides; one that leads nowhere is listed like a file.
                Ok(kind) if kind.is_symlink() => files.metadata(&entry.path()).is_ok_and(|target| target.is_dir()),
                Ok(kind) => kind.is_dir(),
                Err(_) => false,
            };
            listed.push(Listed { name: name.to_vec(), directory });
        }
        Ok(listed)
    }

    fn read(&mut self, file: &mut OpenFile, offset: u64, buffer: &mut [u8]) -> Result<Read, SiteError> {
        file.read(offset, buffer)
    }
}

impl DiskSite {
    fn mounted(&self) -> Result<(&Ext4, &SharedVolume), SiteError> {
        match &self.state {
            State::Mounted { files, volume } => Ok((files, volume)),
            State::Opening(_, why) | State::Unreadable(_, why) => Err(SiteError::Unavailable(why.clone())),
        }
    }
}

impl OpenFile {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Read, SiteError> {
        if self.broken || !self.volume.borrow().is_open() {
            return Err(SiteError::Failed("the file cannot be read any more".into()));
        }
        // Once for each read, as the guess may be wrong: the file goes on elsewhere on the disk.
        if let Some(expected) = self.expected.take()
            && !self.volume.borrow_mut().is_ready(expected)
        {
            return Ok(Read::Later);
        }
        self.volume.borrow_mut().last_end = None;
        let result = self.fill(offset, buffer);
        self.expected = self.volume.borrow().last_end;
        self.broken = result.is_err();
        result.map(Read::Bytes).map_err(|error| {
            log::warn!("a file cannot be read: {error}");
            SiteError::Failed(error)
        })
    }

    fn fill(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        if self.file.position() != offset {
            // The library's seek drops errors of the disk, and its file must not be read from after one.
            self.volume.borrow_mut().error = None;
            self.file.seek_to(offset).map_err(|error| error.to_string())?;
            if let Some(error) = self.volume.borrow_mut().error.take() {
                return Err(error);
            }
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_bytes(&mut buffer[filled..]).map_err(|error| error.to_string())? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 { Err("the file is shorter than it says".into()) } else { Ok(filled) }
    }
}

fn site_error(error: &Ext4Error) -> SiteError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory | Ext4Error::MalformedPath | Ext4Error::PathTooLong => {
            SiteError::NotFound
        }
        Ext4Error::TooManySymlinks => SiteError::NotFound,
        Ext4Error::IsASpecialFile | Ext4Error::Encrypted => SiteError::Forbidden,
        other => {
            log::warn!("the file system cannot be read: {other}");
            SiteError::Failed(other.to_string())
        }
    }
}
