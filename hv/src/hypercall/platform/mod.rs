//! `platform_op` (`xen_abi::platform`): what Xen has no stable call for. Authority first, arguments after.

mod build;
mod device;
mod info;
mod power;

use super::{Answer, Call, OK, Outcome};
use crate::logging;
use crate::system::system;
use hv_core::authority::table::{FLAG_CONTROL, FLAG_DRIVER, FLAG_LOG};
use hv_core::error::Errno;
use hv_core::ids::{DomId, Gpa};
use xen_abi::platform as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of log that one call takes at most.
const LOG_CHUNK: usize = 1024;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    let command = call.command();
    match command {
        abi::VERSION_QUERY => {
            no_structure(call)?;
            Ok(Answer::Done(u64::from(abi::VERSION)))
        }
        abi::CREATE_DOMAIN..=abi::REAPED => {
            require(call, FLAG_CONTROL)?;
            control(call)
        }
        abi::DEVICE_DESCRIBE..=abi::CONFIG_WRITE => {
            require(call, FLAG_DRIVER)?;
            device::serve(call)
        }
        abi::READ_LOG => {
            require(call, FLAG_LOG)?;
            read_log(call)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn control(call: &Call) -> Outcome {
    match call.command() {
        abi::CREATE_DOMAIN => build::create(call),
        abi::POPULATE => build::populate(call),
        abi::COPY_IN => build::copy_in(call),
        abi::SEED_GRANT => build::seed_grant(call),
        abi::SET_ENTRY => build::set_entry(call),
        abi::ASSIGN_DEVICE => device::assign(call),
        abi::UNPAUSE => build::unpause(call),
        abi::PAUSE => build::pause(call),
        abi::DESTROY => build::destroy(call),
        abi::DOMAIN_INFO => info::domain(call),
        abi::DEVICE_INFO => info::device(call),
        abi::GRANT_INFO => info::grant(call),
        abi::MACHINE_INFO => info::machine(call),
        abi::POWER => power::serve(call),
        abi::REAPED => build::reaped(call),
        _ => Err(Errno::ENOSYS),
    }
}

/// Fails unless the caller's label has a flag.
fn require(call: &Call, flag: u32) -> Result<(), Errno> {
    let system = system();
    let label = system.domains.label(call.caller).ok_or(Errno::ESRCH)?;
    if system.policy.has_flag(label, flag) { Ok(()) } else { Err(Errno::EPERM) }
}

fn no_structure(call: &Call) -> Result<(), Errno> {
    if call.args()[1] == 0 && call.args()[2] == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Copies the command's structure in. Its size must be told exactly.
fn input<T: FromBytes + IntoBytes>(call: &Call) -> Result<T, Errno> {
    if call.args()[2] != size_of::<T>() as u64 {
        return Err(Errno::EINVAL);
    }
    call.read(call.structure())
}

/// The same for a structure that has outputs: it must be writable before anything is done.
fn in_out<T: FromBytes + IntoBytes>(call: &Call) -> Result<T, Errno> {
    let value = input(call)?;
    call.check_writable(call.structure(), size_of::<T>())?;
    Ok(value)
}

/// Copies the structure back.
fn output<T: IntoBytes + Immutable>(call: &Call, value: &T) -> Outcome {
    call.write(call.structure(), value)?;
    OK
}

/// A domain id in a command. `ESRCH`: no domain has such an id.
fn domid(number: u32) -> Result<DomId, Errno> {
    u16::try_from(number).map(DomId).map_err(|_| Errno::ESRCH)
}

fn read_log(call: &Call) -> Outcome {
    let mut op: abi::ReadLog = in_out(call)?;
    let mut text = [0; LOG_CHUNK];
    let room = usize::try_from(op.bytes).map_or(LOG_CHUNK, |bytes| bytes.min(LOG_CHUNK));
    call.check_writable(Gpa(op.buffer), room)?;
    let count = logging::read(&mut text[..room]);
    call.write_bytes(Gpa(op.buffer), &text[..count])?;
    op.bytes = count as u64;
    output(call, &op)
}
