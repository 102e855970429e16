//! The boot bundle: one cpio archive ("newc", as Linux's initramfs) with the compiled policy and the domain images.
//!
//! `docs/bundle.md` describes it. The hypervisor reads its index, so it is kept as plain as the format allows:
//! `policy.table` first, then the images, no links, no folders, then `TRAILER!!!`. Each content begins on a page, by an
//! entry of zeros before it, so that a page of a program is a page of the archive.

use crate::cpio::{Archive, HEADER_BYTES, Kind};
use crate::{guest, images};
use anyhow::{Result, ensure};
use policy::Policy;
use std::path::Path;

/// The name of the compiled policy in the archive.
pub const POLICY_TABLE: &str = "policy.table";

/// Bytes of a page.
const PAGE: usize = 4096;

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
        let padding = format!("padding/{number}");
        let begins = archive.content_offset(&padding);
        let content = |zeros: usize| (begins + zeros + HEADER_BYTES + member.name.len() + 1).next_multiple_of(4);
        let zeros = (0..PAGE).step_by(4).find(|zeros| content(*zeros).is_multiple_of(PAGE)).unwrap_or(0);
        archive.add(&padding, Kind::File, &vec![0; zeros])?;
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
        assert_eq!(&archive[PAGE..PAGE + 4], &[1, 2, 3, 0]);
        assert!(archive.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn contents_begin_on_pages() {
        let member = |name: &str, bytes: usize| Member { name: name.into(), data: vec![0xaa; bytes] };
        let names = ["a", "bb", "a-longer-name", "four"];
        let members: Vec<Member> =
            names.into_iter().zip([1, 5000, PAGE, 77]).map(|(name, bytes)| member(name, bytes)).collect();
        let archive = write(&members).unwrap();
        let begins = |(at, pair): (usize, &[u8])| (pair[0] == 0 && pair[1] == 0xaa).then_some(at + 1);
        let contents: Vec<usize> = archive.windows(2).enumerate().filter_map(begins).collect();
        assert_eq!(contents.len(), members.len());
        assert!(contents.iter().all(|at| at.is_multiple_of(PAGE)), "{contents:?}");
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let member = || Member { name: "a".into(), data: vec![] };
        assert!(write(&[member(), member()]).is_err());
    }
}
