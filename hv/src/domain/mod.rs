//! Domains on this machine.
use crate::boot::info::BootInfo;
use crate::traps::Frame;
pub fn exception(_f: &mut Frame, _cr2: u64) {}
pub fn resume() -> *mut Frame { core::ptr::null_mut() }
pub fn timer() {}
pub fn set_plan(_p: crate::mm::Plan) {}
pub fn start(_info: &BootInfo) -> ! { log::info!("done"); crate::power::debug_exit(0x10); panic!("end") }
