//! Debian packages: downloaded by apt as an ordinary user, checked by it, and unpacked under `target/debian`.

use crate::command::{exists, output};
use crate::{packages, say, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked package.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its files, as they would lie on a system.
    pub folder: PathBuf,
}

/// What apt knows of a package.
struct Known {
    version: String,
    depends: String,
}

impl Package {
    /// Downloads and unpacks a package, unless that version is there already.
    pub fn get(name: &str) -> Result<Self> {
        let known = known(name)?;
        let folder = target().join("debian").join(format!("{name}_{}", plain(&known.version)));
        if !folder.is_dir() {
            download(name, &folder)?;
        }
        Ok(Package { name: name.to_owned(), folder })
    }

    /// A package with a kernel. A name such as `linux-image-amd64`, which only depends on the latest kernel, is followed.
    pub fn kernel(name: &str) -> Result<Self> {
        let depends = known(name)?.depends;
        let wanted = |word: &&str| {
            word.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        match depends.split([' ', ',']).find(wanted) {
            Some(versioned) => Self::get(versioned),
            None => Self::get(name),
        }
    }

    /// The kernel of a package with a kernel.
    pub fn vmlinuz(&self) -> Result<PathBuf> {
        let boot = self.folder.join("boot");
        let files = fs::read_dir(&boot).with_context(|| format!("the package {} has no kernel", self.name))?;
        let kernel = files
            .filter_map(|file| Some(file.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
        kernel.with_context(|| format!("the package {} has no boot/vmlinuz-*", self.name))
    }

    /// A file, by its path in a system.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let full = self.folder.join(path);
        fs::read(&full).with_context(|| format!("the package {} has no {path}", self.name))
    }
}

/// A version as part of a file's name.
fn plain(version: &str) -> String {
    version.replace([':', '/', '~'], "-")
}

fn known(name: &str) -> Result<Known> {
    let sound = name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !sound || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        bail!("`{name}` is no name of a Debian package");
    }
    if !exists("apt-cache") {
        bail!("Debian's package `{name}` is wanted, but there is no apt here: give the path of a file instead");
    }
    let show = || output(Command::new("apt-cache").args(["show", "--no-all-versions", name]));
    let text = match show() {
        Ok(text) if !text.is_empty() => text,
        _ => {
            packages::refresh();
            show().with_context(|| {
                format!(
                    "apt knows no package `{name}`; `apt-cache search {name}` lists names, `apt-get update` renews them"
                )
            })?
        }
    };
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_default().to_owned()
    };
    Ok(Known { version: field("Version"), depends: field("Depends") })
}

/// Downloads a package and unpacks it into `folder`, which is there in full or not at all.
fn download(name: &str, folder: &Path) -> Result<()> {
    say("Downloading", &format!("{name} (apt)"));
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let done = fetch(name, &partial).and_then(|package| {
        let files = partial.join("files");
        output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&files))?;
        if !folder.is_dir() {
            fs::rename(&files, folder)?;
        }
        Ok(())
    });
    fs::remove_dir_all(&partial).ok();
    done
}

fn fetch(name: &str, folder: &Path) -> Result<PathBuf> {
    let get = || output(Command::new("apt-get").args(["-q", "download", name]).current_dir(folder));
    // The version that apt remembers may have been replaced since.
    if get().is_err() {
        packages::refresh();
        get().with_context(|| {
            format!(
                "apt could not download {name}. Without a network, give the path of a file on this machine instead \
                 (an installed kernel is /boot/vmlinuz-*)"
            )
        })?;
    }
    let files = fs::read_dir(folder)?.filter_map(|file| Some(file.ok()?.path()));
    let package = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.with_context(|| format!("apt downloaded no file for {name}"))
}

/// Writes a file that is there in full or not at all.
pub fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, data).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}
