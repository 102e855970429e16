//! A dynamically linked program of a Debian package, with the libraries that it needs.

use super::debian::Package;
use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, PT_INTERP};
use elf::endian::LittleEndian;
use std::fs;

/// Where Debian's packages have libraries, before and after they moved below `usr`.
const FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// Where the loader of every program finds them.
const PLACE: &str = "lib/x86_64-linux-gnu";

/// A file for an archive.
#[derive(Debug)]
pub struct File {
    /// Its path, without a slash in front.
    pub path: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// A program, the loader that it names, and all libraries that it and they need, found in `packages`.
pub fn with_libraries(path: &str, program: Vec<u8>, packages: &[Package]) -> Result<Vec<File>> {
    let mut files = vec![];
    let (loader, mut wanted) = needs(&program).with_context(|| format!("{path} is no program that can be read"))?;
    if let Some(loader) = loader {
        let name = loader.rsplit('/').next().unwrap_or_default();
        files.push(File { path: loader.trim_start_matches('/').to_owned(), data: library(name, packages)? });
    }
    files.push(File { path: path.to_owned(), data: program });
    while let Some(name) = wanted.pop() {
        let path = format!("{PLACE}/{name}");
        // The loader itself is one of the libraries that libc needs; it is loaded already.
        let has = |file: &File| file.path.rsplit('/').next() == Some(&name);
        if files.iter().any(has) {
            continue;
        }
        let data = library(&name, packages)?;
        wanted.extend(needs(&data).with_context(|| format!("{name} is no library that can be read"))?.1);
        files.push(File { path, data });
    }
    Ok(files)
}

/// A library by its name. Links within a package are followed, which Debian's are.
fn library(name: &str, packages: &[Package]) -> Result<Vec<u8>> {
    let places = packages.iter().flat_map(|package| FOLDERS.map(|folder| package.folder.join(folder).join(name)));
    let data = places.into_iter().find_map(|path| fs::read(path).ok());
    let names = || packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(", ");
    data.with_context(|| format!("no library {name} in {}", names()))
}

/// The loader and the libraries that an ELF file names.
fn needs(file: &[u8]) -> Result<(Option<String>, Vec<String>)> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let segments = elf.segments().context("it has no program headers")?;
    let loader = segments.iter().find(|segment| segment.p_type == PT_INTERP);
    let loader = loader.map(|segment| elf.segment_data(&segment)).transpose()?;
    let loader = loader.map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned());
    let names = elf.find_common_data()?.dynsyms_strs;
    let mut needed = vec![];
    for entry in elf.dynamic()?.into_iter().flatten().filter(|entry| entry.d_tag == DT_NEEDED) {
        let names = names.as_ref().context("it has no table of names")?;
        needed.push(names.get(usize::try_from(entry.d_val())?)?.to_owned());
    }
    Ok((loader, needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's own programs are as good as any.
    #[test]
    fn a_program_names_its_loader_and_its_libraries() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let (loader, needed) = needs(&own).unwrap();
        assert!(loader.unwrap().contains("ld-linux"));
        assert!(needed.iter().any(|name| name == "libc.so.6"), "{needed:?}");
        let error = with_libraries("sbin/x", own, &[]).unwrap_err();
        assert!(error.to_string().contains("no library"), "{error}");
    }
}
