//! The end of everything, by the policy domain.

use super::{Call, Outcome, input};
use crate::power;
use hv_core::error::Errno;
use xen_abi::platform as abi;

pub fn serve(call: &Call) -> Outcome {
    let op: abi::Power = input(call)?;
    match op.action {
        abi::POWER_OFF => {
            log::info!("power off");
            power::off();
            Err(Errno::EIO)
        }
        abi::POWER_RESTART => {
            log::info!("restart");
            power::restart()
        }
        abi::POWER_DEBUG_EXIT => {
            power::debug_exit(op.code);
            Err(Errno::ENODEV)
        }
        _ => Err(Errno::EINVAL),
    }
}
