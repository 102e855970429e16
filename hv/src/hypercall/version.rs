//! `xen_version` (Xen public `version.h`).

use super::{Call, Errno, OK, Outcome};
use crate::{mm::user, vm::guest};
use xen_abi::{version as abi, xen::HYPERVISOR_XEN_VERSION};

/// Xen 4.17: the interface that this hypervisor's calls are taken from.
const VERSION: u64 = 4 << 16 | 17;
const EXTRA: &[u8] = b".bulkhead";
const CAPABILITIES: &[u8] = b"bulkhead-native-x86_64";
/// What every native domain can rely on.
const FEATURES: u32 = 1 << abi::XENFEAT_AUTO_TRANSLATED_PHYSMAP | 1 << abi::XENFEAT_NOT_DIRECT_MAPPED;

/// What a guest can rely on beside.
const GUEST_FEATURES: u32 = 1 << abi::XENFEAT_HVM_CALLBACK_VECTOR | 1 << abi::XENFEAT_HVM_SAFE_PVCLOCK;

/// The null hypercall is as short as a call can be.
pub extern "C" fn server(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    match command {
        abi::XENVER_VERSION => VERSION,
        abi::XENVER_PAGESIZE => xen_abi::native::PAGE_SIZE,
        _ => others(command, structure),
    }
}

/// What has a structure.
#[inline(never)]
fn others(command: u64, structure: u64) -> u64 {
    super::answer(HYPERVISOR_XEN_VERSION, [command, structure, 0, 0, 0], |call| match command {
        abi::XENVER_EXTRAVERSION => text::<16>(call, EXTRA),
        abi::XENVER_CAPABILITIES => text::<1024>(call, CAPABILITIES),
        abi::XENVER_CHANGESET => text::<64>(call, env!("CARGO_PKG_VERSION").as_bytes()),
        abi::XENVER_GET_FEATURES => call.in_out(|info: &mut abi::XenFeatureInfo| {
            info.submap = FEATURES | if guest::is_served() { GUEST_FEATURES } else { 0 };
            if info.submap_idx < abi::XENFEAT_NR_SUBMAPS { Ok(()) } else { Err(Errno::EINVAL) }
        }),
        _ => Err(Errno::ENOSYS),
    })
}

fn text<const BYTES: usize>(call: &Call, text: &[u8]) -> Outcome {
    let mut buffer = [0; BYTES];
    buffer.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    user::write_bytes(call.structure(), &buffer)?;
    OK
}
