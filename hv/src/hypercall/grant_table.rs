//! `grant_table_op` (Xen public `grant_table.h`, version 1): batches of structures, each with a status of its own.

use super::{Call, DomId, Errno, OK, Outcome, Structure};
use hv_core::grant::{self, Status};
use xen_abi::grant_table as abi;

/// Structures served before others get a chance.
const SLICE: u32 = 32;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::GNTTABOP_MAP_GRANT_REF => batch(call, |op: &mut abi::GnttabMapGrantRef| {
            let mapped = grant::map(&call.env(), call.caller, op);
            op.status = Status::of(&mapped);
            (op.handle, op.dev_bus_addr) =
                mapped.map_or((abi::INVALID_GRANT_HANDLE, 0), |mapped| (mapped.handle.0, mapped.dev_bus_addr));
        }),
        abi::GNTTABOP_UNMAP_GRANT_REF => batch(call, |op: &mut abi::GnttabUnmapGrantRef| {
            op.status = Status::of(&grant::unmap(&call.env(), call.caller, op));
        }),
        abi::GNTTABOP_COPY => batch(call, |op: &mut abi::GnttabCopy| {
            op.status = Status::of(&grant::copy(&call.env(), call.caller, op));
        }),
        // The frames themselves are mapped by XENMAPSPACE_grant_table: a translated domain is told no machine frames.
        abi::GNTTABOP_SETUP_TABLE => batch(call, |op: &mut abi::GnttabSetupTable| {
            op.status = Status::of(&grant::setup_table(&call.env(), call.caller, DomId(op.dom), op.nr_frames));
        }),
        abi::GNTTABOP_QUERY_SIZE => batch(call, |op: &mut abi::GnttabQuerySize| {
            let size = grant::query_size(&call.env(), call.caller, DomId(op.dom));
            op.status = Status::of(&size);
            (op.nr_frames, op.max_nr_frames) = size.unwrap_or((0, 0));
        }),
        abi::GNTTABOP_SET_VERSION => call.input(|op: abi::GnttabSetVersion| grant::set_version(op.version)),
        abi::GNTTABOP_GET_VERSION => call.in_out(|op: &mut abi::GnttabGetVersion| {
            op.version = 1;
            call.must_be_own(op.dom)
        }),
        // What is not here is not provided: it changes nothing.
        _ => Err(Errno::ENOSYS),
    }
}

/// Serves an array of structures, a slice a call. A structure that cannot be written back is not acted on.
fn batch<T: Structure>(call: &Call, mut serve: impl FnMut(&mut T)) -> Outcome {
    let count = u32::try_from(call.args[2]).map_err(|_| Errno::EINVAL)?;
    // What fits one slice is never interrupted.
    let first = if count > SLICE { call.progress()? } else { 0 };
    let end = count.min(first.saturating_add(SLICE));
    for index in first..end {
        let at = super::element::<T>(call.structure(), index)?;
        let mut op: T = call.read_in_out(at)?;
        serve(&mut op);
        call.write(at, &op)?;
    }
    if end < count { call.again(end) } else { OK }
}
