//! Archives made by hand: good ones, each fault, and noise.

use std::format;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn entry(archive: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let (size, name_size) = (bytes.len(), name.len() + 1);
    let zeros = "00000000";
    let header = format!(
        "070701{zeros}{:08X}{zeros}{zeros}{:08x}{zeros}{size:08X}{zeros}{zeros}{zeros}{zeros}{name_size:08X}{zeros}",
        0o100_644, 1
    );
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        entry(&mut archive, name, bytes);
    }
    entry(&mut archive, "TRAILER!!!", b"");
    archive
}

fn fault(archive: &[u8]) -> BundleError {
    Bundle::new(archive).unwrap_err()
}

#[test]
fn files_are_found_by_name() {
    let mut bytes = archive(&[("policy.table", b"abcde"), ("./images/web", b"ELF"), ("empty", b"")]);
    bytes.extend_from_slice(&[0; 300]);
    let bundle = Bundle::new(&bytes).unwrap();
    assert_eq!(bundle.files().count(), 3);
    let policy = bundle.find("policy.table").unwrap();
    assert_eq!(policy.bytes, b"abcde");
    assert_eq!(&bytes[policy.offset..policy.offset + 5], b"abcde");
    assert_eq!(bundle.find("images/web").unwrap().bytes, b"ELF");
    assert_eq!(bundle.find("empty").unwrap().bytes, b"");
    assert_eq!(bundle.find("TRAILER!!!"), None);
    assert_eq!(bundle.find("missing"), None);
}

#[test]
fn every_truncation_is_noticed() {
    let good = archive(&[("policy.table", b"abcde"), ("web", b"0123456789")]);
    let needed = good.len() - 3;
    for length in 0..needed {
        assert_eq!(fault(&good[..length]).fault, TRUNCATED, "{length} bytes");
    }
    assert!(Bundle::new(&good[..needed]).is_ok(), "padding behind the trailer is not needed");
}

#[test]
fn faults_carry_their_place() {
    let first = archive(&[("a", b"1")]).len() - archive(&[]).len();
    let at = |offset, fault| BundleError { offset, fault };
    assert_eq!(fault(&[0; 200]), at(0, MAGIC));
    let mut second = archive(&[("a", b"1"), ("b", b"2")]);
    second[first + 5] = b'2';
    assert_eq!(fault(&second), at(first, MAGIC), "the checksummed format is another one");
    assert_eq!(fault(&archive(&[("a", b"1"), ("./a", b"2")])), at(first, DUPLICATE));
    assert_eq!(fault(&archive(&[("a", b"1"), ("", b"2")])), at(first, NAME));
    assert_eq!(fault(&archive(&[("a\0b", b"2")])), at(0, NAME));
    let mut size = archive(&[("a", b"1")]);
    size[54] = b'g';
    assert_eq!(fault(&size), at(0, FIELD));
    assert!(fault(&size).to_string().contains("byte 0"));
}

#[test]
fn hostile_sizes_are_refused() {
    for hostile in ["ffffffff", "7fffffff", "fffffffc"] {
        for field in [6, 11] {
            let mut bytes = archive(&[("a", b"1")]);
            let at = 6 + field * 8;
            bytes[at..at + 8].copy_from_slice(hostile.as_bytes());
            let fault = fault(&bytes).fault;
            assert!(matches!(fault, TRUNCATED | NAME), "{hostile} in {field}: {fault:?}");
        }
    }
}

#[test]
fn too_many_files_are_refused() {
    let names: Vec<_> = (0..=FILES_MAX).map(|number| number.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(fault(&archive(&files)).fault, TOO_MANY);
    assert!(Bundle::new(&archive(&files[..FILES_MAX])).is_ok());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _any_result = Bundle::new(&bytes);
    }

    #[test]
    fn changed_archives_never_panic_and_files_lie_inside(changes in prop::collection::vec((0usize..500, any::<u8>()), 1..6)) {
        let mut bytes = archive(&[("policy.table", b"abcde"), ("web", b"0123456789")]);
        for (index, value) in changes {
            let index = index % bytes.len();
            bytes[index] = value;
        }
        if let Ok(bundle) = Bundle::new(&bytes) {
            for file in bundle.files() {
                prop_assert_eq!(&bytes[file.offset..file.offset + file.bytes.len()], file.bytes);
            }
        }
    }
}
