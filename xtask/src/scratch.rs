//! A folder for one run, gone at its end.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use xtask::target;

/// The folder; removed when dropped.
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
}

impl Scratch {
    /// Makes a folder of this process.
    pub fn new() -> Result<Self> {
        let path = target().join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.path) {
            eprintln!("note: {} is left behind ({why})", self.path.display());
        }
    }
}
