//! The first domain: the policy domain, label 0, loaded from the bundle by the hypervisor itself. It builds all others.

use super::native;
use crate::boot::report::{Finding, fact, fail};
use crate::{machine::Bare, system::system, time, traps::entry};
use core::sync::atomic::Ordering;
use hv_core::ids::{DomId, Gfn, Gpa, Label, Mfn};
use hv_core::{domain, domain::Domain, domain::Env, error::Errno, space::Rights};
use image::Image;
use xen_abi::native as abi;
use zerocopy::{FromZeros, IntoBytes};

const LABEL: Label = Label(0);
const WHAT: &str = "policy domain";
const REMEDY: &str = "make the bundle anew with `cargo xtask build`";

/// Builds the policy domain and runs it, and with it the system. Each failure ends the boot with its reason.
pub fn start() -> ! {
    let system = system();
    let name = system.policy.domain(LABEL).map_or("", |entry| system.policy.text(entry.image));
    let file = system.bundle.find(name);
    let file = file.unwrap_or_else(|| fail(WHAT, format_args!("no image \"{name}\" in the bundle"), REMEDY));
    let image = Image::parse(file.bytes);
    let image = image.unwrap_or_else(|why| fail(WHAT, format_args!("image \"{name}\": {why}"), REMEDY));
    build(&image).unwrap_or_else(|why| {
        let need = image.pages() + abi::STACK_PAGES + 3;
        fail(WHAT, format_args!("{why}; it needs more than {need} pages"), "give it more memory in the policy")
    });
    fact(WHAT, Finding::Ok, format_args!("\"{name}\", {} pages", image.pages()));
    let frame = super::resume();
    time::STARTED.store(time::tsc(), Ordering::Relaxed);
    entry::enter(frame)
}

fn build(image: &Image) -> Result<(), Errno> {
    let id = native::create(LABEL, None)?;
    let env = system().env();
    env.domains.with(id, |domain| {
        for segment in &image.segments {
            let rights = native::rights(segment.rights.bits())?;
            populate(&env, domain, segment.gpa >> 12, segment.pages, rights)?;
            domain.space.fill(Gpa(segment.gpa), segment.bytes, env.machine)?;
        }
        let stack = (abi::STACK_TOP >> 12) - abi::STACK_PAGES;
        populate(&env, domain, stack, abi::STACK_PAGES, Rights::ReadWrite)?;
        populate(&env, domain, abi::START_INFO >> 12, 1, Rights::Read)?;
        populate(&env, domain, abi::CONSOLE_RING >> 12, 1, Rights::ReadWrite)?;
        populate(&env, domain, abi::STORE_RING >> 12, 1, Rights::ReadWrite)?;
        let heap_pages = domain.account.pages_max.saturating_sub(domain.account.pages);
        populate(&env, domain, abi::HEAP_BASE >> 12, heap_pages, Rights::ReadWrite)?;
        let (bundle, first) = (system().bundle.archive().len() as u64, system().bundle_start.mfn().0);
        for (gfn, mfn) in (abi::BUNDLE_BASE >> 12..).zip(first..first + bundle.div_ceil(abi::PAGE_SIZE)) {
            domain::lend(&env, domain, Gfn(gfn), Mfn(mfn), Rights::Read)?;
        }
        let info = start_info(heap_pages * abi::PAGE_SIZE);
        domain.space.fill(Gpa(abi::START_INFO), info.as_bytes(), env.machine)?;
        Ok::<_, Errno>(())
    })??;
    native::set_entry(id, image.entry, abi::STACK_TOP, abi::START_INFO)?;
    native::unpause(id)
}

fn populate(env: &Env<Bare>, domain: &mut Domain, first: u64, pages: u64, rights: Rights) -> Result<(), Errno> {
    (first..first + pages).try_for_each(|gfn| domain::populate(env, domain, Gfn(gfn), rights))
}

fn start_info(heap_bytes: u64) -> abi::StartInfo {
    let system = system();
    let mut info = abi::StartInfo {
        magic: abi::START_MAGIC,
        version: abi::START_VERSION,
        domid: u32::from(DomId::POLICY.0),
        store_domid: u32::MAX,
        console_domid: u32::MAX,
        heap_pages: (heap_bytes / abi::PAGE_SIZE) as u32,
        heap_bytes,
        bundle_bytes: system.bundle.archive().len() as u64,
        policy_offset: system.policy_file.offset as u64,
        policy_bytes: system.policy_file.bytes.len() as u64,
        ..abi::StartInfo::new_zeroed()
    };
    // What does not fit is cut off, before a NUL.
    let arguments = system.policy.domain(LABEL).map_or("", |entry| system.policy.text(entry.arguments));
    for (field, text) in [(&mut info.name[..], system.policy.name(LABEL)), (&mut info.arguments[..], arguments)] {
        let room = field.len().saturating_sub(1);
        field.iter_mut().zip(text.bytes().take(room)).for_each(|(to, from)| *to = from);
    }
    info
}
