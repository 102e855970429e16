//! `cargo xtask loc`: lines of code without tests, comment lines, and unsafe sites, per crate.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use xtask::root;

/// Folders that are counted, in the order of trust.
const CRATES: &[&str] = &[
    "hv/src",
    "hv/core/src",
    "ipc/abi/src",
    "ipc/rings/src",
    "policy/image/src",
    "policy/domain/src",
    "policy/rules/src",
    "domains/runtime/src",
    "domains/frontends/src",
    "domains/xenstore/src",
    "domains/web/src",
    "domains/hello/src",
    "driver-domains/virtio/src",
    "driver-domains/block/src",
    "driver-domains/net/src",
    "driver-domains/console/src",
    "xtask/src",
    "tests/harness/src",
];

/// The hypervisor's budget: lines of code of `hv` and `hv-core` together.
const HYPERVISOR_LIMIT: usize = 11_000;

#[derive(Default, Clone, Copy)]
struct Count {
    code: usize,
    comments: usize,
    unsafe_sites: usize,
    unexplained: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.code += other.code;
        self.comments += other.comments;
        self.unsafe_sites += other.unsafe_sites;
        self.unexplained += other.unexplained;
    }
}

/// Prints the table; fails when the hypervisor is over its budget or an `unsafe` is not explained.
pub fn loc() -> Result<()> {
    println!("{:<28} {:>8} {:>9} {:>7}", "folder", "code", "comments", "unsafe");
    let (mut all, mut hypervisor) = (Count::default(), 0);
    for folder in CRATES.iter().filter(|folder| root().join(folder).is_dir()) {
        let count = count_folder(&root().join(folder))?;
        println!("{folder:<28} {:>8} {:>9} {:>7}", count.code, count.comments, count.unsafe_sites);
        if folder.starts_with("hv/") {
            hypervisor += count.code;
        }
        all += count;
    }
    println!("{:<28} {:>8} {:>9} {:>7}", "all", all.code, all.comments, all.unsafe_sites);
    println!("hypervisor: {hypervisor} lines of at most {HYPERVISOR_LIMIT}");
    if hypervisor > HYPERVISOR_LIMIT {
        bail!("the hypervisor has {hypervisor} lines, over its budget of {HYPERVISOR_LIMIT}");
    }
    if all.unexplained > 0 {
        bail!("{} unsafe sites have no SAFETY comment", all.unexplained);
    }
    Ok(())
}

fn count_folder(folder: &Path) -> Result<Count> {
    let mut sum = Count::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                sum += count_folder(&path)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && path.file_stem().is_some_and(|stem| !is_test_file(&stem.to_string_lossy()))
        {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sum += count(&text, &path);
        }
    }
    Ok(sum)
}

fn is_test_file(stem: &str) -> bool {
    stem == "tests"
        || stem == "fake"
        || stem == "testing"
        || stem == "proptests"
        || stem.ends_with("_tests")
        || stem.ends_with("_test")
}

/// Counts one file up to its test module, which by our style is the last item.
fn count(text: &str, path: &Path) -> Count {
    let mut count = Count::default();
    let mut explained_until = 0;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (number, line) in lines.iter().enumerate() {
        if *line == "#[cfg(test)]"
            && lines.get(number + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        {
            break;
        }
        if line.is_empty() {
            continue;
        }
        if line.starts_with("//") {
            count.comments += 1;
            if line.contains("SAFETY:") || line.contains("# Safety") {
                // The reason may have several lines, and stand over an attribute or a statement that begins before.
                explained_until = number + 12;
            }
            continue;
        }
        count.code += 1;
        if is_unsafe_site(line) {
            count.unsafe_sites += 1;
            if number > explained_until {
                count.unexplained += 1;
                eprintln!("{}:{}: unsafe without a SAFETY comment", path.display(), number + 1);
            }
        }
    }
    count
}

fn is_unsafe_site(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"].iter().any(|form| code.contains(form))
        && !code.contains('"')
}
