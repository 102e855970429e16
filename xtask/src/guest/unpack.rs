//! Decompression, by what the data begins with. All decoders are Rust; none of them runs in the system itself.

use anyhow::{Context, Result, bail};
use std::io::Read;

/// The window that `zstd -22 --ultra` uses, which Linux compresses itself with.
const ZSTD_WINDOW_MAX: u64 = 128 << 20;
/// More than any kernel or module: a file that unpacks to more is broken, or a trap.
const UNPACKED_MAX: u64 = 1 << 30;

/// What packed some data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Nothing: an ELF file.
    Elf,
    /// gzip (RFC 1952).
    Gzip,
    /// xz, with its filter for x86 code.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4's old frames, as `lz4 -l` makes them.
    Lz4,
}

impl Format {
    /// Looks at the beginning of data.
    pub fn of(data: &[u8]) -> Result<Self> {
        let known: [(&[u8], Self); 5] = [
            (b"\x7fELF", Self::Elf),
            (b"\x1f\x8b", Self::Gzip),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\x02\x21\x4c\x18", Self::Lz4),
        ];
        if let Some((_, format)) = known.iter().find(|(magic, _)| data.starts_with(magic)) {
            return Ok(*format);
        }
        let others: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\x5d\0\0", "LZMA"), (b"\x89LZO", "LZO")];
        match others.iter().find(|(magic, _)| data.starts_with(magic)) {
            Some((_, name)) => bail!("it is compressed with {name}; supported are gzip, xz, zstd and lz4"),
            None => bail!("it is neither an ELF file nor compressed in a known way"),
        }
    }
}

/// Unpacks data of any [`Format`].
pub fn unpack(data: &[u8]) -> Result<Vec<u8>> {
    match Format::of(data)? {
        Format::Elf => Ok(data.to_vec()),
        Format::Gzip => drain(flate2::read::GzDecoder::new(data)).context("damaged gzip data"),
        Format::Xz => drain(lzma_rust2::XzReader::new(data, false)).context("damaged xz data"),
        Format::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(data, ZSTD_WINDOW_MAX);
            drain(decoder.context("damaged zstd data")?).context("damaged zstd data")
        }
        Format::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(data)).context("damaged lz4 data"),
    }
}

fn drain(reader: impl Read) -> Result<Vec<u8>> {
    let mut unpacked = vec![];
    reader.take(UNPACKED_MAX + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > UNPACKED_MAX {
        bail!("it unpacks to more than {} MiB", UNPACKED_MAX >> 20);
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests;
