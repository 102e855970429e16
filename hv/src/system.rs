//! What there is one of: the frame table, the sealed policy, the bundle.

use crate::boot::info::{BootInfo, Region};
use crate::boot::report::{Finding, fact, fail};
use crate::{machine::Bare, mm, mm::Plan};
use hv_core::{authority::SealedPolicy, bundle::Bundle, bundle::File, domain::DomainTable, domain::Env, ids::Hpa};
use spin::Once;
use x86_64::PhysAddr;

/// Name of the compiled policy in the bundle.
pub const POLICY_FILE: &str = "policy.table";
const REMEDY: &str = "make the bundle anew with `cargo xtask build`";

/// The machine's singletons; immutable, or with locks of their own inside.
pub struct System {
    /// What the administrator allows.
    pub policy: SealedPolicy,
    /// The boot bundle.
    pub bundle: Bundle<'static>,
    /// Where the bundle lies; page aligned.
    pub bundle_start: Hpa,
    /// The compiled policy in the bundle.
    pub policy_file: File<'static>,
    /// All domains.
    pub domains: DomainTable,
    /// The memory behind all domains.
    pub machine: Bare,
}

impl System {
    /// The logic's environment.
    pub fn env(&'static self) -> Env<'static, Bare> {
        Env { machine: &self.machine, frames: mm::frames(), domains: &self.domains, policy: &self.policy }
    }
}

static SYSTEM: Once<System> = Once::new();

/// The system. Only for code that runs after boot.
pub fn system() -> &'static System {
    SYSTEM.get().unwrap_or_else(|| fail("system", format_args!("used before it was made"), "report this"))
}

/// The logic's environment, without asking whether the system is there.
///
/// # Safety
/// [`init`] has run.
#[inline(always)]
pub unsafe fn env_unchecked() -> Env<'static, Bare> {
    // SAFETY: the caller's promise.
    unsafe { SYSTEM.get_unchecked() }.env()
}

/// Makes the frame table, reads the bundle and seals the policy. Each failure ends the boot with its reason.
pub fn init(info: &BootInfo, plan: &Plan) {
    let frames = mm::frames();
    let (ram, free, own) = (plan.ram_bytes >> 20, frames.free() >> 8, frames.hypervisor() << 2);
    fact(
        "memory",
        Finding::Ok,
        format_args!("{ram} MiB, {free} MiB free for domains, {own} KiB the hypervisor's so far"),
    );
    let (archive, bundle_start) = bundle_bytes(info, plan);
    let bundle = Bundle::new(archive).unwrap_or_else(|why| fail("bundle", format_args!("{why}"), REMEDY));
    fact("bundle", Finding::Ok, format_args!("{} files, {} KiB", bundle.files().count(), archive.len() >> 10));
    let file = bundle.find(POLICY_FILE);
    let policy_file =
        file.unwrap_or_else(|| fail("policy", format_args!("no file {POLICY_FILE} in the bundle"), REMEDY));
    let policy = SealedPolicy::parse(policy_file.bytes);
    let policy = policy.unwrap_or_else(|why| fail("policy", format_args!("{why}"), REMEDY));
    let (labels, links) = (policy.labels(), policy.links().len());
    fact("policy", Finding::Ok, format_args!("sealed: {labels} domains, {links} links"));
    let domains = DomainTable::new();
    SYSTEM.call_once(|| System { policy, bundle, bundle_start, policy_file, domains, machine: Bare });
}

/// The boot loader's module, in the direct map.
fn bundle_bytes(info: &BootInfo, plan: &Plan) -> (&'static [u8], Hpa) {
    const REMEDY: &str = "give QEMU -initrd BUNDLE, or GRUB module2 BUNDLE";
    let bundle = info.bundle.clone();
    let Region { start, end } =
        bundle.unwrap_or_else(|| fail("bundle", format_args!("the boot loader gave none"), REMEDY));
    let in_ram = plan.ram.iter().any(|run| run.start <= start && end <= run.end);
    if !in_ram || !start.is_multiple_of(mm::layout::PAGE) {
        fail("bundle", format_args!("at {start:#x} to {end:#x}: not in RAM or not on a page"), REMEDY);
    }
    // SAFETY: the run is RAM, shown by the direct map, and was reserved in the plan: it never becomes a frame of
    // anyone, and domains can map it read-only at most, so it does not change.
    let archive = unsafe {
        core::slice::from_raw_parts(mm::layout::direct(PhysAddr::new(start)).as_ptr(), (end - start) as usize)
    };
    (archive, Hpa(start))
}
