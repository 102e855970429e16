//! The xenstore server. The engine: the tree of nodes, permissions, transactions, watches and quotas, and the requests on
//! them, as xenstored does them; messages in, bytes out. The service: moves them between the clients' rings and the
//! engine, and hands over to a successor what it has done. The binary gives it rings and memory. `xen_rings::store` has
//! the format of the messages.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod connection;
pub mod domid;
pub mod engine;
pub mod handover;
pub mod overlay;
pub mod path;
pub mod permissions;
pub mod quota;
mod request;
pub mod ring;
pub mod service;
pub mod store;
pub mod watch;
