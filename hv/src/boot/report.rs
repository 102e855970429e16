//! The boot report: named facts, each with what was found and why it matters when it is not there.

use core::fmt;

/// Exit code of a boot that failed: QEMU's status is 2 * 0x1e + 1 = 61.
const FAILED: u32 = 0x1e;

/// How a fact turned out.
pub enum Finding {
    /// As it should be.
    Ok,
    /// Not there; the system goes on with less.
    Missing,
    /// Not there, and what depends on it is refused.
    Refused,
}

impl Finding {
    /// [`Finding::Ok`] when `present`, else [`Finding::Missing`].
    pub fn of(present: bool) -> Self {
        if present { Finding::Ok } else { Finding::Missing }
    }
}

/// Reports one fact.
pub fn fact(name: &str, finding: Finding, detail: fmt::Arguments) {
    match finding {
        Finding::Ok => log::info!("boot: ok       {name:<14} {detail}"),
        Finding::Missing => log::info!("boot: MISSING  {name:<14} {detail}"),
        Finding::Refused => log::warn!("boot: REFUSED  {name:<14} {detail}"),
    }
}

/// Ends the boot: says what is wrong and how to mend it, then stops.
pub fn fail(name: &str, what: fmt::Arguments, remedy: &str) -> ! {
    log::error!("boot: FAILED   {name:<14} {what}");
    log::error!("boot: remedy: {remedy}");
    crate::power::stop(FAILED)
}
