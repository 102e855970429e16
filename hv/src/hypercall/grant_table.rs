//! `grant_table_op` (Xen public `grant_table.h`, version 1): batches of structures, each with a status of its own.

use super::{Call, DomId, Errno, Gpa, Outcome, Server, Structure, domain, user};
use crate::{machine::Bare, system::env_unchecked};
use hv_core::domain::Env;
use hv_core::grant::{self, Status};
use xen_abi::{grant_table as abi, xen::HYPERVISOR_GRANT_TABLE_OP};

/// Structures that are copied in, served and copied out together, before others get a chance.
const SLICE: usize = 64;

/// Mapping, unmapping and copying are the paths that matter, each with a server of its own; all else is apart.
pub extern "C" fn server(command: u64, array: u64, count: u64, r10: u64, r8: u64) -> u64 {
    static SERVERS: [Server; abi::GNTTABOP_COPY as usize + 1] = [map, unmap, others, others, others, copy];
    let server = SERVERS.get(command as usize).unwrap_or(&(others as Server));
    server(command, array, count, r10, r8)
}

const _: () = assert!(abi::GNTTABOP_MAP_GRANT_REF == 0 && abi::GNTTABOP_UNMAP_GRANT_REF == 1);

/// Servers that try one structure, whose words from so many on tell the outcome, by the shortest path first. If that is
/// not to be, nothing was done, and the structure is an array of one: copied in again, and judged by that copy alone.
macro_rules! servers {
    ($($command:ident: $name:ident $near:ident $out:literal;)*) => {$(
        extern "C" fn $name(_: u64, array: u64, count: u64, _: u64, _: u64) -> u64 {
            if count == 1 {
                let serve = |op: &mut _| grant::$near(&env(), domain::current(), op);
                if let Some(told) = user::serve_one::<_, $out>(Gpa(array), serve) {
                    return super::result(told.map_err(Errno::from));
                }
            }
            batch(abi::$command, array, count, grant::$name)
        }
    )*};
}
servers! {
    GNTTABOP_MAP_GRANT_REF: map map_near 2;
    GNTTABOP_UNMAP_GRANT_REF: unmap unmap_near 2;
    GNTTABOP_COPY: copy copy_near 4;
}

#[inline(always)]
fn env() -> Env<'static, Bare> {
    // SAFETY: a domain calls, and there are domains only after that.
    unsafe { env_unchecked() }
}

extern "C" fn others(command: u64, array: u64, count: u64, _: u64, _: u64) -> u64 {
    match command {
        // The frames themselves are mapped by XENMAPSPACE_grant_table: a translated domain is told no machine frames.
        abi::GNTTABOP_SETUP_TABLE => batch(command, array, count, |env, caller, ops: &mut [abi::GnttabSetupTable]| {
            for op in ops {
                op.status = Status::of(&grant::setup_table(env, caller, DomId(op.dom), op.nr_frames));
            }
        }),
        abi::GNTTABOP_QUERY_SIZE => batch(command, array, count, |env, caller, ops: &mut [abi::GnttabQuerySize]| {
            for op in ops {
                let size = grant::query_size(env, caller, DomId(op.dom));
                op.status = Status::of(&size);
                (op.nr_frames, op.max_nr_frames) = size.unwrap_or((0, 0));
            }
        }),
        _ => super::answer(HYPERVISOR_GRANT_TABLE_OP, [command, array, count, 0, 0], version),
    }
}

fn version(call: &Call) -> Outcome {
    match call.command() {
        abi::GNTTABOP_SET_VERSION => call.input(|op: abi::GnttabSetVersion| grant::set_version(op.version)),
        abi::GNTTABOP_GET_VERSION => call.in_out(|op: &mut abi::GnttabGetVersion| {
            op.version = 1;
            call.must_be_own(op.dom)
        }),
        _ => Err(Errno::ENOSYS),
    }
}

/// Serves an array of structures. Those that cannot be written back are not acted on.
#[inline(never)]
fn batch<T: Structure>(
    command: u64,
    array: u64,
    count: u64,
    serve: impl FnOnce(&Env<'static, Bare>, DomId, &mut [T]),
) -> u64 {
    if count > SLICE as u64 {
        return long::<T>([command, array, count, 0, 0]);
    }
    let served = user::serve_slice::<T, SLICE>(Gpa(array), count as usize, |ops| {
        serve(&env(), domain::current(), ops);
    });
    if served.is_ok() { 0 } else { Errno::EFAULT.to_result() as u64 }
}

/// Serves the slice of a long batch that is next. (A short one is never interrupted.)
#[cold]
fn long<T>(args: [u64; 5]) -> u64 {
    super::answer(HYPERVISOR_GRANT_TABLE_OP, args, |call| {
        let count = u32::try_from(args[2]).map_err(|_| Errno::EINVAL)?;
        let first = call.progress()?.min(count);
        let length = (count - first).min(SLICE as u32);
        let at = call.structure().0.checked_add(u64::from(first) * size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        if length != 0 && server(call.command(), at, length.into(), 0, 0) != 0 {
            return Err(Errno::EFAULT);
        }
        if first + length < count { call.again(first + length) } else { super::OK }
    })
}
