//! From the first instruction to the domain's `main`, and the ways to end.

/// Names the domain's main function: `runtime::entry!(main);` where `fn main()`. When it returns, the domain ends.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn bulkhead_domain_main() {
            let main: fn() = $main;
            main()
        }
    };
}

/// Called by `_start` with the address of the start info (which is fixed and known, so it is not looked at).
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "a host process starts otherwise"))]
pub(crate) extern "C" fn start(_start_info: u64) -> ! {
    use xen_abi::native::HEAP_BASE;

    unsafe extern "Rust" {
        safe fn bulkhead_domain_main();
    }

    let info = crate::info::start_info();
    // SAFETY: the builder populated the heap's first pages with zeros and nothing else there, and nothing uses it yet.
    unsafe { crate::heap::HEAP.init(HEAP_BASE, info.heap_pages, info.heap_bytes) };
    crate::shared_info::init();
    crate::event::init();
    crate::console::init();
    crate::store::init();
    bulkhead_domain_main();
    exit()
}

/// Ends the domain: its work is done.
pub fn exit() -> ! {
    crate::hypercall::sched::shutdown(crate::hypercall::sched::Shutdown::Done)
}

/// Ends the domain: it is broken.
pub fn crash() -> ! {
    crate::hypercall::sched::shutdown(crate::hypercall::sched::Shutdown::Crash)
}

/// Says what happened on the console and, in case that is what is broken, to the hypervisor; then ends the domain.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::fmt::Write as _;

    /// One line for the hypervisor's log: what does not fit is cut.
    struct Early {
        text: [u8; 256],
        used: usize,
    }
    impl core::fmt::Write for Early {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for (place, byte) in self.text.iter_mut().skip(self.used).zip(text.bytes()) {
                *place = byte;
                self.used += 1;
            }
            Ok(())
        }
    }

    let mut early = Early { text: [0; 256], used: 0 };
    let _ = writeln!(early, "{info}");
    crate::console::write_early(&early.text[..early.used]);
    if crate::console::is_connected() {
        crate::println!("{info}");
    }
    crash()
}
