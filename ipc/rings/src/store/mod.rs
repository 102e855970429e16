//! xenstore on the wire (Xen public header `io/xs_wire.h`): the ring page, messages, requests and replies.
//!
//! - [`page`]: the two byte rings of a connection, either end.
//! - [`message`]: whole messages out of a byte ring, bounded, and their encoding.
//! - [`request`]: what a server reads: typed requests.
//! - [`reply`]: what a client reads: replies, errors, watch events.
//! - [`path`], [`strings`], [`permission`]: what payloads are made of.

pub mod message;
pub mod page;
pub mod path;
pub mod permission;
pub mod reply;
pub mod request;
pub mod strings;

pub use message::{Message, MessageReader, WireError};
pub use page::{ServerEnd, StoreClient, StoreServer};
pub use path::{Path, PathError};
pub use permission::{Access, Permission};
pub use reply::{ReplyError, WatchEvent};
pub use request::{Request, RequestError};
pub use strings::{PayloadBuilder, Strings};
