//! The boot bundle: one cpio archive ("newc", as Linux's initramfs) with the compiled policy and the domain images.
//!
//! `docs/bundle.md` describes it. The hypervisor reads its index, so it is kept as plain as the format allows:
//! `policy.table` first, then the images, no links, no folders, then `TRAILER!!!`.

use crate::cpio::{Archive, Kind};
use crate::{guest, images};
use anyhow::{Result, ensure};
use policy::Policy;
use std::path::Path;

/// The name of the compiled policy in the archive.
pub const POLICY_TABLE: &str = "policy.table";

/// One file of the archive.
pub struct Member {
    /// Its name, unique.
    pub name: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// Everything that a policy names: the compiled policy, programs from the folder that `images::build` returned, kernels
/// and initrds, whose files are found from `folder`.
pub fn members(policy: &Policy, programs: &Path, folder: &Path) -> Result<Vec<Member>> {
    let mut members = vec![Member { name: POLICY_TABLE.into(), data: policy.compile() }];
    for name in policy.images() {
        members.push(Member { name: name.to_string(), data: images::read(programs, name)? });
    }
    members.extend(guest::members(policy, folder)?);
    Ok(members)
}

/// Writes the archive.
pub fn write(members: &[Member]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for (number, member) in members.iter().enumerate() {
        ensure!(!member.name.is_empty() && member.name.len() < 200, "bundle: bad file name {:?}", member.name);
        let again = members.iter().take(number).any(|other| other.name == member.name);
        ensure!(!again, "bundle: two files named {:?}", member.name);
        archive.add(&member.name, Kind::File, &member.data)?;
    }
    archive.finish()
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
