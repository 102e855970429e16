//! How much memory xenstore gets for what it hands over to its successor.

use xen_abi::native::PAGE_SIZE;

/// What the state of the policy domain's own and the log take, at least.
const COMMON_BYTES: usize = 192 * 1024;
/// What each client may make xenstore hold, and what it may leave unread.
const CLIENT_BYTES: usize = 224 * 1024;

/// Pages for a xenstore with so many clients: the state fits twice, as a new version is written beside the old one.
#[must_use]
pub const fn pages(clients: usize) -> usize {
    (2 * (COMMON_BYTES + clients * CLIENT_BYTES)).div_ceil(PAGE_SIZE as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xenstore::quota;

    #[test]
    fn each_client_keeps_a_quota_to_live_on() {
        for clients in 1..=126 {
            let quota = quota::memory_handed_over(pages(clients) * PAGE_SIZE as usize, clients);
            assert!(quota >= 2 * quota::MEMORY_LEAST, "{quota} for each of {clients}");
        }
    }
}
