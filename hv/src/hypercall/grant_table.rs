//! `grant_table_op` (Xen public `grant_table.h`, version 1): batches of structures, each with a status of its own.

use super::{Call, DomId, Errno, Gpa, Outcome, Structure, domain, system, user};
use crate::machine::Bare;
use hv_core::domain::Env;
use hv_core::grant::{self, Status};
use xen_abi::{grant_table as abi, xen::HYPERVISOR_GRANT_TABLE_OP};

/// Structures that are copied in, served and copied out together, before others get a chance.
const SLICE: usize = 32;

/// Mapping, unmapping and copying are the paths that matter; all else is apart.
pub extern "C" fn server(command: u64, array: u64, count: u64, _: u64, _: u64) -> u64 {
    match command {
        abi::GNTTABOP_MAP_GRANT_REF => map(array, count),
        abi::GNTTABOP_UNMAP_GRANT_REF => unmap(array, count),
        abi::GNTTABOP_COPY => copy(array, count),
        _ => others(command, array, count),
    }
}

#[inline(never)]
fn map(array: u64, count: u64) -> u64 {
    let alone = |op: &mut _| grant::map_alone(&system().env(), domain::current(), op);
    if count == 1 { one(array, alone) } else { batch(abi::GNTTABOP_MAP_GRANT_REF, array, count, grant::map) }
}

#[inline(never)]
fn unmap(array: u64, count: u64) -> u64 {
    let alone = |op: &mut _| grant::unmap_alone(&system().env(), domain::current(), op);
    if count == 1 { one(array, alone) } else { batch(abi::GNTTABOP_UNMAP_GRANT_REF, array, count, grant::unmap) }
}

#[inline(never)]
fn copy(array: u64, count: u64) -> u64 {
    let alone = |op: &mut _| grant::copy_alone(&system().env(), domain::current(), op);
    if count == 1 { one(array, alone) } else { batch(abi::GNTTABOP_COPY, array, count, grant::copy) }
}

#[inline(never)]
fn others(command: u64, array: u64, count: u64) -> u64 {
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

/// Serves one structure, if it can be written back: the shortest path of a call.
fn one<T: Structure>(at: u64, serve: impl FnOnce(&mut T)) -> u64 {
    let served = user::serve_slice::<T, 1>(Gpa(at), 1, |ops| ops.first_mut().map_or((), serve));
    if served.is_ok() { 0 } else { Errno::EFAULT.to_result() as u64 }
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
        serve(&system().env(), domain::current(), ops);
    });
    if served.is_ok() { 0 } else { Errno::EFAULT.to_result() as u64 }
}

/// Serves the slice of a long batch that is next. (A short one is never interrupted.)
#[cold]
#[inline(never)]
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
