//! The domain that watches: an event channel to it, through Linux's `/dev/xen/evtchn` (`include/uapi/xen/evtchn.h`).

use crate::linux::{self, Failed, File};

/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`: the other domain and its port; answers ours.
const BIND_INTERDOMAIN: u64 = 8 << 16 | (b'E' as u64) << 8 | 1;
/// `IOCTL_EVTCHN_NOTIFY`: our port.
const NOTIFY: u64 = 4 << 16 | (b'E' as u64) << 8 | 4;
/// The watcher has made a port for us. Which one, is found by trying.
const PORTS: core::ops::Range<u32> = 1..64;

/// The channel.
pub struct Watcher {
    file: File,
    port: u32,
}

impl Watcher {
    /// Connects to `domain`.
    pub fn find(domain: u32) -> Result<Self, Failed> {
        let file = File::open(c"/dev/xen/evtchn", linux::O_RDWR)?;
        let bound = PORTS.into_iter().find_map(|port| file.control(BIND_INTERDOMAIN, &mut [domain, port]).ok());
        let port = bound.ok_or(Failed("no port of the domain that watches", 0))? as u32;
        Ok(Self { file, port })
    }

    /// Tells the watcher, and waits until it has seen it.
    pub fn tell(&self) -> Result<(), Failed> {
        self.file.control(NOTIFY, &mut [self.port])?;
        let mut port = [0; 4];
        self.file.read(&mut port)?;
        // Written back, the port may tell again.
        self.file.write_all(&port)
    }
}
