//! Archives of the "newc" kind, which the hypervisor's bundle and Linux's initramfs are: header, name, content, each
//! padded to 4 bytes, and `TRAILER!!!` at the end. Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use anyhow::{Result, ensure};

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file that all may read.
    File,
    /// A file that all may read and execute.
    Program,
    /// A folder.
    Folder,
    /// A character device: major, minor.
    CharacterDevice(u32, u32),
}

impl Kind {
    fn mode(self) -> u32 {
        match self {
            Kind::File => 0o100_644,
            Kind::Program => 0o100_755,
            Kind::Folder => 0o040_755,
            Kind::CharacterDevice(..) => 0o020_600,
        }
    }
}

/// Bytes before an entry's name.
pub const HEADER_BYTES: usize = 110;

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Appends an entry.
    pub fn add(&mut self, name: &str, kind: Kind, data: &[u8]) -> Result<()> {
        self.entries += 1;
        let special = match kind {
            Kind::CharacterDevice(major, minor) => (major, minor),
            _ => (0, 0),
        };
        self.append(name, self.entries, kind.mode(), special, data)
    }

    /// Where the content of an entry of this name would begin, if it were the next.
    pub fn content_offset(&self, name: &str) -> usize {
        (self.bytes.len() + HEADER_BYTES + name.len() + 1).next_multiple_of(4)
    }

    /// Closes it.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.append("TRAILER!!!", 0, 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn append(&mut self, name: &str, inode: u32, mode: u32, special: (u32, u32), data: &[u8]) -> Result<()> {
        ensure!(data.len() < u32::MAX as usize, "archive: {name} is larger than 4 GiB");
        // Magic, then 13 fields of 8 hexadecimal digits: inode, mode, uid, gid, links, mtime, size, device (major,
        // minor), special device (major, minor), name size with its NUL, check.
        let fields = [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, special.0, special.1, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_carry_their_mode_and_their_device() {
        let mut archive = Archive::default();
        archive.add("dev", Kind::Folder, &[]).unwrap();
        archive.add("dev/console", Kind::CharacterDevice(5, 1), &[]).unwrap();
        archive.add("init", Kind::Program, b"#!").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let entries: Vec<&str> = text.split("070701").skip(1).collect();
        assert_eq!(entries.len(), 4);
        assert!(entries[0].starts_with("00000001000041ed"));
        assert!(entries[1].starts_with("0000000200002180") && entries[1][72..88] == *"0000000500000001");
        assert!(entries[2].starts_with("00000003000081ed") && entries[2].contains("init\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
