//! What an unprivileged domain may use at most. The figures are xenstored's defaults, but for memory: all clients together
//! must fit into the server's heap, as an allocation that fails ends it for good.

/// Nodes that a domain may own.
pub const NODES: usize = 1000;
/// Watches that a domain may hold.
pub const WATCHES: usize = 128;
/// Requests and events that a domain may leave unread before the server stops reading from it.
pub const OUTSTANDING: usize = 20;
/// Bytes of replies and events with the same effect. One message more may come on top.
pub const OUTSTANDING_BYTES: usize = 16 * 1024;
/// Bytes that the server may hold on a domain's behalf, if its heap allows: nodes it owns, watches, open transactions.
pub const MEMORY: usize = 2_500_000;
/// Bytes that every domain gets, however many there are. Below that ordinary drivers fail.
pub const MEMORY_LEAST: usize = 64 * 1024;
/// Bytes that a client can make the server hold beside what [`MEMORY`] covers: unread output, events that wait, the
/// request that is being read, and bookkeeping.
pub const MEMORY_UNCHARGED: usize = 112 * 1024;
/// Transactions that a domain may have open.
pub const TRANSACTIONS: usize = 10;
/// Nodes that one transaction may touch.
pub const NODES_PER_TRANSACTION: usize = 1024;
/// Entries in a node's permissions.
pub const PERMISSIONS_PER_NODE: usize = 5;
/// Bytes of a node: value, permissions and the names of its children.
pub const NODE_BYTES: usize = 2048;

/// Watch events that may wait for a connection before they are folded into one for each watch. Holds for every
/// connection, the privileged one too.
pub const EVENTS_WAITING: usize = 256;
/// Bytes of paths among those events.
pub const EVENT_BYTES_WAITING: usize = 32 * 1024;

/// The memory quota of each of `clients` domains for a server with a heap of `heap_bytes`: half of the heap is for
/// clients, the rest for the policy domain's nodes, for requests while they are carried out, and for fragmentation.
#[must_use]
pub const fn memory_of_each(heap_bytes: usize, clients: usize) -> usize {
    let share = match (heap_bytes / 2).checked_div(clients) {
        Some(share) => share.saturating_sub(MEMORY_UNCHARGED),
        None => MEMORY,
    };
    if share > MEMORY {
        MEMORY
    } else if share < MEMORY_LEAST {
        MEMORY_LEAST
    } else {
        share
    }
}

/// The heap that `clients` domains need to have `memory` bytes each.
#[must_use]
pub const fn heap_for(memory: usize, clients: usize) -> usize {
    (memory + MEMORY_UNCHARGED) * clients * 2
}

/// Bytes of a heap of `heap_bytes` that are kept free for the policy domain: with less left, whatever others ask for
/// that takes memory is refused.
#[must_use]
pub const fn reserve(heap_bytes: usize) -> usize {
    heap_bytes / 4
}

/// Bytes of log after which the state is written anew, if there is room for so many.
pub const LOG_BYTES: usize = 256 * 1024;
/// Bytes of log for which there is room in any case.
pub const LOG_LEAST: usize = 64 * 1024;
/// Bytes that a client takes in a snapshot beside what its memory quota covers, at most: unread output, events that wait,
/// half a request.
pub const SNAPSHOT_UNCHARGED: usize = 80 * 1024;
/// Bytes of a snapshot for the policy domain's own, and for its nodes that a client needs.
pub const SNAPSHOT_POLICY: usize = 128 * 1024;
/// See [`SNAPSHOT_POLICY`].
pub const SNAPSHOT_POLICY_EACH: usize = 16 * 1024;

/// The memory quota of each of `clients` domains for which a snapshot fits into half of `bytes` of hand-over memory. What
/// is charged to a domain takes less in a snapshot than in memory, so that is what is shared out.
#[must_use]
pub const fn memory_handed_over(bytes: usize, clients: usize) -> usize {
    let share = (bytes / 2).saturating_sub(SNAPSHOT_POLICY + LOG_LEAST);
    match share.checked_div(clients) {
        Some(share) => share.saturating_sub(SNAPSHOT_UNCHARGED + SNAPSHOT_POLICY_EACH),
        None => MEMORY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_quotas_add_up_to_half_of_the_heap() {
        let heap = 7 << 20;
        for clients in 1..20 {
            let each = memory_of_each(heap, clients);
            assert!((MEMORY_LEAST..=MEMORY).contains(&each));
            assert!(clients * (each + MEMORY_UNCHARGED) <= heap / 2, "{clients} clients");
        }
        assert_eq!(memory_of_each(64 << 20, 2), MEMORY);
        assert_eq!(memory_of_each(1 << 20, 128), MEMORY_LEAST, "too many for this heap: the reserve has to do");
        assert_eq!(memory_of_each(heap_for(MEMORY_LEAST, 128), 128), MEMORY_LEAST);
    }
}
