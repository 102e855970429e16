//! The xenstore server without its rings: the tree of nodes, permissions, transactions, watches and quotas, and the
//! requests on them, as xenstored does them. Messages in, bytes out; the binary moves them. `xen_rings::store` has the
//! format of the messages.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod connection;
pub mod domid;
pub mod engine;
pub mod overlay;
pub mod path;
pub mod permissions;
pub mod quota;
mod request;
pub mod store;
pub mod watch;
