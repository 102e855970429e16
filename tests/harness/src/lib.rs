//! Multi-domain tests in QEMU: boot a policy, talk to the domains, hurt them, and see who suffers.
//!
//! ```no_run
//! use bulkhead_test::{Boot, Result, seconds};
//!
//! fn a_page_is_served() -> Result<()> {
//!     let mut system = Boot::policy_file("policy/demo.toml")?.demo_disk()?.network()?.start()?;
//!     system.wait_ready()?;
//!     let page = system.http().get("/")?;
//!     assert_eq!(page.status, 200);
//!     assert!(system.shell("domains", seconds(5))?.contains("web"));
//!     system.shutdown()
//! }
//! ```
//!
//! - [`Boot`] collects what to boot: policy text, images (a test's own too), disks, memory, devices.
//! - [`System`] is a booted one: its console by domain, its admin shell, QEMU's control socket, HTTP to the forwarded
//!   port. It is killed when dropped, and every wait has a limit and, on failure, shows the end of the console.
//! - [`Guest`] is the shell of a virtual machine in it.
//! - [`Injector`] does to a running domain what a bug would do: crash, loop, corrupt memory, garbage in rings.
//! - Domains report by *verdict lines*, `VERDICT pass|fail NAME: detail`, which [`System::verdicts`] collects.
//!
//! A time limit that is hit is a failed test, never a hang.
#![forbid(unsafe_code)]

mod boot;
mod console;
mod guest;
mod http;
mod inject;
mod qmp;
mod system;

pub use anyhow::Result;
pub use boot::Boot;
pub use console::{Deaf, Line, Verdict};
pub use guest::{Guest, Output};
pub use http::{Http, Response, read_response};
pub use inject::{Fault, Injector};
pub use qmp::Qmp;
pub use system::{Ending, System};

/// An error that says this.
pub fn error(text: &str) -> anyhow::Error {
    anyhow::anyhow!("{text}")
}

/// A time limit. Generous on purpose: a test's speed is not what it tests.
pub const fn seconds(number: u64) -> std::time::Duration {
    std::time::Duration::from_secs(number)
}
