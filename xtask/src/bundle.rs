//! The boot bundle: one cpio archive ("newc", as Linux's initramfs) with the compiled policy and the domain images.
//!
//! `docs/bundle.md` describes it. The hypervisor reads its index, so it is kept as plain as the format allows:
//! `policy.table` first, then the images, no links, no folders, then `TRAILER!!!`.

use anyhow::{Result, ensure};

/// The name of the compiled policy in the archive.
pub const POLICY_TABLE: &str = "policy.table";

/// One file of the archive.
pub struct Member {
    /// Its name, unique.
    pub name: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// Writes the archive.
pub fn write(members: &[Member]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, member) in members.iter().enumerate() {
        ensure!(!member.name.is_empty() && member.name.len() < 200, "bundle: bad file name {:?}", member.name);
        let again = members.iter().take(number).any(|other| other.name == member.name);
        ensure!(!again, "bundle: two files named {:?}", member.name);
        append(&mut archive, &member.name, &member.data, number as u32 + 1)?;
    }
    append(&mut archive, "TRAILER!!!", &[], 0)?;
    Ok(archive)
}

fn append(archive: &mut Vec<u8>, name: &str, data: &[u8], inode: u32) -> Result<()> {
    ensure!(data.len() < u32::MAX as usize, "bundle: {name} is larger than 4 GiB");
    let mode = if inode == 0 { 0 } else { 0o100_644 };
    // Magic, then 13 fields of 8 hexadecimal digits: inode, mode, uid, gid, links, mtime, size, device (major, minor),
    // special device (major, minor), name size with its NUL, check.
    let fields = [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(data);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_padded_and_closed_by_a_trailer() {
        let archive = write(&[Member { name: "a".into(), data: vec![1, 2, 3] }]).unwrap();
        assert_eq!(&archive[..6], b"070701");
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(&archive[112..116], &[1, 2, 3, 0]);
        assert!(archive.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let member = || Member { name: "a".into(), data: vec![] };
        assert!(write(&[member(), member()]).is_err());
    }
}
