//! Domain ids as the store sees them.

use core::fmt;

/// A domain's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// The policy domain: it introduces the others, and no permission or quota binds it.
    pub const POLICY: DomId = DomId(0);

    /// Whether permissions and quotas do not apply.
    #[must_use]
    pub fn is_privileged(self) -> bool {
        self == Self::POLICY
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
