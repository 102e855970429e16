//! A kernel for virtual machines, for tests: it does what its command line says (`do=NAME`), some of it on purpose badly.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod hypercall;
#[cfg(target_os = "none")]
mod rings;
#[cfg(target_os = "none")]
mod silly;
#[cfg(target_os = "none")]
mod store;
#[cfg(target_os = "none")]
mod tasks;

#[cfg(target_os = "none")]
mod kernel {
    use crate::hypercall::shutdown;
    use crate::{cpu, println, tasks};
    use xen_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_POWEROFF};
    use xen_abi::start_info::{HvmStartInfo, XEN_HVM_START_MAGIC_VALUE};

    /// The first Rust code.
    #[unsafe(no_mangle)]
    extern "C" fn guest_main(start_info: &HvmStartInfo) -> ! {
        cpu::init();
        if start_info.magic != XEN_HVM_START_MAGIC_VALUE {
            println!("GUEST-FAILED the start info has magic {:#x}", start_info.magic);
        }
        let command_line = cpu::text_at(start_info.cmdline_paddr);
        let mut words = command_line.split(' ').filter_map(|word| word.strip_prefix("do="));
        let what = words.next().unwrap_or("hello");
        match tasks::run(what, command_line) {
            Ok(()) => println!("GUEST-OK {what}"),
            Err(why) => println!("GUEST-FAILED {what}: {why}"),
        }
        shutdown(SHUTDOWN_POWEROFF)
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        println!("GUEST-FAILED {info}");
        shutdown(SHUTDOWN_CRASH)
    }

    /// Writes a line to the hypervisor's log, in one call.
    #[macro_export]
    macro_rules! println {
        ($($argument:tt)*) => {{
            use core::fmt::Write;
            let mut line = $crate::kernel::Line::default();
            let _cut = writeln!(line, $($argument)*);
            $crate::hypercall::write(line.text().as_bytes());
        }};
    }

    /// A line being put together.
    pub struct Line {
        bytes: [u8; 200],
        length: usize,
    }

    impl Default for Line {
        fn default() -> Self {
            Self { bytes: [0; 200], length: 0 }
        }
    }

    impl Line {
        /// What has been written.
        pub fn text(&self) -> &str {
            self.bytes.get(..self.length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
        }
    }

    impl core::fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for (place, byte) in self.bytes.iter_mut().skip(self.length).zip(text.bytes()) {
                *place = byte;
            }
            self.length = self.bytes.len().min(self.length + text.len());
            Ok(())
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
