//! Intel VT-d without the hardware: the firmware's description of it, and the formats of what it reads from memory.
//!
//! Source: Intel Virtualization Technology for Directed I/O, revision 3.3 or later (cited as "VT-d").

pub mod dmar;
pub mod vtd;
