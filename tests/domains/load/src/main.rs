//! A program for Linux in a virtual machine that is measured: it reads its disk and sends by TCP, and tells a domain outside,
//! by events, where each sample begins. That domain (`bench`, `do=watch-linux`) knows what was used until then, by whom.
//!
//! `load DOMAIN [METRIC]`: the domain that watches; one metric over and over, for a trace. `load sink A.B.C.D`: what is sent to
//! from there is taken in here. No library: the system calls that are needed are in [`linux`]. Both programs have the same list of
//! metrics in the same order.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod linux;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod uring;
#[cfg(target_os = "none")]
mod watcher;

#[cfg(target_os = "none")]
mod program {
    use crate::linux::{self, Aio, Failed, File};
    use crate::uring::Uring;
    use crate::watcher::Watcher;

    /// Samples of each metric, after one to warm up.
    const SAMPLES: usize = 21;
    /// Blocks that are read in a sample.
    const BLOCKS: u64 = 512;
    /// Pieces that are sent in a sample.
    const PIECES: u64 = 64;
    /// A sample for a trace is so much smaller.
    const TRACED: u64 = 16;

    const BLOCK: usize = 4096;
    /// Bytes of a piece that is sent.
    const PIECE: usize = 65536;
    const DEPTH: usize = 16;
    /// Blocks of the disk.
    const DISK_BLOCKS: u64 = 16384;

    #[repr(C, align(4096))]
    struct Memory([u8; PIECE]);

    /// Where the domain listens that takes what is sent.
    const TAKER: ([u8; 4], u16) = ([10, 0, 2, 17], 80);
    /// Where the host and the other Linux connect to.
    const PORTS: [u16; 2] = [80, 81];

    /// Does what the command line says.
    pub fn main(watcher: Option<&str>, only: Option<&str>) -> Result<(), Failed> {
        if watcher == Some("sink") {
            return sink(only.unwrap_or_default());
        }
        let domain = watcher.and_then(|text| text.parse().ok()).ok_or(Failed("the arguments", 0))?;
        let watcher = Watcher::find(domain)?;
        let mut memory = Memory([0x55; PIECE]);
        let memory = &mut memory.0;
        let disk = File::open(c"/dev/xvda", linux::O_RDONLY | linux::O_DIRECT)?;
        let mut place = Places(0);
        let work = |items| (0..items).try_for_each(|_| disk.read_at(&mut memory[..BLOCK], place.next()).map(drop));
        measure(&watcher, "linux_block_read_4k_depth_1", only, BLOCKS, work)?;

        let mut uring = Uring::<DEPTH>::new(&disk, BLOCK)?;
        let work = |items| read_deep(&mut uring, &mut place, items);
        measure(&watcher, "linux_block_read_4k_depth_16_each", only, BLOCKS, work)?;

        let mut aio = Aio::<DEPTH>::new()?;
        let work = |items| read_deep_by_aio(&mut aio, &disk, memory, &mut place, items);
        measure(&watcher, "linux_block_read_4k_aio_depth_16_each", only, BLOCKS, work)?;

        let send = |name, stream: File| {
            let work = |items| (0..items).try_for_each(|_| stream.write_all(memory));
            measure(&watcher, name, only, PIECES, work)
        };
        send("linux_tcp_out_mb_per_1e9", connect(TAKER.0, TAKER.1))?;
        for (name, port) in ["linux_tcp_to_host_mb_per_1e9", "linux_tcp_to_linux_mb_per_1e9"].into_iter().zip(PORTS) {
            send(name, linux::accept_at(port)?)?;
        }
        Ok(())
    }

    /// Connects, as soon as somebody listens.
    fn connect(address: [u8; 4], port: u16) -> File {
        loop {
            match linux::connect_to(address, port) {
                Ok(stream) => return stream,
                Err(_) => linux::sleep_a_moment(),
            }
        }
    }

    /// Takes what another Linux sends, for ever.
    fn sink(address: &str) -> Result<(), Failed> {
        let mut memory = Memory([0; PIECE]);
        let mut octets = address.split('.').map(|octet| octet.parse().unwrap_or(0));
        let address = [(); 4].map(|()| octets.next().unwrap_or(0));
        loop {
            // It listens when it has come so far.
            let stream = connect(address, PORTS[1]);
            while stream.read_some(&mut memory.0)? != 0 {}
        }
    }

    /// Samples of `items` each, with a word to the watcher before and after each of them.
    fn measure(
        watcher: &Watcher,
        name: &str,
        only: Option<&str>,
        items: u64,
        mut work: impl FnMut(u64) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        match only {
            Some(only) if only != name => return Ok(()),
            Some(_) => loop {
                watcher.tell()?;
                work(items / TRACED)?;
            },
            None => {}
        }
        work(items)?;
        watcher.tell()?;
        for _ in 0..SAMPLES {
            work(items)?;
            watcher.tell()?;
        }
        Ok(())
    }

    /// Reads with [`DEPTH`] requests in flight: for each that is done another is asked for.
    fn read_deep(uring: &mut Uring<DEPTH>, place: &mut Places, items: u64) -> Result<(), Failed> {
        let (mut asked, mut done) = (0, 0);
        while done < items {
            while asked < items && asked - done < DEPTH as u64 && uring.add(place.next()) {
                asked += 1;
            }
            done += uring.enter()?;
        }
        Ok(())
    }

    /// The same by the older interface, which the figures of earlier versions were taken with.
    fn read_deep_by_aio(
        aio: &mut Aio<DEPTH>,
        disk: &File,
        memory: &mut [u8],
        place: &mut Places,
        items: u64,
    ) -> Result<(), Failed> {
        let (mut asked, mut done) = (0, 0);
        while done < items {
            while asked < items && asked - done < DEPTH as u64 && aio.add(disk, memory, BLOCK, place.next()) {
                asked += 1;
            }
            aio.submit()?;
            done += aio.wait(BLOCK)?;
        }
        Ok(())
    }

    /// Places on the disk, none beside the one before: Linux would make one request of both.
    struct Places(u64);

    impl Places {
        fn next(&mut self) -> u64 {
            self.0 = (self.0 + 4099) % DISK_BLOCKS;
            self.0 * BLOCK as u64
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
