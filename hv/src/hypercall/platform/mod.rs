//! `platform_op` (`xen_abi::platform`): what Xen has no stable call for. Authority first, arguments after.

mod build;
mod info;

use super::{Call, DomId, Errno, Gpa, Outcome, Structure, domain, system, user};
use crate::{logging, pci, power};
use hv_core::authority::table::{FLAG_CONTROL, FLAG_DRIVER, FLAG_LOG, FLAG_OBSERVE};
use xen_abi::platform as abi;

/// Bytes of log that one call takes at most.
const LOG_CHUNK: usize = 1024;

pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::VERSION_QUERY if call.args[1..3] == [0, 0] => return Ok(u64::from(abi::VERSION)),
        abi::VERSION_QUERY => return Err(Errno::EINVAL),
        abi::DOMAIN_INFO | abi::MACHINE_INFO => require(call, FLAG_CONTROL | FLAG_OBSERVE)?,
        abi::CREATE_DOMAIN..=abi::LEND => require(call, FLAG_CONTROL)?,
        abi::DEVICE_DESCRIBE..=abi::CONFIG_WRITE => require(call, FLAG_DRIVER)?,
        abi::READ_LOG => require(call, FLAG_LOG)?,
        _ => return Err(Errno::ENOSYS),
    }
    match call.command() {
        abi::CREATE_DOMAIN => in_out(call, build::create),
        abi::POPULATE => in_out(call, build::populate),
        abi::COPY_IN => input(call, |op| build::copy_in(call.caller, op)),
        abi::SEED_GRANT => input(call, build::seed_grant),
        abi::SET_ENTRY => input(call, build::set_entry),
        abi::ASSIGN_DEVICE => input(call, build::assign_device),
        abi::UNPAUSE => on_other(call, domain::unpause),
        abi::PAUSE => on_other(call, domain::pause),
        abi::DESTROY => on_other(call, build::destroy),
        abi::REAPED => on_other(call, build::reaped),
        abi::LEND => input(call, build::lend),
        abi::DOMAIN_INFO => in_out(call, info::domain),
        abi::DEVICE_INFO => in_out(call, pci::info),
        abi::GRANT_INFO => in_out(call, info::grant),
        abi::MACHINE_INFO => in_out(call, info::machine),
        abi::POWER => input(call, power),
        abi::DEVICE_DESCRIBE => in_out(call, |op| pci::describe(call.caller, op)),
        abi::CONFIG_READ => in_out(call, |op| pci::config_read(call.caller, op)),
        abi::CONFIG_WRITE => input(call, |op| pci::config_write(call.caller, &op)),
        abi::READ_LOG => in_out(call, |op| read_log(op)),
        _ => Err(Errno::ENOSYS),
    }
}

/// Fails unless the caller's label has a flag, or one of several.
fn require(call: &Call, flag: u32) -> Result<(), Errno> {
    let label = system().domains.label(call.caller).ok_or(Errno::ESRCH)?;
    if system().policy.has_flag(label, flag) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Fails unless the size of the command's structure is told exactly.
fn check_size<T>(call: &Call) -> Result<(), Errno> {
    if call.args[2] == size_of::<T>() as u64 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// [`Call::input`] for a structure whose size is told.
fn input<T: Structure>(call: &Call, act: impl FnOnce(T) -> Result<(), Errno>) -> Outcome {
    check_size::<T>(call)?;
    call.input(act)
}

/// [`Call::in_out`] for a structure whose size is told.
fn in_out<T: Structure>(call: &Call, act: impl FnOnce(&mut T) -> Result<(), Errno>) -> Outcome {
    check_size::<T>(call)?;
    call.in_out(act)
}

/// Serves a command that one must not give to oneself.
fn on_other(call: &Call, act: impl FnOnce(DomId) -> Result<(), Errno>) -> Outcome {
    input(call, |op: abi::DomainTarget| match (domid(op.domid)?, op.reserved) {
        (id, 0) if id == call.caller || id == DomId::SELF => Err(Errno::EPERM),
        (id, 0) => act(id),
        _ => Err(Errno::EINVAL),
    })
}

/// A domain id in a command. `ESRCH`: no domain has such an id.
fn domid(number: u32) -> Result<DomId, Errno> {
    u16::try_from(number).map(DomId).map_err(|_| Errno::ESRCH)
}

fn read_log(op: &mut abi::ReadLog) -> Result<(), Errno> {
    let mut text = [0; LOG_CHUNK];
    let room = usize::try_from(op.bytes).map_or(LOG_CHUNK, |bytes| bytes.min(LOG_CHUNK));
    user::check_writable(Gpa(op.buffer), room)?;
    let count = logging::read(&mut text[..room]);
    op.bytes = count as u64;
    Ok(user::write_bytes(Gpa(op.buffer), &text[..count])?)
}

/// The end of everything. Comes back when the machine lacks the means.
fn power(op: abi::Power) -> Result<(), Errno> {
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
