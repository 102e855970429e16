//! What an unprivileged domain may use at most. The figures are xenstored's defaults.

/// Nodes that a domain may own.
pub const NODES: usize = 1000;
/// Watches that a domain may hold.
pub const WATCHES: usize = 128;
/// Requests and events that a domain may leave unread before the server stops reading from it.
pub const OUTSTANDING: usize = 20;
/// Bytes that the server may hold on a domain's behalf: nodes it owns, watches, open transactions.
pub const MEMORY: usize = 2_500_000;
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
pub const EVENT_BYTES_WAITING: usize = 64 * 1024;
