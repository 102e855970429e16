//! The system calls of Linux (x86-64) that are needed, and no more.

use core::arch::asm;
use core::ffi::CStr;

/// Flags of `open`.
pub const O_RDONLY: u64 = 0;
/// Reading and writing.
pub const O_RDWR: u64 = 2;
/// Around the page cache.
pub const O_DIRECT: u64 = 0o40000;

const READ: u64 = 0;
const WRITE: u64 = 1;
const OPEN: u64 = 2;
const CLOSE: u64 = 3;
const MMAP: u64 = 9;
const IOCTL: u64 = 16;
const PREAD64: u64 = 17;
const NANOSLEEP: u64 = 35;
const SOCKET: u64 = 41;
const CONNECT: u64 = 42;
const ACCEPT: u64 = 43;
const BIND: u64 = 49;
const LISTEN: u64 = 50;
const EXIT: u64 = 60;
const IO_SETUP: u64 = 206;
const IO_GETEVENTS: u64 = 208;
const IO_SUBMIT: u64 = 209;
/// Makes rings.
pub const IO_URING_SETUP: u64 = 425;
/// Hands in requests and waits.
pub const IO_URING_ENTER: u64 = 426;
/// Makes files and memory known.
pub const IO_URING_REGISTER: u64 = 427;

/// What failed, and the error's number.
#[derive(Clone, Copy, Debug)]
pub struct Failed(pub &'static str, pub i64);

/// # Safety
/// Addresses among the arguments are those of memory that the call may use as it does, while it runs (asynchronous reads: until
/// they are done).
unsafe fn call(number: u64, [rdi, rsi, rdx, r10, r8]: [u64; 5]) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call_six(number, [rdi, rsi, rdx, r10, r8, 0]) }
}

/// # Safety
/// As of [`call`].
unsafe fn call_six(number: u64, [rdi, rsi, rdx, r10, r8, r9]: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the caller's promise; Linux keeps all other registers.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") rdi, in("rsi") rsi, in("rdx") rdx, in("r10") r10,
            in("r8") r8, in("r9") r9, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// As of [`call`].
pub unsafe fn checked_call(number: u64, arguments: [u64; 6], what: &'static str) -> Result<u64, Failed> {
    // SAFETY: the caller's promise.
    checked(unsafe { call_six(number, arguments) }, what)
}

/// Maps what a file offers at an offset, for reading and writing, for as long as the program runs.
pub fn map(file: u64, offset: u64, bytes: usize) -> Result<*mut u8, Failed> {
    const SHARED: u64 = 1;
    map_with(SHARED, bytes, file, offset)
}

/// Memory for as long as the program runs, in whole pages.
pub fn memory(bytes: usize) -> Result<*mut u8, Failed> {
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    map_with(PRIVATE_ANONYMOUS, bytes, u64::MAX, 0)
}

fn map_with(flags: u64, bytes: usize, file: u64, offset: u64) -> Result<*mut u8, Failed> {
    const READ_WRITE: u64 = 3;
    const POPULATE: u64 = 0x8000;
    // SAFETY: it is put where nothing else is.
    let place = unsafe { call_six(MMAP, [0, bytes as u64, READ_WRITE, flags | POPULATE, file, offset]) };
    Ok(core::ptr::with_exposed_provenance_mut(checked(place, "mmap")? as usize))
}

fn checked(result: i64, what: &'static str) -> Result<u64, Failed> {
    u64::try_from(result).map_err(|_| Failed(what, result))
}

/// Ends the program.
pub fn exit(status: u64) -> ! {
    loop {
        // SAFETY: no address.
        unsafe { call(EXIT, [status, 0, 0, 0, 0]) };
    }
}

/// Writes to standard output.
pub fn say(words: &[&str]) {
    for word in words {
        // Nobody could be told if it fails.
        let _ = File(1).write_all(word.as_bytes());
    }
}

/// Writes a number and ends the line.
pub fn say_number(mut number: u64) {
    let mut text = [b'\n'; 21];
    let mut at = 20;
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let _ = File(1).write_all(&text[at..]);
}

/// An open file, device or connection, for as long as the program runs.
pub struct File(u64);

impl File {
    /// Opens a file.
    pub fn open(path: &'static CStr, flags: u64) -> Result<Self, Failed> {
        // SAFETY: the path is text that ends with NUL.
        let result = unsafe { call(OPEN, [path.as_ptr().addr() as u64, flags, 0, 0, 0]) };
        checked(result, "opening a device").map(File)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.0
    }

    /// `ioctl`, with a structure of 32-bit words.
    pub fn control(&self, command: u64, structure: &mut [u32]) -> Result<u64, Failed> {
        // SAFETY: the commands in use read and write no more than their structures.
        let result = unsafe { call(IOCTL, [self.0, command, structure.as_mut_ptr().addr() as u64, 0, 0]) };
        checked(result, "ioctl")
    }

    /// Reads as much as there is room for.
    pub fn read(&self, into: &mut [u8]) -> Result<(), Failed> {
        // SAFETY: as many bytes as the slice has.
        let result = unsafe { call(READ, [self.0, into.as_mut_ptr().addr() as u64, into.len() as u64, 0, 0]) };
        if result == into.len() as i64 { Ok(()) } else { Err(Failed("read", result)) }
    }

    /// Reads what there is; answers how much, 0 at the end.
    pub fn read_some(&self, into: &mut [u8]) -> Result<u64, Failed> {
        // SAFETY: as many bytes as the slice has.
        let result = unsafe { call(READ, [self.0, into.as_mut_ptr().addr() as u64, into.len() as u64, 0, 0]) };
        checked(result, "read")
    }

    /// The same, at a place.
    pub fn read_at(&self, into: &mut [u8], place: u64) -> Result<(), Failed> {
        // SAFETY: as many bytes as the slice has.
        let result = unsafe { call(PREAD64, [self.0, into.as_mut_ptr().addr() as u64, into.len() as u64, place, 0]) };
        if result == into.len() as i64 { Ok(()) } else { Err(Failed("pread", result)) }
    }

    /// Writes it all.
    pub fn write_all(&self, mut data: &[u8]) -> Result<(), Failed> {
        while !data.is_empty() {
            // SAFETY: as many bytes as the slice has.
            let result = unsafe { call(WRITE, [self.0, data.as_ptr().addr() as u64, data.len() as u64, 0, 0]) };
            let written = checked(result, "write")?;
            data = data.get(written as usize..).unwrap_or_default();
        }
        Ok(())
    }
}

const AF_INET: u8 = 2;

/// `struct sockaddr_in`: family, port, address.
fn socket_address([a, b, c, d]: [u8; 4], port: u16) -> [u8; 16] {
    let [high, low] = port.to_be_bytes();
    [AF_INET, 0, high, low, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn tcp_socket() -> Result<u64, Failed> {
    const SOCK_STREAM: u64 = 1;
    // SAFETY: no address.
    checked(unsafe { call(SOCKET, [AF_INET.into(), SOCK_STREAM, 0, 0, 0]) }, "socket")
}

/// Connects to a TCP port.
pub fn connect_to(address: [u8; 4], port: u16) -> Result<File, Failed> {
    let (address, socket) = (socket_address(address, port), tcp_socket()?);
    // SAFETY: as many bytes as the structure has.
    let connected = unsafe { call(CONNECT, [socket, address.as_ptr().addr() as u64, address.len() as u64, 0, 0]) };
    checked(connected, "connect").map(|_| File(socket)).inspect_err(|_| {
        // SAFETY: no address.
        unsafe { call(CLOSE, [socket, 0, 0, 0, 0]) };
    })
}

/// A fifth of a second.
pub fn sleep_a_moment() {
    let time = [0u64, 200_000_000];
    // SAFETY: struct timespec, which is read.
    unsafe { call(NANOSLEEP, [time.as_ptr().addr() as u64, 0, 0, 0, 0]) };
}

/// Waits for a connection to a TCP port.
pub fn accept_at(port: u16) -> Result<File, Failed> {
    let (address, socket) = (socket_address([0; 4], port), tcp_socket()?);
    // SAFETY: as many bytes as the structure has.
    let bound = unsafe { call(BIND, [socket, address.as_ptr().addr() as u64, address.len() as u64, 0, 0]) };
    checked(bound, "bind")?;
    // SAFETY: no address.
    checked(unsafe { call(LISTEN, [socket, 8, 0, 0, 0]) }, "listen")?;
    // SAFETY: no address.
    checked(unsafe { call(ACCEPT, [socket, 0, 0, 0, 0]) }, "accept").map(File)
}

/// `struct iocb` (`include/uapi/linux/aio_abi.h`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Request {
    /// The number of the request's place.
    data: u64,
    key: u32,
    rw_flags: u32,
    /// 0: `IOCB_CMD_PREAD`.
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    place: u64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

const _: () = assert!(size_of::<Request>() == 64);

/// `struct io_event`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Done {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

/// Asynchronous reads, up to `N` in flight.
pub struct Aio<const N: usize> {
    context: u64,
    requests: [Request; N],
    busy: [bool; N],
    new: [u64; N],
    news: usize,
}

impl<const N: usize> Aio<N> {
    /// None in flight.
    pub fn new() -> Result<Self, Failed> {
        let mut context = 0u64;
        // SAFETY: the context's number is written there.
        let made = unsafe { call(IO_SETUP, [N as u64, (&raw mut context).addr() as u64, 0, 0, 0]) };
        checked(made, "io_setup")?;
        Ok(Self { context, requests: [Request::default(); N], busy: [false; N], new: [0; N], news: 0 })
    }

    /// Adds a read of `bytes`, into a part of `memory` of its own, for [`Aio::submit`]. `false`: `N` are in flight.
    pub fn add(&mut self, file: &File, memory: &mut [u8], bytes: usize, place: u64) -> bool {
        let Some(number) = self.busy.iter().position(|busy| !busy) else { return false };
        let Some(buffer) = memory.get_mut(number * bytes..(number + 1) * bytes) else { return false };
        self.requests[number] = Request {
            data: number as u64,
            file: file.0 as u32,
            buffer: buffer.as_mut_ptr().expose_provenance() as u64,
            bytes: bytes as u64,
            place,
            ..Request::default()
        };
        self.busy[number] = true;
        self.new[self.news] = (&raw const self.requests[number]).expose_provenance() as u64;
        self.news += 1;
        true
    }

    /// Asks for what was added.
    pub fn submit(&mut self) -> Result<(), Failed> {
        let news = core::mem::take(&mut self.news);
        if news == 0 {
            return Ok(());
        }
        // SAFETY: so many addresses of requests, which Linux copies; their buffers live as long as the program, and nobody looks at
        // what is in them.
        let result =
            unsafe { call(IO_SUBMIT, [self.context, news as u64, self.new.as_ptr().expose_provenance() as u64, 0, 0]) };
        if result == news as i64 { Ok(()) } else { Err(Failed("io_submit", result)) }
    }

    /// Waits until something is done; answers how much. Each read has to have `bytes`.
    pub fn wait(&mut self, bytes: usize) -> Result<u64, Failed> {
        let mut done = [Done::default(); N];
        // SAFETY: room for so many.
        let result =
            unsafe { call(IO_GETEVENTS, [self.context, 1, N as u64, done.as_mut_ptr().expose_provenance() as u64, 0]) };
        let count = checked(result, "io_getevents")?;
        for done in done.iter().take(count as usize) {
            if done.result != bytes as i64 {
                return Err(Failed("an asynchronous read", done.result));
            }
            self.busy[done.data as usize % N] = false;
        }
        Ok(count)
    }
}
