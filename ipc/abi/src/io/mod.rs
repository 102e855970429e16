//! The public headers under `io/`: shared rings and what split drivers say over them.

pub mod blkif;
pub mod console;
pub mod netif;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
