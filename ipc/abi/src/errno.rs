//! Error numbers (`errno.h`). A hypercall returns zero or more on success and `-errno` on failure.

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: i64 = $value;)*

        /// An error number as a type: what a failing hypercall or xenstore request says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Errno {
            $(#[doc = $text] $name = $value,)*
        }

        impl Errno {
            /// Every error number, ascending.
            pub const ALL: &'static [Errno] = &[$(Errno::$name,)*];

            /// The error of a positive number; `None` for numbers that Xen does not define.
            #[must_use]
            pub const fn from_number(number: i64) -> Option<Errno> {
                match number {
                    $($value => Some(Errno::$name),)*
                    _ => None,
                }
            }

            /// Its name as xenstore sends it, e.g. `ENOENT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Errno::$name => stringify!($name),)*
                }
            }

            /// What it means, in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Errno::$name => $text,)*
                }
            }

            /// The error of a name as xenstore sends it.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Errno> {
                match name {
                    $(stringify!($name) => Some(Errno::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such entry.";
    ESRCH = 3, "No such domain.";
    EINTR = 4, "Interrupted.";
    EIO = 5, "Input or output error.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Argument too large.";
    ENOEXEC = 8, "Not an executable.";
    EBADF = 9, "Bad descriptor.";
    ECHILD = 10, "No child.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Busy.";
    EEXIST = 17, "Exists already.";
    EXDEV = 18, "Crosses devices.";
    ENODEV = 19, "No such device.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "Is a directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Table is full.";
    EMFILE = 24, "Too many open.";
    ENOSPC = 28, "No space left.";
    EROFS = 30, "Read-only.";
    EMLINK = 31, "Too many links.";
    EDOM = 33, "Argument out of domain.";
    ERANGE = 34, "Result out of range.";
    EDEADLK = 35, "Would deadlock.";
    ENAMETOOLONG = 36, "Name too long.";
    ENOLCK = 37, "No locks left.";
    ENOSYS = 38, "Not implemented.";
    ENOTEMPTY = 39, "Not empty.";
    ENODATA = 61, "No data.";
    ETIME = 62, "Timer expired.";
    EBADMSG = 74, "Not a message.";
    EOVERFLOW = 75, "Value too large.";
    EILSEQ = 84, "Illegal byte sequence.";
    ERESTART = 85, "Restart the call.";
    ENOTSOCK = 88, "Not a socket.";
    EMSGSIZE = 90, "Message too long.";
    EOPNOTSUPP = 95, "Operation not supported.";
    EADDRINUSE = 98, "Address in use.";
    EADDRNOTAVAIL = 99, "Address not available.";
    ENOBUFS = 105, "No buffer space.";
    EISCONN = 106, "Connected already.";
    ENOTCONN = 107, "Not connected.";
    ETIMEDOUT = 110, "Timed out.";
    ECONNREFUSED = 111, "Connection refused.";
}

/// The same number as [`EAGAIN`].
pub const EWOULDBLOCK: i64 = EAGAIN;
/// The same number as [`EDEADLK`].
pub const EDEADLOCK: i64 = EDEADLK;

impl Errno {
    /// The positive number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The negative number, as a hypercall returns it.
    #[must_use]
    pub const fn to_result(self) -> i64 {
        -(self as i64)
    }

    /// Splits what a hypercall returned. A negative number that Xen does not define counts as [`Errno::EINVAL`].
    #[inline(always)]
    pub const fn check(result: i64) -> Result<u64, Errno> {
        if result >= 0 {
            return Ok(result.unsigned_abs());
        }
        match Errno::from_number(result.saturating_neg()) {
            Some(errno) => Err(errno),
            None => Err(Errno::EINVAL),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_convert_both_ways() {
        for &errno in Errno::ALL {
            assert_eq!(Errno::from_number(errno.number()), Some(errno));
            assert_eq!(Errno::from_name(errno.name()), Some(errno));
            assert_eq!(Errno::check(errno.to_result()), Err(errno));
        }
    }

    #[test]
    fn results_that_are_no_errors_pass_through() {
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(i64::MAX), Ok(i64::MAX as u64));
        assert_eq!(Errno::check(i64::MIN), Err(Errno::EINVAL));
    }
}
