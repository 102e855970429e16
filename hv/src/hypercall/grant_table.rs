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
    batch(abi::GNTTABOP_MAP_GRANT_REF, array, count, grant::map)
}

#[inline(never)]
fn unmap(array: u64, count: u64) -> u64 {
    batch(abi::GNTTABOP_UNMAP_GRANT_REF, array, count, grant::unmap)
}

#[inline(never)]
fn copy(array: u64, count: u64) -> u64 {
    batch(abi::GNTTABOP_COPY, array, count, grant::copy)
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

/// Serves an array of structures, a slice a call. Structures that cannot be written back are not acted on.
#[inline(always)]
fn batch<T: Structure>(
    command: u64,
    array: u64,
    count: u64,
    serve: impl FnOnce(&Env<'static, Bare>, DomId, &mut [T]),
) -> u64 {
    let arguments = [command, array, count, 0, 0];
    // What fits one slice is never interrupted.
    let slice = if count <= SLICE as u64 { Ok((Gpa(array), count, 0)) } else { slice_of::<T>(arguments) };
    let served = slice.and_then(|(at, length, rest)| {
        user::serve_slice::<T, SLICE>(at, length as usize, |ops| serve(&system().env(), domain::current(), ops))?;
        Ok(rest)
    });
    match served {
        Ok(0) => 0,
        Ok(rest) => super::answer(HYPERVISOR_GRANT_TABLE_OP, arguments, |call| call.again((count - rest) as u32)),
        Err(error) => error.to_result() as u64,
    }
}

/// The slice of a long batch that is next: where it is, how many there are in it, and how many behind it.
#[cold]
#[inline(never)]
fn slice_of<T>(args: [u64; 5]) -> Result<(Gpa, u64, u64), Errno> {
    let count = u32::try_from(args[2]).map_err(|_| Errno::EINVAL)?;
    let call = Call { caller: domain::current(), number: HYPERVISOR_GRANT_TABLE_OP, args };
    let first = call.progress()?.min(count);
    let length = (count - first).min(SLICE as u32);
    Ok((super::element::<T>(call.structure(), first)?, length.into(), (count - first - length).into()))
}
