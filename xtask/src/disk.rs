//! Disk images: the demo site, and ext4 images of any folder.

use crate::command::run;
use crate::{packages, root, target};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The demo disk: the `site` folder of this repository as an ext4 image. Made anew only when the folder is newer.
pub fn demo() -> Result<PathBuf> {
    let (folder, image) = (root().join("site"), target().join("demo.img"));
    let newest = newest(&folder)?;
    let fresh = fs::metadata(&image).and_then(|meta| meta.modified()).is_ok_and(|made| made >= newest);
    if !fresh {
        ext4(&folder, &image, 16)?;
    }
    Ok(image)
}

/// An empty disk, number `number` of a machine, which keeps what is written to it.
pub fn empty(number: usize) -> Result<PathBuf> {
    let image = target().join(format!("disk{number}.img"));
    if !image.exists() {
        let file = fs::File::create(&image).with_context(|| format!("cannot create {}", image.display()))?;
        file.set_len(EMPTY_BYTES)?;
    }
    Ok(image)
}

/// Bytes of an empty disk: on the host it takes what is written to it.
const EMPTY_BYTES: u64 = 512 << 20;

/// Makes an ext4 image of `megabytes` MiB with the files of `folder`. Replaces `image` at the end, at once.
pub fn ext4(folder: &Path, image: &Path, megabytes: u64) -> Result<()> {
    packages::require(&[packages::MKE2FS])?;
    let partial = image.with_extension("partial");
    let file = fs::File::create(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    file.set_len(megabytes << 20)?;
    drop(file);
    let mut mke2fs = Command::new(packages::MKE2FS.thing);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "site", "-m", "0", "-d"]).arg(folder).arg(&partial);
    run(mke2fs.stdin(Stdio::null()))?;
    fs::rename(&partial, image)?;
    Ok(())
}

fn newest(folder: &Path) -> Result<std::time::SystemTime> {
    let mut newest = fs::metadata(folder).with_context(|| format!("no folder {}", folder.display()))?.modified()?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let when =
            if entry.file_type()?.is_dir() { self::newest(&entry.path())? } else { entry.metadata()?.modified()? };
        newest = newest.max(when);
    }
    Ok(newest)
}
