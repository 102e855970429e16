//! Faults of a device's DMA: how many are told, and when it is enough.

/// Faults of one owner after which its device loses bus mastering, until it has another owner.
const FAULTS_MAX: u32 = 4096;
/// Faults that are told one by one; after that, each power of two: no device fills the log with them.
const TOLD: u32 = 8;

/// Faults of a device since it was assigned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults(u32);

impl Faults {
    /// No faults.
    pub const NONE: Self = Self(0);

    /// Counts one more. `Some`: the count, when this one is to be told.
    pub fn record(&mut self) -> Option<u32> {
        self.0 = self.0.saturating_add(1);
        (self.0 <= TOLD || self.0.is_power_of_two()).then_some(self.0)
    }

    /// Whether the device has lost bus mastering for them.
    pub const fn too_many(self) -> bool {
        self.0 >= FAULTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_faults_on_and_on_is_told_of_seldom_and_stays_silenced() {
        let mut faults = Faults::NONE;
        let mut told = 0;
        for count in 1..100_000u32 {
            told += u32::from(faults.record().is_some());
            assert_eq!(faults.too_many(), count >= FAULTS_MAX);
        }
        assert_eq!(told, 8 + 13, "eight, then 16 to 65536");
        let mut faults = Faults(u32::MAX);
        assert_eq!(faults.record(), None);
        assert!(faults.too_many());
    }
}
