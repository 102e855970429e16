//! The kit that native domains are written with.
//!
//! A domain is a `no_std` binary that says `runtime::entry!(main);` and links with `domain.ld` (see any domain's
//! `build.rs`). It has a heap (`alloc` works), one stack, one thread of execution, and no interrupts: it waits for
//! events with [`event::wait`] and serves them one after the other.
//!
//! | to | use |
//! |---|---|
//! | know who one is | [`info`] |
//! | print and log | `println!`, `log::info!`, [`console`] |
//! | wait, tell others | [`event`] |
//! | tell the time | [`time`] |
//! | share pages | [`grant`], over [`pages`] and [`shared`] |
//! | find others | [`store`], [`xenbus`] |
//! | drive a device | [`device`], [`port_io`] |
//! | all the rest | [`hypercall`] |
//!
//! Everything compiles on the host too, where hypercalls answer `ENOSYS`: the pure parts have their tests there.
//! `docs/writing-a-domain.md` is the introduction.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod arch;
pub mod console;
pub mod device;
pub mod errno;
pub mod event;
pub mod grant;
pub mod heap;
pub mod hypercall;
mod ids;
pub mod info;
mod local;
pub mod pages;
pub mod port_io;
mod rings;
pub mod shared;
mod shared_info;
mod start;
pub mod store;
pub mod time;
pub mod verdict;
pub mod xenbus;

pub use errno::Errno;
pub use ids::{Access, DomId, GrantRef, Port};
pub use local::Local;
pub use start::{crash, exit};
