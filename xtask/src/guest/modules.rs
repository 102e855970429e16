//! Modules of a kernel package: which of them are needed, and in which order they can be loaded.
//!
//! The package has no `modules.dep` (Debian makes that at installation), so the modules' own `.modinfo` sections say what
//! they depend on.

use super::debian::Package;
use super::unpack::unpack;
use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, as the kernel loads it.
pub struct Module {
    /// Its file's name, such as `ext4.ko`.
    pub file: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// The modules of a package that `wanted` need, themselves included, each behind those that it depends on. What is built
/// into the kernel needs no module.
pub fn needed(package: &Package, wanted: &[&str]) -> Result<Vec<Module>> {
    let catalogue = Catalogue::read(package)?;
    let mut order = Order { catalogue: &catalogue, done: vec![], modules: vec![] };
    for name in wanted {
        order.add(name, 0).with_context(|| format!("module {name} of {}", package.name))?;
    }
    Ok(order.modules)
}

/// Modules nest a few levels deep; more is a cycle.
const DEPTH_MAX: usize = 20;

struct Order<'a> {
    catalogue: &'a Catalogue,
    done: Vec<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str, depth: usize) -> Result<()> {
        let name = canonical(name);
        if self.done.contains(&name) || self.catalogue.built_in.contains(&name) {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            bail!("its dependencies go round in a circle");
        }
        let path = self.catalogue.files.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
        let packed = fs::read(path)?;
        let data = unpack(&packed).with_context(|| format!("{}", path.display()))?;
        for dependency in dependencies(&data).with_context(|| format!("{}", path.display()))? {
            self.add(&dependency, depth + 1)?;
        }
        self.modules.push(Module { file: format!("{name}.ko"), data });
        self.done.push(name);
        Ok(())
    }
}

/// What there is: by canonical name.
struct Catalogue {
    files: BTreeMap<String, PathBuf>,
    built_in: Vec<String>,
}

impl Catalogue {
    fn read(package: &Package) -> Result<Self> {
        let roots = ["lib/modules", "usr/lib/modules"].map(|folder| package.folder.join(folder));
        let root = roots.iter().find(|root| root.is_dir());
        let root = root.with_context(|| format!("the package {} has no modules", package.name))?;
        let version = fs::read_dir(root)?.next().context("it has no modules")??.path();
        let mut files = BTreeMap::new();
        collect(&version, &mut files)?;
        let list = fs::read_to_string(version.join("modules.builtin")).unwrap_or_default();
        let built_in = list.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Catalogue { files, built_in })
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name of the module in a file, `None` if it is none: `crc32c_generic` for `.../crc32c_generic.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(rest, "" | ".gz" | ".xz" | ".zst").then(|| canonical(name))
}

/// `-` and `_` mean the same in a module's name.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module says that it depends on.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(module)?;
    let section = elf.section_header_by_name(".modinfo")?.context("it has no .modinfo section")?;
    let (info, _) = elf.section_data(&section)?;
    let entries = info.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let depends = entries.filter_map(|entry| entry.strip_prefix("depends=")).flat_map(|list| list.split(','));
    Ok(depends.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_modules_by_their_ending() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/drivers/net/xen-netfront.ko").as_deref(), Some("xen_netfront"));
        assert_eq!(name("a/b.ko.xz").as_deref(), Some("b"));
        assert_eq!(name("modules.builtin"), None);
        assert_eq!(name("a.kotlin"), None);
    }
}
