//! Debian packages: downloaded by apt as an ordinary user, checked by it, and unpacked under `target/debian`.

use crate::command::{exists, output};
use crate::{packages, say, target};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// An unpacked package.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its files, as they would lie on a system.
    pub folder: PathBuf,
}

/// What apt knows of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    version: String,
    /// Names with conditions on versions, between commas.
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

    /// A package and those that it depends on itself.
    pub fn with_dependencies(name: &str) -> Result<Vec<Self>> {
        let depends = known(name)?.depends;
        let names: Vec<&str> = depends.split(',').filter_map(|one| one.split_whitespace().next()).collect();
        learn(names.iter().copied())?;
        [name].into_iter().chain(names).map(Self::get).collect()
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

/// Debian Policy, 5.6.1; what begins with `-` would be an option to apt.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// What apt said of packages, asked once for each: an answer takes a second or so, however many it is about.
static KNOWN: Mutex<BTreeMap<String, Known>> = Mutex::new(BTreeMap::new());

/// Asks apt about packages that will be wanted. Those that it does not know are complained about when they are.
pub fn learn<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut known = KNOWN.lock().map_err(|_| anyhow!("asking apt failed before"))?;
    let names = names.into_iter().filter(|name| is_name(name) && !known.contains_key(*name));
    let names: Vec<&str> = names.collect();
    if !names.is_empty() && exists("apt-cache") {
        let out = Command::new("apt-cache").args(["show", "--no-all-versions"]).args(names).output()?;
        known.extend(stanzas(&String::from_utf8_lossy(&out.stdout)));
    }
    Ok(())
}

fn known(name: &str) -> Result<Known> {
    if !is_name(name) {
        bail!("`{name}` is no name of a Debian package");
    }
    if !exists("apt-cache") {
        bail!("Debian's package `{name}` is wanted, but there is no apt here: give the path of a file instead");
    }
    let ask = || -> Result<Option<Known>> {
        learn([name])?;
        Ok(KNOWN.lock().map_err(|_| anyhow!("asking apt failed before"))?.get(name).cloned())
    };
    if let Some(known) = ask()? {
        return Ok(known);
    }
    packages::refresh();
    ask()?.with_context(|| {
        format!("apt knows no package `{name}`; `apt-cache search {name}` lists names, `apt-get update` renews them")
    })
}

/// Packages by their names, as `apt-cache show` describes them.
fn stanzas(text: &str) -> impl Iterator<Item = (String, Known)> {
    text.split("\n\n").filter_map(|stanza| {
        let field = |key: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let depends = [field("Pre-Depends"), field("Depends")].into_iter().filter(|list| !list.is_empty());
        let depends = depends.collect::<Vec<_>>().join(", ");
        let (name, version) = (field("Package"), field("Version"));
        (!name.is_empty() && !version.is_empty()).then_some((name, Known { version, depends }))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_is_read_by_package() {
        let text = "Package: a\nVersion: 1:2.0\nPre-Depends: libc6 (>= 2)\nDepends: b (= 1), c\nDescription: d\n Depends: x\n\n\
                    Package: b\nVersion: 3~rc1\n\nN: nothing\n";
        let found: BTreeMap<String, Known> = stanzas(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found["a"], Known { version: "1:2.0".into(), depends: "libc6 (>= 2), b (= 1), c".into() });
        assert_eq!(plain(&found["b"].version), "3-rc1");
    }

    #[test]
    fn what_apt_does_not_know_is_said_with_what_to_type() {
        let refused = |name: &str| format!("{:#}", Package::get(name).err().unwrap());
        if exists("apt-cache") {
            // Not asked at all: it would be an option to apt.
            assert!(refused("--help").contains("no name of a Debian package"));
        } else {
            assert!(refused("linux-image-amd64").contains("no apt here"));
        }
    }
}
